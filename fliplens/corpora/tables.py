"""Rows of named columns: CSV, TSV, JSON lines and Parquet, read as they are asked for."""

from __future__ import annotations

import csv
import json
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fliplens.corpora.counting import BadRows, Counts
from fliplens.corpora.rows import stream_lines
from fliplens.errors import InputError, MissingExtraError, reason_of

__all__ = ["TABLE_SUFFIXES", "inside", "is_table", "no_column", "not_text", "text_of", "text_rows"]

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
LARGEST_CELL = 1 << 24
"""Characters; more is not a sentence but a quotation mark that was never closed."""
BATCH = 4096
"""Rows of Parquet at once."""


def is_table(path: str | Path) -> bool:
    """Return whether a file's name says that it holds named columns; text may be packed (`.csv.gz`)."""
    return _kind(Path(path)) in TABLE_SUFFIXES


def text_rows(path: str | Path, columns: Sequence[str], counts: Counts | None = None) -> Iterator[tuple[str, ...]]:
    """Yield the texts of some columns, row by row, in constant memory. What is missing in a row is "".

    A row of another number of columns, with quotation marks that are not closed, without JSON or with something else
    than text is counted as malformed and left out.

    Args:
        path: `.csv` and `.tsv` with a head line, `.jsonl` (`.ndjson`) of objects, or `.parquet`. Cells of `.tsv`
            may be quoted, and need not be.
        columns: names; a dot leads into an object, as in `translation.en`.
        counts: gets how many rows were read, and how many of them were malformed.

    Raises:
        InputError: no such file, or not of its kind; no such column (those that there are, are named); no row that
            is laid out as the others.
        MissingExtraError: Parquet without pyarrow.

    Warns:
        FliplensWarning: rows were left out; the first one is told.
    """
    path = Path(path)
    reader = _READERS.get(_kind(path))
    if reader is None:
        raise InputError(
            f"expected a file that ends in {', '.join(TABLE_SUFFIXES)}, found {path}: save it as one of these"
        )
    yield from reader(path, list(columns), Counts() if counts is None else counts)


def text_of(value: Any) -> str | None:
    """Return the text of a cell, "" of an empty one; None where it holds something else."""
    if value is None:
        return ""
    return value if isinstance(value, str) else None


def not_text(value: Any, column: str, place: str) -> str:
    """Return what is wrong with a cell that holds something else than text."""
    return f"expected text in column {column} of {place}, found {type(value).__name__}"


def no_column(missing: Sequence[str], there: Sequence[str], path: str | Path) -> InputError:
    """Return the error that names the columns that are not there and those that are."""
    return InputError(
        f"expected a column {', '.join(missing)} in {path}, found {', '.join(map(str, there)) or 'no columns'}: "
        "name another with --columns"
    )


def inside(value: Any, names: Sequence[str]) -> tuple[Any, bool]:
    """Return what a dotted name means in an object, and whether every part of the name is there."""
    for name in names:
        if value is None:
            return None, True
        if not isinstance(value, dict) or name not in value:
            return None, False
        value = value[name]
    return value, True


def _kind(path: Path) -> str:
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()


class _Lines:
    """The lines of a file, for a CSV reader that may have to give some back."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._again: deque[str] = deque()
        self._taken: list[str] = []
        self._size = 0
        self.number = 0
        """Of the line that was taken last, from 1."""

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        """Return the next line of a record, for the CSV reader, which wants its end too."""
        line = self._again.popleft() if self._again else next(self._lines)
        self.number += 1
        self._taken.append(line)
        self._size += len(line) + 1
        if self._size > LARGEST_CELL:
            raise csv.Error(f"more than {LARGEST_CELL} characters")
        return line + "\n"

    def first(self) -> str | None:
        """Return the first line of the next record; None at the end."""
        self._taken.clear()
        self._size = 0
        try:
            return next(self).removesuffix("\n")
        except StopIteration:
            return None
        except csv.Error:
            return self._taken[0]

    def give_back(self, kept: int) -> None:
        """Have all lines of this record read again but the first ones."""
        again = self._taken[kept:]
        del self._taken[kept:]
        self._again.extendleft(reversed(again))
        self.number -= len(again)
        self._size = sum(len(line) + 1 for line in self._taken)


def _csv_rows(path: Path, columns: Sequence[str], counts: Counts) -> Iterator[tuple[str, ...]]:
    records = _csv_records(path)
    number, head, problem = next(records, (1, [], ""))
    if problem:
        raise InputError(f"expected names of columns in line {number} of {path}, found {problem}")
    missing = [column for column in columns if column not in head]
    if missing:
        if len(head) == 1 and (other := next((mark for mark in (";", "\t", "|") if mark in head[0]), None)):
            between = "tabs" if path.name.removesuffix(".gz").lower().endswith(".tsv") else "commas"
            raise InputError(
                f"expected columns between {between} in {path}, found {other!r} between them: name a file with tabs "
                ".tsv, and save any other with commas"
            )
        raise no_column(missing, head, path)
    places = [head.index(column) for column in columns]
    expected = f"{len(head)} columns ({', '.join(head)})"
    bad = BadRows(path, counts)
    for number, row, problem in records:
        counts.read += 1
        if problem or len(row) != len(head):
            bad.add(f"expected {expected} in line {number} of {path}, found {problem or len(row)}")
        else:
            yield tuple([row[place] for place in places])
    bad.end()


def _csv_records(path: Path) -> Iterator[tuple[int, list[str], str]]:
    """Yield, of each row, the number of its first line, its cells, and what is wrong with it if something is.

    A quotation mark that is never closed costs its own line alone: the lines behind it are read again.
    """
    delimiter = "\t" if _kind(path) == ".tsv" else ","
    lines = _Lines(stream_lines(path))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    width = 0
    while (line := lines.first()) is not None:
        number, problem = lines.number, ""
        if not line:
            continue
        cells = line.split(delimiter)
        if len(line) >= LARGEST_CELL:
            problem = f"a line of {len(line)} characters"
        elif '"' in line:
            lines.give_back(0)
            try:
                quoted = _next_record(reader)
            except csv.Error as error:
                problem = f"quotation marks that are not closed or not doubled ({error})"
            else:
                if width in (0, len(quoted)):
                    cells = quoted
                else:
                    problem = f"{len(quoted)}"
            if problem:
                lines.give_back(1)
                # Most who write tabs quote nothing: these marks are the text's own.
                if delimiter == "\t" and len(cells) == width:
                    problem = ""
        width = width or len(cells)
        yield number, cells, problem


def _next_record(reader: Iterator[list[str]]) -> list[str]:
    # The limit is one of the whole process.
    before = csv.field_size_limit(LARGEST_CELL)
    try:
        return next(reader)
    finally:
        csv.field_size_limit(before)


def _json_rows(path: Path, columns: Sequence[str], counts: Counts) -> Iterator[tuple[str, ...]]:
    names = [[column] if "." not in column else column.split(".") for column in columns]
    seen = [False] * len(names)
    first: list[str] = []
    bad = BadRows(path, counts)
    for number, line in enumerate(stream_lines(path), 1):
        if not line.strip():
            continue
        counts.read += 1
        place = f"line {number} of {path}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            bad.add(f"expected a JSON object in {place}, found something else ({reason_of(error)})")
            continue
        if not isinstance(value, dict):
            bad.add(f"expected a JSON object in {place}, found {type(value).__name__}")
            continue
        first = first or list(value)
        texts = []
        for column_number, (column, parts) in enumerate(zip(columns, names, strict=True)):
            # A name with a dot in it may also be just that.
            found, there = (value[column], True) if column in value else inside(value, parts)
            seen[column_number] = seen[column_number] or there
            text = text_of(found)
            if text is None:
                bad.add(not_text(found, column, place))
                break
            texts.append(text)
        else:
            yield tuple(texts)
    bad.end()
    # JSON lines may leave out what they have nothing for; a column that no line has is misspelt.
    missing = [column for column, there in zip(columns, seen, strict=True) if not there]
    if missing and first:
        raise no_column(missing, first, path)


def _parquet(path: Path) -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("reading Parquet", "parquet") from error
    try:
        return pyarrow.parquet.ParquetFile(path)
    except FileNotFoundError as error:
        raise InputError(f"expected a Parquet file at {path}, found none: check the path") from error
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(
            f"expected a Parquet file at {path}, could not read it ({reason_of(error)}): copy or download it again"
        ) from error


def _parquet_rows(path: Path, columns: Sequence[str], counts: Counts) -> Iterator[tuple[str, ...]]:
    import pyarrow

    with _parquet(path) as file:
        there = file.schema_arrow.names
        tops = [column if column in there else column.split(".")[0] for column in columns]
        missing = [column for column, top in zip(columns, tops, strict=True) if top not in there]
        if missing:
            raise no_column(missing, there, path)
        names = [column.removeprefix(top).split(".")[1:] for column, top in zip(columns, tops, strict=True)]
        for column, top, parts in zip(columns, tops, names, strict=True):
            _check_type(file.schema_arrow.field(top).type, parts, column, path)
        before = counts.read
        try:
            for batch in file.iter_batches(batch_size=BATCH, columns=list(dict.fromkeys(tops))):
                sides = []
                for top, parts in zip(tops, names, strict=True):
                    array = batch.column(top)
                    for part in parts:
                        array = array.field(part)
                    sides.append(array.to_pylist())
                for texts in zip(*sides, strict=True):
                    counts.read += 1
                    yield tuple([text or "" for text in texts])
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(
                f"expected a whole Parquet file at {path}, could not read row {counts.read - before + 1} and those "
                f"behind it ({reason_of(error)}): copy or download it again"
            ) from error


def _check_type(kind: Any, parts: Sequence[str], column: str, path: Path) -> None:
    """Raise InputError unless a column, or what a dotted name leads to in it, is text."""
    from pyarrow import types

    for part in parts:
        index = kind.get_field_index(part) if types.is_struct(kind) else -1
        if index < 0:
            there = [kind.field(number).name for number in range(kind.num_fields)] if types.is_struct(kind) else []
            raise no_column([column], there, path)
        kind = kind.field(index).type
    if types.is_dictionary(kind):
        kind = kind.value_type
    if not (types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)):
        raise InputError(f"expected text in column {column} of {path}, found {kind}: name another")


_READERS = {
    ".csv": _csv_rows,
    ".tsv": _csv_rows,
    ".jsonl": _json_rows,
    ".ndjson": _json_rows,
    ".parquet": _parquet_rows,
}
