"""The concept vocabulary: frequent words, and frequent pairs of words that belong together (paper, section 3.4).

A pair belongs together as far as its pointwise mutual information says so,

    PMI(a b) = log(p(a b) / (p(a) · p(b))),

in natural logarithms, with p(a b) the pair's share of all pairs of neighbouring words, and p(a) the word's share of
all words. The paper gives no base; with another, `min_pmi` means something else. Pairs do not cross texts.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fliplens.errors import InputError
from fliplens.text.spans import MARK, Numbers
from fliplens.text.tokenisation import Tokeniser
from fliplens.text.vocabulary import Vocabulary, checked_texts, no_words

__all__ = ["ConceptConfig"]

Integers: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class ConceptConfig:
    """Which words and word pairs of the training rows become the vocabulary; the defaults are the paper's.

    A corpus with fewer candidates than `unigrams` and `bigrams` ask for gives what it has.

    Raises:
        InputError: a setting has a value that it cannot have; the message names it.
    """

    min_frequency: int = 20
    """Leave out words and pairs that occur fewer times."""
    min_pmi: float = 1.5
    """Leave out pairs of lower pointwise mutual information, in natural logarithms."""
    unigrams: int = 6500
    """The most frequent words, at most this many."""
    bigrams: int = 3500
    """The most frequent pairs, at most this many."""
    tokeniser: Tokeniser = field(default_factory=Tokeniser)
    """Cuts text into words, in training and in evaluation."""

    def __post_init__(self) -> None:
        for name, least in (("min_frequency", 1), ("unigrams", 0), ("bigrams", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise InputError(f"expected {name} to be a whole number from {least}, found {value!r}: correct it")
        if type(self.min_pmi) not in (int, float) or not math.isfinite(self.min_pmi):
            raise InputError(f"expected min_pmi to be a finite number, found {self.min_pmi!r}: correct it")
        if not self.unigrams + self.bigrams:
            raise InputError("expected unigrams or bigrams above 0, found both 0: ask for some of either")

    def build(self, texts: Iterable[str], *, show_progress: bool = False) -> Vocabulary:
        """Return the concept vocabulary of `texts`, the most frequent first, equally frequent ones by code point.

        Its `spans` are "longest", so that training, evaluation and reading all count a pair as one term.

        Args:
            texts: the training texts, read once.
            show_progress: show a bar on stderr.

        Raises:
            InputError: no text, a text that is none, or no concept is left; the message says what removed them.
        """
        numbers, ids, n_texts = Numbers({MARK: 0}), array("i"), 0
        for text in checked_texts(texts, what="concepts", show=show_progress):
            ids.extend(map(numbers.__getitem__, self.tokeniser.terms(text)))
            ids.append(numbers[MARK])
            n_texts += 1
        problem = no_words(n_texts, len(numbers) - 1)
        if problem is not None:
            raise InputError(problem)
        words = list(numbers)
        left, right = _neighbours(np.frombuffer(ids, dtype=np.intc))
        frequency = np.bincount(np.frombuffer(ids, dtype=np.intc), minlength=len(words))
        frequency[numbers[MARK]] = 0
        single = np.flatnonzero(frequency >= self.min_frequency)
        # No pair is more frequent than its words, and most pairs have a rare one: they need no sorting.
        kept = (frequency[left] >= self.min_frequency) & (frequency[right] >= self.min_frequency)
        pairs, times = np.unique(left[kept] * len(words) + right[kept], return_counts=True)
        frequent = times >= self.min_frequency
        (first, second), times = np.divmod(pairs[frequent], len(words)), times[frequent]
        associated = _pmi(times / max(len(left), 1), frequency[first], frequency[second], frequency.sum())
        close = associated >= self.min_pmi
        chosen = _most_frequent([words[one] for one in single], frequency[single], self.unigrams)
        chosen += _most_frequent(
            [f"{words[a]} {words[b]}" for a, b in zip(first[close], second[close], strict=True)],
            times[close],
            self.bigrams,
        )
        if not chosen:
            n_pairs = len(np.unique(left * len(words) + right))
            raise InputError(self._nothing_left(n_texts, len(words) - 1, len(single), n_pairs, len(times)))
        return Vocabulary(tuple(term for _, term in sorted(chosen)), self.tokeniser, (1, 2), "longest")

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain JSON values."""
        return {
            "min_frequency": self.min_frequency,
            "min_pmi": float(self.min_pmi),
            "unigrams": self.unigrams,
            "bigrams": self.bigrams,
            "tokeniser": self.tokeniser.to_json(),
        }

    def _nothing_left(self, n_texts: int, n_words: int, n_frequent: int, n_pairs: int, n_frequent_pairs: int) -> str:
        """Say why a vocabulary came out empty: n_words and n_pairs are distinct ones."""
        return (
            f"expected at least one concept, found none: of {n_words} words and {n_pairs} pairs in {n_texts} texts, "
            f"min_frequency={self.min_frequency} removed {n_words - n_frequent} and {n_pairs - n_frequent_pairs}, "
            f"min_pmi={self.min_pmi} the other {n_frequent_pairs} pairs, and unigrams={self.unigrams}, "
            f"bigrams={self.bigrams} were asked for: lower min_frequency or min_pmi, or ask for unigrams"
        )


def _neighbours(ids: NDArray[np.intc]) -> tuple[Integers, Integers]:
    """Return the left and the right word of every pair, none across texts: `ids` has number 0 behind every text."""
    inside = (ids[:-1] != 0) & (ids[1:] != 0)
    return ids[:-1][inside].astype(np.int64), ids[1:][inside].astype(np.int64)


def _pmi(p_pair: NDArray[np.float64], left: Integers, right: Integers, n_words: int) -> NDArray[np.float64]:
    """Return the pointwise mutual information of pairs, in natural logarithms.

    Args:
        p_pair: (m,) share of each pair among all pairs.
        left: (m,) how often its left word occurs.
        right: (m,) how often its right word occurs.
        n_words: how many words there are.
    """
    values: NDArray[np.float64] = np.log(p_pair / ((left / n_words) * (right / n_words)))
    return values


def _most_frequent(terms: list[str], frequency: Integers, size: int) -> list[tuple[int, str]]:
    """Return the `size` most frequent terms with their negated frequencies, equally frequent ones by code point."""
    return sorted(zip((-frequency).tolist(), terms, strict=True))[:size]
