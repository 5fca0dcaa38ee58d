"""Which terms of a vocabulary a text holds: all of its n-grams, or spans by greedy longest match.

*Spans* are the paper's units of span-aware accuracy (section 3.3): from left to right, the longest known n-gram at a
place is one term, and the scan goes on behind it; a word that starts no known term is skipped over. With "new york",
"new" and "city" known, "a new york city" holds "new york" and "city", and the unknown word "a".
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["FINDERS", "MARK", "Finder", "Found", "Longest", "NGrams", "Numbers", "Spans", "ngrams"]

Spans = Literal["all", "longest"]
"""Which n-grams of a text are its terms: all of them, or the greedy longest matches."""

Integers = npt.NDArray[np.int64]

# Words matched at once. It bounds the memory, and is enough for numpy's cost a call not to matter.
BLOCK_WORDS = 1 << 20


@dataclass(frozen=True)
class Found:
    """The terms found in n texts."""

    positions: Integers
    """(m,) vocabulary positions of the known terms, text after text, with repeats."""
    ends: Integers
    """(n + 1,) where each text's terms end in `positions`; the first is 0."""
    n_distinct: Integers
    """(n,) distinct terms of each text, unknown ones included; (0,) where they were not asked for."""


class Finder(Protocol):
    """Finds the terms of one vocabulary."""

    def __init__(self, index: Mapping[str, int], ngram_range: tuple[int, int]) -> None: ...

    def find(self, texts: Iterable[Sequence[str]], *, distinct: bool) -> Found:
        """Return the terms of `texts`, each cut into words.

        Args:
            texts: n texts as words without spaces, read once.
            distinct: also count each text's distinct terms.
        """
        ...


def ngrams(words: Sequence[str], ngram_range: tuple[int, int]) -> Sequence[str]:
    """Return the n-grams of a text, shorter ones first, each length in the order of the text."""
    shortest, longest = ngram_range
    if longest == 1:
        return words
    found = list(words) if shortest == 1 else []
    for n in range(max(shortest, 2), min(longest, len(words)) + 1):
        found += map(" ".join, zip(*(words[i:] for i in range(n)), strict=False))
    return found


class NGrams:
    """Finds all n-grams of the range; the unknown terms are the n-grams outside the vocabulary.

    Args:
        index: term → position.
        ngram_range: shortest and longest n-gram, in words.
    """

    def __init__(self, index: Mapping[str, int], ngram_range: tuple[int, int]) -> None:
        self._lookup = index.get
        self._range = ngram_range

    def find(self, texts: Iterable[Sequence[str]], *, distinct: bool) -> Found:
        """Return the terms of `texts`; see `Finder.find`."""
        positions, ends, n_distinct = array("q"), array("q", [0]), array("q")
        for words in texts:
            terms = ngrams(words, self._range)
            positions.extend([position for position in map(self._lookup, terms) if position is not None])
            ends.append(len(positions))
            if distinct:
                n_distinct.append(len(set(terms)))
        return Found(_integers(positions), _integers(ends), _integers(n_distinct))


# Stands behind every text where texts are one row of words: no word is a space, so no n-gram crosses it.
MARK = " "


class Numbers(dict[str, int]):
    """Word → number; a new word gets the next one."""

    def __missing__(self, word: str) -> int:
        self[word] = number = len(self)
        return number

    def of(self, words: list[str]) -> Integers:
        """Return the numbers of `words`."""
        return np.fromiter(map(self.__getitem__, words), np.int64, len(words))


class Longest:
    """Finds spans by greedy longest match; the unknown terms are the skipped words.

    The known terms are a tree of prefixes whose first W nodes are the W words they are made of. A step from a node
    along a word is one search for `node · (W + 1) + word` among the sorted keys of all steps, for all places of all
    texts at once.

    Args:
        index: term → position; terms outside `ngram_range` are never found, as in `NGrams`.
        ngram_range: shortest and longest n-gram, in words.
    """

    def __init__(self, index: Mapping[str, int], ngram_range: tuple[int, int]) -> None:
        shortest, longest = ngram_range
        self._n_terms = len(index)
        words: dict[str, int] = {}
        cut: list[tuple[int, list[int]]] = []
        for term, position in index.items():
            pieces = term.split(" ")
            if shortest <= len(pieces) <= longest:
                cut.append((position, [words.setdefault(piece, len(words)) for piece in pieces]))
        # The mark counts as the first word of no term: no step leads along it, nor along those that follow.
        self._mark = words[MARK] = len(words)
        self._base = len(words)
        self._words = words
        steps: dict[int, int] = {}
        ends: list[int] = []
        for _, path in cut:
            node = path[0]
            for word in path[1:]:
                node = steps.setdefault(node * self._base + word, self._base + len(steps))
            ends.append(node)
        self._term = np.full(self._base + len(steps), -1, dtype=np.int64)
        self._term[ends] = [position for position, _ in cut]
        keys = np.fromiter(steps.keys(), np.int64, len(steps))
        order = np.argsort(keys)
        self._keys, self._child = keys[order], np.fromiter(steps.values(), np.int64, len(steps))[order]
        self._goes_on = np.zeros(len(self._term), dtype=np.bool_)
        self._goes_on[keys // self._base] = True

    def find(self, texts: Iterable[Sequence[str]], *, distinct: bool) -> Found:
        """Return the terms of `texts`; see `Finder.find`."""
        parts: list[tuple[Integers, Integers, Integers]] = []
        row: list[str] = []
        for words in texts:
            row += words
            row.append(MARK)
            if len(row) >= BLOCK_WORDS:
                parts.append(self._find(row, distinct))
                row = []
        parts.append(self._find(row, distinct))
        positions, lengths, n_distinct = (np.concatenate(part) for part in zip(*parts, strict=True))
        return Found(positions, np.append(0, np.cumsum(lengths)), n_distinct)

    def _find(self, words: list[str], distinct: bool) -> tuple[Integers, Integers, Integers]:
        """Return the terms found, how many each text has, and how many distinct ones.

        Args:
            words: of all texts, a MARK behind every text.
            distinct: whether to count distinct terms; if not, the last result is empty.
        """
        # Unknown words are told apart within a text only: their numbers need not pile up from block to block.
        ids = Numbers(self._words).of(words)
        term, length = self._longest(ids)
        marks = ids == self._mark
        n_texts = int(marks.sum())
        places = np.flatnonzero(_chosen(length) & ~marks)
        row, term = (np.cumsum(marks) - marks)[places], term[places]
        known = term >= 0
        n_known = np.bincount(row[known], minlength=n_texts)
        if not distinct:
            return term[known], n_known, np.empty(0, dtype=np.int64)
        # One number for each known term and each unknown word; text and number make one key.
        number = np.where(known, term, self._n_terms + ids[places])
        size = int(number.max(initial=0)) + 1
        # Not np.unique, which is some 20 times as slow as sorting keys that are nearly in order.
        keys = np.sort(row * size + number)
        first = np.append(True, keys[1:] != keys[:-1])[: len(keys)]
        return term[known], n_known, np.bincount(keys[first] // size, minlength=n_texts)

    def _longest(self, ids: Integers) -> tuple[Integers, Integers]:
        """Return the longest known term that starts at each place (-1 for none) and its length in words (1)."""
        known = np.minimum(ids, self._mark)
        term, length = self._term[known], np.ones(len(ids), dtype=np.int64)
        places = np.flatnonzero(self._goes_on[known])
        node, n = known[places], 1
        while len(places):
            n += 1
            # A node that goes on is not a mark, so that behind it there is a word, or a mark.
            wanted = node * self._base + known[places + n - 1]
            step = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
            taken = self._keys[step] == wanted
            places, node = places[taken], self._child[step[taken]]
            whole = self._term[node] >= 0
            term[places[whole]], length[places[whole]] = self._term[node[whole]], n
            more = self._goes_on[node]
            places, node = places[more], node[more]
        return term, length


def _chosen(length: Integers) -> npt.NDArray[np.bool_]:
    """Return which places a scan from left to right stops at that from place p goes to p + length[p], (m,).

    A place that no earlier match reaches over is stopped at in any case. Only the scans that start at such a place
    and lead into overlapping matches are followed, all of them at once.
    """
    m = len(length)
    here = np.arange(m)
    behind = here + length
    chosen = np.ones(m + 1, dtype=np.bool_)
    chosen[1:m] = np.maximum.accumulate(behind)[:-1] <= here[1:]
    scans = here[chosen[:m] & (length > 1)]
    while len(scans):
        scans = behind[scans]
        scans = scans[~chosen[scans]]
        chosen[scans] = True
    return chosen[:m]


def _integers(values: array[int]) -> Integers:
    return np.frombuffer(values, dtype=np.int64) if values else np.empty(0, dtype=np.int64)


FINDERS: Mapping[Spans, type[Finder]] = {"all": NGrams, "longest": Longest}
"""What finds the terms of each kind."""
