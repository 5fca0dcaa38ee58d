"""Work on pieces of rows: the same vectors and words as on this machine, each with its row, by whatever engine."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import signal
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import ROOT, Run, assert_one_line, call, command, environment
from numpy.typing import NDArray
from safetensors.numpy import save_file
from speech import ToySpeech, spoken
from toys import ToyEncoder, toy_texts

import fliplens.cli.encode
from fliplens.encoding.recordings import encode_audio
from fliplens.encoding.texts import bad_list
from fliplens.engines import Engine, Outcome, Piece, Work
from fliplens.engines.encoding import encode_on
from fliplens.engines.protocol import attempted
from fliplens.engines.reading import Vectors, read_on
from fliplens.errors import FliplensError, FliplensWarning, InputError, InterruptedRunError
from fliplens.files import write_lines
from fliplens.lenses.lens import Lens
from fliplens.text.long_texts import open_texts
from fliplens.training.fitting import fit
from fliplens.training.recipes import TrainConfig

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

TEXTS = toy_texts(230)


class Backwards:
    """An engine of the test's own: here, the last piece first."""

    def run(self, work: Work, pieces: Sequence[Piece]) -> Iterator[Outcome]:
        return (attempted(work, piece) for piece in reversed(pieces))


def parts(out: Path) -> Path:
    return out.with_name(f"{out.name}.parts")


def files(out: Path) -> list[str]:
    """Return what is done of a job that is not."""
    return sorted(path.name for path in parts(out).glob("*.parquet"))


def read_table(folder: Path) -> Any:
    return pa.concat_tables([pq.read_table(file) for file in sorted(folder.glob("part-*.parquet"))])


def matrix(column: Any) -> NDArray[np.float32]:
    return np.asarray(column.combine_chunks().flatten(), dtype=np.float32).reshape(len(column), -1)


def write_vectors(path: Path, vectors: NDArray[Any], rows_a_group: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    flat = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    column = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    table = pa.table({"id": list(range(len(vectors))), "vector": column})
    pq.write_table(table, path, row_group_size=rows_a_group)


@pytest.fixture(scope="module")
def lens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engines") / "lens"
    vectors = ToyEncoder().encode(TEXTS)
    fit(TEXTS, vectors, encoder=ToyEncoder(), config=TrainConfig(passes=4, batch_size=32)).save(path)
    return path


# Encoding -----------------------------------------------------------------------------------------------------------


def check_encoded(out: Path, texts: Sequence[str], dtype: str = "float32") -> None:
    table = read_table(out)
    assert table.schema.field("vector").type == pa.list_(
        {"float16": pa.float16(), "float32": pa.float32()}[dtype], ToyEncoder.dim
    )
    # In the order of the files' names, with nothing twice or left out.
    assert table["row"].to_pylist() == list(range(len(texts)))
    wanted = ToyEncoder().encode(texts).astype(dtype)
    np.testing.assert_array_equal(matrix(table["vector"]), wanted.astype(np.float32))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_files_hold_every_row_once_and_tell_what_made_them(tmp_path: Path, dtype: str) -> None:
    done = encode_on(
        Backwards(), TEXTS, ToyEncoder, tmp_path / "v.parquet", spec="toy", dtype=dtype, rows_per_part=50
    )
    check_encoded(tmp_path / "v.parquet", TEXTS, dtype)
    assert (done.rows, done.record["rows"], done.record["dim"]) == (230, [50, 50, 50, 50, 30], 16)
    record = json.loads((tmp_path / "v.parquet" / "_encoding.json").read_text())
    assert record == done.record and record["complete"] and record["encoder"] == "toy"
    facts = json.loads(pq.read_schema(tmp_path / "v.parquet" / "part-00002.parquet").metadata[b"fliplens"])
    assert (facts["revision"], facts["first"], facts["source"]["rows"]) == ("1", 100, 230)


class Counts(ToyEncoder):
    """Counts what it encodes, and fails at a text."""

    def __init__(self, at: str = "", error: Exception | None = None) -> None:
        super().__init__()
        self.at, self.error = at, error

    def encode(self, inputs: Sequence[str], *, show_progress: bool = False) -> NDArray[np.float32]:
        if self.error is not None and self.at in inputs:
            raise self.error
        return super().encode(inputs)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (InputError("expected a text"), InputError, "expected a text; files"),
        (FliplensError("expected an answer"), FliplensError, "expected an answer; files"),
        (OSError("no\nroute"), FliplensError, "done with rows 100 to 150, found OSError: no route; files"),
    ],
)  # fmt: skip
def test_a_failure_keeps_what_is_whole_and_the_same_call_goes_on(
    tmp_path: Path, error: Exception, kind: type[FliplensError], said: str
) -> None:
    out = tmp_path / "v.parquet"
    texts = [*TEXTS[:120], "the one", *TEXTS[121:]]

    def run(encoder: ToyEncoder, **options: Any) -> Any:
        options = {"spec": "toy", "rows_per_part": 50, **options}
        return encode_on(Backwards(), options.pop("texts", texts), lambda: encoder, out, **options)

    with pytest.raises(kind, match=said):
        run(Counts("the one", error))
    # Nobody takes half of them for all.
    assert not out.exists()
    assert files(out) == ["part-00003.parquet", "part-00004.parquet"]
    (parts(out) / ".part-00001.parquet.0123456789ab.tmp").write_text("left by a kill")
    run(encoder := Counts())
    assert encoder.calls == [50, 50, 50]
    check_encoded(out, texts)
    assert not list(out.glob(".*")) and not parts(out).exists()
    run(encoder := Counts())
    assert encoder.calls == []
    for other in ({"texts": TEXTS}, {"spec": "other"}, {"dtype": "float16"}, {"rows_per_part": 60}):
        with pytest.raises(InputError, match="found another: name another place"):
            run(Counts(), **other)
    run(encoder := Counts(), texts=TEXTS, overwrite=True)
    assert sum(encoder.calls) == 230
    check_encoded(out, TEXTS)


def test_rows_of_another_revision_are_never_mixed_in(tmp_path: Path) -> None:
    class Newer(ToyEncoder):
        revision = "2"

    out = tmp_path / "v.parquet"
    with pytest.raises(FliplensError):
        encode_on(Backwards(), TEXTS, lambda: Counts(TEXTS[0], OSError()), out, spec="toy", rows_per_part=50)
    with pytest.raises(InputError, match=r"part-00004\.parquet to be of this job, with revision 2, found 1: go on"):
        encode_on(Backwards(), TEXTS, Newer, out, spec="toy", rows_per_part=50)
    encode_on(Backwards(), TEXTS, ToyEncoder, out, spec="toy", rows_per_part=50)
    before = read_table(out)
    with pytest.raises(InputError, match="expected .* to hold this job, with revision 2, found 1: name another"):
        encode_on(Backwards(), TEXTS, Newer, out, spec="toy", rows_per_part=50)
    assert read_table(out).equals(before)

    class Low(ToyEncoder):
        precision = "bfloat16"

    class Full(ToyEncoder):
        precision = "float32"

    encode_on(Backwards(), TEXTS, Low, out, spec="toy", rows_per_part=50, overwrite=True)
    with pytest.warns(FliplensWarning, match="encoded before, in bfloat16, and is left as it is"):
        encode_on(Backwards(), TEXTS, Full, out, spec="toy", rows_per_part=50)


def test_files_that_are_damaged_are_made_again(tmp_path: Path) -> None:
    out = tmp_path / "v.parquet"
    with pytest.raises(FliplensError):
        encode_on(Backwards(), TEXTS, lambda: Counts(TEXTS[0], OSError()), out, spec="toy", rows_per_part=50)
    flipped, cut = (parts(out) / f"part-0000{number}.parquet" for number in (2, 3))
    raw = bytearray(flipped.read_bytes())
    raw[len(raw) // 3] ^= 1
    flipped.write_bytes(raw)
    cut.write_bytes(cut.read_bytes()[:-9])
    (parts(out) / "part-00004.parquet").unlink()
    encoder = Counts()
    encode_on(Backwards(), TEXTS, lambda: encoder, out, spec="toy", rows_per_part=50)
    assert encoder.calls == [30, 50, 50, 50]  # but for number 1
    check_encoded(out, TEXTS)
    # Of a finished folder they are told.
    record = json.loads((out / "_encoding.json").read_text())
    hashes = [hashlib.sha256((out / f"part-{number:05d}.parquet").read_bytes()).hexdigest() for number in range(5)]
    assert record["sha256"] == hashes and len(record["bytes"]) == 5
    (out / "part-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"bytes in .*part-00001\.parquet, as were written, found 4: copy it again"):
        encode_on(Backwards(), TEXTS, ToyEncoder, out, spec="toy", rows_per_part=50)
    encode_on(Backwards(), TEXTS, ToyEncoder, out, spec="toy", rows_per_part=50, overwrite=True)
    check_encoded(out, TEXTS)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), OSError(errno.ENOSPC, "No space left")])
def test_what_ends_the_call_itself_keeps_what_is_whole(tmp_path: Path, error: BaseException) -> None:
    class EndsSo:
        def run(self, work: Work, pieces: Sequence[Piece]) -> Iterator[Outcome]:
            for piece in pieces[:2]:
                yield attempted(work, piece)
            raise error

    out = tmp_path / "v.parquet"
    kind = FliplensError if isinstance(error, OSError) else type(error)
    with pytest.raises(kind) as caught:
        encode_on(EndsSo(), TEXTS, ToyEncoder, out, spec="toy", rows_per_part=50)
    if isinstance(error, OSError):
        assert "No space left; files that are whole are kept in" in str(caught.value)
    encoder = Counts()
    encode_on(Backwards(), TEXTS, lambda: encoder, out, spec="toy", rows_per_part=50)
    assert encoder.calls == [30, 50, 50]
    check_encoded(out, TEXTS)


def test_a_disk_that_fills_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "v.parquet"
    fsync, count = os.fsync, iter(range(100))

    def full(number: int) -> None:
        if next(count) >= 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(number)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FliplensError, match="No space left on device.*; files that are whole are kept in") as caught:
        encode_on(Backwards(), TEXTS, ToyEncoder, out, spec="toy", rows_per_part=50)
    monkeypatch.undo()
    assert "\n" not in str(caught.value) and not out.exists()
    assert files(out) and not [path for path in parts(out).iterdir() if ".part" in path.name]
    kept = len(files(out))
    encoder = Counts()
    encode_on(Backwards(), TEXTS, lambda: encoder, out, spec="toy", rows_per_part=50)
    assert len(encoder.calls) == 5 - kept
    check_encoded(out, TEXTS)


class Stops:
    """Asked whether to stop: from a number of texts on, those that an encoder was asked for."""

    def __init__(self, encoder: ToyEncoder, calls: int) -> None:
        self.encoder, self.calls = encoder, calls

    def __call__(self) -> bool:
        return len(self.encoder.calls) >= self.calls


class Slow(Counts):
    """Takes its time, so that who asks every fifth of a second is heard."""

    def encode(self, inputs: Sequence[str], *, show_progress: bool = False) -> NDArray[np.float32]:
        time.sleep(0.5)
        return super().encode(inputs)


def test_a_job_that_is_stopped_goes_on(tmp_path: Path) -> None:
    out, encoder = tmp_path / "v.parquet", Slow()
    options: dict[str, Any] = {"spec": "toy", "rows_per_part": 50}
    with pytest.raises(InterruptedRunError, match="interrupted; 130 of 230 rows are kept in .*: run"):
        encode_on(Backwards(), TEXTS, lambda: encoder, out, stop=Stops(encoder, 2), **options)
    # The third was under way, and encoded as a whole.
    assert files(out) == [f"part-0000{number}.parquet" for number in (2, 3, 4)] and not out.exists()
    assert sorted(path.name for path in parts(out).glob(".*")) == []
    with pytest.raises(InterruptedRunError, match="interrupted; 130 of 230"):
        encode_on(Backwards(), TEXTS, lambda: encoder, out, stop=lambda: True, **options)
    assert len(encoder.calls) == 3
    encode_on(Backwards(), TEXTS, lambda: encoder, out, stop=lambda: False, **options)
    assert encoder.calls == [30, 50, 50, 50, 50]
    check_encoded(out, TEXTS)


# Recordings ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def clips(tmp_path: Path) -> list[str]:
    """Spoken sentences, by espeak-ng, and a path where nothing is."""
    pytest.importorskip("soundfile")
    pytest.importorskip("soxr")
    names = [f"said/{path.name}" for path in spoken(tmp_path / "said")]
    return [names[0], "said/absent.wav", *names[1:], names[2]]


def test_recordings_are_encoded_as_on_this_machine(tmp_path: Path, clips: list[str]) -> None:
    options: dict[str, Any] = {"name": "list.txt", "rows_per_part": 2, "folder": tmp_path}
    on: dict[str, Any] = {"spec": "toy-speech", "modality": "speech", **options}
    out = tmp_path / "v.parquet"
    with pytest.raises(InputError, match=r"line 2 of list\.txt: expected a file of audio .*; files that"):
        encode_on(Backwards(), clips, ToySpeech, out, **on)
    assert files(out) == ["part-00001.parquet", "part-00002.parquet"]
    done = encode_on(Backwards(), clips, ToySpeech, out, skip_bad=True, **on)
    here = encode_audio(clips, ToySpeech(), tmp_path / "v", skip_bad=True, **options)
    np.testing.assert_array_equal(matrix(read_table(out)["vector"]), here.to_numpy())
    assert done.bad == 1 and done.bad_list.read_bytes() == bad_list(tmp_path / "v").read_bytes()
    assert here.manifest is not None
    assert done.record["files"] == here.manifest.source["files"] and done.record["source"]["modality"] == "speech"
    # Another sound under an old name.
    assert encode_on(Backwards(), clips, ToySpeech, out, skip_bad=True, **on).record == done.record
    (tmp_path / clips[3]).write_bytes((tmp_path / clips[0]).read_bytes())
    with pytest.raises(InputError, match="found some that have changed since"):
        encode_on(Backwards(), clips, ToySpeech, out, skip_bad=True, **on)
    again = encode_on(Backwards(), clips, ToySpeech, out, skip_bad=True, overwrite=True, **on)
    vectors = matrix(read_table(again.out)["vector"])
    np.testing.assert_array_equal(vectors[3], vectors[0])


def test_recordings_that_change_while_a_job_stands_still_are_encoded_again(tmp_path: Path, clips: list[str]) -> None:
    on: dict[str, Any] = {"spec": "toy-speech", "modality": "speech", "rows_per_part": 1, "folder": tmp_path}
    out = tmp_path / "v.parquet"
    with pytest.raises(InputError, match="line 2"):
        encode_on(Backwards(), clips, ToySpeech, out, **on)
    (tmp_path / clips[3]).write_bytes((tmp_path / clips[0]).read_bytes())
    before = {path.name: path.stat().st_mtime_ns for path in parts(out).glob("part-*")}
    encode_on(Backwards(), clips, ToySpeech, out, skip_bad=True, **on)
    changed = {path.name for path in out.glob("part-*") if before.get(path.name) != path.stat().st_mtime_ns}
    assert changed == {f"part-0000{number}.parquet" for number in (0, 1, 3, *([5] if clips[5] == clips[3] else []))}
    vectors = matrix(read_table(out)["vector"])
    np.testing.assert_array_equal(vectors[3], vectors[0])


def test_text_and_recordings_are_not_taken_for_each_other(tmp_path: Path, clips: list[str]) -> None:
    for encoder, modality in ((ToySpeech, "text"), (ToyEncoder, "speech")):
        with pytest.raises(InputError, match=f"expected an encoder of {modality}, found toy.*, of"):
            encode_on(Backwards(), clips, encoder, tmp_path / "o.parquet", spec="toy", modality=modality)
    with pytest.raises(InputError, match="skip_bad for recordings"):
        encode_on(Backwards(), TEXTS, ToyEncoder, tmp_path / "o.parquet", spec="toy", skip_bad=True)
    assert not (tmp_path / "o.parquet").exists()


def test_places_that_cannot_be_written_are_known_first(tmp_path: Path) -> None:
    (tmp_path / "mine.parquet").mkdir()
    (tmp_path / "mine.parquet" / "thesis.txt").write_text("years of work")
    (tmp_path / "file.parquet").write_text("")
    for name in ("v.npy", "mine.parquet", "file.parquet"):
        for overwrite in (False, True):
            with pytest.raises(InputError, match="expected"):
                encode_on(Backwards(), TEXTS, ToyEncoder, tmp_path / name, spec="toy", overwrite=overwrite)
    with pytest.raises(InputError, match="found none"):
        encode_on(Backwards(), [], ToyEncoder, tmp_path / "v.parquet", spec="toy")
    assert (tmp_path / "mine.parquet" / "thesis.txt").exists()


# Reading ------------------------------------------------------------------------------------------------------------


def check_read(out: Path, lens: Path, vectors: NDArray[Any], rows: Sequence[int]) -> None:
    table = read_table(out)
    assert table["row"].to_pylist() == list(rows)
    top = Lens.load(lens).top(vectors[list(rows)], 5)
    assert table["words"].to_pylist() == [[word.word for word in words] for words in top]
    scores = np.array(table["scores"].to_pylist())
    np.testing.assert_allclose(scores, [[word.score for word in words] for words in top], rtol=1e-6, atol=1e-6)
    assert table.schema.names == ["row", "words", "scores", "probabilities"]


@pytest.mark.parametrize("kind", ["parquet", "lake", "npy", "tensor"])
def test_words_are_those_of_this_machine_with_their_rows(tmp_path: Path, lens: Path, kind: str) -> None:
    vectors = ToyEncoder().encode(TEXTS)
    source = tmp_path / {"parquet": "v.parquet", "lake": "lake", "npy": "v.npy", "tensor": "v.safetensors"}[kind]
    if kind == "npy":
        np.save(source, vectors)
    elif kind == "tensor":
        save_file({"v": vectors, "other": vectors + 1}, source)
    elif kind == "parquet":
        write_vectors(source, vectors, 33)
    else:
        for number, start in enumerate(range(0, 230, 90)):
            write_vectors(source / f"{number}.parquet", vectors[start : start + 90], 40)
    column = {"npy": "", "tensor": "#tensor=v"}.get(kind, "#column=vector")
    pieces = Vectors(f"{source}{column}").pieces(60)
    assert [pieces[0].first, *(piece.stop for piece in pieces)] == {
        "parquet": [0, 66, 132, 198, 230],
        "lake": [0, 80, 170, 230],
        "npy": [0, 60, 120, 180, 230],
        "tensor": [0, 60, 120, 180, 230],
    }[kind]
    done = read_on(Backwards(), lens, f"{source}{column}", tmp_path / "o.parquet", 5, rows_per_part=60)
    assert (done.rows, done.dropped) == (230, 0)
    check_read(tmp_path / "o.parquet", lens, vectors, range(230))
    with pytest.raises(InputError, match="--overwrite"):
        read_on(Backwards(), lens, f"{source}{column}", tmp_path / "o.parquet", 5)


class Ends:
    """An engine that is killed behind some pieces."""

    def __init__(self, pieces: int) -> None:
        self.pieces = pieces

    def run(self, work: Work, pieces: Sequence[Piece]) -> Iterator[Outcome]:
        for piece in pieces[: self.pieces]:
            yield attempted(work, piece)
        raise KeyboardInterrupt


def test_reading_goes_on_behind_what_is_whole(tmp_path: Path, lens: Path) -> None:
    vectors = ToyEncoder().encode(TEXTS)
    np.save(tmp_path / "v.npy", vectors)
    out = tmp_path / "o.parquet"

    def read(engine: Engine, n: int = 5, **options: Any) -> Any:
        return read_on(engine, lens, tmp_path / "v.npy", out, n, rows_per_part=50, **options)

    with pytest.raises(KeyboardInterrupt):
        read(Ends(3))
    assert not out.exists() and len(files(out)) == 3
    with pytest.raises(InputError, match=r"o\.parquet\.parts to hold this job, found another"):
        read(Backwards(), n=6)
    # One that was damaged since is read again, the others are not.
    damaged = parts(out) / "part-00001.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    before = {path.name: path.stat().st_mtime_ns for path in parts(out).glob("part-*")}
    assert (read(Backwards()).rows, files(out)) == (230, [])
    kept = {path.name for path in out.glob("part-*") if before.get(path.name) == path.stat().st_mtime_ns}
    assert kept == {"part-00000.parquet", "part-00002.parquet"}
    check_read(out, lens, vectors, range(230))
    assert read(Ends(0)).rows == 230  # done: nothing is run
    record = json.loads((out / "_reading.json").read_text())
    assert record["complete"] and record["rows"] == [50, 50, 50, 50, 30]
    with pytest.raises(InterruptedRunError, match="interrupted; 0 of 230 rows are kept"):
        read(Backwards(), overwrite=True, stop=lambda: True)
    check_read(out, lens, vectors, range(230))  # what it replaces stays until it is replaced
    read(Backwards(), n=4, overwrite=True)
    # Words of other vectors, or another lens's, are another job.
    np.save(tmp_path / "v.npy", vectors[::-1])
    with pytest.raises(InputError, match="found another: name another place, or pass --overwrite"):
        read(Backwards(), n=4)


def test_words_of_two_lenses_are_never_in_one_folder(tmp_path: Path, lens: Path) -> None:
    np.save(tmp_path / "v.npy", ToyEncoder().encode(TEXTS))
    shutil.copytree(lens, tmp_path / "lens")
    with pytest.raises(KeyboardInterrupt):
        read_on(Ends(3), tmp_path / "lens", tmp_path / "v.npy", tmp_path / "o.parquet", rows_per_part=50)
    shutil.rmtree(tmp_path / "lens")
    fit(TEXTS[:100], ToyEncoder().encode(TEXTS[:100]), config=TrainConfig(passes=1)).save(tmp_path / "lens")
    with pytest.raises(InputError, match="to hold this job, found another"):
        read_on(Backwards(), tmp_path / "lens", tmp_path / "v.npy", tmp_path / "o.parquet", rows_per_part=50)


def test_bad_rows_are_named_or_dropped(tmp_path: Path, lens: Path) -> None:
    vectors = ToyEncoder().encode(TEXTS)
    bad = [*range(66, 132), 200]
    vectors[bad] = np.nan
    write_vectors(tmp_path / "v.parquet", vectors, 33)
    with pytest.raises(InputError, match=r"infinite values in row 200 \(from 0\)"):
        read_on(Backwards(), lens, tmp_path / "v.parquet", tmp_path / "o.parquet", 5, rows_per_part=60)
    assert not (tmp_path / "o.parquet").exists() and not list(tmp_path.glob(".*"))
    # What stopped at them goes on without them.
    done = read_on(
        Backwards(), lens, tmp_path / "v.parquet", tmp_path / "o.parquet", 5, rows_per_part=60, drop_bad_rows=True
    )
    assert (done.rows, done.dropped) == (163, 67)
    check_read(tmp_path / "o.parquet", lens, vectors, np.setdiff1d(np.arange(230), bad).tolist())
    write_vectors(tmp_path / "nan.parquet", vectors[66:132], 33)
    with pytest.raises(InputError, match="some finite vectors"):
        read_on(Backwards(), lens, tmp_path / "nan.parquet", tmp_path / "p.parquet", drop_bad_rows=True)
    assert not list(tmp_path.glob("p.parquet*"))


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("v.parquet#column=id", "found int64"),
        ("absent.parquet", "found none"),
        ("absent.npy", "found none"),
        ("faiss:index", "expected a FAISS index"),
        ("narrow.parquet", "dimensions"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, lens: Path, source: str, said: str) -> None:
    write_vectors(tmp_path / "v.parquet", np.ones((5, 16), dtype=np.float32), 5)
    write_vectors(tmp_path / "narrow.parquet", np.ones((5, 3), dtype=np.float32), 5)
    place = source if source.startswith("faiss") else f"{tmp_path}/{source}"
    with pytest.raises(InputError, match=said):
        read_on(Backwards(), lens, place, tmp_path / "o.parquet")
    assert not (tmp_path / "o.parquet").exists()


# Ray ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ray_here() -> Iterator[Any]:
    """A Ray of two cores, whose workers find the toys."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    before = os.environ.get("PYTHONPATH")
    here = Path(__file__).resolve().parent
    os.environ["PYTHONPATH"] = os.pathsep.join([str(here), str(here.parent), *filter(None, [before])])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray = pytest.importorskip("ray")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        yield ray
        ray.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


def on_ray(**options: Any) -> Engine:
    from fliplens.engines.ray_data import RayEngine

    return RayEngine(actors=2, device="cpu", **options)


@pytest.mark.filterwarnings("ignore")
def test_ray_encodes_and_reads_as_this_machine_does(ray_here: Any, tmp_path: Path, lens: Path) -> None:
    write_lines(tmp_path / "t.txt", TEXTS)
    texts = open_texts(tmp_path / "t.txt")
    encode_on(on_ray(), texts, ToyEncoder, tmp_path / "v.parquet", spec="toy", rows_per_part=50)
    check_encoded(tmp_path / "v.parquet", TEXTS)
    # A lake that comes out of one engine goes into the other; and texts of Parquet are texts.
    read_on(on_ray(), lens, f"{tmp_path}/v.parquet#column=vector", tmp_path / "o.parquet", 5, rows_per_part=60)
    check_read(tmp_path / "o.parquet", lens, ToyEncoder().encode(TEXTS), range(230))
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "t.parquet", row_group_size=70)
    column = open_texts(tmp_path / "t.parquet")
    encode_on(on_ray(), column, ToyEncoder, tmp_path / "w.parquet", spec="toy", rows_per_part=50)
    assert read_table(tmp_path / "w.parquet").equals(read_table(tmp_path / "v.parquet"))


def fails() -> ToyEncoder:
    return Counts(TEXTS[120], InputError("expected a text\nof one line"))


def dies() -> ToyEncoder:
    os._exit(1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("load", "said"),
    [(fails, "^expected a text of one line; files that are whole are kept"), (dies, "expected Ray to do the work")],
)
def test_what_fails_in_an_actor_is_one_line_here(
    ray_here: Any, tmp_path: Path, load: Callable[[], ToyEncoder], said: str
) -> None:
    with pytest.raises(FliplensError, match=said) as caught:
        encode_on(on_ray(), TEXTS, load, tmp_path / "v.parquet", spec="toy", rows_per_part=50)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "v.parquet").glob(".*"))
    encode_on(Backwards(), TEXTS, ToyEncoder, tmp_path / "v.parquet", spec="toy", rows_per_part=50)
    check_encoded(tmp_path / "v.parquet", TEXTS)


@pytest.mark.filterwarnings("ignore")
def test_the_commands_run_on_ray(ray_here: Any, tmp_path: Path, lens: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fliplens.cli.encode, "load_encoder", lambda spec, **_: ToyEncoder())
    monkeypatch.setattr(fliplens.cli.encode, "canonical_spec", lambda spec: spec)
    monkeypatch.setattr(fliplens.cli.encode, "_modality", lambda spec: "text")
    write_lines(tmp_path / "t.txt", TEXTS)
    flags = ["--engine", "ray", "--actors", "1", "--device", "cpu", "--quiet"]
    run = call("encode", "t.txt", "-e", "toy", "-o", "v.parquet", "--json", *flags)
    assert run.status == 0, run.err
    assert (run.json["rows"], run.json["encoder"]) == ([230], "toy"), run.err
    check_encoded(tmp_path / "v.parquet", TEXTS)
    argv = ["explain", lens, "--embeddings", "v.parquet#column=vector", "-n", "5"]
    assert "words of 230 vectors in o.parquet" in call(*argv, "-o", "o.parquet", *flags).out
    check_read(tmp_path / "o.parquet", lens, ToyEncoder().encode(TEXTS), range(230))
    assert_one_line(call(*argv, "-o", "o.jsonl", *flags), 2, "ends in .parquet")
    assert_one_line(call(*argv, *flags), 2, "--output OUT.parquet")
    assert_one_line(call("explain", lens, "thunder", "--actors", "2"), 2, "--engine ray")
    assert_one_line(call("encode", "t.txt", "-e", "toy", "-o", "w", "--shard", "1/2", *flags), 2, "no --shard")
    assert_one_line(call("encode", "t.txt", "-e", "toy", "-o", "w", *flags), 2, "ends in .parquet")
    assert_one_line(call("encode", "t.txt", "-e", "toy", "-o", "w.parquet", *flags, "--actors", "0"), 2, "one actor")
    skips = call("encode", "t.txt", "-e", "toy", "-o", "w.parquet", *flags, "--skip-bad")
    assert_one_line(skips, 2, "expected an encoder of speech with --skip-bad, found toy")


@pytest.mark.filterwarnings("ignore")
def test_ray_encodes_recordings(ray_here: Any, tmp_path: Path, clips: list[str]) -> None:
    options: dict[str, Any] = {"rows_per_part": 2, "folder": tmp_path, "skip_bad": True}
    write_lines(tmp_path / "list.txt", clips)
    paths = open_texts(tmp_path / "list.txt")
    out = tmp_path / "v.parquet"
    done = encode_on(on_ray(), paths, ToySpeech, out, spec="toy-speech", modality="speech", **options)
    here = encode_audio(clips, ToySpeech(), tmp_path / "v", **options)
    np.testing.assert_array_equal(matrix(read_table(out)["vector"]), here.to_numpy())
    assert done.bad == 1 and done.bad_list.read_bytes() == bad_list(tmp_path / "v").read_bytes()


@pytest.mark.filterwarnings("ignore")
def test_a_job_on_ray_is_stopped_and_goes_on(ray_here: Any, tmp_path: Path) -> None:
    """On a Ray that is not ours, and so goes on living: nothing is left running on it."""
    out = tmp_path / "v.parquet"
    options: dict[str, Any] = {"spec": "toy", "rows_per_part": 10}
    with pytest.raises(InterruptedRunError, match=r"interrupted; \d+ of 230 rows are kept"):
        encode_on(on_ray(), TEXTS, Slow, out, stop=lambda: len(files(out)) > 3, **options)
    kept = files(out)
    assert 3 < len(kept) < 23
    time.sleep(1.0)
    assert files(out) == kept and not list(parts(out).glob(".*"))
    encode_on(on_ray(), TEXTS, ToyEncoder, out, **options)
    check_encoded(out, TEXTS)


ON_RAY = f"""
import functools, os, sys, time
sys.path.insert(0, {str(ROOT / "tests")!r})
import fliplens.cli.encode, fliplens.engines.encoding, fliplens.engines.reading
from speech import ToySpeech
from toys import ToyEncoder

class Slow(ToyEncoder):
    def encode(self, inputs, *, show_progress=False):
        time.sleep(0.3)
        return super().encode(inputs)

class SlowSpeech(ToySpeech):
    def _vectors(self, sounds):
        time.sleep(0.3)
        return super()._vectors(sounds)

class SlowPiece(fliplens.engines.reading.ReadPiece):
    def make(self, path, piece):
        time.sleep(0.3)
        return super().make(path, piece)

fliplens.cli.encode.load_encoder = lambda spec, **_: Slow() if spec == "toy" else SlowSpeech()
fliplens.cli.encode.canonical_spec = lambda spec: spec
fliplens.cli.encode._modality = lambda spec: "text" if spec == "toy" else "speech"
fliplens.engines.encoding.ROWS_PER_PART = dict(text=10, speech=1)
fliplens.engines.reading.ReadPiece = SlowPiece
fliplens.engines.reading.read_on = functools.partial(fliplens.engines.reading.read_on, rows_per_part=10)
from fliplens.cli import main
raise SystemExit(main(sys.argv[1:]))
"""


def ended_on_ray(argv: Sequence[object], out: Path, number: signal.Signals, folder: Path) -> Run:
    """Start a command on a Ray of its own, send it a signal once some more pieces are whole, and wait for its end."""
    before = len(files(out))
    environ = {**environment(), "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    with (folder / "log").open("w+", encoding="utf-8") as stderr:
        process = subprocess.Popen(
            command(argv, script=ON_RAY),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=environ,
            # A shell's background job is born deaf to SIGINT.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            until = time.monotonic() + 120
            while len(files(out)) < before + 2:
                assert process.poll() is None and time.monotonic() < until, (folder / "log").read_text()
                time.sleep(0.02)
            process.send_signal(number)
            said, _ = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
    return Run(process.returncode, said, (folder / "log").read_text(encoding="utf-8"))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("what", ["texts", "recordings", "words"])
def test_a_command_on_ray_is_stopped_killed_and_goes_on(
    tmp_path: Path, lens: Path, clips: list[str], what: str
) -> None:
    pytest.importorskip("ray")
    out = tmp_path / "o.parquet"
    flags = ["-o", out, "--engine", "ray", "--actors", "2", "--threads", "2", "--device", "cpu", "--quiet"]
    vectors = ToyEncoder().encode(TEXTS)
    argv: list[object]
    if what == "texts":
        write_lines(tmp_path / "t.txt", TEXTS)
        argv, rows = ["encode", tmp_path / "t.txt", "-e", "toy", *flags], 230
    elif what == "recordings":
        write_lines(tmp_path / "a.txt", clips * 5)
        argv, rows = ["encode", tmp_path / "a.txt", "-e", "speech", "--skip-bad", *flags], len(clips) * 5
    else:
        np.save(tmp_path / "v.npy", vectors)
        argv, rows = ["explain", lens, "--embeddings", tmp_path / "v.npy", "-n", "5", *flags], 230
    number = signal.SIGINT if what == "words" else signal.SIGTERM
    stopped = ended_on_ray(argv, out, number, tmp_path)
    assert_one_line(stopped, 128 + number, f" of {rows} rows are kept in {parts(out)}: run the same command again")
    assert not out.exists() and not list(parts(out).glob(".*"))
    kept = {path.name: path.stat().st_mtime_ns for path in parts(out).glob("part-*")}
    killed = ended_on_ray(argv, out, signal.SIGKILL, tmp_path)
    assert killed.status == -signal.SIGKILL and not out.exists()
    kept |= {path.name: path.stat().st_mtime_ns for path in parts(out).glob("part-*")}
    assert len(kept) >= 4
    done = subprocess.run(
        command(argv, script=ON_RAY),
        env={**environment(), "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # What was whole was not made again.
    now = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert {name: now[name] for name in kept} == kept and len(now) > len(kept)
    if what == "texts":
        check_encoded(out, TEXTS)
    elif what == "words":
        check_read(out, lens, vectors, range(230))
    else:
        here = encode_audio(clips * 5, ToySpeech(), tmp_path / "here", folder=tmp_path, skip_bad=True)
        np.testing.assert_array_equal(matrix(read_table(out)["vector"]), here.to_numpy())
        assert f"{5} of them NaN, listed in {out / '_bad.jsonl'}" in done.stdout
