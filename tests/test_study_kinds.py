"""Every study end to end on toys: its numbers are those of lenses that the test itself fits and measures."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import permutation_test
from study_data import ROWS, StudyFiles, drawn, other_language
from toys import ToyEncoder

from fliplens.baselines.fitting import (
    BaselineConfig,
    FrequencyConfig,
    ProbeConfig,
    RidgeConfig,
    SpliceConfig,
    fit_baseline,
)
from fliplens.errors import InputError
from fliplens.evaluation.comparison import compare
from fliplens.evaluation.evaluating import evaluate
from fliplens.files import write_lines
from fliplens.lenses.extractor import Extractor
from fliplens.studies.catalogue import KINDS, StudyResult, run_study
from fliplens.studies.names import STUDIES
from fliplens.studies.tables import Cell
from fliplens.text.concepts import ConceptConfig
from fliplens.training.fitting import fit
from fliplens.training.recipes import TrainConfig

PRIORS = {"table": "with_prior", "without-prior": "without_prior"}


@pytest.fixture(autouse=True)
def toy_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fliplens.encoding.kept_vectors.load_encoder", lambda _spec, **_: ToyEncoder())


def recipe(**changes: Any) -> TrainConfig:
    return TrainConfig(**{"passes": 2, "batch_size": 16, "rank": 4, **changes})


@cache
def fitted(primary: str, paired: str | None = None, words: str = "", **changes: Any) -> Extractor:
    """Return the lens that a study of these sides should have fitted."""
    rows, dev = side_rows("train"), side_rows("dev")
    options: dict[str, Any] = {}
    if paired is not None:
        options = {"paired": rows[paired][1], "dev_paired": dev[paired][1]}
    words = words or ("text" if primary in ("text", "noisy") else primary)
    if "model" in changes:
        baseline: BaselineConfig = changes.pop("model")
        return fit_baseline(
            baseline,
            rows[words][0],
            rows[primary][1],
            dev_texts=dev[words][0],
            dev_embeddings=dev[primary][1],
            encoder=ToyEncoder(),
            vocabulary=changes.pop("vocabulary", None),
            **options,
        )
    return fit(
        rows[words][0],
        rows[primary][1],
        dev_texts=dev[words][0],
        dev_embeddings=dev[primary][1],
        encoder=ToyEncoder(),
        shuffled=changes.pop("shuffled", False),
        vocabulary=changes.pop("vocabulary", None),
        config=recipe(**changes),
        explain_away=False,
        **options,
    )


@cache
def side_rows(split: str) -> dict[str, tuple[list[str], Any]]:
    """Return side → its sentences and vectors; `noisy` has the sentences of `text`."""
    texts, vectors, noisy = drawn(split)
    english, one, other = drawn(split, seed=1)
    return {
        "text": (texts, vectors),
        "noisy": (texts, noisy),
        "en": (english, one),
        "ed": (other_language(english), other),
    }


def measured(model: Extractor, view: str, *, split: str = "test", words: str | None = None, **options: Any) -> Any:
    rows = side_rows(split)
    return evaluate(model, rows[words or view][0], rows[view][1], **options).views["primary"]


def assert_accuracy(cell: Cell, model: Extractor, view: str, position: str, **options: Any) -> None:
    """Check that a cell is this model's accuracy, with its uncertainty."""
    expected = getattr(measured(model, view, **options).metrics["accuracy"], position)
    assert (cell.mean, cell.se) == pytest.approx((expected.mean, expected.se), rel=1e-9)
    assert cell.ci95 == pytest.approx(expected.ci95, rel=1e-9)


def run(kind: str, files: StudyFiles, **options: Any) -> StudyResult:
    files.save()
    return run_study(kind, files.path, files.folder / "out", **options)


def assert_folder(result: StudyResult, *plots: str) -> None:
    """Check that all files of the page are there, and that those of the tables hold the tables."""
    names = {path.name for path in result.folder.iterdir() if path.is_file()}
    wanted = {"README.md", "study.json"}
    wanted |= {f"{name}.{end}" for name in result.study.tables for end in ("md", "csv", "tex", "json")}
    wanted |= {f"{name}.{end}" for name in plots for end in ("svg", "png")}
    assert names == wanted
    for name, table in result.study.tables.items():
        assert json.loads((result.folder / f"{name}.json").read_text()) == table.to_json()
    page = (result.folder / "README.md").read_text()
    assert result.study.title in page and result.study.findings
    assert all(len(finding) > 10 for finding in result.study.findings)


def test_the_catalogue_is_what_the_command_line_offers() -> None:
    assert tuple(STUDIES) == tuple(KINDS)
    assert all(name == kind.name for name, kind in KINDS.items())


# Table 1 ----------------------------------------------------------------------------------------------------


def test_rank(tmp_path: Path) -> None:
    files = StudyFiles.write(
        tmp_path, ranks=[2, "full", 4], yardsticks=["frequency", "shuffled", "ridge", "probe"], title="How low?"
    )
    # The rank that others have is the table's, whatever the recipe says.
    files.config["train"]["rank"] = 3
    result = run("rank", files)
    models = {
        ("no", "full"): fitted("text", "noisy", rank="full"),
        ("yes", "4"): fitted("text", "noisy", rank=4),
        ("yes", "2"): fitted("text", "noisy", rank=2),
        ("", "most frequent words"): fitted("text", "noisy", model=FrequencyConfig()),
        # What is trained has the highest rank of the table.
        ("", "control: shuffled vectors"): fitted("text", "noisy", shuffled=True, rank=4),
        ("", "ridge"): fitted("text", "noisy", model=RidgeConfig()),
        ("", "one hidden layer"): fitted("text", "noisy", model=ProbeConfig(train=recipe())),
    }
    for name, position in PRIORS.items():
        rows = result.study.tables[name].rows
        assert [(row[0].text, row[1].text) for row in rows] == list(models)
        for row, model in zip(rows, models.values(), strict=True):
            for cell, view in zip(row[2:], ("text", "noisy"), strict=True):
                if row[1].text == "most frequent words" and position == "without_prior":
                    assert cell.mean is None and cell.missing
                else:
                    assert_accuracy(cell, model, view, position)
    control = compare(
        models["", "control: shuffled vectors"], models["", "most frequent words"], *side_rows("test")["text"]
    ).with_prior.difference
    told = [
        one for one in result.study.findings if "On text: " in one and "control" in one and "most frequent" in one
    ]
    assert (len(told) == 1 and f"{100 * abs(control.mean):.1f} points" in told[0]) or "No difference" in told[0]
    best = models["yes", "4"]
    texts, vectors = side_rows("test")["noisy"]
    difference = compare(best, models["no", "full"], texts, vectors).with_prior.difference
    said = [finding for finding in result.study.findings if finding.startswith("On noisy:") and " LiP " in finding]
    assert len(said) == 1
    assert f"{100 * abs(difference.mean):.1f} points" in said[0] or "No difference beyond chance" in said[0]
    assert_folder(result, "plot", "plot-without-prior")


def test_rank_of_one_side(tmp_path: Path) -> None:
    files = StudyFiles.write(tmp_path, ranks=[4])
    for split in files.config["corpora"]["spoken"].values():
        del split["noisy"]
    table = run("rank", files).study.tables["table"]
    assert [column.heading for column in table.columns] == ["Factorised", "Dimension", "text"]
    assert_accuracy(table.rows[0][2], fitted("text"), "text", "with_prior")


def test_sides_may_be_named(tmp_path: Path) -> None:
    files = StudyFiles.write(tmp_path, "spoken", "crossed", corpus="crossed", primary="ed", words="en", ranks=[4])
    table = run("rank", files).study.tables["table"]
    assert [column.heading for column in table.columns[2:]] == ["ed", "en"]
    model = fitted("ed", "en", words="en")
    assert_accuracy(table.rows[0][2], model, "ed", "with_prior", words="en")
    assert_accuracy(table.rows[0][3], model, "en", "with_prior", words="en")


@pytest.mark.parametrize(
    "change, fragment",
    [
        ({"ranks": [0]}, "a rank"),
        ({"ranks": ["half"]}, "a rank"),
        ({"ranks": [True]}, "a rank"),
        ({"ranks": ["full"]}, "at least one rank of factors"),
        ({"ranks": None}, "expected ranks"),
        ({"ranks": [17]}, "ranks up to 16"),
        ({"yardsticks": ["luck"]}, "yardsticks out of"),
        ({"corpus": "none"}, "a corpus out of spoken"),
        ({"primary": "none"}, "a side out of text, noisy"),
        ({"primary": "text", "paired": "text"}, "another side than the primary"),
        ({"words": "noisy"}, "expected texts"),
        ({"grid": {}}, "names out of"),
    ],
)
def test_rank_refuses(tmp_path: Path, change: dict[str, Any], fragment: str) -> None:
    files = StudyFiles.write(tmp_path, **{"ranks": [4], **change})
    with pytest.raises(InputError, match=fragment) as caught:
        run("rank", files)
    assert "\n" not in str(caught.value) and "study.yaml" in str(caught.value)
    assert not list(tmp_path.glob("out/**/lenses/*"))


@pytest.mark.parametrize("train", [{"recipe": "paper"}, {"whiten": True}])
def test_a_probe_that_cannot_follow_the_recipe_is_refused_before_the_work(tmp_path: Path, train: Any) -> None:
    files = StudyFiles.write(tmp_path, ranks=[4], yardsticks=["probe"])
    files.config["train"] |= train
    with pytest.raises(InputError, match=r"for a probe .*\(yardsticks\[0\], .*study.yaml line \d+\)"):
        run("rank", files)
    assert not list(tmp_path.glob("out/**/lenses/*"))


def test_yardsticks_leave_alone_what_only_lenses_can(tmp_path: Path) -> None:
    files = StudyFiles.write(tmp_path, ranks=[4], yardsticks=["frequency", "ridge", "probe", "shuffled"])
    files.config["train"] |= {"explain_away": True, "learning_rate": 1e-3, "alpha": 0.3, "seed": 4}
    assert len(run("rank", files).study.tables["table"].rows) == 5


# Tables 2 and 3 ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, corpus, sides",
    [("modality", "spoken", ("text", "noisy")), ("language", "crossed", ("en", "ed"))],
)
def test_transfer(tmp_path: Path, kind: str, corpus: str, sides: tuple[str, str]) -> None:
    result = run(kind, StudyFiles.write(tmp_path, corpus))
    first, second = sides
    words = first
    models = {side: fitted(side, words=words) for side in sides}
    rows = side_rows("test")
    for name, position in PRIORS.items():
        table = result.study.tables[name]
        assert [row[1].text for row in table.rows] == list(sides)
        assert [column.heading for column in table.columns[2:4]] == list(sides)
        for row, trained, other in zip(table.rows, sides, (second, first), strict=True):
            own, lost = row[2 + sides.index(trained)], row[2 + sides.index(other)]
            assert_accuracy(own, models[trained], trained, position, words=words)
            # What the lens of this row loses, on the other view, against the lens of that view.
            against = getattr(compare(models[trained], models[other], rows[words][0], rows[other][1]), position)
            assert lost.signed and lost.mean == pytest.approx(against.difference.mean, rel=1e-9)
            assert lost.p == pytest.approx(against.difference.p_value, rel=1e-9)
            assert lost.ci95 == pytest.approx(against.difference.ci95, rel=1e-9)
            assert row[4].mean == pytest.approx(against.jaccard.mean, rel=1e-9)
            # The same without `compare`: two accuracies on the other view.
            mine, theirs = (
                getattr(measured(models[m], other, words=words).metrics["accuracy"], position).mean
                for m in (trained, other)
            )
            assert lost.mean == pytest.approx(mine - theirs, abs=1e-12)
    bars = {one.label: one.cells for one in result.study.plots["plot"].bars}  # type: ignore[union-attr]
    for number, (view, other) in enumerate((sides, sides[::-1])):
        for label, trained in (("trained on the view it reads", view), ("trained on the other view", other)):
            assert_accuracy(bars[label][number], models[trained], view, "with_prior", words=words)
    assert_folder(result, "plot", "plot-without-prior")


def test_transfer_of_several_corpora_whose_sides_have_other_names(tmp_path: Path) -> None:
    result = run("language", StudyFiles.write(tmp_path, "spoken", "crossed"))
    table = result.study.tables["table"]
    assert [(row[0].text, row[1].text) for row in table.rows] == [
        ("spoken", "text"), ("spoken", "noisy"), ("crossed", "en"), ("crossed", "ed")
    ]  # fmt: skip
    assert [column.heading for column in table.columns[2:4]] == ["first side", "other"]
    assert_accuracy(table.rows[3][3], fitted("ed", words="en"), "ed", "with_prior", words="en")
    assert table.breaks == (2,)


def test_sides_of_transfer_are_in_the_order_that_is_asked_for(tmp_path: Path) -> None:
    result = run("language", StudyFiles.write(tmp_path, "crossed", sides=["ed", "en"]))
    table = result.study.tables["table"]
    assert [column.heading for column in table.columns[2:4]] == ["ed", "en"]
    assert_accuracy(table.rows[0][2], fitted("ed"), "ed", "with_prior")


@pytest.mark.parametrize(
    "sides, fragment",
    [(["en"], "two sides"), (["en", "de"], "a side out of en, ed"), (["en", "en"], "two different sides")],
)
def test_transfer_refuses(tmp_path: Path, sides: list[str], fragment: str) -> None:
    with pytest.raises(InputError, match=rf"{fragment}.*study.yaml line \d+"):
        run("language", StudyFiles.write(tmp_path, "crossed", sides=sides))


def test_transfer_needs_two_sides(tmp_path: Path) -> None:
    files = StudyFiles.write(tmp_path)
    del files.config["corpora"]["spoken"]["train"]["noisy"]
    with pytest.raises(InputError, match=r"two sides .*found 1 \(corpora.spoken.train, .*study.yaml line 5\)"):
        run("modality", files)


# Tables 4 and 5 ---------------------------------------------------------------------------------------------


def test_vocabulary(tmp_path: Path) -> None:
    result = run("vocabulary", StudyFiles.write(tmp_path, "crossed"))
    for name, position in PRIORS.items():
        (row,) = result.study.tables[name].rows
        assert row[0].text == "crossed"
        cells = iter(row[1:])
        for words, other in (("en", "ed"), ("ed", "en")):
            model = fitted(words, other)
            own, crossed = next(cells), next(cells)
            assert_accuracy(own, model, words, position, words=words)
            assert_accuracy(crossed, model, other, position, words=words)
            assert own.mean is not None and crossed.mean is not None and crossed.difference is not None
            assert crossed.difference.mean == pytest.approx(crossed.mean - own.mean)
    headings = [(column.groups, column.heading) for column in result.study.tables["table"].columns[1:]]
    assert headings == [
        (("en words",), "en vectors"), (("en words",), "ed vectors"),
        (("ed words",), "ed vectors"), (("ed words",), "en vectors"),
    ]  # fmt: skip
    assert_folder(result, "plot", "plot-without-prior")


def test_encoders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(ToyEncoder):
        spec = "other"

        @staticmethod
        def _word(word: str) -> Any:
            return ToyEncoder._word(word + "!")

    monkeypatch.setattr(
        "fliplens.encoding.kept_vectors.load_encoder", lambda spec, **_: Other() if spec == "other" else ToyEncoder()
    )
    files = StudyFiles.write(tmp_path, "crossed", encoders=["toy", "other"])
    for split in files.config["corpora"]["crossed"].values():
        for side in split.values():
            # One encoder's vectors are there; the other's have to be made.
            side["embeddings"] = {"toy": side["embeddings"]}
    result = run("encoders", files)
    table = result.study.tables["table"]
    assert [row[0].text for row in table.rows] == ["toy", "other"]
    assert_accuracy(table.rows[0][1], fitted("en", "ed"), "en", "with_prior")
    rows = {
        split: (texts, Other().encode(texts), Other().encode(other_language(texts)))
        for split in ROWS
        for texts in (drawn(split, seed=1)[0],)
    }
    (texts, one, two), (dev_texts, dev_one, dev_two) = rows["train"], rows["dev"]
    model = fit(
        texts, one, paired=two, dev_texts=dev_texts, dev_embeddings=dev_one, dev_paired=dev_two, encoder=Other(),
        config=recipe(), explain_away=False,
    )  # fmt: skip
    expected = evaluate(model, rows["test"][0], rows["test"][1], paired=rows["test"][2])
    for cell, view in zip(table.rows[1][1:3], ("primary", "paired"), strict=True):
        assert cell.mean == pytest.approx(expected.views[view].metrics["accuracy"].with_prior.mean, rel=1e-9)
    assert_folder(result, "plot", "plot-without-prior")


def test_vocabulary_needs_texts_of_both_sides(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected texts.*found none \(corpora.spoken.train.noisy, .*line \d+\)"):
        run("vocabulary", StudyFiles.write(tmp_path, "spoken"))


# Table 6 ----------------------------------------------------------------------------------------------------

CONCEPTS = {"concepts": True, "min_frequency": 2, "min_pmi": 0.0}


def test_splice(tmp_path: Path) -> None:
    result = run("splice", StudyFiles.write(tmp_path, vocabulary=CONCEPTS))
    choice = ConceptConfig(min_frequency=2, min_pmi=0.0)
    splice = fitted("text", "noisy", model=SpliceConfig(), vocabulary=choice)
    flip = fitted("text", "noisy", vocabulary=choice)
    assert any(" " in word for word in flip.vocabulary.words) and flip.vocabulary == splice.vocabulary
    rows = result.study.tables["table"].rows
    assert [row[0].text for row in rows] == ["SpLiCE", "FLiP", "FLiP, prior removed"]
    cases = [(splice, "with_prior"), (flip, "with_prior"), (flip, "without_prior")]
    for row, (model, position) in zip(rows, cases, strict=True):
        # Each view has a mean of its own.
        assert_accuracy(row[1], model, "text", position)
        assert_accuracy(row[2], model.for_view("paired"), "noisy", position)
    texts, noisy = side_rows("test")["noisy"]
    bare = compare(flip, splice.for_view("paired"), texts, noisy).without_prior.difference
    (said,) = (one for one in result.study.findings if one.startswith("On noisy: ") and "its prior removed" in one)
    assert f"{100 * abs(bare.mean):.1f} points" in said or "No difference" in said
    assert_folder(result, "plot")


def test_splice_needs_concepts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"concepts: true .*found none \(.*study.yaml line \d+\)"):
        run("splice", StudyFiles.write(tmp_path))


# Figure 1 ---------------------------------------------------------------------------------------------------


def write_entities(files: StudyFiles) -> list[list[str]]:
    """Take some words of every third test sentence for names."""
    texts = side_rows("test")["text"][0]
    names = [[" ".join(text.split()[:2]), text.split()[0]] if row % 3 == 0 else [] for row, text in enumerate(texts)]
    lines = [
        json.dumps({"text": text, "line_number": row + 1, "entity_names": names[row]})
        for row, text in enumerate(texts)
        if names[row]
    ]
    write_lines(files.folder / "names.jsonl", lines)
    files.config["corpora"]["spoken"]["test"]["entities"] = "names.jsonl"
    return names


def test_entities(tmp_path: Path) -> None:
    files = StudyFiles.write(tmp_path)
    names = write_entities(files)
    result = run("entities", files)
    model = fitted("text", "noisy")
    for view in ("text", "noisy"):
        table = result.study.tables[f"table-{view}"]
        recalls: dict[tuple[int, int, str], list[Any]] = {}
        for offset, prior in ((0, 1.0), (1, 0.0)):
            ranked = [[word.word for word in words] for words in model.top(
                side_rows("test")[view][1], len(model.vocabulary), prior=prior
            )]  # fmt: skip
            for n in (1, 3, 10):
                strict, partial = [], []
                for row, found in enumerate(names):
                    top = set(ranked[row][:n])
                    parts = [name.split() for name in found]
                    if parts:
                        strict.append(np.mean([all(word in top for word in one) for one in parts]))
                        partial.append(np.mean([np.mean([word in top for word in one]) for one in parts]))
                cells = table.rows[n - 1]
                assert cells[0].mean == n
                assert cells[1 + offset].mean == pytest.approx(np.mean(strict))
                assert cells[4 + offset].mean == pytest.approx(np.mean(partial))
                recalls[n, offset, "strict"], recalls[n, offset, "partial"] = strict, partial
        for n in (1, 3, 10):
            for place, kind in ((3, "strict"), (6, "partial")):
                gains = np.subtract(recalls[n, 1, kind], recalls[n, 0, kind])
                cell = table.rows[n - 1][place]
                assert cell.signed and cell.mean == pytest.approx(np.mean(gains), abs=1e-12)
                test = permutation_test(
                    (gains,), np.mean, permutation_type="samples", n_resamples=9999, rng=np.random.default_rng(0)
                )
                assert cell.p == pytest.approx(float(test.pvalue), abs=0.02)
        assert len(table.rows) == min(50, len(model.vocabulary))
        assert any(f"On {view}, n = 10: " in finding for finding in result.study.findings)
    assert_folder(result, "plot-text", "plot-noisy")
    assert "names.jsonl" in result.study.provenance.hashes


@pytest.mark.parametrize(
    "lines, fragment",
    [
        (None, "a file of entities"),
        (['{"text": "a b", "entity_names": ["a"]}'], "expected entities of the texts"),
        (['{"line_number": 99, "entity_names": ["a"]}'], "line_number from 1 to 40"),
        (["{"], "expected JSON in line 1"),
    ],
)
def test_entities_that_are_none_are_refused_before_the_work(
    tmp_path: Path, lines: list[str] | None, fragment: str
) -> None:
    files = StudyFiles.write(tmp_path)
    files.config["corpora"]["spoken"]["test"]["entities"] = "names.jsonl"
    if lines is not None:
        write_lines(tmp_path / "names.jsonl", lines)
    with pytest.raises(InputError, match=rf"{fragment}.*\(corpora.spoken.test.entities, .*study.yaml line \d+\)"):
        run("entities", files)
    assert not list(tmp_path.glob("out/**/lenses/*"))


def test_entities_need_entities(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected entities .*found none \(corpora.spoken.test, .*line \d+\)"):
        run("entities", StudyFiles.write(tmp_path))


# Section 3.5 ------------------------------------------------------------------------------------------------


def test_sweep_chooses_on_dev_and_reads_test_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fliplens.studies.runner as runner

    asked: list[tuple[int, Any]] = []

    def counting(model: Extractor, texts: list[str], *rest: Any, **options: Any) -> Any:
        asked.append((len(texts), model.config["recipe"]))
        return evaluate(model, texts, *rest, **options)

    monkeypatch.setattr(runner, "evaluate", counting)
    grid = {"rank": [1, 4], "weight_decay": [0, "1e-1"], "alpha": [0.5]}
    result = run("sweep", StudyFiles.write(tmp_path, grid=grid))
    rows = result.study.tables["table"].rows
    assert [[cell.text for cell in row[:3]] for row in rows] == [
        ["1", "0", "0.5"], ["1", "1e-1", "0.5"], ["4", "0", "0.5"], ["4", "1e-1", "0.5"]
    ]  # fmt: skip
    scores = {}
    for row in rows:
        rank, decay = int(row[0].text or ""), float(row[1].text or "")
        model = fitted("text", "noisy", rank=rank, weight_decay=decay)
        for cell, view in zip(row[3:], ("text", "noisy"), strict=True):
            assert_accuracy(cell, model, view, "with_prior", split="dev")
        scores[rank, decay] = (row[3].mean or 0) / 2 + (row[4].mean or 0) / 2
    rank, decay = max(scores, key=lambda key: scores[key])
    assert [n for n, _ in asked] == [ROWS["dev"]] * 4 + [ROWS["test"]]
    assert (asked[-1][1]["rank"], asked[-1][1]["weight_decay"]) == (rank, decay)
    assert len(set(scores.values())) > 1, "a choice between equals shows nothing"
    model = fitted("text", "noisy", rank=rank, weight_decay=decay)
    expected = measured(model, "noisy").metrics["accuracy"].with_prior.mean
    said = [finding for finding in result.study.findings if "on test, noisy" in finding]
    assert len(said) == 1 and f"{100 * expected:.1f}%" in said[0]
    assert_folder(result, "plot")


@pytest.mark.parametrize(
    "grid, fragment",
    [
        ({}, "at least one value"),
        ({"rank": []}, "at least one value"),
        (None, "expected grid"),
        ([1], "a mapping of names"),
        ({"rank": [2, "lots"]}, "rank"),
        ({"rank": [{"a": 1}]}, "rank"),
        ({"rank": [None]}, "a value of rank"),
        ({"l1": [-1]}, "l1"),
        ({"alpha": 2}, "alpha"),
        ({"seed": [1]}, "names out of"),
    ],
)
def test_sweep_refuses(tmp_path: Path, grid: Any, fragment: str) -> None:
    with pytest.raises(InputError, match=rf"{fragment}.*study.yaml line \d+\)$") as caught:
        run("sweep", StudyFiles.write(tmp_path, grid=grid))
    assert "\n" not in str(caught.value)


def test_sweep_needs_dev(tmp_path: Path) -> None:
    files = StudyFiles.write(tmp_path, grid={"rank": [2]})
    del files.config["corpora"]["spoken"]["dev"]
    with pytest.raises(InputError, match=r"dev sentences.*\(corpora.spoken, .*study.yaml line 4\)"):
        run("sweep", files)


def test_sweep_looks_for_test_before_the_work(tmp_path: Path) -> None:
    files = StudyFiles.write(tmp_path, grid={"rank": [2]})
    (tmp_path / "test-noisy.npy").unlink()
    with pytest.raises(InputError, match="test-noisy.npy"):
        run("sweep", files)
    assert not list(tmp_path.glob("out/**/lenses/*"))


def test_numbers_are_finite(tmp_path: Path) -> None:
    # Dev and test sentences without known words are left out; a side without any hit has no Jaccard index.
    files = StudyFiles.write(tmp_path)
    lines = [line if row % 4 else "unheard of" for row, line in enumerate(side_rows("test")["text"][0])]
    write_lines(tmp_path / "test.txt", lines)
    result = run("modality", files)
    cells = [cell for row in result.study.tables["table"].rows for cell in row[2:]]
    assert {cell.n for cell in cells if not cell.signed} <= {30, *range(31)}
    assert all(cell.mean is not None and math.isfinite(cell.mean) for cell in cells)
    own = evaluate(fitted("text"), lines, side_rows("test")["text"][1])
    assert (own.n_evaluated, own.n_skipped) == (30, 10)
    assert cells[0].mean == pytest.approx(own.accuracy.with_prior.mean, rel=1e-9)
