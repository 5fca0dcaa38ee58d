"""The log-linear loss and its gradients (paper, equations 1 to 4): pure, in blocks of bounded memory.

For one sentence with embedding s and word counts x the loss is

    L(s) = - Σ_w x_w · log softmax(E1 · E2 · s + b)_w

Its gradients need nothing but the softmax itself, so both come out of one sweep: the block of logits becomes
probabilities, then the gradient with respect to the logits, in the same memory. A block holds all words of a
bounded number of rows, so that memory grows with neither the batch nor the vocabulary. It lies word by word, (V,
rows): all three products with E1 then read it as it lies, and measured up to half as fast again as (rows, V). Per
row the cost is these three products, 6 · V · r floating-point operations; the rest is memory traffic over the block.

The words need not be the whole vocabulary: `fliplens.arithmetic.sampling` hands in those of a sample, with the
logarithm of their weights added to b.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fliplens.devices import runs_triton

__all__ = ["Bags", "Factors", "Workspace", "accumulate", "soft_threshold_", "softmax_"]

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Factors:
    """The parameters of a lens, or the gradients with respect to them."""

    E1: Tensor
    """Word factors A, (V, r); for the full-rank baseline (LiP) the one matrix E, (V, d)."""
    E2: Tensor | None
    """Projection B, (r, d); None for the full-rank baseline."""
    b: Tensor
    """Bias, (V,)."""

    def tensors(self) -> list[Tensor]:
        """Return the tensors there are, E1 first."""
        return [tensor for tensor in (self.E1, self.E2, self.b) if tensor is not None]

    def map(self, function: Callable[[Tensor], Tensor]) -> Factors:
        """Return factors with `function` applied to each tensor."""
        return Factors(
            E1=function(self.E1),
            E2=None if self.E2 is None else function(self.E2),
            b=function(self.b),
        )

    def project(self, embeddings: Tensor) -> Tensor:
        """Return the latent vectors z = E2 · s, (n, r); the embeddings themselves at full rank."""
        return embeddings if self.E2 is None else embeddings @ self.E2.T


@dataclass(frozen=True)
class Bags:
    """Bags of words of a batch in coordinate form; every (row, word) pair occurs at most once."""

    rows: Tensor
    """int64 (nnz,), ascending."""
    words: Tensor
    """int64 (nnz,)."""
    values: Tensor
    """float32 (nnz,): how often the word occurs in the row."""
    n_rows: int
    """Rows of the batch, those without a word included."""

    def totals(self) -> Tensor:
        """Return the number of words of each row, float32 (n_rows,)."""
        return torch.zeros(self.n_rows, device=self.values.device).index_add_(0, self.rows, self.values)


class Workspace:
    """Memory for blocks of logits that is kept from one batch to the next.

    Args:
        block_bytes: upper bound on one float32 block of V × rows; at least one row is always held.
    """

    def __init__(self, block_bytes: int = 96 * 2**20) -> None:
        self.block_bytes = block_bytes
        self._buffer: Tensor | None = None

    def block_rows(self, vocabulary_size: int) -> int:
        """Return how many rows of logits one block holds."""
        return max(1, self.block_bytes // (4 * vocabulary_size))

    def logits(self, vocabulary_size: int, rows: int, device: torch.device) -> Tensor:
        """Return uninitialised float32 memory (V, rows); the next call may return the same."""
        size = rows * vocabulary_size
        if self._buffer is None or self._buffer.numel() < size or self._buffer.device != device:
            self._buffer = torch.empty(size, device=device)
        return self._buffer[:size].view(vocabulary_size, rows)


def accumulate(
    factors: Factors,
    gradients: Factors,
    embeddings: Tensor,
    bags: Bags,
    weights: Tensor | None = None,
    *,
    workspace: Workspace | None = None,
    precision: Precision = "float32",
) -> float:
    """Add the gradients of the summed loss of a batch to `gradients`; return the loss.

    Args:
        factors: E1 (V, r), E2 (r, d) or None, b (V,), float32.
        gradients: tensors of the same shapes, added to in place.
        embeddings: float32 (n, d). For two views, their rows stacked (equation 4).
        bags: the n bags of words.
        weights: float32 (n,), what each row's loss counts: alpha and 1 - alpha for two views; 1 by default.
        workspace: memory to use again; a new one by default.
        precision: of the three large products. bfloat16 rounds their inputs and each product to 8 bits; the
            softmax, the loss and the sums over blocks and batches are float32.

    Returns:
        Σ_n weight_n · L(s_n), natural logarithm.
    """
    if runs_triton(embeddings.device.type):
        from fliplens.arithmetic import objective_triton

        return objective_triton.accumulate(
            factors, gradients, embeddings, bags, weights, workspace=workspace, precision=precision
        )
    workspace = workspace or Workspace()
    n_words = factors.E1.shape[0]
    block_rows = workspace.block_rows(n_words)
    mass = bags.totals()
    values = bags.values
    if weights is not None:
        mass = mass * weights
        values = values * weights[bags.rows]
    low = precision == "bfloat16"
    E1 = factors.E1.bfloat16() if low else factors.E1
    starts = range(0, bags.n_rows, block_rows)
    bounds = torch.searchsorted(bags.rows, torch.tensor([*starts, bags.n_rows], device=bags.rows.device)).tolist()
    loss = 0.0
    for block, start in enumerate(starts):
        stop = min(start + block_rows, bags.n_rows)
        here = slice(bounds[block], bounds[block + 1])
        sentences = embeddings[start:stop]
        latent = factors.project(sentences)
        n_rows = stop - start
        logits = workspace.logits(n_words, n_rows, embeddings.device)
        if low:
            latent = latent.bfloat16()
            logits.copy_(E1 @ latent.T)
        else:
            torch.mm(E1, latent.T, out=logits)
        logits.add_(factors.b[:, None])
        at = bags.words[here] * n_rows + (bags.rows[here] - start)
        observed = logits.view(-1)[at]
        normaliser = softmax_(logits, dim=0)
        loss += float((mass[start:stop] * normaliser).sum() - (values[here] * observed).sum())
        # From here on the block holds the gradient with respect to the logits: mass · probability - counts.
        logits.mul_(mass[start:stop])
        logits.view(-1)[at] -= values[here]
        gradients.b.add_(logits.sum(dim=1))
        slope = logits.bfloat16() if low else logits
        if low:
            gradients.E1.add_(slope @ latent)
        else:
            gradients.E1.addmm_(slope, latent)
        if gradients.E2 is not None:
            gradients.E2.addmm_((E1.T @ slope).float(), sentences)
    return loss


def softmax_(logits: Tensor, *, dim: int = 1) -> Tensor:
    """Turn logits, a matrix, into probabilities along `dim` in place; return log Σ exp along it.

    The sum is read off the largest logit and its probability, which is never below 1 / V: two cheap reductions,
    where `logsumexp` makes block-sized copies and takes several times as long.
    """
    largest = logits.amax(dim=dim)
    torch.softmax(logits, dim=dim, out=logits)
    return largest - logits.amax(dim=dim).log()


def soft_threshold_(weights: Tensor, threshold: float) -> Tensor:
    """Shrink `weights` towards zero by `threshold` in place, to exact zeros below it (section 2.3).

    This is the proximal operator of threshold · |w|; the paper's threshold is learning rate · λ1.
    """
    if threshold < 0:
        raise ValueError(f"threshold must not be negative, found {threshold}")
    return weights.copy_(torch.nn.functional.softshrink(weights, threshold)) if threshold else weights
