"""A column of an Arrow IPC (Feather) file or stream: mapped, or decoded batch by batch where it is compressed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fliplens.embeddings.matrix import Embeddings
from fliplens.embeddings.parts import LazyRows, Shelf, Streamed
from fliplens.errors import InputError
from fliplens.sources.columns import (
    arrow_failures,
    arrow_library,
    check_agreement,
    damaged,
    no_vector,
    text_column,
    texts_of,
    vector_column,
    vector_type,
    vectors_of,
)
from fliplens.sources.specs import SourceSpec

__all__ = ["open_texts", "open_vectors", "texts_of_files", "vectors_of_files"]

WHAT = "an Arrow IPC file"


def open_vectors(source: SourceSpec) -> Embeddings:
    """Open the vectors of one file."""
    return vectors_of_files([source.path], source)


def open_texts(source: SourceSpec) -> list[str]:
    """Read the texts of one file."""
    return texts_of_files([source.path], source)


def vectors_of_files(files: Sequence[Path], source: SourceSpec) -> Embeddings:
    """Open a column of files that follow one another.

    Raises:
        InputError: see `fliplens.sources.columns`; or a file is missing, no Arrow file, or damaged.
    """
    shelf = Shelf()
    parts: list[NDArray[Any] | LazyRows] = []
    origins: list[Path | None] = []
    dim = None
    for file in files:
        before = origins[-1] if origins else None
        for part in _parts(_open(file), source, file, dim, before, shelf):
            dim = part.shape[1]
            parts.append(part)
            origins.append(file)
    if not parts or not dim:
        raise InputError(f"expected at least one vector in {source}, found none: write the vectors first")
    return Embeddings(parts, name=str(source), files=origins)


def texts_of_files(files: Sequence[Path], source: SourceSpec) -> list[str]:
    """Return the texts of a column of files that follow one another."""

    def chunks() -> Iterator[Any]:
        for file in files:
            opened = _open(file)
            name = text_column(opened.schema, source, file)
            for number in range(opened.count):
                yield opened.batch(number).column(name)

    return texts_of(chunks(), name=source.options.get("column", "of text"), file=source.path)


class _ArrowFile:
    """A mapped file of record batches: the random access of a file, or all batches of a stream."""

    def __init__(self, file: Path) -> None:
        pa = arrow_library()
        ipc = arrow_library("pyarrow.ipc")
        self.file = file
        self._map = pa.memory_map(str(file))
        whole = self._map.read_buffer()
        self._range = (whole.address, whole.address + whole.size)
        self._map.seek(0)
        self._batches: list[Any] | None = None
        if whole.size >= 6 and whole[:6].to_pybytes() == b"ARROW1":
            self._reader = ipc.open_file(self._map)
            self.schema, self.count = self._reader.schema, self._reader.num_record_batches
        else:
            stream = ipc.open_stream(self._map)
            self.schema = stream.schema
            self._batches = []
            for batch in stream:
                self._batches.append(batch)
                if not all(map(self.is_mapped, batch.columns)):
                    raise pa.ArrowInvalid("a compressed stream, which cannot be read in place")
            self.count = len(self._batches)

    def batch(self, number: int) -> Any:
        return self._reader.get_batch(number) if self._batches is None else self._batches[number]

    def is_mapped(self, column: Any) -> bool:
        """Whether a column's numbers lie in the file, not in memory of their own."""
        buffers = [buffer for buffer in column.buffers() if buffer is not None]
        low, high = self._range
        return all(buffer.size == 0 or low <= buffer.address < high for buffer in buffers)

    def column(self, index: int, number: int) -> Any:
        """Return one column of a compressed batch; no other is decoded."""
        ipc = arrow_library("pyarrow.ipc")
        self._map.seek(0)
        options = ipc.IpcReadOptions(included_fields=[index])
        return ipc.open_file(self._map, options=options).get_batch(number).column(0)


def _open(file: Path) -> _ArrowFile:
    failures: tuple[type[BaseException], ...] = (*arrow_failures(), EOFError)
    if not file.is_file():
        raise InputError(f"expected an Arrow file at {file}, found none: check the path")
    if file.stat().st_size == 0:
        raise InputError(f"expected an Arrow file at {file}, found an empty file: write it again")
    try:
        return _ArrowFile(file)
    except failures as error:
        raise damaged(file, WHAT, error) from error


def _parts(
    opened: _ArrowFile, source: SourceSpec, file: Path, dim: int | None, before: Path | None, shelf: Shelf
) -> Iterator[NDArray[Any] | LazyRows]:
    failures = arrow_failures()
    name = vector_column(opened.schema, source, file)
    index = opened.schema.get_field_index(name)
    told, dtype = vector_type(opened.schema.field(name).type) or (None, "")
    check_agreement(dim, told, before, file)
    dim = told if dim is None else dim
    first, compressed = 0, False
    try:
        for number in range(opened.count):
            # A batch may be compressed where the one before was not, as it would not have become smaller.
            column = opened.column(index, number) if compressed else opened.batch(number).column(index)
            compressed = compressed or not opened.is_mapped(column)
            if not len(column):
                continue
            if not compressed:
                array = vectors_of(column, dim, name=name, file=file, first=first)
                dim = _known(array.shape[1], name, file, first + len(column))
                yield array
            else:
                some = column if dim is None else column.slice(0, 1)
                found = vectors_of(some, dim, name=name, file=file, first=first).shape[1]
                dim = _known(found, name, file, first + len(column))
                decode = partial(_decoded, opened, index, number, name, dim, first)
                yield Streamed([len(column)], dim, dtype, decode, shelf=shelf, name=str(source))
            first += len(column)
    except failures as error:
        raise damaged(file, WHAT, error) from error


def _known(dim: int, name: str, file: Path, rows: int) -> int:
    """Return d, which the first piece of a file has to tell."""
    if not dim:
        raise no_vector(name, file, rows)
    return dim


def _decoded(
    opened: _ArrowFile, index: int, number: int, name: str, dim: int, first: int, _group: int, rows: int
) -> Iterator[NDArray[Any]]:
    column = opened.column(index, number)
    array = vectors_of(column, dim, name=name, file=opened.file, first=first)
    for start in range(0, len(array), rows):
        yield array[start : start + rows].copy()
