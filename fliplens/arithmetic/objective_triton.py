"""The loss and its gradients on a CUDA device: Triton kernels that never write a logit to memory.

What `fliplens.arithmetic.objective.accumulate` computes, in three kernels over tiles of rows × words, in the manner
of Cut Cross Entropy (Wijmans et al., arXiv 2411.09009). Each makes a tile of logits afresh from latent vectors and
word factors:

1. the log-normaliser of each row, by a running maximum and sum over the tiles of the vocabulary;
2. the gradients of E1 and b: a program owns a tile of words and goes over tiles of rows;
3. the gradient of the latent vectors: a program owns a tile of rows and goes over tiles of words.

A program adds to memory that no other touches, so there are no atomics and no races, and each kernel sums in one
order every time. The price against one backward kernel that adds under locks (Cut Cross Entropy's) is one more
product with E1, five instead of four. Where tiles are too few to fill the device (256 rows are two), the other axis
is split over programs, as flash-decoding does, and their partial results are added up in a fixed order.

The observed counts are sparse and stay so: plain torch index operations in float32.

**Skipping.** With slope mass_n · p_nv, the part of the gradient that comes from the softmax, a tile is left out of
the products of kernels 2 and 3 if no slope in it reaches t = skip · (mean mass of the rows that hold words); for rows
of equal mass this is Cut Cross Entropy's criterion, p < skip. The gradient of b needs no product and skips nothing.
Every left-out slope is below t, and a row's slopes sum to its mass, so at worst, and in exact arithmetic,

    |error of the gradient of E1_v| ≤ Σ_n t · |z_n|                 over the rows n left out for word v
    |error of the gradient of z_n|  ≤ min(V_n · t, mass_n) · max_v |E1_v|   over the V_n words v left out for row n

Cut Cross Entropy reorders the vocabulary so that small probabilities lie together; ours is in order of frequency
already, which does the same.

This module imports Triton, so import it only where `fliplens.devices.runs_triton` says so. With TRITON_INTERPRET=1
set before Triton is first imported, the same kernels run on CPU tensors, slowly: that is how they are tested without
a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import triton
import triton.language as tl
from torch import Tensor

from fliplens.arithmetic.objective import Bags, Factors, Precision, Workspace

__all__ = ["INTERPRETED", "Tiles", "accumulate", "default_skip", "default_tiles"]


@dataclass(frozen=True)
class Tiles:
    """How the kernels cut their work; sizes are powers of two, at least 16."""

    rows: int
    """Sentences in a tile of logits."""
    words: int
    """Vocabulary words in a tile of logits."""
    depth: int
    """Latent dimensions taken at a time."""
    warps: int = 8
    """Warps of 32 threads in a program."""
    stages: int = 3
    """Tiles on their way from memory at once."""


def default_tiles(precision: Precision) -> Tiles:
    """Return tiles that fit the shared memory of every device since Ampere (99 KiB a program on the smallest)."""
    if precision == "bfloat16":
        return Tiles(rows=128, words=128, depth=32)
    # Honest float32 runs on ordinary cores, where larger tiles spill registers.
    return Tiles(rows=64, words=64, depth=32, stages=2)


def default_skip(precision: Precision) -> float:
    """Return the share of the mean mass below which a tile's slopes are negligible.

    For float32 it is Cut Cross Entropy's: the spacing of numbers at 1, over 32. For bfloat16 theirs would be 2^-12,
    as their sums are bfloat16 and lose what is smaller; ours are float32 and lose nothing, and where training starts,
    with the probabilities of rare words all near their frequency, 2^-12 makes an error above that of rounding.
    2^-16 keeps it below, over all words (docs/model.md).
    """
    return 2.0**-16 if precision == "bfloat16" else 2.0**-28


@triton.jit
def _dot(left, right, INPUT_PRECISION: tl.constexpr, WIDEN: tl.constexpr):
    """Product of two tiles with float32 accumulation.

    Triton's interpreter holds bfloat16 as its bits and multiplies those (triton-lang/triton issue 11584), so there
    the operands are widened first: products of two bfloat16 numbers are exact in float32, so nothing else changes.
    """
    if WIDEN:
        left = left.to(tl.float32)
        right = right.to(tl.float32)
    return tl.dot(left, right, input_precision=INPUT_PRECISION)


@triton.jit
def _logits(
    latent,
    E1,
    b,
    rows,
    words,
    n_rows,
    n_words,
    rank,
    DEPTH: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """Logits of a tile, float32 (rows, words); minus infinity past the end of the vocabulary."""
    # Offsets are 64 bits wide: V · r and n · r may pass 2^31.
    row_start = rows.to(tl.int64)[:, None] * rank
    word_start = words.to(tl.int64)[None, :] * rank
    logits = tl.zeros((rows.shape[0], words.shape[0]), dtype=tl.float32)
    for first in range(0, rank, DEPTH):
        at = first + tl.arange(0, DEPTH)
        z = tl.load(latent + row_start + at[None, :], mask=(rows < n_rows)[:, None] & (at < rank)[None, :], other=0.0)
        e = tl.load(E1 + word_start + at[:, None], mask=(words < n_words)[None, :] & (at < rank)[:, None], other=0.0)
        logits += _dot(z, e, INPUT_PRECISION, WIDEN)
    bias = tl.load(b + words, mask=words < n_words, other=float("-inf"))
    return logits + bias[None, :]


@triton.jit
def _slopes(
    latent,
    E1,
    b,
    mass,
    normaliser,
    rows,
    words,
    n_rows,
    n_words,
    rank,
    DEPTH: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """Slopes mass · p of a tile, float32 (rows, words); zero past either end."""
    logits = _logits(latent, E1, b, rows, words, n_rows, n_words, rank, DEPTH, INPUT_PRECISION, WIDEN)
    m = tl.load(mass + rows, mask=rows < n_rows, other=0.0)
    log_total = tl.load(normaliser + rows, mask=rows < n_rows, other=float("inf"))
    return m[:, None] * tl.exp(logits - log_total[:, None])


@triton.jit
def _add_product(
    slopes,
    factors,
    numbers,
    n_factors,
    gradient,
    places,
    owned,
    rank,
    DEPTH: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """Add slopes (k, m) · factors[numbers] (m, r) to gradient[places] (k, r), DEPTH columns at a time.

    Factors past their end count as zero; places that are not `owned` (k,) are left alone.
    """
    known = numbers < n_factors
    start_of = numbers.to(tl.int64)[:, None] * rank
    for start in range(0, rank, DEPTH):
        at = start + tl.arange(0, DEPTH)
        factor = tl.load(factors + start_of + at[None, :], mask=known[:, None] & (at < rank)[None, :], other=0.0)
        there = gradient + places[:, None] * rank + at[None, :]
        inside = owned[:, None] & (at < rank)[None, :]
        before = tl.load(there, mask=inside, other=0.0)
        tl.store(there, before + _dot(slopes, factor, INPUT_PRECISION, WIDEN), mask=inside)
    # What one thread stored another may load for the next tile.
    tl.debug_barrier()


@triton.jit
def _normaliser_kernel(
    latent,
    E1,
    b,
    partial,
    n_rows,
    n_words,
    rank,
    tiles_each,
    ROWS: tl.constexpr,
    WORDS: tl.constexpr,
    DEPTH: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """Log Σ exp over this program's tiles of words, to partial (splits, n)."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    split = tl.program_id(1)
    first = split * tiles_each
    last = tl.minimum(first + tiles_each, tl.cdiv(n_words, WORDS))
    largest = tl.full((ROWS,), float("-inf"), dtype=tl.float32)
    total = tl.zeros((ROWS,), dtype=tl.float32)
    for tile in range(first, last):
        words = tile * WORDS + tl.arange(0, WORDS)
        logits = _logits(latent, E1, b, rows, words, n_rows, n_words, rank, DEPTH, INPUT_PRECISION, WIDEN)
        # Every tile holds a word, so the maximum is finite from the first one on.
        higher = tl.maximum(largest, tl.max(logits, axis=1))
        total = total * tl.exp(largest - higher) + tl.sum(tl.exp(logits - higher[:, None]), axis=1)
        largest = higher
    tl.store(partial + split.to(tl.int64) * n_rows + rows, largest + tl.log(total), mask=rows < n_rows)


@triton.jit
def _word_gradients_kernel(
    latent,
    E1,
    b,
    mass,
    normaliser,
    threshold,
    gradient_E1,
    gradient_b,
    n_rows,
    n_words,
    rank,
    tiles_each,
    ROWS: tl.constexpr,
    WORDS: tl.constexpr,
    DEPTH: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """Add slopesᵀ · latent to gradient_E1 (splits, V, r) and the slopes' sums to gradient_b (splits, V)."""
    words = tl.program_id(0) * WORDS + tl.arange(0, WORDS)
    split = tl.program_id(1)
    first = split * tiles_each
    last = tl.minimum(first + tiles_each, tl.cdiv(n_rows, ROWS))
    place = split.to(tl.int64) * n_words + words
    least = tl.load(threshold)
    sums = tl.zeros((WORDS,), dtype=tl.float32)
    for tile in range(first, last):
        rows = tile * ROWS + tl.arange(0, ROWS)
        slopes = _slopes(
            latent, E1, b, mass, normaliser, rows, words, n_rows, n_words, rank, DEPTH, INPUT_PRECISION, WIDEN
        )
        sums += tl.sum(slopes, axis=0)
        if tl.max(tl.max(tl.abs(slopes), axis=1), axis=0) >= least:
            turned = tl.trans(slopes.to(latent.dtype.element_ty))
            _add_product(
                turned, latent, rows, n_rows, gradient_E1, place, words < n_words, rank, DEPTH, INPUT_PRECISION, WIDEN
            )
    before = tl.load(gradient_b + place, mask=words < n_words, other=0.0)
    tl.store(gradient_b + place, before + sums, mask=words < n_words)


@triton.jit
def _latent_gradients_kernel(
    latent,
    E1,
    b,
    mass,
    normaliser,
    threshold,
    gradient,
    n_rows,
    n_words,
    rank,
    tiles_each,
    ROWS: tl.constexpr,
    WORDS: tl.constexpr,
    DEPTH: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
):
    """Add slopes · E1 to gradient (splits, n, r)."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    split = tl.program_id(1)
    first = split * tiles_each
    last = tl.minimum(first + tiles_each, tl.cdiv(n_words, WORDS))
    place = split.to(tl.int64) * n_rows + rows
    least = tl.load(threshold)
    for tile in range(first, last):
        words = tile * WORDS + tl.arange(0, WORDS)
        slopes = _slopes(
            latent, E1, b, mass, normaliser, rows, words, n_rows, n_words, rank, DEPTH, INPUT_PRECISION, WIDEN
        )
        if tl.max(tl.max(tl.abs(slopes), axis=1), axis=0) >= least:
            low = slopes.to(E1.dtype.element_ty)
            _add_product(low, E1, words, n_words, gradient, place, rows < n_rows, rank, DEPTH, INPUT_PRECISION, WIDEN)


INTERPRETED = not isinstance(_normaliser_kernel, triton.runtime.jit.JITFunction)
"""Whether the kernels run in Triton's interpreter, on CPU tensors."""


def accumulate(
    factors: Factors,
    gradients: Factors,
    embeddings: Tensor,
    bags: Bags,
    weights: Tensor | None = None,
    *,
    workspace: Workspace | None = None,
    precision: Precision = "float32",
    skip: float | None = None,
    input_precision: Literal["ieee", "tf32"] = "ieee",
    tiles: Tiles | None = None,
    programs: int | None = None,
) -> float:
    """Add the gradients of the summed loss of a batch to `gradients`; return the loss.

    The same as `fliplens.arithmetic.objective.accumulate`, whose arguments come first. The sparse part adds with
    atomics on a GPU: bit for bit the same result twice needs `torch.use_deterministic_algorithms`.

    Args:
        factors: E1 (V, r), E2 (r, d) or None, b (V,), float32.
        gradients: tensors of the same shapes, contiguous, added to in place.
        embeddings: float32 (n, d). For two views, their rows stacked (equation 4).
        bags: the n bags of words.
        weights: float32 (n,), what each row's loss counts; 1 by default.
        workspace: its `block_bytes` bounds the memory of the sparse part.
        precision: of the inputs of the products; bfloat16 rounds latent vectors, word factors and slopes to 8 bits.
            Sums, softmax, loss and gradients are float32 in both.
        skip: least slope, as a share of the mean mass of rows that hold words, for which a tile enters the products;
            0 skips nothing; `default_skip` by default. The module says what error it makes.
        input_precision: of float32 products: "ieee" is float32, "tf32" rounds their inputs to 11 bits.
        tiles: how to cut the work; `default_tiles` by default.
        programs: how many programs to start where the work allows; twice the device's multiprocessors by default.
            Where the work is split, partial gradients take programs · tile · r numbers, some 50 MB at rank 384.

    Returns:
        Σ_n weight_n · L(s_n), natural logarithm.
    """
    workspace = workspace or Workspace()
    tiles = tiles or default_tiles(precision)
    skip = default_skip(precision) if skip is None else skip
    if bags.n_rows == 0:
        return 0.0
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    mass, values = bags.totals(), bags.values
    if weights is not None:
        mass = mass * weights
        values = values * weights[bags.rows]
    kernels = _Kernels(
        latent=factors.project(embeddings).to(dtype).contiguous(),
        E1=factors.E1.to(dtype).contiguous(),
        b=factors.b.contiguous(),
        mass=mass,
        tiles=tiles,
        input_precision=input_precision,
        programs=programs or _programs(embeddings.device),
    )
    threshold = skip * mass.abs().sum() / mass.count_nonzero().clamp(min=1)
    # Triton starts kernels on the current device, which need not be the tensors'.
    with torch.cuda.device_of(embeddings):
        normaliser = kernels.normaliser()
        kernels.add_word_gradients(gradients, normaliser, threshold)
        latent_gradient = None if gradients.E2 is None else kernels.latent_gradient(normaliser, threshold)
    observed = _add_observed(
        kernels.latent, kernels.E1, factors.b, gradients, latent_gradient, bags, values, workspace.block_bytes
    )
    if gradients.E2 is not None and latent_gradient is not None:
        gradients.E2.addmm_(latent_gradient.T, embeddings)
    return float((mass * normaliser).sum() - observed)


class _Kernels:
    """The kernels with what they all read, and how their grids are laid out."""

    def __init__(
        self,
        *,
        latent: Tensor,
        E1: Tensor,
        b: Tensor,
        mass: Tensor,
        tiles: Tiles,
        input_precision: str,
        programs: int,
    ) -> None:
        self.latent, self.E1, self.b, self.mass = latent, E1, b, mass
        self.n_rows, self.rank = latent.shape
        self.n_words = E1.shape[0]
        self.row_tiles = triton.cdiv(self.n_rows, tiles.rows)
        self.word_tiles = triton.cdiv(self.n_words, tiles.words)
        self.programs = programs
        self.options = {
            "ROWS": tiles.rows,
            "WORDS": tiles.words,
            "DEPTH": tiles.depth,
            "INPUT_PRECISION": input_precision,
            "WIDEN": INTERPRETED,
            "num_warps": tiles.warps,
            "num_stages": tiles.stages,
        }

    def normaliser(self) -> Tensor:
        """Return log Σ_w exp(logit_w) of each row, float32 (n,)."""
        each, splits = _split(self.word_tiles, self.row_tiles, self.programs)
        partial = self.b.new_empty(splits, self.n_rows)
        _normaliser_kernel[self.row_tiles, splits](
            self.latent, self.E1, self.b, partial, self.n_rows, self.n_words, self.rank, each, **self.options
        )
        return partial.logsumexp(dim=0)

    def add_word_gradients(self, gradients: Factors, normaliser: Tensor, threshold: Tensor) -> None:
        """Add the softmax's part of the gradients of E1 and b."""
        each, splits = _split(self.row_tiles, self.word_tiles, self.programs)
        E1, b = gradients.E1, gradients.b
        in_place = splits == 1 and E1.is_contiguous() and b.is_contiguous()
        if not in_place:
            E1, b = E1.new_zeros(splits, *E1.shape), b.new_zeros(splits, *b.shape)
        _word_gradients_kernel[self.word_tiles, splits](
            self.latent,
            self.E1,
            self.b,
            self.mass,
            normaliser,
            threshold,
            E1,
            b,
            self.n_rows,
            self.n_words,
            self.rank,
            each,
            **self.options,
        )
        if not in_place:
            gradients.E1.add_(E1.sum(dim=0))
            gradients.b.add_(b.sum(dim=0))

    def latent_gradient(self, normaliser: Tensor, threshold: Tensor) -> Tensor:
        """Return the softmax's part of the gradient of the latent vectors, float32 (n, r)."""
        each, splits = _split(self.word_tiles, self.row_tiles, self.programs)
        partial = self.b.new_zeros(splits, self.n_rows, self.rank)
        _latent_gradients_kernel[self.row_tiles, splits](
            self.latent,
            self.E1,
            self.b,
            self.mass,
            normaliser,
            threshold,
            partial,
            self.n_rows,
            self.n_words,
            self.rank,
            each,
            **self.options,
        )
        return partial.sum(dim=0) if splits > 1 else partial[0]


def _split(inner: int, outer: int, programs: int) -> tuple[int, int]:
    """Return how many of the inner tiles one program takes and into how many programs that cuts them.

    As many as fill the device with `outer` programs along the other axis; none without a tile.
    """
    each = triton.cdiv(inner, max(1, min(inner, programs // outer)))
    return each, triton.cdiv(inner, each)


def _programs(device: torch.device) -> int:
    """Return how many programs fill a device."""
    if device.type != "cuda":
        return 1
    return 2 * int(torch.cuda.get_device_properties(device).multi_processor_count)


def _add_observed(
    latent: Tensor,
    E1: Tensor,
    b: Tensor,
    gradients: Factors,
    latent_gradient: Tensor | None,
    bags: Bags,
    values: Tensor,
    block_bytes: int,
) -> Tensor:
    """Add the gradients of - Σ x · logit at the observed words; return Σ x · logit, float32 scalar.

    In float32, from the same rounded inputs as the normaliser, so that no log-probability comes out above 0. In
    blocks of (row, word) pairs, as each pair takes two vectors of length r.
    """
    total = torch.zeros((), device=b.device)
    size = max(1, block_bytes // (8 * E1.shape[1]))
    for start in range(0, len(values), size):
        here = slice(start, start + size)
        rows, words, x = bags.rows[here], bags.words[here], values[here]
        z, e = latent[rows].float(), E1[words].float()
        total += (x * ((z * e).sum(dim=1) + b[words])).sum()
        gradients.b.index_add_(0, words, x, alpha=-1)
        gradients.E1.index_add_(0, words, z.mul_(x[:, None]), alpha=-1)
        if latent_gradient is not None:
            latent_gradient.index_add_(0, rows, e.mul_(x[:, None]), alpha=-1)
    return total
