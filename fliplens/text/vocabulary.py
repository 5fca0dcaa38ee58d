"""Vocabularies: which terms a lens can name, and how often texts hold them.

A *term* is a word, or an n-gram: consecutive words of one text joined by a space. The bag of words x of the
paper (section 2) is a row of `Vocabulary.counts`. Which n-grams of a text count is said in `fliplens.text.spans`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import TypeGuard, get_args

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from fliplens.errors import InputError
from fliplens.files import read_json, write_json
from fliplens.progress import track
from fliplens.text.spans import FINDERS, Finder, Found, Spans, ngrams
from fliplens.text.tokenisation import Tokeniser

__all__ = ["References", "Vocabulary", "check_size", "checked_texts", "no_words"]

_DEFAULT_TOKENISER = Tokeniser()


@dataclass(frozen=True, eq=False)
class References:
    """What an evaluation looks for in n texts, given a vocabulary of V terms."""

    counts: csr_matrix[np.float32]
    """(n, V): how often each vocabulary term occurs among the reference terms of a text; indices sorted, no
    duplicates."""

    n_distinct: npt.NDArray[np.int64]
    """(n,): how many distinct reference terms a text has, those outside the vocabulary included."""

    @property
    def n_known(self) -> npt.NDArray[np.int64]:
        """(n,): how many distinct reference terms of a text are in the vocabulary (k of the accuracy)."""
        return np.diff(self.counts.indptr).astype(np.int64)

    @property
    def known(self) -> csr_matrix[np.bool_]:
        """(n, V): True where a text holds the term. Shares its indices with `counts`: not to be changed."""
        pattern = np.ones(self.counts.nnz, dtype=np.bool_)
        return csr_matrix((pattern, self.counts.indices, self.counts.indptr), shape=self.counts.shape)


@dataclass(frozen=True)
class Vocabulary:
    """The V terms that a lens can name, each with its position, and how texts are cut into them.

    Raises:
        InputError: no words, a word twice, or an n-gram range or kind of spans that is none.
    """

    words: tuple[str, ...]
    """The terms; the index in this tuple is the row in the lens."""

    tokeniser: Tokeniser = _DEFAULT_TOKENISER
    """Cuts texts into words, for counts and for references."""

    ngram_range: tuple[int, int] = (1, 1)
    """Shortest and longest n-gram, in words: (1, 1) is single words, (1, 2) words and pairs."""

    spans: Spans = "all"
    """Which n-grams of a text are its terms, in training and in evaluation alike. `all`: every one of
    `ngram_range`. `longest`: from left to right the longest known one, then what comes behind it (paper, section
    3.3, span-aware accuracy); a word that starts no known term is skipped over."""

    def __post_init__(self) -> None:
        _check_ngram_range(self.ngram_range)
        if self.spans not in get_args(Spans):
            raise InputError(f"expected spans to be {' or '.join(get_args(Spans))}, found {self.spans!r}: correct it")
        if not self.words:
            raise InputError("expected at least one word in the vocabulary, found none: give it words")
        if len(self.index) != len(self.words):
            twice = next(word for word, n in Counter(self.words).items() if n > 1)
            raise InputError(f"expected every word of the vocabulary once, found {twice!r} twice: remove one")

    def __len__(self) -> int:
        return len(self.words)

    def __contains__(self, word: object) -> bool:
        return word in self.index

    def __iter__(self) -> Iterator[str]:
        return iter(self.words)

    def __getitem__(self, position: int) -> str:
        return self.words[position]

    def __repr__(self) -> str:
        first = ", ".join(map(repr, self.words[:3])) + (", …" if len(self) > 3 else "")
        return (
            f"{type(self).__name__}({len(self)} words: {first}; tokeniser={self.tokeniser}, "
            f"ngram_range={self.ngram_range}, spans={self.spans!r})"
        )

    @cached_property
    def index(self) -> Mapping[str, int]:
        """Word → position."""
        return {word: position for position, word in enumerate(self.words)}

    @cached_property
    def _finder(self) -> Finder:
        return FINDERS[self.spans](self.index, self.ngram_range)

    @classmethod
    def from_texts(
        cls,
        texts: Iterable[str],
        *,
        tokeniser: Tokeniser = _DEFAULT_TOKENISER,
        max_size: int | None = 100_000,
        min_df: int | float = 1,
        max_df: int | float = 1.0,
        ngram_range: tuple[int, int] = (1, 1),
        show_progress: bool = False,
    ) -> Vocabulary:
        """Collect the terms of `texts`, the most frequent first, equally frequent ones by code point.

        Args:
            texts: the training texts, read once; an iterator will do.
            tokeniser: how they are cut into words.
            max_size: keep this many of the most frequent terms; None keeps all.
            min_df: leave out terms of fewer texts than this: a whole number, or their share as a float.
            max_df: leave out terms of more texts than this, likewise: 1.0 is all texts, 1 a single one.
            ngram_range: shortest and longest n-gram, in words.
            show_progress: show a bar on stderr.

        Raises:
            InputError: an option that cannot be, or no term is left; the message says what removed them.
        """
        _check_ngram_range(ngram_range)
        check_size("max_size", max_size)
        _check_share_or_count("min_df", min_df)
        _check_share_or_count("max_df", max_df)
        # Counting texts costs as much as counting words, and the usual limits remove nothing.
        limited = not (_is_integer(min_df) and min_df == 1 and not _is_integer(max_df) and max_df == 1)

        n_texts = 0
        frequencies: Counter[str] = Counter()
        text_frequencies: Counter[str] = Counter()
        for text in checked_texts(texts, what="vocabulary", show=show_progress):
            terms = ngrams(tokeniser.terms(text), ngram_range)
            n_texts += 1
            frequencies.update(terms)
            if limited:
                text_frequencies.update(set(terms))

        least = min_df if _is_integer(min_df) else min_df * n_texts
        most = max_df if _is_integer(max_df) else max_df * n_texts
        if n_texts and most < least:
            raise InputError(
                f"expected max_df to allow no fewer texts than min_df asks for, found max_df={max_df!r} "
                f"({most:g} of {n_texts} texts) and min_df={min_df!r} ({least:g}): "
                "lower min_df or raise max_df"
            )
        kept: Iterable[str] = frequencies
        if limited:
            kept = [term for term, n in text_frequencies.items() if least <= n <= most]
        words = sorted(kept, key=lambda term: (-frequencies[term], term))[:max_size]
        if not words:
            too_rare = sum(n < least for n in text_frequencies.values())
            too_common = sum(n > most for n in text_frequencies.values())
            raise InputError(_nothing_left(n_texts, len(frequencies), min_df, too_rare, max_df, too_common))
        return cls(tuple(words), tokeniser, ngram_range)

    def counts(self, texts: Sequence[str], *, show_progress: bool = False) -> csr_matrix[np.float32]:
        """Count the vocabulary's terms in n texts: the bags of words x (paper, section 2).

        Returns:
            (n, V) float32 with sorted indices and no duplicates. Terms outside the vocabulary are left out; a
            text without a known term, or an empty one, is an empty row.

        Raises:
            InputError: `texts` is one string, or one of them is no string.
        """
        given = checked_texts(texts, what="counting words", show=show_progress)
        return self._matrix(self._finder.find(map(self.tokeniser.terms, given), distinct=False))

    def references(self, texts: Sequence[str]) -> References:
        """Find what an evaluation looks for in n texts: their reference terms, known and unknown.

        With n-grams and `spans="all"`, all terms of `ngram_range` count: (1, 2) finds "new", "york" and
        "new york" in "New York", and `n_distinct` counts the three. With `spans="longest"` the text's spans
        count: "new york" alone, if it is known; each skipped word is one unknown term. Words are compared as
        the tokeniser spells them; the published modes lower-case references whatever `lowercase` says, so a
        vocabulary made without it is found in its lower-case words only.

        Raises:
            InputError: `texts` is one string, or one of them is no string.
        """
        given = checked_texts(texts, what="references", show=False)
        found = self._finder.find(map(self.tokeniser.reference_terms, given), distinct=True)
        return References(self._matrix(found), found.n_distinct)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        tokeniser: Tokeniser = _DEFAULT_TOKENISER,
        ngram_range: tuple[int, int] = (1, 1),
        spans: Spans = "all",
    ) -> Vocabulary:
        """Read a published `vocab.json`, `{"word": index, ...}` in any order.

        The file holds the words only; `tokeniser`, `ngram_range` and `spans` are those it was made with.

        Raises:
            InputError: the file is missing or no JSON, or its indices are not 0 to V - 1, each once.
        """
        value = read_json(path)
        expected = f'expected {{"word": index, ...}} in {path}'
        if not isinstance(value, dict):
            raise InputError(f"{expected}, found a JSON {type(value).__name__}: restore the file")
        if not value:
            raise InputError(f"{expected}, found no words: restore the file")
        words: list[str | None] = [None] * len(value)
        for word, position in value.items():
            if not _is_integer(position):
                raise InputError(f"{expected}, found {position!r} as the index of {word!r}: restore the file")
            if not 0 <= position < len(words):
                raise InputError(
                    f"{expected} with indices 0 to {len(words) - 1} for its {len(words)} words, "
                    f"found {position} for {word!r}: restore the file"
                )
            if words[position] is not None:
                raise InputError(
                    f"{expected} with one index a word, found {position} for {words[position]!r} "
                    f"and for {word!r}: restore the file"
                )
            words[position] = word
        # As many words as places, and no place taken twice: none is empty.
        return cls(tuple(word for word in words if word is not None), tokeniser, ngram_range, spans)

    def save(self, path: str | Path) -> None:
        """Write the words as a published `vocab.json`, atomically.

        Raises:
            InputError: a word holds half of a surrogate pair, which no UTF-8 file can.
        """
        try:
            write_json(path, self.index)
        except UnicodeEncodeError as error:
            bad = next(word for word in self.words if not _is_encodable(word))
            raise InputError(
                f"expected words that can be written as UTF-8 in {path}, found {bad!r}: remove it"
            ) from error

    def _matrix(self, found: Found) -> csr_matrix[np.float32]:
        """Gather one entry a term found, row after row, into (n, V) counts."""
        matrix = csr_matrix(
            (np.ones(len(found.positions), dtype=np.float32), found.positions.astype(np.int32), found.ends),
            shape=(len(found.ends) - 1, len(self.words)),
            dtype=np.float32,
        )
        matrix.sum_duplicates()
        return matrix


def check_size(name: str, size: object, *, all_words: str = "None") -> None:
    """Refuse what is no size of a vocabulary.

    Args:
        name: what the caller calls it.
        size: at most so many words.
        all_words: what stands for no limit there.

    Raises:
        InputError: neither None nor a whole number from 1.
    """
    if size is not None and (not _is_integer(size) or size < 1):
        raise InputError(f"expected {name} to be a whole number from 1, or {all_words} for all, found {size!r}")


def checked_texts(texts: Iterable[str], *, what: str, show: bool) -> Iterator[str]:
    """Iterate over `texts`, refusing what is no text.

    Args:
        texts: read once.
        what: name of the progress bar.
        show: whether to show one.

    Raises:
        InputError: `texts` is one string, or one of them is no string.
    """
    if isinstance(texts, str):
        raise InputError("expected a list of texts, found one string: put it in a list")
    for row, text in enumerate(track(texts, what=what, unit="texts", show=show)):
        if not isinstance(text, str):
            raise InputError(f"expected every text to be a string, found {type(text).__name__} in row {row}")
        yield text


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_encodable(word: str) -> bool:
    try:
        word.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _check_ngram_range(ngram_range: object) -> None:
    good = False
    if isinstance(ngram_range, tuple) and len(ngram_range) == 2 and all(map(_is_integer, ngram_range)):
        good = 1 <= ngram_range[0] <= ngram_range[1]
    if not good:
        raise InputError(
            "expected ngram_range to be a tuple of two whole numbers, the shortest and the longest n-gram, "
            f"with 1 <= shortest <= longest, found {ngram_range!r}: write (1, 1) for single words"
        )


def _check_share_or_count(name: str, value: object) -> None:
    # A NaN fails both comparisons.
    if not (value >= 1 if _is_integer(value) else isinstance(value, float) and 0 <= value <= 1):
        raise InputError(
            f"expected {name} to be a whole number of texts from 1, or a share of them from 0.0 to 1.0, "
            f"found {value!r}: correct {name}"
        )


def no_words(n_texts: int, n_terms: int) -> str | None:
    """Return why no vocabulary can be made of `n_texts` texts that hold `n_terms` terms; None if one can."""
    if not n_texts:
        return "expected texts to make a vocabulary from, found none: check the input"
    if not n_terms:
        return (
            f"expected words to make a vocabulary from, found none in {n_texts} texts: "
            "check the texts, and the tokeniser's settings"
        )
    return None


def _nothing_left(n_texts: int, n_terms: int, min_df: float, too_rare: int, max_df: float, too_common: int) -> str:
    """Say why a vocabulary came out empty."""
    return no_words(n_texts, n_terms) or (
        f"expected at least one term for the vocabulary, found none: of {n_terms} terms in {n_texts} texts, "
        f"min_df={min_df!r} removed {too_rare} and max_df={max_df!r} removed {too_common}: "
        "lower min_df or raise max_df"
    )
