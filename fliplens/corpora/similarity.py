"""How alike two views of the same sentences are: the cosine of their vectors, row by row."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fliplens.embeddings import EmbeddingsLike, as_embeddings
from fliplens.errors import InputError
from fliplens.files import atomic_file

__all__ = ["more_alike", "similarities", "write_similarities"]

BLOCK_BYTES = 1 << 24
"""Of the float64 copies of a block's rows."""


def similarities(a: EmbeddingsLike, b: EmbeddingsLike) -> Iterator[NDArray[np.float32]]:
    """Yield the cosine of rows of the same number, block by block.

    A vector of zeros is like nothing: its cosine is 0. Rows that are not finite are refused.

    Args:
        a: (n, d).
        b: (n, d), of the same space.

    Raises:
        InputError: different numbers of rows, or rows that are not finite.
        EmbeddingSpaceError: different sizes of vectors.
    """
    first, second = as_embeddings(a, name="the first view"), as_embeddings(b, name="the second view")
    second.check_dim(first.dim, made_for=f"as in {first.name}")
    if len(first) != len(second):
        raise InputError(
            f"expected as many vectors in both views, found {len(first)} in {first.name} and {len(second)} in "
            f"{second.name}: they must be parallel, row for row"
        )
    size = max(1, BLOCK_BYTES // (8 * first.dim))
    for start, rows in first.blocks(size):
        x, y = rows.astype(np.float64), second.block(start, start + size).astype(np.float64)
        for values, view in ((x, first), (y, second)):
            bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
            if len(bad):
                raise view.not_finite(view.bad_rows())
        lengths = np.sqrt(_dots(x, x) * _dots(y, y))
        yield (_dots(x, y) / np.where(lengths > 0, lengths, 1)).clip(-1, 1).astype(np.float32)


def write_similarities(a: EmbeddingsLike, b: EmbeddingsLike, out: str | Path) -> Path:
    """Write the cosines of two views as an `.npy` (n,) of float32: the `sim_scores` of a `datasets.yaml`.

    Raises:
        InputError: see `similarities`.
        EmbeddingSpaceError: see `similarities`.
    """
    first = as_embeddings(a, name="the first view")
    out = Path(out)
    with atomic_file(out) as stream:
        header: dict[str, Any] = {"descr": "<f4", "fortran_order": False, "shape": (len(first),)}
        np.lib.format.write_array_header_1_0(stream, header)
        for block in similarities(first, b):
            stream.write(block.astype("<f4").tobytes())
    return out


def more_alike(scores: NDArray[np.floating[Any]], threshold: float) -> NDArray[np.int64]:
    """Return the rows whose score is above the threshold; those at it are left out, as in the published code."""
    return np.flatnonzero(np.asarray(scores).reshape(-1) > threshold).astype(np.int64)


def _dots(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.einsum("ij,ij->i", x, y)
    return found
