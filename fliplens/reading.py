"""From vectors to scores and top words, block by block (paper, equation 5): pure."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fliplens.embeddings import Embeddings
from fliplens.objective import Factors

__all__ = ["score_blocks", "top_n"]

BLOCK_BYTES = 64 * 2**20


def score_blocks(
    embeddings: Embeddings, factors: Factors, *, most_rows: int | None = None, block_bytes: int = BLOCK_BYTES
) -> Iterator[tuple[int, Tensor]]:
    """Yield (first row, E1 · E2 · s) without a bias over all rows, a bounded block (rows, V) at a time.

    The next block reuses the memory of the last one: copy what must outlive it.
    """
    n_words = factors.E1.shape[0]
    size = max(1, min(len(embeddings), most_rows or len(embeddings), block_bytes // (4 * n_words)))
    buffer = torch.empty((size, n_words), device=factors.E1.device)
    for start, rows in embeddings.blocks(size):
        latent = factors.project(torch.from_numpy(rows).to(factors.E1.device))
        yield start, torch.mm(latent, factors.E1.T, out=buffer[: len(rows)])


def top_n(scores: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the n largest scores of each row and their indices, best first; ties go to the lower index.

    `torch.topk` alone leaves the order of ties, and which of several equal scores makes the cut, open.

    Args:
        scores: (rows, V), free of NaN.
        n: 1..V.

    Returns:
        indices int64 (rows, n) and scores (rows, n).
    """
    n_words = scores.shape[1]
    values, indices = torch.topk(scores, min(n + 1, n_words), dim=1)
    if n < n_words:
        undecided = torch.nonzero(values[:, n - 1] == values[:, n])[:, 0].tolist()
        values, indices = values[:, :n], indices[:, :n]
        for row in undecided:
            above = torch.nonzero(scores[row] > values[row, -1])[:, 0]
            level = torch.nonzero(scores[row] == values[row, -1])[:, 0]
            indices[row] = torch.cat([above, level[: n - len(above)]])
            values[row] = scores[row, indices[row]]
    # Sort by index, then stably by score: equal scores keep the order of their indices.
    indices, order = indices.sort(dim=1)
    values, order = values.gather(1, order).sort(dim=1, descending=True, stable=True)
    return indices.gather(1, order), values
