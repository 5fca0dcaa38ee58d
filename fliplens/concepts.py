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
from fliplens.spans import Numbers
from fliplens.tokenisation import Tokeniser
from fliplens.vocabulary import Vocabulary, checked_texts, no_words

__all__ = ["ConceptConfig"]

Integers: TypeAlias = NDArray[np.int64]

# The number of no word: it stands behind every text, so that no pair crosses to the next.
MARK = 0


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
        numbers, row, n_texts = Numbers(), array("q"), 0
        for text in checked_texts(texts, what="concepts", show=show_progress):
            row.extend(map(numbers.__getitem__, self.tokeniser.terms(text)))
            row.append(MARK)
            n_texts += 1
        problem = no_words(n_texts, len(numbers))
        if problem is not None:
            raise InputError(problem)
        ids = np.frombuffer(row, dtype=np.int64)
        words = ["", *numbers]
        frequency = np.bincount(ids, minlength=len(words))
        frequency[MARK] = 0
        single = np.flatnonzero(frequency >= self.min_frequency)
        pairs, pair_frequency, associated = self._pairs(ids, frequency)
        left, right = np.divmod(pairs[associated], len(words))
        chosen = _most_frequent([words[word] for word in single], frequency[single], self.unigrams) + _most_frequent(
            [f"{words[a]} {words[b]}" for a, b in zip(left, right, strict=True)],
            pair_frequency[associated],
            self.bigrams,
        )
        if not chosen:
            raise InputError(self._nothing_left(n_texts, len(numbers), len(single), _n_pairs(ids), len(pairs)))
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

    def _pairs(self, ids: Integers, frequency: Integers) -> tuple[Integers, Integers, NDArray[np.bool_]]:
        """Return the pairs that are frequent enough, how often each occurs, and which of them belong together.

        Args:
            ids: (m,) the words of all texts, a MARK behind each text.
            frequency: (n,) of each word, n keys a word: the pair a b is `a · n + b`.
        """
        left, right = ids[:-1], ids[1:]
        n_pairs = int(((left != MARK) & (right != MARK)).sum())
        # No pair is more frequent than its words, and most pairs have a rare one: they need no sorting.
        frequent = frequency >= self.min_frequency
        kept = frequent[left] & frequent[right]
        pairs, times = np.unique(left[kept] * len(frequency) + right[kept], return_counts=True)
        enough = times >= self.min_frequency
        pairs, times = pairs[enough], times[enough].astype(np.int64)
        first, second = np.divmod(pairs, len(frequency))
        n_words = float(frequency.sum())
        independent = frequency[first].astype(np.float64) * frequency[second]
        ratio = times * n_words * n_words / (independent * max(n_pairs, 1))
        return pairs, times, np.log(ratio) >= self.min_pmi

    def _nothing_left(self, n_texts: int, n_words: int, n_frequent: int, n_pairs: int, n_frequent_pairs: int) -> str:
        """Say why a vocabulary came out empty: n_words and n_pairs are distinct ones."""
        return (
            f"expected at least one concept, found none: of {n_words} words and {n_pairs} pairs in {n_texts} texts, "
            f"min_frequency={self.min_frequency} removed {n_words - n_frequent} and {n_pairs - n_frequent_pairs}, "
            f"min_pmi={self.min_pmi} the other {n_frequent_pairs} pairs, and unigrams={self.unigrams}, "
            f"bigrams={self.bigrams} were asked for: lower min_frequency or min_pmi, or ask for unigrams"
        )


def _most_frequent(terms: list[str], frequency: Integers, size: int) -> list[tuple[int, str]]:
    """Return the `size` most frequent terms with their negated frequencies, equally frequent ones by code point."""
    return sorted(zip((-frequency).tolist(), terms, strict=True))[:size]


def _n_pairs(ids: Integers) -> int:
    """Return how many distinct pairs there are."""
    left, right = ids[:-1], ids[1:]
    inside = (left != MARK) & (right != MARK)
    return len(np.unique(left[inside] * (int(ids.max()) + 1) + right[inside]))
