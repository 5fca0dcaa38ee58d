"""Parallel rows to train on: one or two views of the same sentences with their words, and batches of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from fliplens.anchoring import Coordinates
from fliplens.embeddings import Embeddings
from fliplens.objective import Bags

__all__ = ["Views", "batch", "batches"]


@dataclass(frozen=True)
class Views:
    """Parallel rows to train or stop on: one or two views of the same sentences, and their words."""

    counts: csr_matrix
    """Bags of words (n, V), float32."""
    primary: Embeddings
    """The view that alpha weighs, n rows."""
    paired: Embeddings | None = None
    """The second view (speech, another language), n rows."""

    def weighted(self, alpha: float) -> list[tuple[Embeddings, float]]:
        """Return the views that count, each with its weight; weights sum to 1.

        Without a paired view the primary one has weight 1; a view of weight 0 is left out.
        """
        if self.paired is None:
            return [(self.primary, 1.0)]
        both = [(self.primary, alpha), (self.paired, 1.0 - alpha)]
        return [(view, weight) for view, weight in both if weight > 0]


def batches(n: int, size: int, *, seed: int, number: int) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of each step of one pass: a fresh shuffle, each batch in file order for the disk's sake.

    The order is a pure function of the arguments, so that an interrupted pass goes on where it stopped.

    Args:
        n: rows there are.
        size: rows a step, at most.
        seed: of the run.
        number: of the pass, from 1.
    """
    order = np.random.default_rng([seed, number]).permutation(n)
    for start in range(0, n, size):
        yield np.sort(order[start : start + size])


def batch(
    counts: csr_matrix,
    views: list[tuple[Embeddings, float]],
    rows: NDArray[np.int64],
    coordinates: Coordinates,
    device: torch.device,
) -> tuple[Tensor, Bags, Tensor | None]:
    """Return the embeddings of all views stacked, the bags of words to match, and the rows' weights.

    Stacking makes two views one sweep over E1.
    """
    picked = counts[rows]
    k = len(views)
    embeddings = torch.cat([coordinates.apply(view.rows(rows)) for view, _ in views])
    lengths = np.tile(np.diff(picked.indptr), k)
    bags = Bags(
        rows=torch.from_numpy(np.repeat(np.arange(k * len(rows)), lengths)).to(device),
        words=torch.from_numpy(np.tile(picked.indices.astype(np.int64), k)).to(device),
        values=torch.from_numpy(np.tile(picked.data.astype(np.float32), k)).to(device),
        n_rows=k * len(rows),
    )
    weights = None
    if k > 1:
        weights = torch.tensor([weight for _, weight in views]).repeat_interleave(len(rows)).to(device)
    return embeddings.to(device), bags, weights
