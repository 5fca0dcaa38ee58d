"""Sources of vectors: whatever file they lie in, rows equal the arrays that its own library was given."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import call
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import fliplens.embeddings.parts
from fliplens.embeddings import Embeddings, open_embeddings
from fliplens.embeddings.parts import Shelf, Streamed
from fliplens.errors import EmbeddingSpaceError, FliplensWarning, InputError, MissingExtraError
from fliplens.sources import SourceSpec, known_sources
from fliplens.sources.importing import import_vectors
from fliplens.sources.registry import KINDS, kind_of
from fliplens.text.opening import read_texts
from fliplens.training.checkpoint import identity_of
from fliplens.training.fitting import fit
from fliplens.training.recipes import TrainConfig

N, DIM = 700, 12
TEXTS = [f"text {row}\nof two lines, ü{row}" for row in range(N)]


def vectors(dtype: str = "float32", n: int = N) -> NDArray[Any]:
    return np.random.default_rng(n).standard_normal((n, DIM)).astype(dtype)


def table(matrix: NDArray[Any], kind: str) -> Any:
    """A table of vectors as lists of one kind, an id and a text."""
    import pyarrow as pa

    values = pa.array(matrix.ravel())
    if kind == "fixed":
        column: Any = pa.FixedSizeListArray.from_arrays(values, DIM)
    elif kind == "tensor":
        column = pa.FixedShapeTensorArray.from_numpy_ndarray(matrix)
    else:
        maker = pa.LargeListArray if kind == "large" else pa.ListArray
        width = np.int64 if kind == "large" else np.int32
        column = maker.from_arrays(pa.array(np.arange(0, matrix.size + 1, DIM, dtype=width)), values)
    return pa.table({"id": np.arange(len(matrix)), "text": TEXTS[: len(matrix)], "vector": column})


def npy(folder: Path) -> tuple[str, NDArray[Any]]:
    np.save(folder / "v.npy", vectors("float64"))
    return str(folder / "v.npy"), vectors("float64")


def safetensors(dtype: torch.dtype) -> Callable[[Path], tuple[str, NDArray[Any]]]:
    def make(folder: Path) -> tuple[str, NDArray[Any]]:
        from safetensors.torch import save_file

        tensor = torch.from_numpy(vectors()).to(dtype)
        save_file(
            {"a": torch.zeros(3, 2), "odd": torch.zeros(3, dtype=torch.int8), "v": tensor}, folder / "v.safetensors"
        )
        return f"{folder / 'v.safetensors'}#tensor=v", tensor.double().numpy()

    return make


def parquet(kind: str, dtype: str, **given_: Any) -> Callable[[Path], tuple[str, NDArray[Any]]]:
    def make(folder: Path) -> tuple[str, NDArray[Any]]:
        import pyarrow.parquet as pq

        pq.write_table(table(vectors(dtype), kind), folder / "v.parquet", row_group_size=150, **given_)
        return str(folder / "v.parquet"), vectors(dtype)

    return make


def parquet_folder(folder: Path) -> tuple[str, NDArray[Any]]:
    import pyarrow.parquet as pq

    (folder / "parts" / "_temporary").mkdir(parents=True)
    whole = table(vectors(), "list")
    for number, (start, stop) in enumerate([(0, 300), (300, 300), (300, 301), (301, N)]):
        pq.write_table(whole.slice(start, stop - start), folder / "parts" / f"p{number}.parquet", row_group_size=100)
    pq.write_table(whole, folder / "parts" / "_temporary" / "half.parquet")
    return f"{folder / 'parts'}#column=vector", vectors()


def arrow(kind: str, compression: str | None, *, stream: bool = False) -> Callable[[Path], tuple[str, NDArray[Any]]]:
    def make(folder: Path) -> tuple[str, NDArray[Any]]:
        import pyarrow as pa

        options = pa.ipc.IpcWriteOptions(compression=compression)
        whole = table(vectors("float16"), kind)
        make_writer = pa.ipc.new_stream if stream else pa.ipc.new_file
        with make_writer(folder / "v.arrow", whole.schema, options=options) as writer:
            writer.write_table(whole, max_chunksize=128)
        return str(folder / "v.arrow"), vectors("float16")

    return make


def partly_compressed(folder: Path) -> tuple[str, NDArray[Any]]:
    """Noise, which does not become smaller and is stored as it is, and then what does."""
    import pyarrow as pa

    matrix = np.concatenate([vectors()[:300], np.ones((N - 300, DIM), np.float32)])
    whole = table(matrix, "fixed")
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(folder / "v.arrow", whole.schema, options=options) as writer:
        writer.write_table(whole, max_chunksize=100)
    return str(folder / "v.arrow"), matrix


def feather(folder: Path) -> tuple[str, NDArray[Any]]:
    from pyarrow import feather as library

    library.write_feather(table(vectors(), "list"), folder / "v.feather")
    return str(folder / "v.feather"), vectors()


def saved_dataset(folder: Path) -> tuple[str, NDArray[Any]]:
    import datasets

    one = datasets.Dataset.from_dict({"text": TEXTS, "vector": vectors()}, split="train")
    datasets.disable_progress_bars()
    datasets.DatasetDict({"train": one, "test": one.select(range(3))}).save_to_disk(
        folder / "saved", num_shards={"train": 3, "test": 1}
    )
    return f"{folder / 'saved'}#split=train,column=vector", vectors()


def faiss_index(recipe: str) -> Callable[[Path], tuple[str, NDArray[Any]]]:
    def make(folder: Path) -> tuple[str, NDArray[Any]]:
        import faiss

        index, matrix = faiss.index_factory(DIM, recipe), vectors()
        index.train(matrix)
        if not recipe.startswith("IDMap"):
            index.add(matrix)
        else:
            # Put in backwards, under ids that order them as they were.
            index.add_with_ids(matrix[::-1].copy(), np.arange(7, 7 + 3 * N, 3)[::-1].copy())
        faiss.write_index(index, str(folder / "index.bin"))
        return f"faiss:{folder / 'index.bin'}", matrix

    return make


TENSORS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
INDICES = ("Flat", "IVF8,Flat", "HNSW8,Flat", "IDMap,Flat", "IDMap,IVF4,Flat")
SOURCES: dict[str, Callable[[Path], tuple[str, NDArray[Any]]]] = {
    "npy": npy,
    **{
        f"safetensors {dtype}": safetensors(dtype)
        for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    },
    "parquet, lists": parquet("list", "float32"),
    "parquet, long lists": parquet("large", "float64", compression="zstd"),
    "parquet, fixed": parquet("fixed", "float16"),
    "parquet, tensors": parquet("tensor", "float32", use_dictionary=False, data_page_size=512),
    "parquet, folder": parquet_folder,
    "arrow, fixed": arrow("fixed", None),
    "arrow, lists": arrow("list", None),
    "arrow, compressed": arrow("large", "zstd"),
    "arrow, partly compressed": partly_compressed,
    "arrow, tensors in a stream": arrow("tensor", None, stream=True),
    "feather": feather,
    "saved dataset": saved_dataset,
    **{
        f"faiss {recipe}": faiss_index(recipe)
        for recipe in ("Flat", "IVF8,Flat", "HNSW8,Flat", "IDMap,Flat", "IDMap,IVF4,Flat")
    },
}


@pytest.fixture(scope="module", params=SOURCES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, NDArray[Any]]:
    return SOURCES[request.param](tmp_path_factory.mktemp("source"))


# The contract of all ------------------------------------------------------------------------------------------


def test_rows_are_those_that_were_written(made: tuple[str, NDArray[Any]]) -> None:
    source, matrix = made
    opened = open_embeddings(source)
    assert opened.shape == matrix.shape
    np.testing.assert_array_equal(opened.to_numpy(), matrix.astype(np.float32))
    np.testing.assert_array_equal(opened.stored(5, 300), matrix[5:300])
    blocks = [rows for _, rows in opened.blocks(64)]
    np.testing.assert_array_equal(np.concatenate(blocks), matrix.astype(np.float32))
    shuffled = np.random.default_rng(0).permutation(N)
    np.testing.assert_array_equal(opened.rows(shuffled), matrix[shuffled].astype(np.float32))


@settings(max_examples=15)
@given(picks=st.lists(st.integers(0, N - 1), max_size=40), within=st.lists(st.integers(0, 39), max_size=9))
def test_any_rows_of_any_rows_come_out(made: tuple[str, NDArray[Any]], picks: list[int], within: list[int]) -> None:
    source, matrix = made
    opened = OPENED.setdefault(source, open_embeddings(source))
    rows = np.array(picks, dtype=np.int64)
    np.testing.assert_array_equal(opened.rows(rows), matrix[rows].astype(np.float32))
    if picks:
        again = np.array([one % len(picks) for one in within], dtype=np.int64)
        np.testing.assert_array_equal(opened.subset(rows).rows(again), matrix[rows[again]].astype(np.float32))
        joined = Embeddings.concatenate([opened.subset(rows), opened])
        np.testing.assert_array_equal(joined.rows(again), matrix[rows[again]].astype(np.float32))


OPENED: dict[str, Embeddings] = {}


def test_identity_is_that_of_the_file_and_its_rows(made: tuple[str, NDArray[Any]]) -> None:
    source, _ = made
    opened = open_embeddings(source)
    assert identity_of(opened) == identity_of(open_embeddings(source))
    assert identity_of(opened) != identity_of(opened.subset(np.arange(5)))
    assert opened.files and all(file.is_file() for file in opened.files)
    json.dumps(opened.storage())


def test_two_threads_read_what_one_reads(made: tuple[str, NDArray[Any]]) -> None:
    from concurrent.futures import ThreadPoolExecutor

    source, matrix = made
    opened = open_embeddings(source)
    orders = [np.random.default_rng(seed).integers(0, N, 50) for seed in range(12)]
    with ThreadPoolExecutor(3) as pool:
        for order, rows in zip(orders, pool.map(opened.rows, orders), strict=True):
            np.testing.assert_array_equal(rows, matrix[order].astype(np.float32))


def test_a_lens_is_fitted_on_any_of_them(made: tuple[str, NDArray[Any]]) -> None:
    source, _ = made
    texts = ["a good b", "bad c a"] * (N // 2)
    lens = fit(texts, source, config=TrainConfig(passes=1, rank=4), hold_out=0.1)
    assert lens.dim == DIM


# Decoding in chunks ---------------------------------------------------------------------------------------------


@given(
    sizes=st.lists(st.integers(0, 7), min_size=1, max_size=5),
    picks=st.lists(st.integers(0, 10**6), max_size=12),
    shelf=st.integers(1, 200),
    chunk=st.integers(1, 4),
    piece=st.integers(1, 3),
)
def test_streamed_rows_equal_the_joined_groups(
    sizes: list[int], picks: list[int], shelf: int, chunk: int, piece: int
) -> None:
    groups = [np.random.default_rng(k).standard_normal((size, 3)).astype(np.float32) for k, size in enumerate(sizes)]
    whole = np.concatenate(groups)

    def decode(group: int, rows: int) -> Any:
        return (groups[group][start : start + rows] for start in range(0, len(groups[group]), rows))

    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        warnings.simplefilter("ignore", FliplensWarning)
        patch.setattr(fliplens.embeddings.parts, "CHUNK_BYTES", chunk * 12)
        patch.setattr(fliplens.embeddings.parts, "PIECE_ROWS", piece)
        kept = Shelf(shelf)
        opened = Embeddings([Streamed(sizes, 3, "float32", decode, shelf=kept, name="toy")])
        if len(whole):
            rows = np.array([pick % len(whole) for pick in picks], dtype=np.int64)
            np.testing.assert_array_equal(opened.rows(rows), whole[rows])
            for row in rows.tolist():  # one by one, and so back and forth
                np.testing.assert_array_equal(opened[row], whole[row])
            assert kept.held <= max(shelf, chunk * 12)


def test_what_is_kept_is_bounded_and_rows_in_order_are_decoded_once() -> None:
    decoded, kept = [], Shelf(50 * 4 * 4)
    whole = np.arange(4000, dtype=np.float32).reshape(1000, 4)

    def decode(group: int, rows: int) -> Any:
        for start in range(0, 250, 10):
            decoded.append(250 * group + start)
            yield whole[250 * group + start :][:10].copy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fliplens.embeddings.parts, "CHUNK_BYTES", 10 * 4 * 4)
        opened = Embeddings([Streamed([250] * 4, 4, "float32", decode, shelf=kept, name="toy")])
    np.testing.assert_array_equal(np.concatenate([rows for _, rows in opened.blocks(7)]), whole)
    assert decoded == list(range(0, 1000, 10))
    assert kept.held <= 50 * 4 * 4
    with pytest.warns(FliplensWarning, match="rows of toy are wanted in an order"):
        for row in np.random.default_rng(0).permutation(1000):
            np.testing.assert_array_equal(opened[int(row)], whole[row])


def test_rows_that_are_wanted_again_stay_whatever_was_decoded_on_the_way() -> None:
    """Runs all over a file, ten times as long as what is kept: the first sweep over them is the last."""
    whole = np.random.default_rng(0).standard_normal((4000, 4)).astype(np.float32)
    decoded = []

    def decode(group: int, rows: int) -> Any:
        for start in range(0, 2000, rows):
            decoded.append(2000 * group + start)
            yield whole[2000 * group + start :][:rows].copy()

    runs = np.random.default_rng(1).permutation(400)[:20]
    wanted = (runs[:, None] * 10 + np.arange(10)).ravel()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fliplens.embeddings.parts, "CHUNK_BYTES", 100 * 4 * 4)
        patch.setattr(fliplens.embeddings.parts, "PIECE_ROWS", 5)
        shelf = Shelf(400 * 4 * 4)
        opened = Embeddings([Streamed([2000, 2000], 4, "float32", decode, shelf=shelf, name="toy")])
    np.testing.assert_array_equal(opened.rows(wanted), whole[wanted])
    assert len(decoded) <= 40
    before = len(decoded)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(wanted)
        np.testing.assert_array_equal(opened.rows(order), whole[order])
    assert len(decoded) == before and shelf.held <= 400 * 4 * 4


# Names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["v.parquet#column", "v.parquet#=a", "v.npy#a=1,a=2", "v.npy#A=1", "qdrant:u#x"])
def test_options_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected (options as name=value|every option once)"):
        SourceSpec.parse(text)


def test_a_file_wins_whatever_its_name_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("odd#column=v.npy", "qdrant:v.npy"):
        np.save(tmp_path / name, vectors())
        assert len(open_embeddings(name)) == N
    with pytest.raises(InputError, match="expected no options of FILE.npy, found column"):
        kind_of(SourceSpec.parse("v.npy#column=v"))
    with pytest.raises(InputError, match="expected options out of column"):
        open_embeddings("v.parquet#tensor=v")


@pytest.mark.parametrize("name", ["v.csv", "v.pt", "v.npz", "v.h5", "v", "v.txt"])
def test_files_of_other_kinds_are_told_which_there_are(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"\x80 of another kind, or none")
    refused(tmp_path / name, r"another kind than \.npy, \.safetensors, \.parquet, .*\.faiss: give it the ending")
    with (tmp_path / name).open("wb") as stream:
        np.save(stream, vectors())
    np.testing.assert_array_equal(open_embeddings(tmp_path / name).to_numpy(), vectors())


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://me:hunter2@host/db#table=t,column=c,order=o",
        "pg:host=host password=hunter2#table=t",
        "http://me:hunter2@host:6333#collection=c",
        "milvus:http://me:hunter2@host#collection",
    ],
)
def test_kinds_that_there_are_not_are_told_without_what_may_be_a_password(text: str) -> None:
    for read in (open_embeddings, read_texts):
        with pytest.raises(
            InputError, match="with a kind out of faiss, hf-dataset, qdrant, pgvector, found "
        ) as caught:
            read(text)
        assert "hunter2" not in str(caught.value) and text.partition(":")[0] in str(caught.value)


def test_a_path_with_a_colon_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as pq

    monkeypatch.chdir(tmp_path)
    pq.write_table(table(vectors(), "list"), tmp_path / "odd:name.parquet")
    assert len(open_embeddings("odd:name.parquet#column=vector")) == N
    with pytest.raises(InputError, match="found none: check the path"):
        open_embeddings("./none:name.parquet#column=vector")
    with pytest.raises(InputError, match="found none: check the path"):
        open_embeddings(Path("none:name.parquet"))


def test_a_password_is_never_shown() -> None:
    given_ = "pgvector:postgresql://me:hu#nter2@host/db"
    for text in (given_, f"{given_}#table=t", "qdrant:http://k:hunter2@host#collection=c"):
        with pytest.raises(InputError) as caught:
            open_embeddings(text)
        assert "nter2" not in str(caught.value)
    source = SourceSpec.parse(f"{given_}#table=t")
    assert source.place == "postgresql://me:hu#nter2@host/db"
    assert "nter2" not in f"{source} {source!r}"


def test_stores_are_to_be_imported() -> None:
    with pytest.raises(InputError, match="fliplens import"):
        open_embeddings("qdrant:http://127.0.0.1:6333#collection=c")


def test_every_kind_says_what_it_is() -> None:
    assert len(known_sources()) == len(KINDS)
    for kind in KINDS.values():
        assert kind.about and "\n" not in kind.about
        adapter = kind.adapter()
        assert hasattr(adapter, "connect" if kind.store else "open_vectors")
        assert hasattr(adapter, "open_texts") >= kind.texts


@pytest.mark.parametrize(
    ("source", "library", "extra"),
    [
        ("v.parquet", "pyarrow", "parquet"),
        ("v.arrow", "pyarrow", "parquet"),
        ("v.faiss", "faiss", "faiss"),
        ("hf-dataset:OWNER/NAME", "datasets", "datasets"),
    ],
)
def test_an_extra_that_is_missing_names_the_command(
    source: str, library: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / source).write_bytes(b"x") if ":" not in source else None
    monkeypatch.setitem(__import__("sys").modules, library, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'fliplens\[{extra}\]'"):
        open_embeddings(source)


# What is wrong is said in one line --------------------------------------------------------------------------------


def refused(source: str | Path, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        open_embeddings(source).to_numpy()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["v.safetensors", "v.parquet", "v.arrow", "v.faiss"])
def test_files_that_are_missing_empty_or_cut_off_are_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    refused(path, "found none: check the path")
    path.write_bytes(b"")
    refused(path, "empty|could not")
    makers = {"v.safetensors": safetensors(torch.float32), "v.parquet": parquet("list", "float32")}
    makers |= {"v.arrow": arrow("fixed", None), "v.faiss": faiss_index("Flat")}
    source, _ = makers[name](tmp_path)
    whole = Path(source.removeprefix("faiss:").partition("#")[0]).read_bytes()
    for length in (4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        refused(path, "could not (read|map) it")
    path.write_bytes(b"PK\x03\x04 something of another kind altogether, and longer than a header" * 9)
    refused(path, "could not (read|map) it")


def test_tensors_that_are_no_vectors_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    path = tmp_path / "v.safetensors"
    save_file({"a": np.ones((2, 3)), "b": np.ones((2, 3)), "i": np.ones((2, 3), np.int8), "l": np.ones(4)}, path)
    refused(path, r"expected one matrix .*, found 2 \(a, b\): name one with #tensor=NAME")
    refused(f"{path}#tensor=c", "expected a tensor out of .* found none called 'c'")
    refused(f"{path}#tensor=i", "found I8")
    refused(f"{path}#tensor=l", "two dimensions")
    save_file({"a": np.ones((0, 3))}, path)
    refused(path, "at least one vector")
    save_file({"l": np.ones(4)}, path)
    refused(path, r"found none among l: save the vectors as a tensor")


@pytest.mark.parametrize("form", ["parquet", "arrow", "compressed"])
@pytest.mark.parametrize("number", ["float16", "float32", "float64"])
@pytest.mark.parametrize("kind", ["list", "large", "fixed"])
def test_a_row_without_a_vector_is_a_row_of_nan(kind: str, number: str, form: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    numbers = pa.type_for_alias(number)
    type_ = {"list": pa.list_(numbers), "large": pa.large_list(numbers), "fixed": pa.list_(numbers, 2)}[kind]
    empty: list[float | None] | None = None if kind == "fixed" else []
    rows: list[list[float | None] | None] = [None, [1.0, 2.0], empty, [3.0, None], [5.0, 6.0], None, [7.0, 8.0]]
    table = pa.table({"v": pa.array(rows, type=type_)})
    path = tmp_path / ("v.parquet" if form == "parquet" else "v.arrow")
    if form == "parquet":
        pq.write_table(table, path, row_group_size=3)
    else:
        options = pa.ipc.IpcWriteOptions(compression="zstd" if form == "compressed" else None)
        with pa.ipc.new_file(path, table.schema, options=options) as writer:
            writer.write_table(table, max_chunksize=3)
    opened = open_embeddings(path)
    nan = float("nan")
    expected = [[nan, nan], [1, 2], [nan, nan], [3, nan], [5, 6], [nan, nan], [7, 8]]
    np.testing.assert_array_equal(opened.to_numpy(), np.array(expected, dtype=np.float32))
    assert opened.dtype == number
    assert opened.bad_rows().tolist() == [0, 2, 3, 5]
    with pytest.warns(FliplensWarning, match=r"in 4 of 7 rows \(counted from 0: 0, 2, 3, 5\)"):
        done = import_vectors(path, tmp_path / "out")
    np.testing.assert_array_equal(done.to_numpy(), opened.to_numpy())


@pytest.mark.parametrize("form", ["parquet", "arrow", "compressed"])
def test_rows_that_are_no_vectors_are_named(form: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / ("v.parquet" if form == "parquet" else "v.arrow")

    def write(columns: dict[str, Any]) -> None:
        made_ = pa.table(columns)
        if form == "parquet":
            pq.write_table(made_, path, row_group_size=3)
        else:
            options = pa.ipc.IpcWriteOptions(compression="zstd" if form == "compressed" else None)
            with pa.ipc.new_file(path, made_.schema, options=options) as writer:
                writer.write_table(made_, max_chunksize=3)

    good = [[1.0, 2.0]] * 5
    write({"v": [*good[:4], [1.0]]})
    refused(path, r"expected 2 numbers in every row of column v of .*, found 1 in row 4")
    write({"v": pa.array([None, [], None], type=pa.list_(pa.float32()))})
    refused(path, r"vectors in column v of .*, found nulls and empty lists alone in the first 3 rows: write the")
    write({"v": [[1, 2]], "t": ["a"]})
    refused(path, "expected one column of vectors .* found columns v, t: write each vector as a list of float32")
    refused(f"{path}#column=v", r"in column v of .*, found list<\w+: int64>: write each vector as a list of float32")
    refused(f"{path}#column=t", "in column t of .*, found string: write each vector as a list of float32")
    write({"v": good, "t": list("abcde")})
    refused(f"{path}#column=t", "in column t of .*, found string: name another with #column=NAME .of such a type: v")
    write({"v": [[1, 2]], "t": ["a"]})
    refused(f"{path}#column=w", "expected one column 'w' in .*, found v, t")
    write({"v": good, "w": good})
    refused(path, r"found 2 \(v, w\)")
    write({"v": pa.array([], type=pa.list_(pa.float32(), 2))})
    refused(path, "at least one vector")
    write({"v": pa.array([[], []], type=pa.list_(pa.float32()))})
    refused(path, "at least one vector|alone in the first")
    write({"v": [[1.0, float("nan")], [1.0, 2.0]]})
    with pytest.raises(InputError, match="1 of 2 rows .*: 0"):
        open_embeddings(path).check_finite()


def test_files_of_a_folder_must_agree(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"v": [[1.0, 2.0]]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"v": [[1.0, 2.0, 3.0]]}), tmp_path / "b.parquet")
    with pytest.raises(EmbeddingSpaceError, match=r"of 2 dimensions as in .*a.parquet, found 3 in .*b"):
        open_embeddings(tmp_path)


def test_damaged_pages_are_told(tmp_path: Path) -> None:
    source, _ = parquet("list", "float32", use_dictionary=False, compression="zstd", write_page_checksum=True)(
        tmp_path
    )
    data = bytearray(Path(source).read_bytes())
    data[len(data) // 3 : len(data) // 3 + 4000] = b"\xff" * 4000
    Path(source).write_bytes(data)
    refused(source, "could not read it")


def test_saved_datasets_that_are_not_plain_are_refused(tmp_path: Path) -> None:
    source, _ = saved_dataset(tmp_path)
    folder = tmp_path / "saved"
    refused(folder, "expected one split of .*, found train, test")
    refused(f"{folder}#split=dev", "expected a split out of train, test")
    assert len(open_embeddings(f"{folder}#split=test,column=vector")) == 3
    assert len(open_embeddings(folder / "test")) == 3
    refused(f"{folder / 'test'}#split=test", "expected no split")
    state = folder / "train" / "state.json"
    described = json.loads(state.read_text())
    state.write_text(json.dumps({**described, "_data_files": [{"filename": "../../secret.arrow"}]}))
    refused(source, "expected names of files")
    state.write_text(json.dumps({**described, "_indices_data_files": [{"filename": "i.arrow"}]}))
    refused(source, "flatten_indices")


def test_a_quantised_index_is_told(tmp_path: Path) -> None:
    source, matrix = faiss_index("SQ8")(tmp_path)
    with pytest.warns(FliplensWarning, match=r"quantised vectors \(IndexScalarQuantizer\)"):
        opened = open_embeddings(source)
    np.testing.assert_allclose(opened.to_numpy(), matrix, atol=0.05)
    assert not np.array_equal(opened.to_numpy(), matrix)


def test_an_index_that_is_empty_or_ambiguous_is_refused(tmp_path: Path) -> None:
    import faiss

    faiss.write_index(faiss.IndexFlatL2(4), str(tmp_path / "v.faiss"))
    refused(tmp_path / "v.faiss", "empty index")
    index = faiss.IndexIDMap(faiss.IndexFlatL2(4))
    index.add_with_ids(np.ones((2, 4), np.float32), np.array([5, 5]))
    faiss.write_index(index, str(tmp_path / "v.faiss"))
    refused(tmp_path / "v.faiss", "several of id 5")


def test_extension_types_run_no_code(tmp_path: Path) -> None:
    """An unknown extension type, here one that names a pickle, reads as the lists that it is stored as."""
    import pickle

    import pyarrow as pa
    import pyarrow.parquet as pq

    class Bomb:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "exploded",))

    meta = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": pickle.dumps(Bomb())}
    schema = pa.schema([pa.field("v", pa.list_(pa.float32()), metadata=meta)])
    made_ = pa.table({"v": [[1.0, 2.0], [3.0, 4.0]]}, schema=schema)
    pq.write_table(made_, tmp_path / "v.parquet")
    with pa.ipc.new_file(tmp_path / "v.arrow", schema) as writer:
        writer.write_table(made_)
    for name in ("v.parquet", "v.arrow"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # pyarrow tells that it does not read the pickle
            found = open_embeddings(tmp_path / name).to_numpy().tolist()
        assert found == [[1.0, 2.0], [3.0, 4.0]]
    assert not (tmp_path / "exploded").exists()


# Text -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["parquet, lists", "parquet, folder", "arrow, compressed", "feather", "saved dataset"]
)
def test_texts_are_read_from_where_the_vectors_lie(name: str, tmp_path: Path) -> None:
    source, _ = SOURCES[name](tmp_path)
    base = source.partition("#")[0]
    split = "split=train," if name == "saved dataset" else ""
    assert read_texts(f"{base}#{split}column=text") == TEXTS
    if not split:
        assert read_texts(base) == TEXTS
        with pytest.raises(InputError, match="expected text in column vector"):
            read_texts(f"{base}#column=vector")


def test_text_files_are_read_as_before_and_vectors_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("one\ntwo\n")
    assert read_texts(tmp_path / "t.txt") == ["one", "two"]
    with pytest.raises(InputError, match="found none: check the path"):
        read_texts(tmp_path / "absent.txt")
    source, _ = faiss_index("Flat")(tmp_path)
    with pytest.raises(InputError, match="expected text in"):
        read_texts(source)


def test_null_and_dictionary_texts(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"t": pa.array(["a", "b", "a"]).dictionary_encode()}), tmp_path / "t.parquet")
    assert read_texts(tmp_path / "t.parquet") == ["a", "b", "a"]
    pq.write_table(pa.table({"t": ["a", None]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="found null in row 1"):
        read_texts(tmp_path / "t.parquet")


def test_a_dataset_of_the_hub_goes_through_its_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import pyarrow.parquet as pq

    # The library takes a folder for the dataset of that name: no network, and otherwise the same.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "OWNER" / "NAME").mkdir(parents=True)
    pq.write_table(table(vectors(), "list"), tmp_path / "OWNER" / "NAME" / "train.parquet")
    source = "hf-dataset:./OWNER/NAME#split=train,column=vector"
    np.testing.assert_array_equal(open_embeddings(source).to_numpy(), vectors())
    assert read_texts("hf-dataset:./OWNER/NAME#column=text") == TEXTS
    refused("hf-dataset:./OWNER/NAME#split=dev,column=vector", "could not load it")


# The command line -------------------------------------------------------------------------------------------------


def test_fit_and_explain_take_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow.parquet as pq

    monkeypatch.chdir(tmp_path)
    pq.write_table(table(vectors(), "fixed"), "d.parquet")
    done = call(
        "fit", "--texts", "d.parquet#column=text", "--embeddings", "d.parquet#column=vector", "-o", "lens",
        "passes=1", "--rank", "4", "--quiet",
    )  # fmt: skip
    assert done.status == 0, done.err
    done = call("explain", "lens", "--embeddings", "d.parquet", "-n", "2", "--json")
    assert len(json.loads(done.out)) == N
    done = call("explain", "lens", "--embeddings", "d.parquet#column=id", "--json")
    assert (done.status, done.out) == (2, "") and "in column id" in done.err
