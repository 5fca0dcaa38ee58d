"""Work on pieces of rows: the same vectors and words as on this machine, each with its row, by whatever engine."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import assert_one_line, call
from numpy.typing import NDArray
from safetensors.numpy import save_file
from toys import ToyEncoder, toy_texts

import fliplens.cli.encode
from fliplens.engines import Engine, Outcome, Piece, Work
from fliplens.engines.encoding import encode_on
from fliplens.engines.protocol import attempted
from fliplens.engines.reading import Vectors, read_on
from fliplens.errors import FliplensError, InputError
from fliplens.files import write_lines
from fliplens.fitting import fit
from fliplens.lens import Lens
from fliplens.long_texts import open_texts
from fliplens.recipes import TrainConfig

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

TEXTS = toy_texts(230)


class Backwards:
    """An engine of the test's own: here, the last piece first."""

    def run(self, work: Work, pieces: Sequence[Piece]) -> Iterator[Outcome]:
        return (attempted(work, piece) for piece in reversed(pieces))


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
    assert sorted(path.name for path in out.glob("*.parquet")) == ["part-00003.parquet", "part-00004.parquet"]
    (out / ".part-00001.parquet.0123456789ab.tmp").write_text("left by a kill")
    run(encoder := Counts())
    assert encoder.calls == [50, 50, 50]
    check_encoded(out, texts)
    assert not list(out.glob(".*"))
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
    with pytest.raises(InputError, match="another revision"):
        encode_on(Backwards(), TEXTS, Newer, out, spec="toy", rows_per_part=50)
    (out / "part-00004.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"part-00004\.parquet, could not read it: delete it"):
        encode_on(Backwards(), TEXTS, ToyEncoder, out, spec="toy", rows_per_part=50)


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


def test_recordings_are_not_for_engines(tmp_path: Path) -> None:
    class Hears(ToyEncoder):
        modality = "speech"

    with pytest.raises(InputError, match="expected an encoder of text for an engine, found toy, of speech"):
        encode_on(Backwards(), TEXTS, Hears, tmp_path / "o.parquet", spec="toy")
    assert not list((tmp_path / "o.parquet").glob("part-*"))


def test_bad_rows_are_named_or_dropped(tmp_path: Path, lens: Path) -> None:
    vectors = ToyEncoder().encode(TEXTS)
    bad = [*range(66, 132), 200]
    vectors[bad] = np.nan
    write_vectors(tmp_path / "v.parquet", vectors, 33)
    with pytest.raises(InputError, match=r"infinite values in row 200 \(from 0\)"):
        read_on(Backwards(), lens, tmp_path / "v.parquet", tmp_path / "o.parquet", rows_per_part=60)
    assert not (tmp_path / "o.parquet").exists() and not list(tmp_path.glob(".*"))
    done = read_on(
        Backwards(), lens, tmp_path / "v.parquet", tmp_path / "o.parquet", 5, rows_per_part=60, drop_bad_rows=True
    )
    assert (done.rows, done.dropped) == (163, 67)
    check_read(tmp_path / "o.parquet", lens, vectors, np.setdiff1d(np.arange(230), bad).tolist())
    write_vectors(tmp_path / "nan.parquet", vectors[66:132], 33)
    with pytest.raises(InputError, match="some finite vectors"):
        read_on(Backwards(), lens, tmp_path / "nan.parquet", tmp_path / "p.parquet", drop_bad_rows=True)


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
