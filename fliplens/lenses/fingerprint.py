"""The fingerprint of an embedding space: enough statistics to notice vectors of another encoder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fliplens.embeddings import Embeddings

__all__ = ["Fingerprint"]

CHECKED_ROWS = 2048
FEW_ROWS = 64
ALIKE = 0.3
"""Cosine, or correlation, from which two patterns over dimensions have something in common."""
MOVED = 0.05
"""Squared shift of the mean, as a share of the total variance, that is more than noise."""
STRETCHED = 0.3
"""Spread of the log ratio of variances that is more than noise."""


@dataclass(frozen=True)
class Fingerprint:
    """Statistics of the vectors that a lens was made from."""

    mean_norm: float
    """Mean Euclidean length of a vector."""
    mean: NDArray[np.float32]
    """Mean vector, (d,)."""
    variance: NDArray[np.float32]
    """Variance of each dimension, (d,)."""

    @classmethod
    def of(cls, embeddings: Embeddings, *, show_progress: bool = False) -> Fingerprint:
        """Return the fingerprint of all rows, read once; with a bar on stderr where this takes a while."""
        n, norms = len(embeddings), 0.0
        first, second = np.zeros(embeddings.dim), np.zeros(embeddings.dim)
        origin = embeddings.block(0, 1)[0]
        for _, rows in embeddings.blocks(show="fingerprint" if show_progress else None):
            norms += float(np.sqrt(np.einsum("ij,ij->i", rows, rows)).sum(dtype=np.float64))
            rows -= origin
            first += rows.sum(axis=0, dtype=np.float64)
            second += np.square(rows, out=rows).sum(axis=0, dtype=np.float64)
        shift = first / n
        variance = np.maximum(second / n - shift**2, 0)
        return cls(norms / n, (origin + shift).astype(np.float32), variance.astype(np.float32))

    def difference(self, embeddings: Embeddings) -> str | None:
        """Return in words why `embeddings` look like another encoder's vectors, or None if they do not.

        Lengths are compared for any number of rows; the mean vector and the pattern of variances over dimensions
        where there are FEW_ROWS or more. Another text, language or channel moves these a little; another
        encoder's have nothing to do with them. A space whose mean is near zero, or whose variances are all
        alike, gives no evidence by that statistic, and none is made up. At most CHECKED_ROWS rows, spread over
        the whole, are read.
        """
        n = len(embeddings)
        if n > CHECKED_ROWS:
            embeddings = embeddings.subset(np.linspace(0, n - 1, CHECKED_ROWS).astype(np.int64))
        # Whoever reads a file in one go learns of bad rows as they come; they say nothing of the encoder.
        bad = embeddings.bad_rows()
        if len(bad) == len(embeddings):
            return None
        if len(bad):
            embeddings = embeddings.subset(np.setdiff1d(np.arange(len(embeddings)), bad))
            n = len(embeddings)
        found = Fingerprint.of(embeddings)
        ratio = found.mean_norm / self.mean_norm if self.mean_norm > 0 else 1.0
        if not 0.5 < ratio < 2.0:
            return f"their mean length is {found.mean_norm:.3g}, the lens was made from {self.mean_norm:.3g}"
        if n < FEW_ROWS:
            return None
        direction = _cosine(found.mean, self.mean)
        total = float(self.variance.sum())
        moved = float(((found.mean - self.mean) ** 2).sum()) / total if total > 0 else 0.0
        logs = [np.log(variance + 1e-12) for variance in (found.variance, self.variance)]
        pattern = _cosine(*(log - log.mean() for log in logs))
        stretched = float(np.std(logs[0] - logs[1]))
        mean_differs = direction < ALIKE and moved > MOVED
        pattern_differs = pattern < ALIKE and stretched > STRETCHED
        if (mean_differs and pattern < ALIKE) or (pattern_differs and direction < ALIKE):
            return (
                f"their mean vector (cosine {direction:.2f}) and variances (correlation {pattern:.2f}) have "
                "little in common with those the lens was made from"
            )
        return None


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths > 0 else 0.0
