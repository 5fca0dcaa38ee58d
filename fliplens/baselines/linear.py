"""Lenses that need no training loop: word frequency alone, and ridge regression in closed form. Pure.

Both are `Factors` like a trained lens's, so that whatever reads one reads them. Ridge regression predicts how often
a word occurs, not how likely it is: the scores of frequent words vary most and would always win. Each word's are
therefore divided by a power of its frequency. `calibrated` multiplies all of them by one number that makes their
softmax as likely as it can be on training rows, so that probabilities and perplexity mean something.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor

from fliplens.arithmetic.objective import Factors
from fliplens.embeddings import Embeddings
from fliplens.training.anchoring import covariance, log_unigrams
from fliplens.training.views import Views

__all__ = ["Ridge", "frequency_factors"]

CALIBRATION_ROWS = 2000
"""Training rows that the scale of the scores is fitted on, at most."""
BLOCK_ROWS = 4096


def frequency_factors(counts: csr_matrix, dim: int) -> Factors:
    """Return the lens that ignores its vector: every score is the word's log frequency.

    Args:
        counts: (n, V) of the training rows.
        dim: d of the vectors that it is asked to read.
    """
    n_words = counts.shape[1]
    return Factors(E1=torch.zeros(n_words, 1), E2=torch.zeros(1, dim), b=log_unigrams(counts))


@dataclass(frozen=True)
class RidgeFactors:
    """A ridge lens: factors of full rank, the part of their bias that is the prior, and the mean of the rows."""

    factors: Factors
    prior: Tensor
    mean: Tensor


class Ridge:
    """Ridge regression from embeddings to word counts: what all choices of its two numbers share.

    With centred embeddings S (n, d) and counts X (n, V) it is W = Xᵀ S (SᵀS + n · ridge · v · I)⁻¹, v being the mean
    variance of a dimension; several views add up by their weights. One product with the sparse counts and one
    eigendecomposition (d, d) serve every value of `ridge`.

    Args:
        data: rows to learn from.
        alpha: weight of the primary view, where there is a paired one.
        show_progress: bars on stderr.
    """

    def __init__(self, data: Views, *, alpha: float = 0.5, show_progress: bool = False) -> None:
        views = data.weighted(alpha)
        moments = [(*covariance(view, show_progress=show_progress), weight) for view, weight in views]
        self.mean = sum((mean * weight for mean, _, weight in moments), np.zeros(data.primary.dim))
        spread = sum(
            ((c + np.outer(m - self.mean, m - self.mean)) * weight for m, c, weight in moments),
            np.zeros((len(self.mean),) * 2),
        )
        self.variances, self.axes = np.linalg.eigh(spread)
        self.variances = np.maximum(self.variances, 0)
        n = len(data.primary)
        self.frequency = np.asarray(data.counts.sum(axis=0), dtype=np.float64).ravel()
        products = np.zeros((data.counts.shape[1], data.primary.dim), dtype=np.float32)
        for view, weight in views:
            for start, rows in view.blocks(BLOCK_ROWS, show="ridge" if show_progress else None):
                rows -= self.mean.astype(np.float32)
                products += data.counts[start : start + len(rows)].T @ (rows * np.float32(weight / n))
        # In the axes of the embeddings' covariance the inverse is a division.
        self.products: NDArray[np.float32] = products @ self.axes.astype(np.float32)
        self.n_rows = n
        chosen = np.sort(np.random.default_rng(0).permutation(n)[:CALIBRATION_ROWS])
        self._calibration = (data.counts[chosen], [(view.subset(chosen), weight) for view, weight in views])

    def solve(self, ridge: float, power: float) -> RidgeFactors:
        """Return the lens for one choice.

        Args:
            ridge: regularisation, in mean variances of a dimension.
            power: scores are divided by each word's frequency to this power.
        """
        shrunk = self.products / (self.variances + ridge * self.variances.mean()).astype(np.float32)
        divisor = np.maximum(self.frequency, 1.0) ** power
        W = (shrunk @ self.axes.T.astype(np.float32)) / divisor[:, None].astype(np.float32)
        prior = self.frequency / self.n_rows / divisor
        E = torch.from_numpy(W.astype(np.float32))
        mean = torch.from_numpy(self.mean.astype(np.float32))
        part = torch.from_numpy(prior.astype(np.float32))
        return RidgeFactors(Factors(E1=E, E2=None, b=part - E @ mean), part, mean)

    def calibrated(self, found: RidgeFactors) -> RidgeFactors:
        """Return the same words in the same order, with scores whose softmax suits the training rows best."""
        scale = self._scale(found.factors.E1, found.factors.b)
        return RidgeFactors(found.factors.map(lambda tensor: tensor * scale), found.prior * scale, found.mean)

    def _scale(self, E: Tensor, b: Tensor) -> float:
        """Return the number that makes the softmax of the scores likeliest: the loss is convex in it.

        A Newton step needs the mean and variance of the scores under the softmax, which one product gives.
        """
        counts, views = self._calibration
        # From scores with a standard deviation of 1, whatever the counts' scale.
        _, scores, _ = next(_score_blocks(E, b, views, counts))
        scale = 1.0 / max(float(scores.std()), 1e-12)
        for _ in range(50):
            slope = curvature = 0.0
            for weight, scores, held in _score_blocks(E, b, views, counts):
                mass = np.asarray(held.sum(axis=1)).ravel()
                logits = scores * scale
                logits -= logits.max(axis=1, keepdims=True)
                shares = np.exp(logits)
                shares /= shares.sum(axis=1, keepdims=True)
                expected = (shares * scores).sum(axis=1)
                spread = (shares * scores**2).sum(axis=1) - expected**2
                slope += weight * float((mass * expected).sum() - held.multiply(scores).sum())
                curvature += weight * float((mass * spread).sum())
            step = slope / max(curvature, 1e-30)
            # A Newton step from afar may be too long: never to below half or above twice the scale.
            new = float(np.clip(scale - step, scale / 2, scale * 2))
            if abs(new - scale) <= 1e-4 * scale:
                return new
            scale = new
        return scale


def _score_blocks(
    E: Tensor, b: Tensor, views: list[tuple[Embeddings, float]], counts: csr_matrix
) -> Iterator[tuple[float, NDArray[np.float64], csr_matrix]]:
    """Yield (weight of the view, scores (rows, V) in float64, the rows' counts) in blocks of some ten megabytes."""
    size = max(1, 2**21 // len(b))
    for view, weight in views:
        for start, rows in view.blocks(size):
            scores = torch.from_numpy(rows) @ E.T + b
            yield weight, scores.double().numpy(), counts[start : start + len(rows)]
