"""Scores in one stated order of float32 operations: the same whatever they are computed with. Pure.

Matrix products in float32 depend on the shapes of their matrices, on threads and on the processor. What "exact"
means of a lens's scores is therefore stated here. For a row s and a word w:

1. z = E2 · s (`Prepared.latents`): s is rounded to multiples of 2^-24 of the power of two above its largest entry;
   each row of E2 becomes the sum of two such roundings, coarse and fine, of so few bits that every partial sum of
   their products with s is an integer of at most 2^53, and so exact in float64 in any order. The two sums are added
   in float64 and rounded to float32 once. At full rank z = s.
2. The products E1[w, k] · z[k] in float32; then, while more than one term is left, with h the largest power of
   two below their number, terms h, h + 1, ... are added to terms 0, 1, ... and dropped (`ordered_sum`).
3. The bias is added in float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fliplens.arithmetic.objective import Factors

__all__ = ["FLOAT32_ROUNDOFF", "Prepared", "gamma", "ordered_scores", "ordered_sum", "projection_bits"]

FLOAT32_ROUNDOFF = 2.0**-24
# What a step of scoring pairs holds: enough to hide its calls, little enough for the cache.
CHUNK_BYTES = 2 * 2**20


class Prepared:
    """What reading needs of the factors whatever is read: lengths of E1's rows, and E2 in two parts.

    Args:
        factors: of the lens, float32, finite.
    """

    def __init__(self, factors: Factors) -> None:
        self.lengths = _lengths(factors.E1)
        self.longest = float(self.lengths.max())
        self.E2_length = 0.0 if factors.E2 is None else float(factors.E2.double().norm())
        if factors.E2 is not None:
            self._bits = projection_bits(factors.E2.shape[1])
            self._unit = _power_above(factors.E2)
            scaled = factors.E2.double() / self._unit * 2.0**self._bits
            self._coarse = scaled.round()
            self._fine = ((scaled - self._coarse) * 2.0**self._bits).round_()
        self._projects = factors.E2 is not None

    def latents(self, embeddings: Tensor) -> Tensor:
        """Return z = E2 · s in float32, (rows, r): each row's the same whatever other rows it comes with.

        Matrix products in float32 depend on the shapes of the matrices; these are sums of integers, exact in any
        order.

        Args:
            embeddings: float32 (rows, d), finite.
        """
        if not self._projects:
            return embeddings
        unit = _power_above(embeddings)
        whole = (embeddings.double() / unit * 2.0**24).round_()
        exact = (whole @ self._coarse.T) + (whole @ self._fine.T) * 2.0**-self._bits
        return (exact * (unit * 2.0**-24) * (self._unit.T * 2.0**-self._bits)).float()


def ordered_sum(terms: Tensor) -> Tensor:
    """Return the sum of the last dimension by halves, in place: the second step of the stated order."""
    while terms.shape[-1] > 1:
        half = 1 << (terms.shape[-1] - 1).bit_length() - 1
        terms[..., : terms.shape[-1] - half] += terms[..., half:]
        terms = terms[..., :half]
    return terms[..., 0]


def ordered_scores(E1: Tensor, b: Tensor, latent: Tensor, words: Tensor, rows: Tensor) -> Tensor:
    """Return the scores of pairs of a word and a row in the stated order, float32 (pairs,).

    Args:
        E1: float32 (V, r).
        b: float32 (V,).
        latent: float32 (rows, r), as `Prepared.latents` gives them.
        words: int64 (pairs,).
        rows: int64 (pairs,).
    """
    out = torch.empty(len(words), device=E1.device)
    size = max(1, CHUNK_BYTES // (4 * E1.shape[1]))
    for start in range(0, len(words), size):
        here = slice(start, start + size)
        out[here] = ordered_sum(E1[words[here]].mul_(latent[rows[here]]))
    return out.add_(b[words])


def _lengths(E1: Tensor) -> Tensor:
    """Return upper bounds of the Euclidean lengths of E1's rows, float32 (V,)."""
    # Squares of tiny numbers underflow, and of large ones overflow: scaled by the largest they do neither.
    largest = float(E1.abs().max()) or 1.0
    lengths = torch.empty(len(E1), device=E1.device)
    size = max(1, CHUNK_BYTES // (4 * E1.shape[1]))
    for start in range(0, len(E1), size):
        lengths[start : start + size] = (E1[start : start + size] / largest).square_().sum(dim=1).sqrt_()
    return lengths.mul_(largest * (1.01 + 2 * E1.shape[1] * FLOAT32_ROUNDOFF)).add_(largest * E1.shape[1] * 1e-18)


def projection_bits(dim: int) -> int:
    """Return the bits of each part of E2: d products with 24 bits of s stay within float64's 53."""
    return 29 - math.ceil(math.log2(max(2, dim)))


def _power_above(rows: Tensor) -> Tensor:
    """Return for each row the power of two above its largest absolute entry, 1 for a zero row; float64 (rows, 1)."""
    largest = rows.abs().amax(dim=1, keepdim=True).double()
    fraction, _ = torch.frexp(largest)
    return torch.where(largest > 0, largest / fraction, 1.0)


def gamma(terms: int) -> float:
    """Return γ_k = k·u / (1 - k·u) of float32, which bounds the relative error of k roundings."""
    return terms * FLOAT32_ROUNDOFF / (1 - terms * FLOAT32_ROUNDOFF)
