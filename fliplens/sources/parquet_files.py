"""Parquet files as pieces of a column: which files a source names, and their rows from any one on."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from fliplens.errors import InputError
from fliplens.sources.columns import arrow_library, text_column, vector_column
from fliplens.sources.specs import Source

__all__ = ["ColumnFile", "column_files"]

PIECE_ROWS = 8192


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

    def pieces(self, first: int = 0, stop: int | None = None) -> Iterator[tuple[int, Any]]:
        """Yield (row, an Arrow array of the rows from there on) over rows first..stop, a few thousand at a time.

        Of row groups before `first` nothing is decoded.

        Raises:
            InputError: the file is damaged.
        """
        stop = self.rows if stop is None else stop
        starts = [0, *accumulate(self.groups)]
        group = bisect_right(starts, first) - 1
        wanted = [number for number in range(group, len(self.groups)) if starts[number] < stop]
        if not wanted or first >= stop:
            return
        pa = arrow_library()
        row = starts[group]
        try:
            with opened_parquet(self.path) as file:
                for batch in file.iter_batches(batch_size=PIECE_ROWS, row_groups=wanted, columns=[self.name]):
                    column = batch.column(batch.schema.get_field_index(self.name))
                    low, high = max(first - row, 0), min(stop - row, len(column))
                    if low < high:
                        yield row + low, column.slice(low, high - low)
                    row += len(column)
                    if row >= stop:
                        return
        except (pa.ArrowException, OSError) as error:
            raise _damaged(self.path, error) from error


def column_files(source: Source, *, of: str) -> list[ColumnFile]:
    """Return the files that a source names, in the order of their names, each with its column.

    Args:
        source: a Parquet file or a folder of them, with the option `column`.
        of: "text" or "vectors".

    Raises:
        InputError: no file there, no Parquet file, or no such column in one.
        MissingExtraError: there is no pyarrow.
    """
    choose = {"text": text_column, "vectors": vector_column}[of]
    pa = arrow_library()
    found = []
    for path in _paths(source.path):
        try:
            with opened_parquet(path) as file:
                groups = tuple(file.metadata.row_group(number).num_rows for number in range(file.num_row_groups))
                found.append(ColumnFile(path, choose(file.schema_arrow, source, path), groups))
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error) from error
    return found


def opened_parquet(path: Path) -> Any:
    """Return an open file. Not read ahead: a whole row group would be in memory at once."""
    return arrow_library("pyarrow.parquet").ParquetFile(path, memory_map=True, pre_buffer=False)


def _paths(path: Path) -> list[Path]:
    if not path.is_dir():
        if not path.is_file():
            raise InputError(f"expected a Parquet file, or a folder of them, at {path}, found none: check the path")
        return [path]
    found = [
        file
        for file in path.rglob("*.parquet")
        if not any(part.startswith((".", "_")) for part in file.relative_to(path).parts)
    ]
    if not found:
        raise InputError(f"expected Parquet files in {path}, found none: check the path")
    return sorted(found)


def _damaged(path: Path, error: BaseException) -> InputError:
    reason = " ".join(str(error).split())[:200]
    return InputError(
        f"expected a Parquet file at {path}, could not read it ({reason}): it is truncated, damaged, or no such file"
    )
