"""Columns of Arrow tables, whatever file they come from: vectors as arrays without a copy, and texts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fliplens.errors import EmbeddingSpaceError, InputError, MissingExtraError, reason_of
from fliplens.sources.specs import SourceSpec, listed

__all__ = [
    "arrow_failures",
    "arrow_library",
    "check_agreement",
    "damaged",
    "no_vector",
    "text_column",
    "texts_of",
    "vector_column",
    "vector_type",
    "vectors_of",
]

MEND = "mend the row, or leave it out with what belongs to it"
"""What to do about a row that is no vector."""


def arrow_library(module: str = "pyarrow") -> Any:
    """Import pyarrow, or a module of it.

    Raises:
        MissingExtraError: it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError("reading Parquet and Arrow", "parquet") from error


def arrow_failures() -> tuple[type[BaseException], ...]:
    """Return what reading raises; held by generators, which may be closed after the library is gone."""
    return (arrow_library().ArrowException, OSError)


def damaged(file: Path, what: str, error: BaseException) -> InputError:
    """Return the error that a file is not what it should be.

    Args:
        file: which.
        what: what it should be: "a Parquet file".
        error: what the library raised.
    """
    return InputError(
        f"expected {what} at {file}, could not read it ({reason_of(error)}): it is truncated, damaged or of another "
        "kind; write it again"
    )


def no_vector(name: str, file: Path, rows: int) -> InputError:
    """Return the error that the first rows of a column, from which d is to be known, hold no vector."""
    return InputError(
        f"expected vectors in column {name} of {file}, found nulls and empty lists alone in the first {rows} rows: "
        "write the vectors first, or name another column with #column=NAME"
    )


def check_agreement(dim: int | None, found: int | None, before: Path | None, file: Path) -> None:
    """Raise EmbeddingSpaceError unless a file's vectors are as long as those of the one `before` it, if both tell."""
    if dim is not None and found is not None and dim != found:
        raise EmbeddingSpaceError(
            f"expected vectors of {dim} dimensions as in {before}, found {found} in {file}: name files of one encoder"
        )


def vector_column(schema: Any, source: SourceSpec, file: Path) -> str:
    """Return the name of the column of vectors: the one that `column` names, else the only one there is.

    Raises:
        InputError: none of that name or type, or several to choose from.
    """
    return _column(
        schema,
        source,
        file,
        "vectors (lists of floating-point numbers)",
        lambda kind: vector_type(kind) is not None,
        "write each vector as a list of float32",
    )


def text_column(schema: Any, source: SourceSpec, file: Path) -> str:
    """Return the name of the column of texts, in the same way."""
    types = arrow_library().types

    def is_text(kind: Any) -> bool:
        inner = kind.value_type if types.is_dictionary(kind) else kind
        return bool(types.is_string(inner) or types.is_large_string(inner) or types.is_string_view(inner))

    return _column(schema, source, file, "text", is_text, "write each text as a string")


def _column(schema: Any, source: SourceSpec, file: Path, what: str, fits: Any, instead: str) -> str:
    """Return the column to read; `instead` says what to do where there is none that `fits`."""
    good = [field.name for field in schema if fits(field.type)]
    name = source.options.get("column")
    if name is None:
        if len(good) == 1:
            return str(good[0])
        found = f"{len(good)} ({listed(good)})" if good else f"columns {listed(schema.names)}"
        advice = "name one with #column=NAME" if good else instead
        raise InputError(f"expected one column of {what} in {file}, found {found}: {advice}")
    if schema.names.count(name) != 1:
        found = "several" if name in schema.names else listed(schema.names)
        advice = "rename all but one" if name in schema.names else "name one of these"
        raise InputError(f"expected one column {name!r} in {file}, found {found}: {advice}")
    if name not in good:
        advice = f"name another with #column=NAME (of such a type: {listed(good)})" if good else instead
        raise InputError(f"expected {what} in column {name} of {file}, found {schema.field(name).type}: {advice}")
    return name


def vector_type(kind: Any) -> tuple[int | None, str] | None:
    """Return d (None where the type does not tell) and the number type of a column of vectors; None of any other.

    Tensors of one dimension count: an extension type that is registered by its storage, as any other one reads.
    """
    pa = arrow_library()
    types = pa.types
    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    lists = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    if not lists or not types.is_floating(kind.value_type):
        return None
    dtype = {16: "float16", 32: "float32", 64: "float64"}[kind.value_type.bit_width]
    return (kind.list_size if types.is_fixed_size_list(kind) else None), dtype


def vectors_of(column: Any, dim: int | None, *, name: str, file: Path, first: int) -> NDArray[Any]:
    """Return a piece of a column as a matrix (k, d), without a copy where every row is a vector.

    A row that is null or an empty list, which is how tables say that there is no vector, becomes a row of NaN, and so
    does a number that is null: what reads the vectors treats such rows as it treats any that are not finite.

    Args:
        column: an array of lists.
        dim: d; None takes the length of the first list that is not empty, 0 if there is none.
        name: of the column, for messages.
        file: for messages.
        first: number of its first row in the file, for messages.

    Raises:
        InputError: a row is longer or shorter than the others; the message names it.
    """
    pa = arrow_library()
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    try:
        column.validate()
    except pa.ArrowInvalid as error:
        raise InputError(f"expected whole columns in {file}, found a damaged one ({name}): write it again") from error
    there = np.ones(len(column), dtype=bool)
    if column.null_count:
        there = np.asarray(column.is_valid().to_numpy(zero_copy_only=False), dtype=bool)
    if pa.types.is_fixed_size_list(column.type):
        found = column.type.list_size
        if dim is not None and found != dim:
            raise _ragged(name, file, first, dim, found)
        dim = found
    else:
        # The offsets, which are mapped: lengths as Arrow counts them would be a copy with a header of its own.
        width = np.int64 if pa.types.is_large_list(column.type) else np.int32
        offsets = np.frombuffer(column.buffers()[1], dtype=width)[column.offset : column.offset + len(column) + 1]
        lengths = np.diff(offsets)
        there &= lengths > 0
        if dim is None:
            dim = int(lengths[there][0]) if there.any() else 0
        wrong = np.flatnonzero(there & (lengths != dim))
        if len(wrong):
            raise _ragged(name, file, first + int(wrong[0]), dim, int(lengths[wrong[0]]))
    # Of rows that are there alone; a null among the numbers becomes NaN.
    values = column.flatten()
    array: NDArray[Any] = values.to_numpy(zero_copy_only=not values.null_count)
    if there.all():
        return array.reshape(len(column), dim)
    matrix = np.full((len(column), dim), np.nan, dtype=array.dtype)
    matrix[there] = array.reshape(-1, dim) if dim else 0
    return matrix


def _ragged(name: str, file: Path, row: int, dim: int, found: int) -> InputError:
    return InputError(
        f"expected {dim} numbers in every row of column {name} of {file}, found {found} in row {row} (from 0): {MEND}"
    )


def texts_of(chunks: Iterable[Any], *, name: str, file: Path) -> list[str]:
    """Return the texts of a column's pieces.

    Raises:
        InputError: a row is null, or not UTF-8; no row at all.
    """
    texts: list[str] = []
    for chunk in chunks:
        if chunk.null_count:
            row = len(texts) + int(np.flatnonzero(chunk.is_null().to_numpy(zero_copy_only=False))[0])
            raise InputError(
                f"expected a text in every row of column {name} of {file}, found null in row {row} (from 0): "
                "fill it, or leave the row out"
            )
        try:
            texts.extend(chunk.to_pylist())
        except UnicodeDecodeError as error:
            raise InputError(
                f"expected UTF-8 in column {name} of {file}, found other bytes from row {len(texts)} on: "
                "write the column again"
            ) from error
    if not texts:
        raise InputError(f"expected texts in column {name} of {file}, found no row: write the texts first")
    return texts
