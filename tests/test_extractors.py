"""What every extractor keeps to, whatever scores its words: lenses, yardsticks, SpLiCE."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
from commands import assert_one_line, call
from oracles import brute_force_top
from toys import DIM, ToyEncoder, toy_corpus, toy_texts

from fliplens.baselines.fitting import BaselineConfig, FrequencyConfig, ProbeConfig, RidgeConfig, SpliceConfig
from fliplens.baselines.fitting import fit_baseline as make
from fliplens.baselines.probe import Probe
from fliplens.baselines.splice import Splice
from fliplens.embeddings import as_embeddings
from fliplens.errors import EmbeddingSpaceError, EmbeddingSpaceWarning, InputError
from fliplens.evaluation.evaluating import evaluate
from fliplens.files import write_lines
from fliplens.lenses.extractor import Extractor
from fliplens.lenses.lens import Lens
from fliplens.lenses.reading_files import write_top_words
from fliplens.training.fitting import fit
from fliplens.training.recipes import TrainConfig

RECIPE = TrainConfig(passes=2, batch_size=16, rank=6)


def lens(**changes: Any) -> Extractor:
    texts, vectors = toy_corpus(300)
    config = TrainConfig(**{"passes": 2, "batch_size": 16, **changes})
    return fit(texts, vectors, encoder=ToyEncoder(), config=config)


def yardstick(config: BaselineConfig) -> Extractor:
    texts, vectors = toy_corpus(300)
    return make(config, texts, vectors, encoder=ToyEncoder())


VARIANTS: dict[str, tuple[Callable[[], Extractor], type[Extractor], bool]] = {
    "lens": (lambda: lens(rank=6), Lens, True),
    "lens full": (lambda: lens(rank="full"), Lens, True),
    "ridge": (lambda: yardstick(RidgeConfig()), Lens, False),
    "frequency": (lambda: yardstick(FrequencyConfig()), Lens, False),
    "probe": (lambda: yardstick(ProbeConfig(hidden=8, train=RECIPE)), Probe, False),
    # A penalty at which rows name few words, and some none.
    "splice": (lambda: yardstick(SpliceConfig(penalty=0.04)), Splice, False),
}
"""Name → how it is made, of what class it is, and whether it explains away."""


@cache
def made(name: str) -> Extractor:
    return VARIANTS[name][0]()


def test_rows() -> tuple[list[str], Any]:
    texts, vectors = toy_corpus(60, seed=5)
    # One that points nowhere in particular, for SpLiCE to say nothing of.
    vectors[7] = -vectors.sum(axis=0)
    vectors[7] *= 0.7 / np.linalg.norm(vectors[7])
    return texts, vectors


test_rows.__test__ = False  # type: ignore[attr-defined]


def dense(model: Extractor, vectors: Any, prior: float) -> Any:
    """All scores, with the bias, of all words."""
    blocks = [b.clone() for _, b in model.decoding_blocks(as_embeddings(vectors), "plain", most_rows=7)]
    return (torch.cat(blocks) + model.decoding_bias("plain", prior)).double().numpy()


@pytest.fixture(params=list(VARIANTS))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_what_is_saved_is_what_is_loaded(name: str, tmp_path: Path) -> None:
    model, (_, vectors) = made(name), test_rows()
    model.save(tmp_path / "model")
    for loaded in (Extractor.load(tmp_path / "model"), VARIANTS[name][1].load(str(tmp_path / "model"))):
        assert type(loaded) is VARIANTS[name][1] and loaded.kind == model.kind
        assert loaded.encoder == "toy" and loaded.dim == DIM and loaded.vocabulary == model.vocabulary
        for prior in (0.0, 0.3, 1.0):
            one, other = (m.top(vectors, 9, prior=prior) for m in (model, loaded))
            np.testing.assert_array_equal(one.indices, other.indices)
            np.testing.assert_array_equal(one.scores, other.scores)
            np.testing.assert_array_equal(one.probabilities, other.probabilities)
    loaded.save(tmp_path / "again")
    for file in (tmp_path / "model").iterdir():
        if file.suffix == ".safetensors":
            assert file.read_bytes() == (tmp_path / "again" / file.name).read_bytes()
    with pytest.raises(InputError, match="another run"):
        model.save(tmp_path / "model")
    model.save(tmp_path / "model", overwrite=True)


def test_other_kinds_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    made(name).save(tmp_path / "model")
    kinds: set[Any] = {Lens, Probe, Splice}
    for kind in kinds - {VARIANTS[name][1]}:
        with pytest.raises(InputError, match=f"^expected a {kind.kind} at .*, found a {made(name).kind}$"):
            kind.load(tmp_path / "model")


@pytest.mark.parametrize("prior", [0.0, 0.4, 1.0])
def test_top_is_brute_force(name: str, prior: float) -> None:
    model, (_, vectors) = made(name), test_rows()
    scores = dense(model, vectors, prior)
    V = len(model.vocabulary)
    top = model.top(vectors, V, prior=prior)
    for row, words in enumerate(top):
        expected = [i for i in brute_force_top(scores[row], V) if scores[row, i] > model.floor]
        found = [model.vocabulary.index[word.word] for word in words]
        assert sorted(found) == sorted(expected)
        # Two words whose scores float32 cannot tell apart may stand either way.
        np.testing.assert_allclose(scores[row][found], scores[row][expected], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose([w.score for w in words], scores[row][found], rtol=1e-4, atol=1e-4)
        if model.softmax:
            shares = np.exp(scores[row] - scores[row].max())
            np.testing.assert_allclose(
                [w.probability for w in words], (shares / shares.sum())[found], rtol=1e-3, atol=1e-6
            )
        else:
            assert all(math.isnan(word.probability) for word in words)
        if row < 5:
            assert str(model.words(vectors[row], 3, prior=prior)) == str(words[:3])
    assert np.isnan(model.top(vectors, 3, probabilities=False).probabilities).all()


def test_blocks_read_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, (_, vectors) = made(name), test_rows()
    whole = model.top(vectors, 5, prior=0.5)
    monkeypatch.setattr("fliplens.lenses.extractor.BLOCK_ROWS", 16)
    spoilt = np.insert(vectors, [0, 20], np.nan, axis=0)
    blocks = list(model.top_blocks(spoilt, 5, prior=0.5, drop_bad_rows=True))
    assert np.concatenate([rows for rows, _ in blocks]).tolist() == [*range(1, 21), *range(22, 62)]
    np.testing.assert_array_equal(np.concatenate([top.indices for _, top in blocks]), whole.indices)
    named = whole.indices < len(model.vocabulary)
    found = np.concatenate([top.scores for _, top in blocks])
    np.testing.assert_allclose(found[named], whole.scores[named], rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="row"):
        list(model.top_blocks(spoilt, 5))


@pytest.mark.parametrize("n", [0, -1, 10**6, 1.5, True, "3"])
def test_n_is_checked(name: str, n: Any) -> None:
    model = made(name)
    for read in (model.top, model.top_blocks):
        with pytest.raises(InputError, match=f"expected n from 1 to {len(model.vocabulary)}"):
            read(np.ones((2, DIM), np.float32), n)


def test_what_does_not_fit_is_refused(name: str) -> None:
    model, (_, vectors) = made(name), test_rows()
    for bad in (-0.1, 1.1, math.nan, True, "1"):
        with pytest.raises(InputError, match="prior from 0 to 1"):
            model.top(vectors, 2, prior=bad)  # type: ignore[arg-type]
    with pytest.raises(EmbeddingSpaceError, match=f"{DIM + 1}"):
        model.top(np.ones((2, DIM + 1), np.float32))
    with pytest.raises(InputError, match="in 1 of 2 rows"):
        model.top(np.array([[1.0] * DIM, [math.inf] * DIM], np.float32))
    with pytest.raises(InputError, match="decoding"):
        model.top(vectors, 2, decoding="guess")  # type: ignore[arg-type]
    if VARIANTS[name][2]:
        assert len(model.top(vectors, 2, decoding="explain-away")) == len(vectors)
        return
    for read in (lambda: model.top(vectors, 2, decoding="explain-away"), lambda: evaluate(
        model, ["river"] * len(vectors), vectors, decoding="explain-away"
    )):  # fmt: skip
        with pytest.raises(InputError, match="explain away|reads concepts together|explains away") as caught:
            read()
        assert "\n" not in str(caught.value)


def test_vectors_of_another_space_are_noticed(name: str) -> None:
    model, (_, vectors) = made(name), test_rows()
    with pytest.warns(EmbeddingSpaceWarning, match=f"another encoder than the {model.kind}"):
        model.check(as_embeddings((vectors * 30).astype(np.float32)))


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_files_hold_what_is_read(name: str, suffix: str, tmp_path: Path) -> None:
    model, (texts, vectors) = made(name), test_rows()
    written = write_top_words(model, vectors, tmp_path / f"words{suffix}", 6, texts=texts)
    assert (written.rows, written.dropped) == (len(texts), 0)
    top = model.top(vectors, 6)
    if suffix == ".jsonl":
        lines = [json.loads(line) for line in (tmp_path / "words.jsonl").read_text().splitlines()]
        assert [line["input"] for line in lines] == texts
        assert [line["words"] for line in lines] == [words.to_json() for words in top]
        return
    rows = pyarrow.parquet.read_table(tmp_path / "words.parquet").to_pylist()
    for row, words, text in zip(rows, top, texts, strict=True):
        assert row["text"] == text and row["words"] == [word.word for word in words]
        assert row["scores"] == [word.score for word in words]
        shares = [None if math.isnan(word.probability) else word.probability for word in words]
        assert row["probabilities"] == shares


def test_splice_names_few_words_and_sometimes_none() -> None:
    model, (_, vectors) = made("splice"), test_rows()
    named = [len(words) for words in model.top(vectors, len(model.vocabulary))]
    assert min(named) == 0 and max(named) >= 2 and max(named) < len(model.vocabulary)


def test_words_that_are_not_named_are_misses() -> None:
    model, (texts, vectors) = made("splice"), test_rows()
    found = evaluate(model, texts, vectors).views["primary"]
    shares, precision, recall = [], [], []
    for text, words in zip(texts, model.top(vectors, 20), strict=True):
        known = {word for word in text.split() if word in model.vocabulary}
        named = [word.word for word in words]
        if known:
            shares.append(len(known & set(named[: len(known)])) / len(known))
            precision.append(len(known & set(named)) / 20)
            recall.append(len(known & set(named)) / len(known))
    assert any(len(words) < 2 for words in model.top(vectors, 20))
    for metric, expected in (("accuracy", shares), ("precision", precision), ("recall", recall)):
        for position in ("with_prior", "without_prior"):
            assert getattr(found.metrics[metric], position).mean == pytest.approx(np.mean(expected))


def test_perplexity_is_left_out_where_scores_are_no_logits(name: str) -> None:
    model, (texts, vectors) = made(name), test_rows()
    metrics = evaluate(model, texts, vectors).views["primary"].metrics
    assert ("perplexity" in metrics) == model.softmax == (name != "splice")


@pytest.mark.filterwarnings("ignore::fliplens.errors.FliplensWarning")
def test_the_commands_take_any(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, (texts, vectors) = made(name), test_rows()
    folder = tmp_path / "model"
    model.save(folder)
    write_lines(tmp_path / "a.txt", texts)
    np.save(tmp_path / "a.npy", vectors)
    for argv in (
        ("info", folder),
        ("evaluate", folder, "--texts", tmp_path / "a.txt", "--embeddings", tmp_path / "a.npy"),
        ("explain", folder, "--embeddings", tmp_path / "a.npy", "-n", 3),
    ):
        told, document = call(*argv), call(*argv, "--json")
        assert (told.status, told.err, document.status, document.err) == (0, "", 0, "")
        assert "None" not in told.out and "nan" not in told.out
        if argv[0] == "info":
            assert document.json["kind"] == model.kind in told.out
        elif argv[0] == "evaluate":
            expected = evaluate(model, texts, vectors).to_json()
            assert document.json == json.loads(json.dumps(expected))
        else:
            assert [one["words"] for one in document.json] == [w.to_json() for w in model.top(vectors, 3)]
    monkeypatch.setattr("fliplens.cli.explain.load_encoder", lambda _spec, **_: ToyEncoder())
    text = toy_texts(1, seed=3)[0]
    read = call("explain", folder, text, "-n", 2, "--json")
    assert [one["word"] for one in read.json[0]["words"]] == str(
        model.words(ToyEncoder().encode([text])[0], 2)
    ).split()
    np.save(tmp_path / "wide.npy", np.ones((3, DIM + 1), np.float32))
    assert_one_line(call("explain", folder, "--embeddings", tmp_path / "wide.npy"), 2, str(DIM + 1))
    if not VARIANTS[name][2]:
        refused = call("explain", folder, "--embeddings", tmp_path / "a.npy", "--decoding", "explain-away")
        assert_one_line(refused, 2, "decoding")
