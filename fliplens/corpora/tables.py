"""Rows of named columns: CSV, TSV, JSON lines and Parquet, read as they are asked for."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from fliplens.corpora.rows import stream_lines
from fliplens.errors import InputError, MissingExtraError, reason_of

__all__ = ["TABLE_SUFFIXES", "column_names", "is_table", "text_of", "text_rows"]

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
LARGEST_CELL = 1 << 24
"""Characters; more is not a sentence but a quotation mark that was never closed."""
BATCH = 4096
"""Rows of Parquet at once."""


def is_table(path: str | Path) -> bool:
    """Return whether a file's name says that it holds named columns; text may be packed (`.csv.gz`)."""
    return _kind(Path(path)) in TABLE_SUFFIXES


def text_rows(path: str | Path, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Yield the texts of some columns, row by row, in constant memory. What is missing in a row is "".

    Args:
        path: `.csv` and `.tsv` with a head line, `.jsonl` (`.ndjson`) of objects, or `.parquet`.
        columns: names; a dot leads into an object, as in `translation.en`.

    Raises:
        InputError: no such file, or not of its kind; no such column (those that there are, are named); a value that
            is no text.
        MissingExtraError: Parquet without pyarrow.
    """
    path = Path(path)
    reader = _READERS.get(_kind(path))
    if reader is None:
        raise InputError(f"expected a file that ends in {', '.join(TABLE_SUFFIXES)}, found {path}: rename it")
    yield from reader(path, list(columns))


def column_names(path: str | Path) -> list[str]:
    """Return the columns of a file: of its head line, its first object, or its schema.

    Raises:
        InputError: see `text_rows`.
        MissingExtraError: see `text_rows`.
    """
    path = Path(path)
    kind = _kind(path)
    if kind in (".csv", ".tsv"):
        return next(_csv_cells(path), (0, []))[1]
    if kind == ".parquet":
        return [str(name) for name in _parquet(path).schema_arrow.names]
    first = next(_objects(path), None)
    return [] if first is None else list(first[1])


def text_of(value: Any, column: str, place: str) -> str:
    """Return the text of a cell; None is an empty one.

    Raises:
        InputError: it holds something else.
    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"expected text in column {column} of {place}, found {type(value).__name__}: name another")
    return value


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


def _csv_cells(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells; the first are the head."""
    reader = csv.reader(
        (line + "\n" for line in stream_lines(path)), delimiter="\t" if _kind(path) == ".tsv" else ",", strict=True
    )
    before = csv.field_size_limit(LARGEST_CELL)
    try:
        for cells in reader:
            yield reader.line_num, cells
    except csv.Error as error:
        raise InputError(
            f"expected rows of {_kind(path)[1:].upper()} in {path}, found something else in line {reader.line_num} "
            f"({error}): are its quotation marks closed and doubled?"
        ) from error
    finally:
        csv.field_size_limit(before)


def _csv_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    cells = _csv_cells(path)
    _, head = next(cells, (0, []))
    missing = [column for column in columns if column not in head]
    if missing:
        raise no_column(missing, head, path)
    places = [head.index(column) for column in columns]
    for line, row in cells:
        if not row:
            continue  # an empty line
        if len(row) != len(head):
            raise InputError(
                f"expected {len(head)} columns ({', '.join(head)}) in line {line} of {path}, found {len(row)}"
            )
        yield tuple([row[place] for place in places])


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(stream_lines(path), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"expected a JSON object in line {number} of {path}, found something else ({error})"
            ) from error
        if not isinstance(value, dict):
            raise InputError(f"expected a JSON object in line {number} of {path}, found {type(value).__name__}")
        yield number, value


def _json_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    names = [[column] if "." not in column else column.split(".") for column in columns]
    seen = [False] * len(names)
    first: list[str] = []
    number = 0
    for number, value in _objects(path):
        first = first or list(value)
        texts = []
        for place, (column, parts) in enumerate(zip(columns, names, strict=True)):
            # A name with a dot in it may also be just that.
            found, there = (value[column], True) if column in value else inside(value, parts)
            seen[place] = seen[place] or there
            texts.append(text_of(found, column, f"line {number} of {path}"))
        yield tuple(texts)
    # JSON lines may leave out what they have nothing for; a column that no line has is misspelt.
    missing = [column for column, there in zip(columns, seen, strict=True) if not there]
    if missing and number:
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
        raise InputError(f"expected a Parquet file at {path}, could not read it ({reason_of(error)})") from error


def _parquet_rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
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
        try:
            for batch in file.iter_batches(batch_size=BATCH, columns=list(dict.fromkeys(tops))):
                sides = []
                for top, parts in zip(tops, names, strict=True):
                    array = batch.column(top)
                    for part in parts:
                        array = array.field(part)
                    sides.append(array.to_pylist())
                for texts in zip(*sides, strict=True):
                    yield tuple([text or "" for text in texts])
        except (pyarrow.ArrowException, OSError) as error:
            raise InputError(
                f"expected a whole Parquet file at {path}, could not read it ({reason_of(error)})"
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
