"""From batches in whatever order to one array in the order of the inputs: what every encoder's `encode` does."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fliplens.encoders.protocol import BatchEncoder, EncodedBatch, Encoder, over_long
from fliplens.errors import FliplensError, FliplensWarning
from fliplens.progress import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["check_finite", "check_shape", "collect", "encode_all", "unit_of", "warn_of_cut"]


def unit_of(encoder: Encoder) -> str:
    """Return what an encoder's inputs are called, all of them."""
    return "recordings" if encoder.modality == "speech" else "texts"


def encode_all(
    encoder: BatchEncoder, inputs: Sequence[Any], *, show_progress: bool, stacklevel: int = 3
) -> NDArray[np.float32]:
    """Return one vector for each input; see `Encoder.encode`.

    Args:
        encoder: its `batches` make the vectors.
        inputs: n of them, checked.
        show_progress: show a bar on stderr.
        stacklevel: of the warning, as in `warnings.warn`; 3 is who called the function that calls this one.

    Returns:
        (n, d) float32, C-contiguous.

    Raises:
        FliplensError: vectors that are not finite; or what `batches` raises.

    Warns:
        FliplensWarning: the model read only the start of some inputs.
    """
    vectors = np.empty((len(inputs), encoder.dim), dtype=np.float32)
    with Progress("encode", total=len(inputs), unit=unit_of(encoder), show=show_progress) as bar:
        cut = collect(encoder.batches(inputs), vectors, bar)
    check_finite(vectors, encoder)
    warn_of_cut(encoder, cut, len(inputs), stacklevel=stacklevel + 1)
    return vectors


def collect(batches: Iterable[EncodedBatch], vectors: NDArray[np.float32], bar: Progress | None = None) -> int:
    """Put the vectors of batches where their inputs are, and return of how many inputs only the start was read.

    Args:
        batches: of `BatchEncoder.batches`.
        vectors: (n, d), written to.
        bar: moved by every batch.
    """
    cut = 0
    for batch in batches:
        vectors[batch.rows] = batch.vectors
        cut += batch.cut
        if bar is not None:
            bar.update(len(batch.rows))
    return cut


def check_finite(vectors: NDArray[np.float32], encoder: Encoder) -> None:
    """Raise FliplensError where one of the vectors, (n, d), is not finite."""
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        raise FliplensError(
            f"expected finite vectors from {encoder.name}, found {int((~finite).sum())} that are not, the first for "
            f"{unit_of(encoder).removesuffix('s')} {int(np.argmin(finite)) + 1}: check the model's weights"
        )


def check_shape(vectors: NDArray[np.float32], shape: tuple[int, int], encoder: Encoder) -> None:
    """Raise FliplensError unless vectors are an array of this shape, (n, d)."""
    if vectors.shape != shape:
        found = " x ".join(map(str, vectors.shape))
        raise FliplensError(
            f"expected {shape[0]} vectors of {shape[1]} numbers from {encoder.name}, found {found} numbers: name a "
            f"model that gives one vector for each of the {unit_of(encoder)}"
        )


def warn_of_cut(encoder: BatchEncoder, cut: int, n: int, *, stacklevel: int = 3) -> None:
    """Give the one warning that says of how many of n inputs only the start was read, if of any."""
    if cut:
        warnings.warn(over_long(encoder, cut, n), FliplensWarning, stacklevel=stacklevel)
