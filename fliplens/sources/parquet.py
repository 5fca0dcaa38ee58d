"""A column of a Parquet file, or of a folder of them: decoded as it is read, row group by row group.

`open_vectors` gives vectors in any order; `column_files` the rows of any column in theirs, from any one on.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fliplens.embeddings.matrix import Embeddings
from fliplens.embeddings.parts import Shelf, Streamed
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

__all__ = ["ColumnFile", "column_files", "open_texts", "open_vectors"]

WHAT = "a Parquet file"
PIECE_ROWS = 8192


def open_vectors(source: SourceSpec) -> Embeddings:
    """Open the vectors of a file or folder; what is in them is decoded when rows are asked for.

    Rows in ascending order take the memory of a few chunks, whatever the size of a row group. Rows in any order are
    fast as long as those that are wanted again fit on the shelf, as a window of training does; what is not there is
    decoded with all that lies before it in its row group. Where that is decoded again and again, it is warned about.

    Raises:
        InputError: see `fliplens.sources.columns`; or a file is missing, no Parquet file, or damaged.
    """
    shelf = Shelf()
    parts: list[Streamed] = []
    files: list[Path] = []
    for file in _files(source):
        opened = _open(file)
        name = vector_column(opened.schema_arrow, source, file)
        told, dtype = vector_type(opened.schema_arrow.field(name).type) or (None, "")
        groups = _groups(opened)
        if not sum(groups):
            continue
        dim = told if told is not None else _first_length(opened, name, file)
        check_agreement(parts[0].shape[1] if parts else None, dim, files[0] if files else None, file)
        starts = [0, *np.cumsum(groups).tolist()]
        decode = partial(_decoded, opened, name, dim, file, starts)
        parts.append(Streamed(groups, dim, dtype, decode, shelf=shelf, name=str(source)))
        files.append(file)
    if not parts or not parts[0].shape[1]:
        raise InputError(f"expected at least one vector in {source}, found none: write the vectors first")
    return Embeddings(parts, name=str(source), files=files)


def open_texts(source: SourceSpec) -> list[str]:
    """Read the texts of a file or folder."""
    pieces = (piece for file in column_files(source, of="text") for _, piece in file.pieces())
    return texts_of(pieces, name=source.options.get("column", "of text"), file=source.path)


@dataclass(frozen=True)
class ColumnFile:
    """One column of one file."""

    path: Path
    """The file."""
    name: str
    """The column."""
    groups: tuple[int, ...]
    """Rows of each row group."""

    @property
    def rows(self) -> int:
        """All rows."""
        return sum(self.groups)

    def pieces(self, first: int = 0) -> Iterator[tuple[int, Any]]:
        """Yield (row, an Arrow array of the rows from there on), a few thousand at a time, from row `first` on.

        Of row groups before it nothing is decoded.

        Raises:
            InputError: the file is damaged.
        """
        if first >= self.rows:
            return
        starts = [0, *accumulate(self.groups)]
        group = bisect_right(starts, first) - 1
        row, wanted = starts[group], list(range(group, len(self.groups)))
        failures = arrow_failures()
        try:
            with _open(self.path) as opened:
                for batch in opened.iter_batches(batch_size=PIECE_ROWS, row_groups=wanted, columns=[self.name]):
                    column = batch.column(batch.schema.get_field_index(self.name))
                    skipped = max(first - row, 0)
                    if skipped < len(column):
                        yield row + skipped, column.slice(skipped)
                    row += len(column)
        except failures as error:
            raise damaged(self.path, WHAT, error) from error


def column_files(source: SourceSpec, *, of: str) -> list[ColumnFile]:
    """Return the files that a source names, in the order of their names, each with its column.

    Args:
        source: a Parquet file or a folder of them.
        of: "text" or "vectors".

    Raises:
        InputError: no file there, no Parquet file, or no such column in one.
        MissingExtraError: there is no pyarrow.
    """
    choose = {"text": text_column, "vectors": vector_column}[of]
    found = []
    for path in _files(source):
        with _open(path) as opened:
            found.append(ColumnFile(path, choose(opened.schema_arrow, source, path), _groups(opened)))
    return found


def _files(source: SourceSpec) -> list[Path]:
    path = source.path
    if not path.is_dir():
        if not path.is_file():
            raise InputError(f"expected a Parquet file, or a folder of them, at {path}, found none: check the path")
        return [path]
    found = [
        file
        for file in path.rglob("*.parquet")
        if not any(p.startswith((".", "_")) for p in file.relative_to(path).parts)
    ]
    if not found:
        raise InputError(f"expected Parquet files in {path}, found none: check the path")
    return sorted(found)


def _open(file: Path) -> Any:
    parquet, failures = arrow_library("pyarrow.parquet"), arrow_failures()
    try:
        # A relative path with a colon in it would be taken for an address. Read ahead, a whole row group of the
        # column would be in memory at once.
        return parquet.ParquetFile(file.absolute(), memory_map=True, pre_buffer=False)
    except failures as error:
        raise damaged(file, WHAT, error) from error


def _groups(opened: Any) -> tuple[int, ...]:
    return tuple(opened.metadata.row_group(number).num_rows for number in range(opened.num_row_groups))


def _first_length(opened: Any, name: str, file: Path) -> int:
    """Return the length of the first list that holds anything."""
    failures = arrow_failures()
    row = 0
    try:
        for batch in opened.iter_batches(batch_size=64, columns=[name]):
            column = batch.column(batch.schema.get_field_index(name))
            dim: int = vectors_of(column, None, name=name, file=file, first=row).shape[1]
            if dim:
                return dim
            row += len(column)
    except failures as error:
        raise damaged(file, WHAT, error) from error
    raise no_vector(name, file, row)


def _decoded(
    opened: Any, name: str, dim: int, file: Path, starts: list[int], group: int, rows: int
) -> Iterator[NDArray[Any]]:
    """Yield the rows of a group in chunks of exactly `rows`, the last one perhaps fewer."""
    failures = arrow_failures()
    first, total = starts[group], starts[group + 1] - starts[group]
    waiting: list[NDArray[Any]] = []
    held = 0
    try:
        for batch in opened.iter_batches(batch_size=rows, row_groups=[group], columns=[name]):
            column = batch.column(batch.schema.get_field_index(name))
            waiting.append(vectors_of(column, dim, name=name, file=file, first=first))
            first += len(column)
            held += len(column)
            total -= len(column)
            while held >= rows or (held and not total):
                joined = waiting[0] if len(waiting) == 1 else np.concatenate(waiting)
                # A copy of its own size: a view would keep all that Arrow allocated with it.
                yield joined[:rows].copy()
                waiting = [joined[rows:]]
                held = len(waiting[0])
    except failures as error:
        raise damaged(file, WHAT, error) from error
    if total:
        raise damaged(file, WHAT, ValueError(f"{total} rows of a row group are missing"))
