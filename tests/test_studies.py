"""Studies: their files read with lines, their work kept by content, stopped and gone on with, told on stderr."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from commands import Run, assert_one_line, call, command, environment, interrupt
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from study_data import StudyFiles
from toys import ToyEncoder

import fliplens.encoding.kept_vectors
import fliplens.studies.runner as runner
from fliplens.baselines.fitting import RidgeConfig
from fliplens.encoding.texts import encode_texts
from fliplens.errors import FliplensError, FliplensWarning, InputError, InterruptedRunError
from fliplens.files import write_lines
from fliplens.lenses.extractor import Extractor
from fliplens.lenses.lens import Lens
from fliplens.models import fit_model
from fliplens.studies.catalogue import run_study
from fliplens.studies.config import StudyConfig
from fliplens.studies.located import MOST_VALUES, read_located
from fliplens.training import train

ENCODERS: list[ToyEncoder] = []


@pytest.fixture(autouse=True)
def toy_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    ENCODERS.clear()

    def load(_spec: str, **_: Any) -> ToyEncoder:
        ENCODERS.append(ToyEncoder())
        return ENCODERS[-1]

    monkeypatch.setattr("fliplens.encoding.kept_vectors.load_encoder", load)


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What `fit_model` was asked for, a settings value each."""
    asked: list[Any] = []
    original = fit_model

    def recording(values: Any, *args: Any, **options: Any) -> Any:
        asked.append(values)
        return original(values, *args, **options)

    monkeypatch.setattr(runner, "fit_model", recording)
    return asked


def encoded() -> int:
    return sum(sum(one.calls) for one in ENCODERS)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


# YAML with lines --------------------------------------------------------------------------------------------


def test_values_know_their_names_and_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("one: 1\ntwo:\n  three: [a,\n    b]\n  four: &x\n    five: ~\n  six: *x\n1: y\n")
    read = read_located(path)
    two = read.need("two", "a mapping")
    three, four, six = (two.need(name, "it") for name in ("three", "four", "six"))
    assert (two.name, two.line) == ("two", 2)
    assert (three.name, three.line, [(one.name, one.line) for one in three.list()]) == (
        "two.three", 3, [("two.three[0]", 3), ("two.three[1]", 4)],
    )  # fmt: skip
    # An alias stands where it is used.
    assert (four.line, six.line, six.name) == (5, 7, "two.six")
    assert four.get("five") is None and read.get("none") is None
    assert read.plain() == {
        "one": 1,
        "two": {"three": ["a", "b"], "four": {"five": None}, "six": {"five": None}},
        "1": "y",
    }
    with pytest.raises(InputError, match=rf"^expected a text, found a list \(two.three, {path} line 3\)$"):
        three.text()


@pytest.mark.parametrize(
    "text, fragment",
    [
        ("", "expected a mapping"),
        ("- a", "expected a mapping"),
        ("just text", "expected a mapping"),
        ("a: [", "expected YAML"),
        ("a: b: c", "expected YAML"),
        ("\tx: 1", "expected YAML"),
        ("a: *nobody", "expected YAML"),
        ("a: 1\nb:\n  c: 1\n  c: 2", "'c' again in line 4"),
        ("a: &x [*x]", "alias to what it is part of.*line 1"),
        ("a: &x\n  b:\n    c: *x", "alias to what it is part of.*line 3"),
        ("? [a, b]\n: 1", "names that are texts.*line 1"),
        ("a: 1\n'': 1", "names that are texts.*line 2"),
        ("a: !!python/object/apply:os.system [echo]", None),
        ("a: !!python/name:os.system ''", "plain values.*line 1"),
        ("a: 1\nb: 2001-99-99", "plain values.*line 2"),
        ("a: !!bool maybe", "plain values"),
        ("a: !!int many", "plain values"),
        ("a: !!timestamp soon", "plain values"),
        ("a: !!seq text", "plain values"),
        ("a: !!map text", "plain values"),
        ("a: 0b_", "plain values"),
        ("a: " + ":".join(["1"] * 400) + ".0", None),
        ("a: " + "9" * 5000, "plain values"),
        ('a: "\\0"', "expected text.*line 1"),
        ('a: "\\ud800"', "expected text.*line 1"),
        ('"\\0": 1', "expected text.*line 1"),
        ("a: " + "[" * 5000, "expected YAML"),
        ("a: \x07", "expected YAML"),
    ],
)
def test_yaml_that_is_none_is_refused_in_one_line(tmp_path: Path, text: str, fragment: str | None) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    if fragment is None:
        try:
            read_located(path)
        except InputError as error:
            assert "\n" not in str(error)
        return
    with pytest.raises(InputError, match=fragment) as caught:
        read_located(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value) and len(str(caught.value)) < 500


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found none: check the path"):
        read_located(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="expected YAML in"):
        read_located(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xe9\n")
    with pytest.raises(InputError, match="expected YAML in"):
        read_located(tmp_path / "latin.yaml")


def test_aliases_of_aliases_do_not_fill_the_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=f"at most {MOST_VALUES} values"):
        read_located(path)


# The config -------------------------------------------------------------------------------------------------

GOOD: dict[str, Any] = {
    "encoders": ["toy"],
    "corpora": {
        "c": {
            "train": {"text": {"texts": "a.txt", "embeddings": {"toy": "a.npy"}}, "noisy": {"embeddings": "b.npy"}},
            "dev": {"text": {"texts": "a.txt"}},
            "test": {"text": {"texts": "a.txt"}, "entities": "e.jsonl"},
        }
    },
    "vocabulary": {"vocab_size": 100, "ngram_range": [1, 2]},
    "train": {"rank": 4, "recipe": "default"},
    "title": "T",
}
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.integers(), st.floats(), st.text(max_size=5), st.dates(),
    st.sampled_from(["text", "texts", "embeddings", "full", "default", "minilm", "c", "1e-4", "all", "rank"]),
)  # fmt: skip
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)


def paths_of(value: Any, above: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values in a nest of mappings and lists."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [above, *(path for name, one in pairs for path in paths_of(one, (*above, name)))]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(copy[path[0]], path[1:], new)
    return copy


@given(path=st.sampled_from(paths_of(GOOD)), new=values)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(path=("vocabulary",), new={"\n": None})
@example(path=(), new={"\u2028": None})
def test_odd_values_are_refused_in_one_line(tmp_path: Path, path: tuple[Any, ...], new: Any) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(replaced(GOOD, path, new), allow_unicode=True), encoding="utf-8", errors="replace")
    try:
        read = StudyConfig.read(file)
    except InputError as error:
        assert "\n" not in str(error) and str(file) in str(error), str(error)
    else:
        assert read.corpora and read.encoders
        assert all(isinstance(corpus.splits["train"].sides, dict) for corpus in read.corpora.values())


@given(section=st.sampled_from(["vocabulary", "train"]), name=st.data(), value=values)
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(section="train", name=None, value={"recipe": ["default"]})
@example(section="train", name=None, value={"tokeniser": {"a": 1}, "strip_accents": []})
@example(section="train", name=None, value={"hold_out": True})
@example(section="train", name=None, value={"hold_out": 10**400})
@example(section="vocabulary", name=None, value={"model": ["flip"]})
@example(section="vocabulary", name=None, value={"concepts": 1})
@example(section="vocabulary", name=None, value={"vocab_size": 10**400, "min_df": [1]})
def test_odd_settings_are_refused_in_one_line(tmp_path: Path, section: str, name: Any, value: Any) -> None:
    if name is not None:
        from fliplens.settings import SETTINGS
        from fliplens.training.recipes import TrainConfig

        chosen = name.draw(st.sampled_from(sorted({*SETTINGS, *TrainConfig.__dataclass_fields__})))
        value = {chosen: value}
    file = tmp_path / "study.yaml"
    text = yaml.safe_dump({**GOOD, section: value}, allow_unicode=True)
    file.write_text(text, encoding="utf-8", errors="replace")
    try:
        StudyConfig.read(file)
    except InputError as error:
        assert "\n" not in str(error) and str(file) in str(error), str(error)


@pytest.mark.parametrize(
    "path, new, fragment",
    [
        (("encoders",), [], "at least one corpus and one encoder"),
        (("encoders",), None, r"encoders .*found none"),
        (("encoders",), {"toy": [1]}, r"a text, found a list \(encoders\.toy, .* line 2\)"),
        (("corpora",), {}, "at least one corpus"),
        (("corpora",), ["c"], r"a mapping of names, found a list \(corpora, .* line 3\)"),
        (("corpora", "c"), None, r"\(corpora.c, .* line 4\)"),
        (("corpora", "c"), {"train": {}, "tset": {}}, "names out of train, dev, test, found 'tset'"),
        (("corpora", "c", "test"), None, r"expected test \(sides by name\), found none \(corpora.c, .* line 4\)"),
        (("corpora", "c", "test"), {}, "at least one side"),
        (("corpora", "c", "train", "text"), {}, "texts or embeddings of a side"),
        (
            ("corpora", "c", "train", "text"),
            "a.npy",
            r"a mapping .*'a.npy' \(corpora.c.train.text, .* line 6\)",
        ),
        (("corpora", "c", "train", "text"), {"text": "a"}, "names out of texts, embeddings"),
        (("corpora", "c", "train", "text", "texts"), ["a"], "expected a text, found a list"),
        (("vocabulary", "vocab_size"), "many", r"vocab_size .*\(vocabulary, .* line \d+\)"),
        (("vocabulary",), {"texts": "a"}, "settings of the vocabulary, found 'texts'"),
        (("train",), {"shuffled": True}, "settings of the train, found 'shuffled'"),
        (("train",), {"rnak": 3}, r"found rnak \(train, .* line \d+\)"),
        (("train",), [1], r"a mapping of names, found a list \(train, "),
        (("title",), ["a"], "expected a text, found a list"),
        (("tilte",), "a", r"names out of title, .*found 'tilte'"),
    ],
)
def test_what_is_wrong_is_said_where_it_stands(tmp_path: Path, path: Any, new: Any, fragment: str) -> None:
    base = {**GOOD, "tilte": 1} if path == ("tilte",) else GOOD
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(replaced(base, path, new), sort_keys=False))
    with pytest.raises(InputError, match=fragment) as caught:
        StudyConfig.read(file)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


# The data ---------------------------------------------------------------------------------------------------


def short_npy(folder: Path) -> None:
    raw = (folder / "train-noisy.npy").read_bytes()
    (folder / "train-noisy.npy").write_bytes(raw[: len(raw) // 2])


def wide(folder: Path) -> None:
    np.save(folder / "test-noisy.npy", np.ones((40, 17), np.float32))


SPOILS: list[tuple[Callable[[Path], object], str]] = [
    (lambda folder: (folder / "train.txt").unlink(), r"train.txt.*\(corpora.spoken.train.text.texts, .* line 7\)"),
    (lambda folder: (folder / "dev.npy").unlink(), r"dev.npy.*\(corpora.spoken.dev.text.embeddings, .* line 14\)"),
    (short_npy, r"train-noisy.npy.*\(corpora.spoken.train.noisy.embeddings, .* line 10\)"),
    (wide, r"vectors of 16 dimensions, .*found 17 \(corpora.spoken.test.noisy.embeddings, "),
    (
        lambda folder: write_lines(folder / "test.txt", ["a river"] * 39),
        r"as many rows on every side of test, .*found 39 lines of text \(text\) and 40 vectors \(text\) "
        r"\(corpora.spoken.test.text",
    ),
    (
        lambda folder: np.save(folder / "test-noisy.npy", np.ones((41, 16), np.float32)),
        r"found 40 lines of text \(text\) and 41 vectors \(noisy\) \(corpora.spoken.test.noisy, .* line \d+\)",
    ),
    (lambda folder: np.save(folder / "dev.npy", np.ones((30, 16), np.int64)), "dev.npy"),
    (
        lambda folder: (folder / "dev.txt").write_bytes(b"\xff\n" * 30),
        "UTF-8.*dev.txt.*study.yaml line 13",
    ),
]


@pytest.mark.parametrize("number", range(len(SPOILS)))
def test_bad_data_is_told_before_the_work(tmp_path: Path, number: int) -> None:
    spoil, fragment = SPOILS[number]
    files = StudyFiles.write(tmp_path, ranks=[4])
    spoil(tmp_path)
    with pytest.raises(InputError, match=fragment) as caught:
        run_study("rank", files.path, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert_one_line(call("study", "rank", files.path, "-o", tmp_path / "out"), 2, str(files.path))


def test_sides_that_are_not_there_on_test(tmp_path: Path) -> None:
    files = StudyFiles.write(tmp_path, ranks=[4])
    del files.config["corpora"]["spoken"]["test"]["noisy"]
    files.save()
    with pytest.raises(InputError, match=r"a side out of text \(corpora.spoken.test\), found 'noisy' .* line \d+"):
        run_study("rank", files.path, tmp_path / "out")


def test_odd_calls(tmp_path: Path) -> None:
    files = StudyFiles.write(tmp_path, ranks=[4])
    with pytest.raises(InputError, match="expected a study out of rank, modality"):
        run_study("sink", files.path, tmp_path / "out")
    with pytest.raises(InputError, match="expected a folder to write"):
        run_study("rank", files.path, files.path)
    assert_one_line(call("study", "rank", tmp_path / "none.yaml"), 2, "none.yaml")
    assert_one_line(call("study", "rank", files.path, "-o", files.path), 2, "found a file")
    assert_one_line(call("study", "rank", files.path, "--data", tmp_path / "none", "-o", tmp_path / "x"), 2, "none")
    assert_one_line(
        call("study", "rank", files.path, "-o", files.path / "x", "--quiet"), 1, "nothing was half written"
    )


def test_training_rows_without_known_words_are_left_out(tmp_path: Path) -> None:
    files = StudyFiles.write(tmp_path, ranks=[4], vocabulary={"min_df": 5})
    lines = (tmp_path / "train.txt").read_text().splitlines()
    write_lines(tmp_path / "train.txt", [f"xq{row}" if row < 7 else line for row, line in enumerate(lines)])
    run_study("rank", files.path, tmp_path / "out")
    (lens,) = (Lens.load(path) for path in (tmp_path / "out" / "lenses").iterdir())
    assert lens.config["data"]["rows_without_known_words"] == 7
    assert lens.config["data"]["rows_trained"] == 83


# Kept by content --------------------------------------------------------------------------------------------


def test_a_second_run_does_nothing_and_writes_the_same(tmp_path: Path, fits: list[Any], monkeypatch: Any) -> None:
    files = StudyFiles.write(tmp_path / "data", ranks=["full", 4], yardsticks=["ridge"])
    out = tmp_path / "out"
    run_study("rank", files.path, out)
    assert len(fits) == 3 and encoded() > 0
    first = files_of(out)
    assert {"README.md", "table.md", "table.csv", "table.tex", "table.json", "plot.svg", "plot.png"} <= set(first)
    monkeypatch.setattr(runner, "fit_model", None)
    monkeypatch.setattr(runner, "evaluate", None)
    monkeypatch.setattr(runner, "compare", None)
    ENCODERS.clear()
    run_study("rank", files.path, out)
    assert files_of(out) == first
    # Nor after the data, the config and the results have moved.
    shutil.move(tmp_path / "data", tmp_path / "moved")
    shutil.move(out, tmp_path / "other")
    run_study("rank", tmp_path / "moved" / "study.yaml", tmp_path / "other")
    assert files_of(tmp_path / "other") == first
    (tmp_path / "config").mkdir()
    shutil.move(tmp_path / "moved" / "study.yaml", tmp_path / "config" / "study.yaml")
    run_study("rank", tmp_path / "config" / "study.yaml", tmp_path / "other", data=tmp_path / "moved")
    assert files_of(tmp_path / "other") == first
    assert encoded() == 0 and not list((tmp_path / "other").rglob("*.checkpoint"))


def test_a_changed_setting_refits_what_it_touches(tmp_path: Path, fits: list[Any]) -> None:
    files = StudyFiles.write(tmp_path, ranks=["full", 4], yardsticks=["ridge", "frequency", "probe"])

    def again() -> list[tuple[str, Any]]:
        fits.clear()
        files.save()
        run_study("rank", files.path, tmp_path / "out")
        return [(one.model, one.train.rank) for one in fits]

    assert len(again()) == 5
    files.config["title"] = "Another"
    assert again() == []
    files.config["ranks"] = ["full", 4, 2]
    assert again() == [("flip", 2)]
    files.config["train"]["passes"] = 1
    # What no recipe trains does not mind.
    assert again() == [("flip", "full"), ("flip", 4), ("flip", 2), ("probe", 4)]
    files.config["train"]["passes"] = 2
    assert again() == []
    files.config["train"]["alpha"] = 0.25
    assert len(again()) == 6
    files.config["vocabulary"] = {"vocab_size": 20}
    assert len(again()) == 6
    dev = np.load(tmp_path / "dev.npy")
    np.save(tmp_path / "dev.npy", dev[::-1])
    assert len(again()) == 6
    np.save(tmp_path / "dev.npy", dev)
    assert again() == []
    test = np.load(tmp_path / "test.npy")
    before = files_of(tmp_path / "out")
    np.save(tmp_path / "test.npy", test[::-1])
    # Other test data is measured anew, and nothing else.
    assert again() == [] and files_of(tmp_path / "out")["table.json"] != before["table.json"]


def test_studies_with_one_folder_share_lenses(tmp_path: Path, fits: list[Any]) -> None:
    files = StudyFiles.write(tmp_path, "spoken")
    out = tmp_path / "out"
    run_study("modality", files.path, out)
    assert len(fits) == 2
    files.config |= {"ranks": [4], "primary": "text"}
    files.config["corpora"]["spoken"] = {
        split: {"text": sides["text"]} for split, sides in files.config["corpora"]["spoken"].items()
    }
    files.save()
    run_study("rank", files.path, out)
    assert len(fits) == 2
    # The page is the last study's; what only the first one had is gone from it.
    assert "Jaccard" not in (out / "README.md").read_text()


def test_vectors_are_encoded_once(tmp_path: Path, fits: list[Any]) -> None:
    files = StudyFiles.write(tmp_path, "crossed")
    for split in files.config["corpora"]["crossed"].values():
        for side in split.values():
            del side["embeddings"]
    files.save()
    run_study("vocabulary", files.path, tmp_path / "out")
    n_words = sum(len(Extractor.load(path).vocabulary) for path in (tmp_path / "out" / "lenses").iterdir())
    assert encoded() == 2 * (90 + 30 + 40) + n_words
    kept = files_of(tmp_path / "out" / "cache" / "vectors")
    np.testing.assert_array_equal(
        sorted(np.load(path).shape[0] for path in (tmp_path / "out" / "cache" / "vectors").glob("*.npy"))[-2:],
        [90, 90],
    )
    ENCODERS.clear()
    files.config["title"] = "Another"
    files.save()
    run_study("vocabulary", files.path, tmp_path / "out")
    assert encoded() == 0 and files_of(tmp_path / "out" / "cache" / "vectors") == kept
    # Broken, they are made again.
    for path in (tmp_path / "out" / "cache" / "vectors").glob("*.npy"):
        path.write_bytes(path.read_bytes()[:-4])
    run_study("vocabulary", files.path, tmp_path / "out")
    assert encoded() >= 2 * (90 + 30 + 40) and len(fits) == 2


def test_results_that_cannot_be_read_are_taken_again(tmp_path: Path, fits: list[Any]) -> None:
    files = StudyFiles.write(tmp_path, ranks=[4])
    run_study("rank", files.path, tmp_path / "out")
    first = files_of(tmp_path / "out")
    for path in (tmp_path / "out" / "cache" / "measured").iterdir():
        path.write_text("{")
    run_study("rank", files.path, tmp_path / "out")
    assert files_of(tmp_path / "out") == first and len(fits) == 1


def test_files_may_lie_elsewhere(tmp_path: Path) -> None:
    files = StudyFiles.write(tmp_path / "data", ranks=[4])
    for name in ("train.txt", "test.txt"):
        shutil.move(tmp_path / "data" / name, tmp_path / name)
    sides = files.config["corpora"]["spoken"]
    sides["train"]["text"]["texts"] = str(tmp_path / "train.txt")
    sides["test"]["text"]["texts"] = "../test.txt"
    files.save()
    result = run_study("rank", files.path, tmp_path / "out")
    assert {"train.txt, lines", "../test.txt, lines", "dev.txt, lines"} <= set(result.study.provenance.hashes)


def test_a_study_reads_columns_of_tables(tmp_path: Path, fits: list[Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    plain = StudyFiles.write(tmp_path / "data", ranks=[4])
    expected = run_study("rank", plain.path, tmp_path / "plain").study.tables
    sides = plain.config["corpora"]["spoken"]
    for split in ("train", "test"):
        texts = (tmp_path / "data" / f"{split}.txt").read_text(encoding="utf-8").splitlines()
        found = pa.table({"body": texts, "v": np.load(tmp_path / "data" / f"{split}.npy").tolist()})
        # One table lies with the data, the other one elsewhere.
        file = tmp_path / ("data" if split == "train" else ".") / f"{split}.parquet"
        pq.write_table(found.set_column(1, "v", found["v"].cast(pa.list_(pa.float32()))), file)
        shown = file.name if split == "train" else str(file)
        sides[split]["text"] = {"texts": f"{shown}#column=body", "embeddings": f"{shown}#column=v"}
    plain.save()
    result = run_study("rank", plain.path, tmp_path / "out")
    assert {name: table.to_json() for name, table in result.study.tables.items()} == {
        name: table.to_json() for name, table in expected.items()
    }
    assert "train.parquet#column=body, lines" in result.study.provenance.hashes
    done = len(fits)
    run_study("rank", plain.path, tmp_path / "out")
    assert len(fits) == done  # the same files and columns: nothing is fitted again


def test_vectors_of_an_encoder_that_cannot_be_loaded_are_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = StudyFiles.write(tmp_path / "data", ranks=[4])

    def absent(spec: str, **_: Any) -> Any:
        raise FliplensError(f"no {spec} here")

    monkeypatch.setattr(fliplens.encoding.kept_vectors, "load_encoder", absent)
    with pytest.warns(FliplensWarning, match=r"for toy start from sentence means.*no .*toy"):
        run_study("rank", files.path, tmp_path / "out")
    (lens,) = (tmp_path / "out" / "lenses").iterdir()
    assert json.loads((lens / "config.json").read_text())["training"]["anchor"] == "sentences"


def test_a_mistyped_label_of_vectors_is_refused_where_it_stands(tmp_path: Path) -> None:
    files = StudyFiles.write(tmp_path / "data", ranks=[4])
    files.config["corpora"]["spoken"]["train"]["text"]["embeddings"] = {"tou": "train.npy"}
    files.save()
    with pytest.raises(
        InputError, match=r"labels out of toy, the encoders, found 'tou' \(.*embeddings\.tou, .* line "
    ):
        run_study("rank", files.path, tmp_path / "out")


def test_models_lie_under_their_names_and_only_those_there_are(tmp_path: Path) -> None:
    files = StudyFiles.write(tmp_path, ranks=["full", 4], yardsticks=["ridge"])
    out = tmp_path / "out"
    result = run_study("rank", files.path, out)
    assert {path.name for path in (out / "lenses").iterdir()} == {"lip", "rank-4", "ridge"}
    for name, record in result.study.provenance.models.items():
        model = Extractor.load(out / record["folder"])
        assert record["vocabulary"] == len(model.vocabulary) and record["rows_trained"] == 90
        assert name in (out / "README.md").read_text()
    assert result.study.provenance.models["ridge"]["chosen"].keys() == {"ridge", "power"}
    (out / "lenses" / "mine").mkdir()
    shutil.copytree(out / "lenses" / "lip", out / "lenses" / "copied")
    files.config |= {"ranks": [4], "yardsticks": ["ridge"]}
    files.save()
    run_study("rank", files.path, out)
    assert {path.name for path in (out / "lenses").iterdir()} == {"rank-4", "ridge", "mine", "copied"}


def test_a_page_tells_what_was_measured_and_what_training_has_seen(tmp_path: Path) -> None:
    files = StudyFiles.write(tmp_path, ranks=[4])
    train = (tmp_path / "train.txt").read_text().splitlines()
    test = (tmp_path / "test.txt").read_text().splitlines()
    known = set(train)
    test[:3] = train[:3]
    test[3] = "xqxq zqzq"
    write_lines(tmp_path / "test.txt", test)
    again = sum(line in known for line in test)
    result = run_study("rank", files.path, tmp_path / "out")
    assert result.study.provenance.data == (
        "spoken, test, words of text: 39 sentences measured, 1 without a word of the vocabulary left out.",
        f"{again} of the 40 test sentences of spoken (text) are training sentences too.",
    )
    page = (tmp_path / "out" / "README.md").read_text()
    assert "39 sentences measured" in page and again >= 3


def test_another_revision_of_the_encoder_and_other_grids_are_other_models(
    tmp_path: Path, fits: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    files = StudyFiles.write(tmp_path, ranks=[4], yardsticks=["ridge"])

    def again() -> list[str]:
        fits.clear()
        run_study("rank", files.path, tmp_path / "out")
        return [one.model for one in fits]

    assert again() == ["flip", "ridge"] and again() == []
    monkeypatch.setattr(ToyEncoder, "revision", "another")
    # What takes no vectors of words does not mind.
    assert again() == ["flip"] and again() == []
    monkeypatch.setattr(RidgeConfig, "RIDGES", (0.5,))
    assert again() == ["ridge"]


def test_vectors_of_another_size_than_the_encoders_are_told_with_the_line(tmp_path: Path) -> None:
    files = StudyFiles.write(tmp_path, ranks=[4])
    for path in tmp_path.glob("*.npy"):
        np.save(path, np.load(path)[:, :12])
    with pytest.raises(
        InputError, match=r"made the vectors of 12 dimensions, found toy, whose vectors have 16 \(encod"
    ):
        run_study("rank", files.path, tmp_path / "out")


def test_vectors_put_beside_an_old_manifest_are_noticed(tmp_path: Path) -> None:
    files = StudyFiles.write(tmp_path, ranks=[4])
    texts = (tmp_path / "train.txt").read_text().splitlines()
    (tmp_path / "train.npy").unlink()
    encode_texts(texts, ToyEncoder(), tmp_path / "train.npy")
    run_study("rank", files.path, tmp_path / "out")
    time.sleep(0.02)
    np.save(tmp_path / "train.npy", np.load(tmp_path / "train.npy")[::-1])
    with pytest.raises(InputError, match=r"train.npy.*\(corpora.spoken.train.text.embeddings, .*line \d+\)"):
        run_study("rank", files.path, tmp_path / "out")


def test_one_signal_ends_a_study_that_encodes(tmp_path: Path) -> None:
    files = StudyFiles.write(tmp_path, "crossed")
    for split in files.config["corpora"]["crossed"].values():
        for side in split.values():
            del side["embeddings"]
    files.save()
    asked = iter([False, True])
    with pytest.raises(InterruptedRunError, match=r"interrupted; 0 of 90 rows are kept.*same command again"):
        run_study("vocabulary", files.path, tmp_path / "out", stop=lambda: next(asked))
    before = encoded()
    run_study("vocabulary", files.path, tmp_path / "out")
    assert before == 90, "one side was encoded before the signal, and is not encoded again"
    rows = sum(len(np.load(path)) for path in (tmp_path / "out" / "cache" / "vectors").glob("*.npy"))
    assert encoded() == rows


# Stopped and gone on with -----------------------------------------------------------------------------------


def after(times: int) -> Callable[[], bool]:
    asked = iter(range(10**9))
    return lambda: next(asked) + 1 >= times


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken")
    files = StudyFiles.write(folder, ranks=[4, "full"], yardsticks=["probe", "frequency", "ridge"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fliplens.encoding.kept_vectors.load_encoder", lambda _spec, **_: ToyEncoder())
        run_study("rank", files.path, folder / "out")
    return folder


def assert_same_results(out: Path, expected: Path) -> None:
    for name in ("table.json", "without-prior.json", "plot.svg", "README.md"):
        assert (out / name).read_bytes() == (expected / name).read_bytes(), name
    assert not list(out.rglob("*.checkpoint"))


@pytest.mark.parametrize("times", [1, 3, 7, 14, 17, 25, 31])
def test_a_study_stopped_anywhere_goes_on(tmp_path: Path, unbroken: Path, fits: list[Any], times: int) -> None:
    out = tmp_path / "out"
    config = unbroken / "study.yaml"
    with pytest.raises(InterruptedRunError, match="same command again|start anew") as caught:
        run_study("rank", config, out, stop=after(times))
    assert "\n" not in str(caught.value)
    begun = len(fits)
    run_study("rank", config, out)
    # At most the one that was under way is begun again.
    assert len(fits) - begun <= 5 - begun + 1
    assert_same_results(out, unbroken / "out")


def test_training_goes_on_from_the_middle_of_a_fit(tmp_path: Path, unbroken: Path, monkeypatch: Any) -> None:
    out = tmp_path / "out"
    with pytest.raises(InterruptedRunError):
        run_study("rank", unbroken / "study.yaml", out, stop=after(4))
    (state,) = out.rglob("state.safetensors")
    seen: list[bool] = []

    def watching(*args: Any, **options: Any) -> Any:
        seen.append(options["checkpoint"].has_state)
        return train(*args, **options)

    monkeypatch.setattr("fliplens.training.fitting.train", watching)
    run_study("rank", unbroken / "study.yaml", out)
    assert seen == [True, False]
    assert_same_results(out, unbroken / "out")
    # A state that is damaged is of no use, and no obstacle.
    state.parent.mkdir()
    state.write_bytes(b"broken")
    shutil.rmtree(state.parent.with_suffix(""))
    run_study("rank", unbroken / "study.yaml", out)
    assert_same_results(out, unbroken / "out")


def test_what_a_kill_leaves_beside_a_finished_lens_is_removed(tmp_path: Path, unbroken: Path) -> None:
    shutil.copytree(unbroken / "out", tmp_path / "out")
    lens = next((tmp_path / "out" / "cache" / "lenses").iterdir())
    left = lens.with_name(lens.name + ".checkpoint")
    left.mkdir()
    (left / "state.safetensors").write_bytes(b"")
    run_study("rank", unbroken / "study.yaml", tmp_path / "out")
    assert_same_results(tmp_path / "out", unbroken / "out")


# The command ------------------------------------------------------------------------------------------------

TOY_COMMAND = """
import sys, time
sys.path.insert(0, {tests!r})
import fliplens.encoding.kept_vectors, fliplens.training.fitting
from toys import ToyEncoder

fliplens.encoding.kept_vectors.load_encoder = lambda spec, **_: ToyEncoder()
train = fliplens.training.fitting.train

def slow(*args, stop=None, **options):
    def waiting():
        time.sleep({seconds})
        found = stop is not None and stop()
        print("training", file=sys.stderr, flush=True)
        return found
    return train(*args, stop=waiting, **options)

fliplens.training.fitting.train = slow
from fliplens.cli import main
raise SystemExit(main(sys.argv[1:]))
"""


def toy_command(seconds: float) -> str:
    return TOY_COMMAND.format(tests=str(Path(__file__).parent), seconds=seconds)


def test_the_command_prints_tables_or_one_document(unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(unbroken / "out", out)
    told = call("study", "rank", unbroken / "study.yaml", "-o", out)
    assert told.status == 0 and (out / "table.md").read_text().splitlines()[-1] in told.out
    assert f"{out}/README.md" in told.out and "study" in told.err
    quiet = call("study", "rank", unbroken / "study.yaml", "-o", out, "--quiet", "--json")
    assert quiet.err == "" and quiet.json["folder"] == str(out)
    assert quiet.json["tables"]["table"] == json.loads((out / "table.json").read_text())
    loud = call("study", "rank", unbroken / "study.yaml", "-o", out, "--json")
    assert loud.json == quiet.json and loud.err != ""


def test_by_default_runs_go_to_a_folder_of_the_study(unbroken: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert call("study", "rank", unbroken / "study.yaml", "--quiet").status == 0
    assert_same_results(tmp_path / "runs" / "rank", unbroken / "out")


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_study_that_goes_on(
    unbroken: Path, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    out = tmp_path / "out"
    argv = ("study", "rank", unbroken / "study.yaml", "-o", out, "--quiet", "--threads", "1")
    done = interrupt(
        *argv, number=number, once=lambda err: "training" in err, log=tmp_path / "log", script=toy_command(0.1)
    )
    lines = [line for line in done.err.splitlines() if line != "training"]
    assert done.status == status and done.out == "" and len(lines) == 1, done
    assert "same command again" in lines[0] and list(out.rglob("state.safetensors"))
    assert_done(unbroken, out, argv)


def assert_done(unbroken: Path, out: Path, argv: tuple[Any, ...]) -> None:
    """Check that the same command ends the work, with the results of a run that nothing stopped."""
    done = call(*argv)
    assert (done.status, done.err) == (0, "")
    for name in ("table.json", "without-prior.json"):
        assert (out / name).read_bytes() == (unbroken / "out" / name).read_bytes()
    assert not list(out.rglob("*.checkpoint")) and not list(out.rglob("*.tmp"))


def test_a_study_killed_again_and_again_ends(unbroken: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    argv = ("study", "rank", unbroken / "study.yaml", "-o", out, "--quiet", "--threads", "1")
    begun: list[Run] = []
    for seconds in (0.05, 0.6):
        with (tmp_path / "err").open("w+") as err:
            process = subprocess.Popen(
                command(argv, script=toy_command(0.02)), stdout=subprocess.PIPE, stderr=err, env=environment()
            )
            until = time.monotonic() + 60
            while "training" not in (tmp_path / "err").read_text() and process.poll() is None:
                assert time.monotonic() < until
                time.sleep(0.02)
            time.sleep(seconds)
            process.kill()
            stdout, _ = process.communicate(timeout=60)
        begun.append(Run(process.returncode, stdout.decode(), (tmp_path / "err").read_text()))
    assert any(one.status == -signal.SIGKILL for one in begun), begun
    assert all("Traceback" not in one.err for one in begun)
    assert_done(unbroken, out, argv)
