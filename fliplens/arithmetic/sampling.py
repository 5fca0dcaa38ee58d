"""Which words one training step looks at: an unbiased sample of the softmax's denominator.

The softmax of a step needs Σ_w exp(logit_w) over the whole vocabulary, though a batch of some hundred sentences moves
few of its words: those it holds, the frequent ones, and a little of every other. So a step takes the words of its
batch, the most frequent words of the vocabulary (the head), and of the rest each word by an independent draw with
probability π_w, and weighs a drawn word by 1 / π_w. The weighted sum over the sample has the whole sum as its
expectation; the loss, its logarithm, is a little low, and a word that few samples hold learns too little of the
sentences it is absent from: hence `share_for`. This is sampled softmax with importance weights (Bengio and
Senécal 2003; Jean et al. 2015), one sample for all sentences of a batch, so that it stays three dense products.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Sample", "Sampler", "share_for"]

LOOKS = 80
LEAST_SHARE = 0.05


def share_for(n_steps: int) -> float:
    """Return the mean π that lets a word be in 80 of the samples of a training run on average; at least 0.05.

    Few steps so draw more words each. What scores tell without the prior needs it most (docs/tuning.md).
    """
    return min(1.0, max(LEAST_SHARE, LOOKS / n_steps))


@dataclass(frozen=True)
class Sample:
    """The words of one step."""

    words: NDArray[np.int64]
    """(k,) positions in the vocabulary, ascending."""
    log_weights: NDArray[np.float32]
    """(k,) log 1 / π, to be added to the logits; 0 for words that are there whatever is drawn."""


class Sampler:
    """Draws the words of each step; a draw depends on the seed and the step's number alone.

    Args:
        frequencies: (V,), how often each word occurs in the training rows.
        head: how many of the most frequent words are in every sample.
        share: mean π of the others; each has its own in proportion to the square root of its frequency, as a rare
            word's logit is mostly low and its draw mostly wasted.
        seed: of the training run.
    """

    def __init__(self, frequencies: NDArray[np.float64], *, head: int, share: float, seed: int) -> None:
        n = len(frequencies)
        self.seed = seed
        self.inclusion: NDArray[np.float32] = np.ones(n, dtype=np.float32)
        """(V,), π; 1 for the head."""
        rest = np.argsort(-frequencies, kind="stable")[head:]
        if len(rest):
            rarity = np.sqrt(np.maximum(frequencies[rest], 1.0))
            self.inclusion[rest] = np.minimum(1.0, share * rarity / rarity.mean())
        self._log_weights = -np.log(self.inclusion)

    @property
    def pays(self) -> bool:
        """Whether a sample is so much smaller than the vocabulary that drawing it is worth the trouble."""
        return float(self.inclusion.mean()) < 0.5

    def draw(self, observed: NDArray[np.int64], step: int) -> Sample:
        """Return the words of a step.

        Args:
            observed: words of the batch, in any order, repeated or not: they are in the sample with weight 1.
            step: number of the step, from 0.
        """
        random = np.random.default_rng([self.seed, step])
        taken = random.random(len(self.inclusion), dtype=np.float32) < self.inclusion
        taken[observed] = True
        log_weights = self._log_weights.copy()
        log_weights[observed] = 0.0
        words = np.flatnonzero(taken)
        return Sample(words, log_weights[words])
