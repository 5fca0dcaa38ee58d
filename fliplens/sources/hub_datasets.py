"""A dataset of the Hugging Face Hub: downloaded by the library `datasets`, once, and mapped from its cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fliplens.embeddings.matrix import Embeddings
from fliplens.errors import FliplensError, InputError, MissingExtraError, reason_of
from fliplens.sources.columns import no_vector, text_column, texts_of, vector_column, vectors_of
from fliplens.sources.specs import SourceSpec

__all__ = ["open_texts", "open_vectors"]


def open_vectors(source: SourceSpec) -> Embeddings:
    """Map a column of a split.

    Raises:
        InputError: no such dataset, split or column, or rows that are no vectors of one length.
        FliplensError: it could not be had.
        MissingExtraError: `datasets` is not installed.
    """
    table, files = _load(source)
    name = vector_column(table.schema, source, Path(source.place))
    parts: list[Any] = []
    dim = None
    first = 0
    for chunk in table.column(name).chunks:
        if len(chunk):
            array = vectors_of(chunk, dim, name=name, file=Path(source.place), first=first)
            first += len(array)
            dim = array.shape[1]
            if not dim:
                raise no_vector(name, Path(source.place), first)
            parts.append(array)
    if not parts or not dim:
        raise InputError(f"expected at least one vector in {source}, found none: name a split that has rows")
    # Which chunk lies in which file is the library's business: the first one's state tells whether they changed.
    return Embeddings(parts, name=str(source), files=[files[0] if files else None] * len(parts))


def open_texts(source: SourceSpec) -> list[str]:
    """Read a column of text of a split."""
    table, _ = _load(source)
    name = text_column(table.schema, source, Path(source.place))
    return texts_of(table.column(name).chunks, name=name, file=Path(source.place))


def _load(source: SourceSpec) -> tuple[Any, list[Path]]:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError("a dataset of the Hugging Face Hub", "datasets") from error

    name, _, revision = source.place.partition("@")
    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        found = datasets.load_dataset(
            name, source.options.get("config"), split=source.options.get("split", "train"), revision=revision or None
        )
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        reason = reason_of(error)
        kind = InputError if isinstance(error, ValueError | FileNotFoundError) else FliplensError
        raise kind(
            f"expected the dataset {source}, could not load it ({reason}): check name, split and network"
        ) from error
    finally:
        if not bars:
            datasets.enable_progress_bars()
    return found.data.table, [Path(file["filename"]) for file in found.cache_files]
