"""Evaluation against plain loops over sets, at every position of the dial, with entities."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from oracles import brute_force_accuracy, brute_force_entity_recall, brute_force_top
from toys import ToyEncoder, toy_corpus, toy_texts

from fliplens.errors import InputError
from fliplens.evaluation.entities import Entities, read_entities
from fliplens.evaluation.evaluating import evaluate
from fliplens.files import write_lines
from fliplens.lenses.lens import Lens
from fliplens.training.fitting import fit
from fliplens.training.recipes import TrainConfig


@pytest.fixture(scope="module")
def lens() -> Lens:
    texts, vectors = toy_corpus(300)
    return fit(texts, vectors, config=TrainConfig(passes=2, batch_size=32, rank=8))


def cases() -> tuple[list[str], np.ndarray]:
    texts = ["", "nothing known", "river River stone unknown", *toy_texts(60, seed=4)]
    return texts, ToyEncoder(noise=0.2).encode(texts)


@pytest.mark.parametrize("prior", [None, 0.0, 0.35])
def test_every_metric_equals_a_plain_loop(lens: Lens, prior: float | None) -> None:
    texts, vectors = cases()
    result = evaluate(lens, texts, vectors, topn=5, prior=prior)
    view = result.views["primary"]
    dial = {"with_prior": 1.0, "without_prior": 0.0} | ({} if prior is None else {"at_prior": prior})
    assert set(view.values["accuracy"]) == set(dial)
    for name, position in dial.items():
        scores = lens.scores(vectors, prior=position).astype(np.float64)
        accuracies, precisions, recalls, f1s, loss, tokens = [], [], [], [], 0.0, 0.0
        for text, row in zip(texts, scores, strict=True):
            words = text.lower().split()
            known = {lens.vocabulary.index[word] for word in words if word in lens.vocabulary}
            one = brute_force_accuracy(row, known)
            if one is None:
                continue
            accuracies.append(one)
            right = len(known & set(brute_force_top(row, 5)))
            p, r = right / 5, right / len(set(words))
            precisions.append(p)
            recalls.append(r)
            f1s.append(2 * p * r / (p + r) if right else 0.0)
            total = math.log(np.exp(row - row.max()).sum()) + row.max()
            for word in words:
                if word in lens.vocabulary:
                    loss += total - row[lens.vocabulary.index[word]]
                    tokens += 1
        expected = {"accuracy": accuracies, "precision": precisions, "recall": recalls, "f1": f1s}
        for metric, values in expected.items():
            found = getattr(view.metrics[metric], name)
            assert found.mean == pytest.approx(np.mean(values), abs=1e-9), metric
            assert found.se == pytest.approx(np.std(values) / math.sqrt(len(values)), abs=1e-9)
            assert found.ci95[0] <= found.mean <= found.ci95[1]
        perplexity = getattr(view.metrics["perplexity"], name)
        assert perplexity.mean == pytest.approx(math.exp(loss / tokens), rel=1e-4)
    assert (result.n_evaluated, result.n_skipped) == (61, 2)


def test_the_json_holds_what_the_command_line_promises(lens: Lens) -> None:
    texts, vectors = cases()
    value = json.loads(json.dumps(evaluate(lens, texts, vectors, paired=vectors * 0.9, prior=0.5).to_json()))
    assert set(value["views"]) == {"primary", "paired"}
    assert value["accuracy"] == value["views"]["primary"]["accuracy"]
    assert set(value["accuracy"]) == {"with_prior", "without_prior", "at_prior"}
    assert {"mean", "se", "ci95"} <= set(value["accuracy"]["with_prior"])
    assert value["n_skipped"] == 2


@pytest.mark.parametrize(
    ("choice", "names"),
    [("accuracy", {"accuracy"}), ("pr", {"precision", "recall", "f1"})],
)
def test_metrics_can_be_chosen(lens: Lens, choice: str, names: set[str]) -> None:
    texts, vectors = cases()
    result = evaluate(lens, texts, vectors, metrics=choice)  # type: ignore[arg-type]
    assert set(result.views["primary"].metrics) == names
    whole = evaluate(lens, texts, vectors)
    for name in names:
        assert result.views["primary"].metrics[name] == whole.views["primary"].metrics[name]


def test_a_pool_and_small_blocks_change_only_what_they_should(lens: Lens) -> None:
    texts, vectors = cases()
    whole = evaluate(lens, texts, vectors)
    small = evaluate(lens, texts, vectors, block_rows=7)
    assert small.views["primary"].metrics["accuracy"] == whole.views["primary"].metrics["accuracy"]
    assert evaluate(lens, texts, vectors, pool=200).to_json() == whole.to_json()
    shallow = evaluate(lens, texts, vectors, pool=1)
    assert shallow.accuracy.with_prior.mean < whole.accuracy.with_prior.mean


def test_wrong_calls_are_refused(lens: Lens, tmp_path: Path) -> None:
    texts, vectors = cases()
    with pytest.raises(InputError, match="topn from 1 to 30"):
        evaluate(lens, texts, vectors, topn=31)
    with pytest.raises(InputError, match="62 vectors"):
        evaluate(lens, texts, vectors[:-1])
    with pytest.raises(InputError, match="another language"):
        evaluate(lens, ["zzz"] * 3, vectors[:3])
    with pytest.raises(InputError, match="metrics accuracy, pr or all"):
        evaluate(lens, texts, vectors, metrics="f1")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="prior from 0 to 1"):
        evaluate(lens, texts, vectors, prior=2.0)
    with pytest.raises(InputError, match="pool"):
        evaluate(lens, texts, vectors, pool=0)
    write_lines(tmp_path / "t.txt", texts)
    np.save(tmp_path / "v.npy", vectors)
    assert evaluate(lens, tmp_path / "t.txt", tmp_path / "v.npy").n_evaluated == 61


# Entities ---------------------------------------------------------------------------------------------------


def entity_file(path: Path, rows: list[dict[str, object]]) -> Path:
    write_lines(path, [json.dumps(row) for row in rows])
    return path


def test_entity_recall_equals_a_plain_loop(lens: Lens, tmp_path: Path) -> None:
    texts, vectors = cases()
    names = {3: ["River stone,", "CLOUD"], 10: ["garden", "Garden!", "..."], 20: ["xylophone river"]}
    path = entity_file(
        tmp_path / "e.jsonl",
        [{"text": texts[row - 1], "line_number": row, "entity_names": value} for row, value in names.items()],
    )
    result = evaluate(lens, texts, vectors, entities=read_entities(path, texts, lens.vocabulary))
    cut = {3: [["river", "stone"], ["cloud"]], 10: [["garden"]], 20: [["xylophone", "river"]]}
    for name, position in (("with_prior", 1.0), ("without_prior", 0.0)):
        found = result.views["primary"].entity_recall[name]
        assert len(found.strict) == 30  # the vocabulary ends before n = 50
        for n in (1, 4, 30):
            both = []
            for row, entities in cut.items():
                scores = lens.scores(vectors[row - 1 : row], prior=position)[0].astype(np.float64)
                ranked = [lens.vocabulary[index] for index in brute_force_top(scores, 30)]
                both.append(brute_force_entity_recall(ranked, entities, n))
            assert found.strict[n - 1].mean == pytest.approx(np.mean([strict for strict, _ in both]))
            assert found.partial[n - 1].mean == pytest.approx(np.mean([partial for _, partial in both]))
            assert found.strict[n - 1].n == 3


def test_entities_may_be_a_path_and_must_be_of_these_texts(lens: Lens, tmp_path: Path) -> None:
    texts, vectors = cases()
    path = entity_file(tmp_path / "e.jsonl", [{"line_number": 60, "entity_names": ["stone"]}])
    entities = read_entities(path, texts, lens.vocabulary)
    found = evaluate(lens, texts, vectors, entities=path).views["primary"].entity_recall
    assert found == evaluate(lens, texts, vectors, entities=entities).views["primary"].entity_recall
    with pytest.raises(InputError, match="sentence 60"):
        evaluate(lens, texts[:9], vectors[:9], entities=entities)


def test_results_read_as_text(lens: Lens) -> None:
    texts, vectors = cases()
    result = evaluate(lens, texts, vectors)
    assert result.topn == 20
    assert str(result).startswith("primary: accuracy 0.")
    assert len(repr(result)) < 4000


def test_entities_match_by_text_where_no_line_is_given(lens: Lens, tmp_path: Path) -> None:
    texts = ["River stone!", "cloud", "river  STONE"]
    path = entity_file(tmp_path / "e.jsonl", [{"text": "river, stone", "entity_names": ["stone"]}])
    entities = read_entities(path, texts, lens.vocabulary)
    assert entities.entity_row.tolist() == [0, 2]
    assert entities.n_rows == 2
    subset = entities.subset(np.array([1, 2]))
    assert subset.entity_row.tolist() == [1] and subset.word_entity.tolist() == [0]
    assert Entities.of([[], ["a b"]], lens.vocabulary).words.tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "expected JSON in line 1"),
        ("[]", "JSON object"),
        ('{"text": "river", "entity_names": "river"}', "list of strings"),
        ('{"entity_names": ["river"]}', "text or a line_number"),
        ('{"line_number": 9, "entity_names": ["river"]}', "from 1 to 1"),
        ('{"line_number": 1, "text": "cloud", "entity_names": ["cloud"]}', "different text file"),
        ('{"line_number": 1, "entity_names": []}', "none that match"),
    ],
)
def test_bad_entity_files_are_refused(lens: Lens, tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "e.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match=message):
        read_entities(tmp_path / "e.jsonl", ["river"], lens.vocabulary)
