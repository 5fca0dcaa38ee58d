"""Embeddings: rows come out right whatever holds them, and bad files are refused with one clear line."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from toys import ToyEncoder, toy_texts

import fliplens.progress
from fliplens.embeddings import Embeddings, Manifest, as_embeddings, manifest_path, open_embeddings
from fliplens.encoding.texts import encode_texts
from fliplens.errors import EmbeddingSpaceError, FliplensError, FliplensWarning, InputError
from fliplens.files import read_json, write_json
from fliplens.sources.importing import import_vectors
from fliplens.text.opening import read_texts


@given(
    sizes=st.lists(st.integers(0, 5), min_size=1, max_size=5),
    picks=st.lists(st.integers(0, 10**6), max_size=12),
    dtype=st.sampled_from(["float16", "float32", "float64", ">f4"]),
)
def test_rows_equal_those_of_the_joined_matrix(sizes: list[int], picks: list[int], dtype: str) -> None:
    random = np.random.default_rng(len(picks))
    parts = [random.standard_normal((size, 3)).astype(dtype) for size in sizes]
    whole = np.concatenate(parts).astype(np.float32)
    embeddings = Embeddings(parts)
    assert embeddings.shape == whole.shape
    if not len(whole):
        return
    rows = np.array([pick % len(whole) for pick in picks], dtype=np.int64)
    np.testing.assert_array_equal(embeddings.rows(rows), whole[rows])
    np.testing.assert_array_equal(np.concatenate([b for _, b in embeddings.blocks(2)]), whole)
    if len(rows):
        subset = embeddings.subset(rows)
        np.testing.assert_array_equal(subset.to_numpy(), whole[rows])
        np.testing.assert_array_equal(subset.subset(np.array([0])).to_numpy(), whole[rows[:1]])
        joined = Embeddings.concatenate([embeddings, subset, embeddings])
        np.testing.assert_array_equal(joined.to_numpy(), np.concatenate([whole, whole[rows], whole]))


def test_rows_of_memory_maps_come_out_right_and_into_given_memory(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    whole = random.standard_normal((90, 4)).astype(np.float16)
    for number, part in enumerate(np.array_split(whole, [10, 10, 50])):
        np.save(tmp_path / f"{number}.npy", part)
    embeddings = Embeddings([np.load(tmp_path / f"{number}.npy", mmap_mode="r") for number in (0, 1, 2, 3)])
    assert embeddings.half and not embeddings.normalised().half
    assert not Embeddings([whole, whole.astype(np.float32)]).half
    for rows in (np.arange(90), np.arange(8, 60), np.array([3, 3, 9, 10, 11, 12, 89]), np.array([70, 2, 2, 55, 10])):
        np.testing.assert_array_equal(embeddings.rows(rows), whole[rows].astype(np.float32))
        for dtype in (np.float16, np.float32):
            out = np.full((len(rows), 4), 7, dtype=dtype)
            assert embeddings.rows(rows, out=out) is out
            np.testing.assert_array_equal(out, whole[rows])
            one = Embeddings([whole])
            np.testing.assert_array_equal(one.rows(rows, out=out), whole[rows])


@pytest.mark.parametrize("rows", [[-1], [0, 5], [5]])
def test_rows_that_are_not_there_are_refused(rows: list[int]) -> None:
    matrix = np.ones((5, 2), dtype=np.float32)
    for embeddings in (Embeddings([matrix]), Embeddings([matrix[:2], matrix[2:]])):
        for taken in (embeddings, embeddings.subset(np.arange(5)[::-1])):
            with pytest.raises(IndexError, match="from 0 to 4"):
                taken.rows(np.array(rows))
            with pytest.raises(IndexError, match="from 0 to 4"):
                taken.subset(np.array(rows))


def test_unit_length_rows() -> None:
    matrix = np.array([[3.0, 4.0], [0.0, 0.0]], dtype=np.float32)
    expected = np.array([[0.6, 0.8], [0.0, 0.0]], dtype=np.float32)
    np.testing.assert_allclose(Embeddings([matrix]).normalised().to_numpy(), expected, rtol=1e-6)


def test_joined_embeddings_keep_their_scaling_and_what_is_known_of_all() -> None:
    first, second = (Embeddings([np.full((2, 2), value, np.float32)], name=str(value)) for value in (3.0, 5.0))
    joined = Embeddings.concatenate([first.normalised(), second.normalised()])
    np.testing.assert_allclose(joined.to_numpy(), np.full((4, 2), 0.5**0.5, np.float32), rtol=1e-6)
    assert joined.name == "3.0 + 5.0"
    with pytest.raises(ValueError, match="unit length"):
        Embeddings.concatenate([first, second.normalised()])
    made = Manifest(encoder="toy", revision=None, dim=2, dtype="float32", normalised=False)
    known = Embeddings([np.ones((1, 2), np.float32)], manifest=made)
    assert Embeddings.concatenate([known, known]).manifest == made
    assert Embeddings.concatenate([known, first]).manifest is None


def test_embeddings_are_a_sequence_and_an_array() -> None:
    matrix = np.arange(6, dtype=np.float32).reshape(3, 2)
    embeddings = Embeddings([matrix])
    np.testing.assert_array_equal(embeddings[1], matrix[1])
    np.testing.assert_array_equal(embeddings[-1], matrix[2])
    np.testing.assert_array_equal(np.asarray(embeddings), matrix)
    assert np.asarray(embeddings, dtype=np.float64).dtype == np.float64
    assert [row.tolist() for row in iter(embeddings)] == matrix.tolist()
    with pytest.raises(IndexError):
        embeddings[3]


@pytest.mark.parametrize(
    "index",
    [slice(2), slice(None, None, -2), slice(-3, -1), slice(9, 3), [0, -1, 3, 3], [], np.array([4, 1]),
     np.array([True, False, True, False, False]), np.int64(-2), np.array(3), [False] * 5],
)  # fmt: skip
def test_embeddings_are_indexed_as_an_array_is(index: Any) -> None:
    matrix = np.arange(10, dtype=np.float32).reshape(5, 2)
    for embeddings in (Embeddings([matrix]), Embeddings([matrix[:2], matrix[2:]])):
        np.testing.assert_array_equal(embeddings[index], matrix[index], strict=True)


@pytest.mark.parametrize("index", [5, -6, [0, 5], [True, False], 1.0, "a", np.ones((2, 2), int)])
def test_what_is_no_index_is_refused(index: Any) -> None:
    with pytest.raises(IndexError, match="expected|row (5|-6) of 5"):
        Embeddings([np.ones((5, 2), np.float32)])[index]


def test_arrays_and_tensors_are_taken_as_they_are() -> None:
    matrix = np.ones((2, 3), dtype=np.float32)
    for value in (matrix, torch.from_numpy(matrix), torch.from_numpy(matrix).bfloat16(), Embeddings([matrix])):
        np.testing.assert_array_equal(as_embeddings(value).to_numpy(), matrix)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.ones(3), "two dimensions"),
        (np.ones((2, 3), dtype=np.int64), "float32"),
        (np.ones((2, 3), dtype=np.longdouble), "float32"),
        (np.ones((2, 3), dtype=complex), "float32"),
        (np.ones((0, 3)), "at least one vector"),
        (np.ones((3, 0)), "at least one vector"),
        (np.array([["a", {}]], dtype=object), "float32"),
    ],
)
def test_what_is_no_matrix_of_vectors_is_refused(value: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        as_embeddings(value)
    np.save(tmp_path / "v.npy", value, allow_pickle=True)
    with pytest.raises(InputError):
        open_embeddings(tmp_path / "v.npy")


def test_object_arrays_are_never_unpickled(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    np.save(tmp_path / "v.npy", np.array([[Bomb()]], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="holds objects"):
        open_embeddings(tmp_path / "v.npy")
    assert not (tmp_path / "exploded").exists()


def test_files_that_are_missing_empty_truncated_or_foreign_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.npy"
    with pytest.raises(InputError, match="found none"):
        open_embeddings(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="empty file"):
        open_embeddings(path)
    np.save(path, np.ones((100, 8), dtype=np.float32))
    whole = path.read_bytes()
    for length in (5, 60, 127, 130, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="truncated"):
            open_embeddings(path)
    path.write_bytes(b"PK\x03\x04 this is a zip of sorts")
    with pytest.raises(InputError, match=r"no \.npy"):
        open_embeddings(path)


def test_a_bar_shows_only_where_work_takes_more_than_a_moment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    embeddings = Embeddings([np.zeros((20, 2), dtype=np.float32)])
    assert len(embeddings.bad_rows(show_progress=True)) == 0
    assert capsys.readouterr().err == ""
    progress = fliplens.progress.Progress
    monkeypatch.setattr(
        "fliplens.embeddings.matrix.Progress", lambda what, **given: progress(what, **{**given, "delay": 0})
    )
    assert len(embeddings.bad_rows(show_progress=True)) == 0
    assert "checking vectors: 100%" in capsys.readouterr().err
    assert len(embeddings.bad_rows()) == 0
    assert capsys.readouterr().err == ""


def test_bad_rows_are_numbered() -> None:
    matrix = np.zeros((9000, 2), dtype=np.float32)
    matrix[3, 1] = np.nan
    matrix[8500, 0] = -np.inf
    embeddings = Embeddings([matrix])
    assert embeddings.bad_rows().tolist() == [3, 8500]
    with pytest.raises(InputError, match="2 of 9000 rows .*: 3, 8500"):
        embeddings.check_finite()


def test_checks_name_both_sides() -> None:
    embeddings = Embeddings([np.zeros((4, 2), dtype=np.float32)], name="v.npy")
    with pytest.raises(EmbeddingSpaceError, match=r"3 dimensions .* found 2 in v\.npy"):
        embeddings.check_dim(3, made_for="the lens's")
    with pytest.raises(InputError, match=r"4 vectors in v\.npy and 5 lines in t\.txt"):
        embeddings.check_rows(5, other="t.txt")


# Encoding to disk -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("out", ["vectors.npy", "folder"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_encoded_vectors_are_the_encoders_and_the_manifest_tells(tmp_path: Path, out: str, dtype: str) -> None:
    texts = toy_texts(25)
    done = encode_texts(texts, ToyEncoder(), tmp_path / out, dtype=dtype, rows_per_part=10)
    np.testing.assert_array_equal(done.to_numpy(), ToyEncoder().encode(texts).astype(dtype).astype(np.float32))
    reopened = open_embeddings(tmp_path / out, verify=True)
    assert reopened.manifest is not None
    assert (reopened.manifest.encoder, reopened.manifest.dim, reopened.manifest.dtype) == ("toy", 16, dtype)
    assert sum(reopened.manifest.rows) == 25
    assert reopened.manifest.source["rows"] == 25
    assert not list(tmp_path.glob("*.parts"))


class Low(ToyEncoder):
    precision = "bfloat16"


class Full(ToyEncoder):
    precision = "float32"


class Stops(ToyEncoder):
    """An encoder that is killed at its third call."""

    def encode(self, inputs: Any, *, show_progress: bool = False) -> Any:
        if len(self.calls) == 2:
            raise KeyboardInterrupt
        return super().encode(inputs)


class StopsLow(Stops):
    precision = "bfloat16"


@pytest.mark.parametrize("out", ["vectors.npy", "folder"])
def test_an_interrupted_job_goes_on_and_encodes_nothing_twice(tmp_path: Path, out: str) -> None:
    texts = toy_texts(45)
    with pytest.raises(KeyboardInterrupt):
        encode_texts(texts, Stops(), tmp_path / out, rows_per_part=10)
    if out == "folder":
        with pytest.raises(InputError, match="found 20 of 45 rows"):
            open_embeddings(tmp_path / out)
    else:
        assert not (tmp_path / out).exists()
    again = ToyEncoder()
    encode_texts(texts, again, tmp_path / out, rows_per_part=10)
    assert again.calls == [10, 10, 5]
    whole = encode_texts(texts, ToyEncoder(), tmp_path / "other.npy", rows_per_part=1000)
    np.testing.assert_array_equal(open_embeddings(tmp_path / out).to_numpy(), whole.to_numpy())
    third = ToyEncoder()
    encode_texts(texts, third, tmp_path / out, rows_per_part=10)
    assert third.calls == []


def test_a_kill_between_the_last_two_steps_of_a_single_file_is_mended(tmp_path: Path) -> None:
    texts = toy_texts(12)
    out = tmp_path / "v.npy"
    encode_texts(texts, ToyEncoder(), out, rows_per_part=5)
    # As if killed after the shards were done and the manifest written, before the file had its name.
    encode_texts(texts, ToyEncoder(), tmp_path / "v.npy.parts", rows_per_part=5)
    out.unlink()
    again = ToyEncoder()
    encode_texts(texts, again, out, rows_per_part=5)
    assert again.calls == []
    assert len(open_embeddings(out, verify=True)) == 12


def test_a_kill_while_another_jobs_file_is_replaced_never_mislabels_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "v.npy"
    encode_texts(toy_texts(6), ToyEncoder(), out)

    def killed(path: Path, target: Path) -> None:
        raise KeyboardInterrupt

    rename = Path.replace
    monkeypatch.setattr(Path, "replace", lambda path, target: (killed if target == out else rename)(path, target))
    other = toy_texts(9, seed=3)
    with pytest.raises(KeyboardInterrupt):
        encode_texts(other, ToyEncoder(), out, overwrite=True)
    monkeypatch.undo()
    again = ToyEncoder()
    done = encode_texts(other, again, out, overwrite=True)
    assert again.calls == []  # the shards were all there
    np.testing.assert_array_equal(done.to_numpy(), ToyEncoder().encode(other))


def test_overwrite_encodes_a_finished_folder_again(tmp_path: Path) -> None:
    encode_texts(toy_texts(6), ToyEncoder(), tmp_path / "f")
    again = ToyEncoder()
    encode_texts(toy_texts(6), again, tmp_path / "f", overwrite=True)
    assert again.calls == [6]
    (tmp_path / "d.npy").mkdir()
    with pytest.raises(InputError, match="found a folder"):
        encode_texts(toy_texts(6), ToyEncoder(), tmp_path / "d.npy")


def test_a_damaged_shard_is_made_again(tmp_path: Path) -> None:
    texts = toy_texts(25)
    with pytest.raises(KeyboardInterrupt):
        encode_texts(texts, Stops(), tmp_path / "f", rows_per_part=10)
    part = tmp_path / "f" / "part-00001.npy"
    part.write_bytes(part.read_bytes()[:-4])
    again = ToyEncoder()
    with pytest.warns(FliplensWarning, match=r"found part-00001\.npy damaged of the 2 parts") as caught:
        done = encode_texts(texts, again, tmp_path / "f", rows_per_part=10)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert again.calls == [10, 5]
    np.testing.assert_array_equal(done.to_numpy(), ToyEncoder().encode(texts))


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "cut off": lambda part: part.write_bytes(part.read_bytes()[:-4]),
    "cut in its header": lambda part: part.write_bytes(part.read_bytes()[:20]),
    "empty": lambda part: part.write_bytes(b""),
    "missing": Path.unlink,
    "garbage": lambda part: part.write_bytes(b"no array at all"),
    "too long": lambda part: part.write_bytes(part.read_bytes() + b"more"),
    "of other rows": lambda part: np.save(part, np.ones((3, 16), dtype=np.float32)),
    "of another type": lambda part: np.save(part, np.ones((10, 16), dtype=np.float64)),
}


def folder_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_parts_of_a_finished_folder_are_made_again(tmp_path: Path, kind: str) -> None:
    texts = toy_texts(45)
    encode_texts(texts, ToyEncoder(), tmp_path / "f", rows_per_part=10)
    whole = folder_bytes(tmp_path / "f")
    DAMAGE[kind](tmp_path / "f" / "part-00001.npy")
    state = "missing" if kind == "missing" else "damaged"
    if kind != "too long":  # which can be mapped
        match = rf"found part-00001\.npy {state}.*: give the same encode command again, which makes that part again$"
        with pytest.raises(InputError, match=match):
            open_embeddings(tmp_path / "f")
    kept = {number: (tmp_path / "f" / f"part-{number:05d}.npy").stat().st_ino for number in (0, 2, 3, 4)}
    encoder = ToyEncoder()
    with pytest.warns(FliplensWarning, match=rf"found part-00001\.npy {state} of the 5 parts in .*f: "):
        made = encode_texts(texts, encoder, tmp_path / "f", rows_per_part=10)
    assert encoder.calls == [10] and folder_bytes(tmp_path / "f") == whole and len(made) == 45
    assert kept == {number: (tmp_path / "f" / f"part-{number:05d}.npy").stat().st_ino for number in kept}
    encode_texts(texts, again := ToyEncoder(), tmp_path / "f", rows_per_part=10)
    assert again.calls == []


def test_several_damaged_parts_are_made_again_and_a_kill_meanwhile_is_mended(tmp_path: Path) -> None:
    texts = toy_texts(95)
    encode_texts(texts, ToyEncoder(), tmp_path / "f", rows_per_part=10)
    whole = folder_bytes(tmp_path / "f")
    parts = [tmp_path / "f" / f"part-{number:05d}.npy" for number in range(10)]
    for number in (1, 2, 4, 5, 6, 9):
        parts[number].unlink()
    # What no header shows is found once something else is.
    flipped = bytearray(parts[7].read_bytes())
    flipped[-1] ^= 1
    parts[7].write_bytes(flipped)
    with pytest.warns(FliplensWarning, match=r"part-00006\.npy missing and 2 more"), pytest.raises(KeyboardInterrupt):
        encode_texts(texts, Stops(), tmp_path / "f", rows_per_part=10)
    with pytest.raises(InputError, match="run the same encode command again"):
        open_embeddings(tmp_path / "f")
    with pytest.warns(FliplensWarning, match=r"found part-00004\.npy missing, part-00005\.npy"):
        encode_texts(texts, encoder := ToyEncoder(), tmp_path / "f", rows_per_part=10)
    assert encoder.calls == [10, 10, 10, 10, 5] and folder_bytes(tmp_path / "f") == whole


def test_an_unfinished_job_keeps_good_parts_behind_a_damaged_one(tmp_path: Path) -> None:
    texts = toy_texts(45)
    encode_texts(texts, ToyEncoder(), tmp_path / "whole", rows_per_part=10)
    with pytest.raises(KeyboardInterrupt):
        encode_texts(texts, Stops(), tmp_path / "f", rows_per_part=10)
    (tmp_path / "f" / "part-00000.npy").unlink()
    with pytest.warns(FliplensWarning, match=r"found part-00000\.npy missing of the 2 parts"):
        encode_texts(texts, encoder := ToyEncoder(), tmp_path / "f", rows_per_part=10)
    assert encoder.calls == [10, 10, 10, 5] and folder_bytes(tmp_path / "f") == folder_bytes(tmp_path / "whole")


def test_damaged_parts_are_not_made_again_in_another_precision(tmp_path: Path) -> None:
    encode_texts(toy_texts(25), Low(), tmp_path / "f", rows_per_part=10)
    (tmp_path / "f" / "part-00001.npy").unlink()
    with pytest.raises(InputError, match="go on in bfloat16.*found float32: pass --precision bfloat16"):
        encode_texts(toy_texts(25), Full(), tmp_path / "f", rows_per_part=10)
    with pytest.warns(FliplensWarning, match="missing"):
        encode_texts(toy_texts(25), low := Low(), tmp_path / "f", rows_per_part=10)
    assert low.calls == [10]


@pytest.mark.parametrize("kind", [kind for kind in DAMAGE if kind != "missing"])
def test_a_damaged_single_file_is_told(tmp_path: Path, kind: str) -> None:
    encode_texts(toy_texts(10), ToyEncoder(), tmp_path / "v.npy")
    whole = (tmp_path / "v.npy").read_bytes()
    DAMAGE[kind](tmp_path / "v.npy")
    with pytest.raises(InputError, match=r"v\.npy as it was encoded, found it damaged .*--overwrite"):
        encode_texts(toy_texts(10), ToyEncoder(), tmp_path / "v.npy")
    if kind.startswith("cut") or kind in ("garbage", "empty"):
        with pytest.raises(InputError, match=r"found the file damaged .*encode again with --overwrite"):
            open_embeddings(tmp_path / "v.npy")
    encode_texts(toy_texts(10), ToyEncoder(), tmp_path / "v.npy", overwrite=True)
    assert (tmp_path / "v.npy").read_bytes() == whole


def test_a_damaged_part_of_an_import_is_told(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", ToyEncoder().encode(toy_texts(25)))
    import_vectors(tmp_path / "v.npy", tmp_path / "f", rows_per_part=10)
    (tmp_path / "f" / "part-00002.npy").unlink()
    with pytest.raises(InputError, match=r"part-00002\.npy missing: .* same import command again, with --overwrite"):
        open_embeddings(tmp_path / "f")
    assert len(import_vectors(tmp_path / "v.npy", tmp_path / "f", rows_per_part=10, overwrite=True)) == 25


def test_a_folder_that_holds_no_vectors_is_told(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    with pytest.raises(
        InputError, match=r"expected a folder of vectors at .*clips, found one without manifest\.json"
    ):
        open_embeddings(tmp_path / "clips")
    with pytest.raises(InputError, match=r"expected text at .*clips, found a folder .*: name a text file"):
        read_texts(tmp_path / "clips")


@pytest.mark.parametrize("out", ["v.npy", "f"])
def test_another_jobs_output_is_not_replaced_unasked(tmp_path: Path, out: str) -> None:
    encode_texts(toy_texts(5), ToyEncoder(), tmp_path / out)
    with pytest.raises(
        InputError, match="other vectors of texts that have changed, rows of the texts 5, not the 6: .*--over"
    ):
        encode_texts(toy_texts(6), ToyEncoder(), tmp_path / out)
    with pytest.raises(InputError, match=r"texts that have changed, sha256 of the texts \w{12}, not the \w{12}: "):
        encode_texts([*toy_texts(4), "x"], ToyEncoder(), tmp_path / out)

    class Newer(ToyEncoder):
        revision = "2"

    with pytest.raises(InputError, match="found other vectors with revision 1, not the 2: .*--overwrite"):
        encode_texts(toy_texts(5), Newer(), tmp_path / out)
    assert len(encode_texts(toy_texts(6), ToyEncoder(), tmp_path / out, overwrite=True)) == 6
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(InputError):
            encode_texts(toy_texts(5), ToyEncoder(), tmp_path / "foreign", overwrite=overwrite)


def test_an_encoder_that_misbehaves_is_reported(tmp_path: Path) -> None:
    class Short(ToyEncoder):
        def encode(self, inputs: Any, *, show_progress: bool = False) -> Any:
            return super().encode(inputs)[:-1]

    class Nan(ToyEncoder):
        def encode(self, inputs: Any, *, show_progress: bool = False) -> Any:
            vectors = super().encode(inputs)
            vectors[3] = np.nan
            return vectors

    with pytest.raises(FliplensError, match=r"expected 5 vectors .* found shape \(4, 16\)"):
        encode_texts(toy_texts(5), Short(), tmp_path / "a.npy")
    with pytest.raises(FliplensError, match="for row 3 of texts"):
        encode_texts(toy_texts(5), Nan(), tmp_path / "b.npy")
    with pytest.raises(InputError, match="found none"):
        encode_texts([], ToyEncoder(), tmp_path / "c.npy")
    with pytest.raises(InputError, match="expected dtype"):
        encode_texts(toy_texts(5), ToyEncoder(), tmp_path / "d.npy", dtype="int8")


def test_a_manifest_that_lies_is_refused(tmp_path: Path) -> None:
    encode_texts(toy_texts(25), ToyEncoder(), tmp_path / "f", rows_per_part=10)
    path = tmp_path / "f" / "manifest.json"
    good = Manifest.load(path)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"format_version": 99}, "newer FLiPLens"),
        ({"format_version": "1"}, "format_version"),
        ({"dim": 0}, "expected dim"),
        ({"dtype": "int8"}, "expected dim"),
        ({"rows": [10, 10]}, "lists of one length"),
        ({"rows": [10, 10, 6]}, "5 × 16 float32 in place of 6 × 16 float32"),
        ({"dtype": "float16"}, "float16"),
        ({"rows": [], "sha256": []}, "without parts"),
    ]
    for change, message in cases:
        write_json(path, {**good.to_json(), **change})
        with pytest.raises(InputError, match=message):
            open_embeddings(tmp_path / "f")
    write_json(path, {"format_version": 1})
    with pytest.raises(InputError, match="missing"):
        open_embeddings(tmp_path / "f")
    write_json(path, dataclasses.replace(good, sha256=["0" * 64] * 3).to_json())
    assert len(open_embeddings(tmp_path / "f")) == 25
    with pytest.raises(InputError, match="sha256"):
        open_embeddings(tmp_path / "f", verify=True)
    path.unlink()
    with pytest.raises(InputError, match=r"manifest\.json"):
        open_embeddings(tmp_path / "f")


def test_a_single_file_and_its_manifest_must_agree(tmp_path: Path) -> None:
    encode_texts(toy_texts(5), ToyEncoder(), tmp_path / "v.npy")
    beside = manifest_path(tmp_path / "v.npy")
    write_json(beside, {**read_json(beside), "rows": [6]})
    with pytest.raises(InputError, match="expected the 6 × 16"):
        open_embeddings(tmp_path / "v.npy")
    beside.unlink()
    assert len(open_embeddings(tmp_path / "v.npy")) == 5
    with pytest.raises(InputError, match="to verify against"):
        open_embeddings(tmp_path / "v.npy", verify=True)


def test_a_job_does_not_go_on_in_another_precision(tmp_path: Path) -> None:
    texts = toy_texts(25)
    with pytest.raises(KeyboardInterrupt):
        encode_texts(texts, StopsLow(), tmp_path / "f", rows_per_part=10)
    begun = sum(Manifest.load(tmp_path / "f" / "manifest.json").rows)
    assert begun > 0
    with pytest.raises(
        InputError, match=rf"go on in bfloat16, as the {begun} rows .*found float32: pass --precision"
    ):
        encode_texts(texts, Full(), tmp_path / "f", rows_per_part=10)
    done = encode_texts(texts, Low(), tmp_path / "f", rows_per_part=10)
    assert done.manifest is not None and done.manifest.precision == "bfloat16"
    with pytest.warns(FliplensWarning, match="encoded before, in bfloat16, and is left as it is.*float32") as caught:
        again = encode_texts(texts, full := Full(), tmp_path / "f", rows_per_part=10)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert full.calls == [] and again.manifest is not None and again.manifest.precision == "bfloat16"
    anew = encode_texts(texts, Full(), tmp_path / "f", rows_per_part=10, overwrite=True)
    assert anew.manifest is not None and anew.manifest.precision == "float32"


def test_a_job_begun_in_another_precision_is_overwritten_when_asked(tmp_path: Path) -> None:
    texts = toy_texts(25)
    with pytest.raises(KeyboardInterrupt):
        encode_texts(texts, StopsLow(), tmp_path / "v.npy", rows_per_part=10)
    done = encode_texts(texts, full := Full(), tmp_path / "v.npy", rows_per_part=10, overwrite=True)
    assert sum(full.calls) == 25 and done.manifest is not None and done.manifest.precision == "float32"


def test_a_manifest_that_does_not_tell_its_precision_fits_any(tmp_path: Path) -> None:
    encode_texts(toy_texts(5), ToyEncoder(), tmp_path / "f")
    manifest = read_json(tmp_path / "f" / "manifest.json")
    del manifest["precision"]  # as written before there was a choice
    write_json(tmp_path / "f" / "manifest.json", manifest)
    assert len(encode_texts(toy_texts(5), full := Full(), tmp_path / "f")) == 5
    assert full.calls == []
