"""From vectors to scores and top words, block by block (paper, equation 5): pure.

`score_blocks` and `top_n` serve those who need every score. `Reader` finds the top words alone, and finds them
exactly: first a cheap sweep of matrix products says which few words of each row could be among its best, then
those are scored again in the order of operations that `fliplens.arithmetic.ordered` states. What comes out is the
same however rows are batched, whatever the block sizes, the number of threads and the precision of the sweep.

Why no word is missed: with u = 2^-24 and γ_k = k·u / (1 - k·u), a float32 dot product of k terms in any order,
fused or not, is off by at most γ_k · |E1[w]| · |z| (Higham, Accuracy and Stability of Numerical Algorithms, section
3.1). The sweep and the stated order therefore differ by at most the reach lengths[w] · slack[row] + flat[row], and
a word whose sweep score plus reach is below n other words' sweep scores minus theirs is not among the best n.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fliplens.arithmetic.objective import Factors
from fliplens.arithmetic.ordered import FLOAT32_ROUNDOFF, Prepared, gamma, ordered_scores, projection_bits
from fliplens.devices import multiplies_bfloat16
from fliplens.embeddings import Embeddings
from fliplens.errors import InputError

__all__ = [
    "Best",
    "Reader",
    "folding_pays",
    "score_blocks",
    "sweep_precision",
    "top_n",
]

BLOCK_BYTES = 64 * 2**20
# Sizes at which reading V = 100,000 at rank 512 ran fastest on the two cores of a Zen 3, of those tried.
MOST_ROWS = 512
TILE_SCORES = 2**21
GROUP = 32
# Scores of rows' best words, words to be scored again, and groups looked into, that are held at a time.
MOST_KEPT = 2**21
MOST_WAITING = 2**16
MOST_HOT = 2**13
# A sweep in bfloat16 first makes a copy of E1, which a handful of rows does not repay.
LEAST_ROWS_BFLOAT16 = 64

BFLOAT16_ROUNDOFF = 2.0**-8

Precision = Literal["float32", "bfloat16"]


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


# What the sweep costs ------------------------------------------------------------------------------------------


def sweep_precision(kind: str, rows: int) -> Precision:
    """Return the precision of the sweep's products: bfloat16 where the device multiplies it and rows repay a copy.

    Args:
        kind: of device: "cpu", "cuda", "mps".
        rows: how many will be read.
    """
    return "bfloat16" if rows >= LEAST_ROWS_BFLOAT16 and multiplies_bfloat16(kind) else "float32"


def folding_pays(rows: int, n_words: int, dim: int, rank: int | None, *, most_bytes: int = 2**30) -> bool:
    """Return whether to sweep with E1 · E2, multiplied once, instead of with E1 after E2.

    A row costs 2·r·(d + V) operations by E1 · (E2 · s) and 2·d·V by (E1 · E2) · s, whose making costs 2·V·d·r. So
    folding can only pay where r is near d or above.

    Args:
        rows: how many will be read.
        n_words: V.
        dim: d.
        rank: r; None at full rank, where there is nothing to fold.
        most_bytes: the product (V, d) is kept in memory; one larger than this is not made.
    """
    if rank is None or 4 * n_words * dim > most_bytes:
        return False
    return rows * n_words * dim + n_words * dim * rank < rows * rank * (dim + n_words)


# Reading -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Best:
    """The n best words of each row."""

    indices: Tensor
    """int64 (rows, n), best first; of equal scores the lower index first."""
    scores: Tensor
    """float32 (rows, n), in the stated order of operations."""
    normalisers: Tensor | None
    """log Σ exp of all scores of a row, float32 (rows,), from the sweep: to float32's rounding; None unless asked."""


class Reader:
    """Finds the exact best words of many vectors without holding rows × V scores.

    Args:
        factors: of the lens, float32. Its bias is not used: `top` takes one, at some position of the dial.
        precision: of the sweep's products; the result does not depend on it. bfloat16 keeps a copy of E1.
        folded: sweep with the product E1 · E2 (see `folding_pays`); the result does not depend on it.
        prepared: of the same factors, where it is there already.
        tile_scores: how many scores (words × rows) one step of the sweep holds.
        most_rows: how many rows it takes at a time.
    """

    def __init__(
        self,
        factors: Factors,
        *,
        precision: Precision = "float32",
        folded: bool = False,
        prepared: Prepared | None = None,
        tile_scores: int = TILE_SCORES,
        most_rows: int = MOST_ROWS,
    ) -> None:
        self.factors = factors
        self.precision: Precision = precision
        self.folded = folded and factors.E2 is not None
        self.prepared = Prepared(factors) if prepared is None else prepared
        matrix = factors.E1 @ factors.E2 if self.folded and factors.E2 is not None else factors.E1
        self.matrix = matrix.bfloat16() if precision == "bfloat16" else matrix
        self._tile_scores = tile_scores
        self._most_rows = most_rows

    def top(self, embeddings: Tensor, bias: Tensor, n: int, *, normalise: bool = False) -> Best:
        """Return the n best words of every row.

        Args:
            embeddings: float32 (rows, d), finite, on the device of the factors.
            bias: float32 (V,).
            n: 1..V.
            normalise: also return log Σ exp of all scores of each row; wants a sweep in float32.

        Raises:
            InputError: vectors or factors so large that scores could overflow float32.
        """
        if normalise and self.precision != "float32":
            raise ValueError("expected a float32 sweep for normalisers, found bfloat16")
        rows = len(embeddings)
        if rows == 1:
            # A product with one column takes longer than one with two: it runs on one processor.
            two = self.top(embeddings.expand(2, -1), bias, n, normalise=normalise)
            normalisers = None if two.normalisers is None else two.normalisers[:1]
            return Best(two.indices[:1], two.scores[:1], normalisers)
        best = Best(
            torch.empty((rows, n), dtype=torch.int64, device=bias.device),
            torch.empty((rows, n), device=bias.device),
            torch.empty(rows, device=bias.device) if normalise else None,
        )
        size = max(1, min(self._most_rows, rows, MOST_KEPT // n))
        tile = max(GROUP, min(self._tile_scores // size, len(bias)))
        buffer = torch.empty((-(-tile // GROUP) * GROUP, size), device=bias.device)
        for start in range(0, rows, size):
            sweep = _Sweep(self, embeddings[start : start + size], bias, n, buffer, normalise)
            here = slice(start, start + size)
            best.indices[here], best.scores[here] = sweep.run()
            if best.normalisers is not None:
                best.normalisers[here] = sweep.normalisers()
        return best


class _Sweep:
    """One sweep over all words for a block of rows: what is known so far of the rows' best."""

    def __init__(
        self, reader: Reader, embeddings: Tensor, bias: Tensor, n: int, buffer: Tensor, normalise: bool
    ) -> None:
        factors, rows, device = reader.factors, len(embeddings), bias.device
        self.E1, self.bias, self.n = factors.E1, bias, n
        self.latent = reader.prepared.latents(embeddings)
        self.matrix = reader.matrix
        vectors = embeddings if reader.folded else self.latent
        # As (rows, k) in memory: for a few rows, products with its transpose run two to four times as fast.
        self.vectors = vectors.to(self.matrix.dtype).contiguous().T
        self.slack, self.flat = _slack(reader, embeddings, self.latent, bias)
        height = buffer.shape[0]
        self.buffer = buffer.view(-1)[: height * rows].view(height, rows)
        # Enough groups of words for their maxima to give a floor at once, and not more than that.
        self.group = 1 << max(0, min(GROUP.bit_length() - 1, (height // (4 * n)).bit_length() - 1))
        self.lengths = reader.prepared.lengths
        # Exact best so far, and lower bounds of n different words' scores: the floor no word below matters.
        self.scores = torch.full((rows, n), -math.inf, device=device)
        self.words = torch.zeros((rows, n), dtype=torch.int64, device=device)
        self.settled = torch.full((rows,), -math.inf, device=device)
        self.bounds = torch.full((n, rows), -math.inf, device=device)
        self.waiting: list[tuple[Tensor, Tensor, Tensor]] = []
        self.n_waiting = 0
        self.peak = torch.full((rows,), -math.inf, device=device)
        self.total = torch.zeros(rows, device=device)
        self.normalise = normalise

    def run(self) -> tuple[Tensor, Tensor]:
        """Sweep over all words; return indices and scores of the best, (rows, n) each."""
        for start in range(0, len(self.bias), len(self.buffer)):
            scores = self._multiply(start, min(start + len(self.buffer), len(self.bias)))
            # A group takes one word from each part of the tile: vocabularies in order of frequency hold their best
            # words side by side, and the fewer of them share a group, the higher the floor.
            groups = scores.view(self.group, -1, scores.shape[1])
            maxima = groups.amax(dim=0)
            self._pick(start, groups, maxima)
            if self.normalise:
                peak = torch.maximum(self.peak, maxima.amax(dim=0))
                self.total.mul_((self.peak - peak).exp_()).add_(scores.sub_(peak).exp_().sum(dim=0))
                self.peak = peak
        self._settle()
        return self.words, self.scores

    def normalisers(self) -> Tensor:
        """Return log Σ exp of all scores of each row, (rows,)."""
        return self.peak + self.total.log()

    def _multiply(self, start: int, stop: int) -> Tensor:
        """Return the sweep's scores of words start..stop, (words, rows), filled up to whole groups with -inf."""
        height = -(-(stop - start) // self.group) * self.group
        scores = self.buffer[:height]
        scores[stop - start :] = -math.inf
        real, bias = scores[: stop - start], self.bias[start:stop, None]
        if self.matrix.dtype == torch.float32:
            torch.addmm(bias, self.matrix[start:stop], self.vectors, out=real)
        else:
            real.copy_(self.matrix[start:stop] @ self.vectors).add_(bias)
        return scores

    def _pick(self, start: int, groups: Tensor, maxima: Tensor) -> None:
        """Put the words of a tile that could be among the best on the list of those to be scored again."""
        n_groups = len(maxima)
        lengths = self.lengths[start : start + self.group * n_groups]
        lengths = torch.nn.functional.pad(lengths, (0, self.group * n_groups - len(lengths)))
        longest = lengths.view(self.group, n_groups).amax(dim=0)
        reach = torch.outer(longest, self.slack).add_(self.flat)
        bounds = torch.cat([self.bounds, maxima - reach])
        self.bounds = bounds.topk(self.n, dim=0, sorted=False).values
        floor = torch.maximum(self.bounds.amin(dim=0), self.settled)
        hot, rows = torch.nonzero(maxima + reach >= floor, as_tuple=True)
        # Words of the hot groups, one by one; a group is small, and few are hot once the floor stands.
        for part in range(0, len(hot), MOST_HOT):
            hot_part, rows_part = hot[part : part + MOST_HOT], rows[part : part + MOST_HOT]
            upper = groups[:, hot_part, rows_part].T + reach[hot_part, rows_part, None]
            at, member = torch.nonzero(upper >= floor[rows_part, None], as_tuple=True)
            words = start + member * n_groups + hot_part[at]
            # Without a floor yet, even what fills the last group up would pass.
            real = words < len(self.bias)
            self.waiting.append((words[real], rows_part[at][real], upper[at, member][real]))
            self.n_waiting += len(words)
        if self.n_waiting > MOST_WAITING:
            self._settle()

    def _settle(self) -> None:
        """Score the waiting words in the stated order and merge them into the rows' best."""
        if not self.waiting:
            return
        words, rows, upper = (torch.cat(parts) for parts in zip(*self.waiting, strict=True))
        self.waiting, self.n_waiting = [], 0
        floor = torch.maximum(self.bounds.amin(dim=0), self.settled)
        still = upper >= floor[rows]
        words, rows = words[still], rows[still]
        scores = ordered_scores(self.E1, self.bias, self.latent, words, rows)
        n_rows, device = len(self.latent), words.device
        held = torch.isfinite(self.scores)
        rows = torch.cat([torch.nonzero(held, as_tuple=True)[0], rows])
        words = torch.cat([self.words[held], words])
        scores = torch.cat([self.scores[held], scores])
        # By row, in it by falling score, in that by index: three stable sorts from the last key to the first.
        order = words.argsort(stable=True)
        order = order[scores[order].argsort(descending=True, stable=True)]
        order = order[rows[order].argsort(stable=True)]
        rows = rows[order]
        counts = torch.bincount(rows, minlength=n_rows)
        place = torch.arange(len(rows), device=device) - (counts.cumsum(0) - counts)[rows]
        best = place < self.n
        self.words[rows[best], place[best]] = words[order][best]
        self.scores[rows[best], place[best]] = scores[order][best]
        # A later word that only equals the n-th best comes behind it.
        worst = self.scores[:, -1]
        self.settled = torch.where(
            torch.isfinite(worst), torch.nextafter(worst, torch.full_like(worst, math.inf)), worst
        )


def _slack(reader: Reader, embeddings: Tensor, latent: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Return slack and flat (rows,): |sweep - stated order| <= lengths[w] · slack[row] + flat[row].

    Everything relative to |E1[w]| · |z|: the sweep's dot product γ_k, the stated order's γ of its few additions, and
    some units for adding the bias and comparing; in bfloat16 the rounding of both inputs, of the product and of
    a partial sum, which some libraries keep in bfloat16 too. Where float32 products may run in a lower precision
    (`torch.set_float32_matmul_precision`), inputs count as rounded to bfloat16. A folded sweep adds what
    rounding E1 · E2 (γ_r) and `Prepared.latents` do to the scores: |E1[w]| · |E2|_F · |s| times the errors below.
    A zero row scores the bias itself, without any error.
    """
    prepared, k, r = reader.prepared, reader.matrix.shape[1], latent.shape[1]
    full = _float32_is_full()
    relative = gamma(k) + gamma(math.ceil(math.log2(max(2, r))) + 1) + 16 * FLOAT32_ROUNDOFF
    if reader.precision == "bfloat16" or not full:
        relative += 4.1 * BFLOAT16_ROUNDOFF
    size = latent.double().norm(dim=1)
    if reader.folded:
        d = embeddings.shape[1]
        size = prepared.E2_length * embeddings.double().norm(dim=1)
        product = gamma(r) + (0.0 if full else 4.1 * BFLOAT16_ROUNDOFF)
        rounded = d**0.5 * (FLOAT32_ROUNDOFF + 2.0 ** (-2 * projection_bits(d))) + 4 * FLOAT32_ROUNDOFF
        relative += product * (1 + relative) + rounded
    slack = 1.01 * relative * size
    largest_bias, longest, largest = float(bias.abs().max()), prepared.longest, float(size.max())
    if not max(longest * largest + largest_bias, longest, largest) < 1e37:
        raise InputError(
            "expected a lens and vectors whose scores stay within float32's range, found some that may exceed 1e37: "
            "scale them down"
        )
    # What lies below the smallest normal number may be lost: that much of each factor times the other, at most.
    tiny = (k + r + 8) * 2.0**-120 * max(1.0, longest, largest)
    flat = torch.full_like(slack, 16 * FLOAT32_ROUNDOFF * largest_bias + tiny)
    flat[(embeddings if reader.folded else latent).any(dim=1).logical_not()] = 0.0
    return slack.float(), flat.float()


def _float32_is_full() -> bool:
    """Return whether products of float32 matrices are in float32, which torch can be told not to insist on."""
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:
        # How torch says that it was told so for one kind of device alone.
        return False
