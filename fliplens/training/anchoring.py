"""Where training starts: factors that already read words before the first step.

The anchor is a linear discriminant: with the centred vector of each word as its class mean and one covariance
for all, the best linear score of word w for sentence s is e_w · Σ⁻¹ · (s - m). So E1 holds the word vectors and
E2 the regularised inverse covariance; training moves on from there.

All vectors here are in training coordinates (`Coordinates`): centred, and scaled so that the mean squared length
is 1, unless training does not centre. That makes every constant below independent of the encoder's scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor, split

from fliplens.arithmetic.objective import Factors
from fliplens.embeddings import BLOCK_ROWS, Embeddings

__all__ = [
    "Coordinates",
    "anchored_factors",
    "covariance",
    "log_unigrams",
    "random_factors",
    "sentence_means",
]


@dataclass(frozen=True)
class Coordinates:
    """The affine map from an embedding s to training coordinates T · (s - m).

    Being affine, it folds into a trained lens: E2 ← E2 · T and b ← b - E1 · E2 · T · m.
    """

    mean: NDArray[np.float32]
    """m, (d,); zeros where training does not centre."""
    transform: NDArray[np.float32] | float
    """T: one number, or (d, d) where training whitens."""

    def apply(self, rows: NDArray[np.float32] | Tensor, *, overwrite: bool = False) -> Tensor:
        """Return the rows (k, d) in training coordinates, as a float32 tensor.

        Args:
            rows: (k, d), float32; a tensor stays on its device.
            overwrite: the result may take the memory of `rows`.
        """
        given = rows if isinstance(rows, Tensor) else torch.from_numpy(np.require(rows, np.float32, "W"))
        mean = torch.from_numpy(self.mean).to(given.device)
        moved = torch.sub(given, mean, out=given if overwrite else None)
        if isinstance(self.transform, float):
            return moved.mul_(self.transform)
        return moved @ torch.from_numpy(self.transform).to(moved.device).T

    def fold(self, factors: Factors) -> Factors:
        """Return factors that score raw embeddings as `factors` score training coordinates.

        The folded bias is b - W · m: its first part, the trained bias, is the prior.
        """
        last = factors.E1 if factors.E2 is None else factors.E2
        if isinstance(self.transform, float):
            folded = last * self.transform
        else:
            folded = (last.double() @ torch.from_numpy(self.transform).double()).float()
        E1, E2 = (folded, None) if factors.E2 is None else (factors.E1, folded)
        mean = torch.from_numpy(self.mean)
        latent = mean if E2 is None else (E2.double() @ mean.double()).float()
        return Factors(E1=E1, E2=E2, b=factors.b - E1 @ latent)


def covariance(
    embeddings: Embeddings, *, show_progress: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean (d,) and covariance (d, d) of the rows, float64, in one pass over blocks.

    Each block's product is float32, twice as fast, and the sums over blocks are float64: entry (i, j) is off by
    some 1e-6 of the standard deviations of i and j at most.
    """
    total = np.zeros(embeddings.dim)
    products = np.zeros((embeddings.dim, embeddings.dim))
    # Products are taken around a first estimate of the mean, so that a large common offset loses no digits.
    origin = embeddings.block(0, 1024).mean(axis=0, dtype=np.float64).astype(np.float32)
    for _, rows in embeddings.blocks(show="covariance" if show_progress else None):
        rows -= origin
        total += rows.sum(axis=0, dtype=np.float64)
        products += rows.T @ rows
    shift = total / len(embeddings)
    return origin + shift, products / len(embeddings) - np.outer(shift, shift)


def log_unigrams(counts: csr_matrix) -> Tensor:
    """Return the log of the unigram distribution of the counts (n, V), float32 (V,).

    Half an occurrence is added to every word, so that a word the rows lack has a finite score.
    """
    frequency = np.asarray(counts.sum(axis=0), dtype=np.float64).ravel() + 0.5
    return torch.from_numpy(np.log(frequency / frequency.sum()).astype(np.float32))


def sentence_means(
    views: Sequence[tuple[Embeddings, float]], counts: csr_matrix, *, show_progress: bool = False
) -> NDArray[np.float32]:
    """Return for each word the mean vector of the rows that hold it, (V, d); the overall mean where none does.

    Of several views it is the weighted sum of their means, of which one matrix (V, d) is held at a time.

    Args:
        views: n rows each, with their weights.
        counts: (n, V), every word at most once in a row.
        show_progress: a bar on stderr where this takes more than a moment.
    """
    frequency = np.bincount(counts.indices, minlength=counts.shape[1])
    means = np.zeros((counts.shape[1], views[0][0].dim), dtype=np.float32)
    overall = np.zeros(views[0][0].dim)
    for embeddings, weight in views:
        weight_of = (weight / np.maximum(frequency, 1)).astype(np.float32)
        for start, rows in embeddings.blocks(show="sentence means" if show_progress else None):
            bounds = counts.indptr[start : start + len(rows) + 1]
            # Only the words of the block take part: its product is far smaller than (V, d).
            words, at = np.unique(counts.indices[bounds[0] : bounds[-1]], return_inverse=True)
            held = csr_matrix((weight_of[words][at], at, bounds - bounds[0]), shape=(len(rows), len(words)))
            means[words] += held.T @ rows
            overall += rows.sum(axis=0, dtype=np.float64) * (weight / len(embeddings))
    means[frequency == 0] = overall
    return means


def anchored_factors(
    word_vectors: Tensor,
    spread: Tensor,
    bias: Tensor,
    *,
    rank: int | None,
    ridge: float = 0.1,
    scale: float = 60.0,
) -> Factors:
    """Return starting factors from one vector per word: E1 the words, E2 the inverse covariance.

    Args:
        word_vectors: (V, d) in training coordinates; centred here on their own mean, left as they are.
        spread: covariance of the sentences (d, d) in training coordinates, float64.
        bias: (V,) starting bias.
        rank: r, or None for the one matrix of the full-rank baseline.
        ridge: share of the mean variance added to every variance before the inversion.
        scale: mean diagonal of the inverse covariance: how sharp the first softmax is.

    Returns:
        For r = d, E1 = words and E2 = M, the scaled inverse. For r < d the leading r directions of words · M
        are kept: E1 = words · P and E2 = Pᵀ · M, with P (d, r) chosen so that E1 · E2 loses least over the
        sentences. Without a rank E = words · M.
    """
    dim = word_vectors.shape[1]
    # What is d × d is computed in float64; what is V × d may be large: it stays float32, and is centred block by
    # block rather than copied.
    centre = word_vectors.mean(dim=0)

    def words_times(matrix: Tensor) -> Tensor:
        product = torch.empty(len(word_vectors), matrix.shape[1])
        for block, out in zip(split(word_vectors, BLOCK_ROWS), split(product, BLOCK_ROWS), strict=True):
            torch.mm(block - centre, matrix.float(), out=out)
        return product

    variances, axes = torch.linalg.eigh(spread.double())
    variances = variances.clamp_min(0) + ridge * variances.mean()
    inverse = (axes / variances) @ axes.T
    factor = scale / float(inverse.diagonal().mean())
    inverse *= factor
    if rank is None:
        return Factors(E1=words_times(inverse), E2=None, b=bias.clone())
    if rank == dim:
        return Factors(E1=word_vectors - centre, E2=inverse.float(), b=bias.clone())
    # Scores of word w are w · M · s, and M^½ · s has (about) the same variance in every direction: so the best
    # rank-r scores keep the leading principal directions Q of words · M^½. P = M^½ · Q undoes to E2 = Qᵀ · M^½.
    root = (axes * (factor / variances).sqrt()) @ axes.T
    scatter = torch.zeros(dim, dim, dtype=torch.float64)
    for block in split(word_vectors, BLOCK_ROWS):
        words = block - centre
        scatter += words.T @ words
    _, directions = torch.linalg.eigh(root @ scatter @ root)
    kept = directions[:, -rank:].flip(1)
    E1 = words_times(root @ kept)
    # Balance: E1 keeps the length that word vectors have at full rank, so that one learning rate suits all ranks.
    balance = float(scatter.trace().sqrt()) / float(E1.norm())
    return Factors(E1=E1.mul_(balance), E2=(kept.T @ root / balance).float().contiguous(), b=bias.clone())


def random_factors(n_words: int, dim: int, bias: Tensor, *, rank: int | None, generator: torch.Generator) -> Factors:
    """Return Xavier-normal factors, as the published code starts (section 3.5's models).

    Each entry is normal with variance 2 / (rows + columns) of its matrix.
    """

    def xavier(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=generator).mul_((2.0 / (rows + columns)) ** 0.5)

    if rank is None:
        return Factors(E1=xavier(n_words, dim), E2=None, b=bias.clone())
    return Factors(E1=xavier(n_words, rank), E2=xavier(rank, dim), b=bias.clone())
