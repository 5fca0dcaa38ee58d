"""How a vocabulary is chosen: given as it is, or made from the training rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from fliplens.files import sha256_of_lines
from fliplens.text.tokenisation import Tokeniser
from fliplens.text.vocabulary import Vocabulary, check_size

__all__ = ["VocabularyChoice", "VocabularyConfig", "choice_of"]


class VocabularyChoice(Protocol):
    """Makes a vocabulary from the training rows: `VocabularyConfig`, `ConceptConfig`, or one of your own."""

    def build(self, texts: Sequence[str], *, show_progress: bool = False) -> Vocabulary:
        """Return the vocabulary of `texts`."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values that tell this choice from every other."""
        ...


@dataclass(frozen=True, kw_only=True)
class VocabularyConfig:
    """Which terms of the training rows become the vocabulary."""

    size: int | None = 100_000
    """The most frequent terms, at most this many; None keeps all."""
    min_df: int | float = 1
    """Leave out terms of fewer rows: a number of them, or a float as their share."""
    max_df: int | float = 1.0
    """Leave out terms of more rows, likewise."""
    ngram_range: tuple[int, int] = (1, 1)
    """Shortest and longest n-gram."""
    tokeniser: Tokeniser = field(default_factory=Tokeniser)
    """Cuts text into words, in training and in evaluation."""

    def __post_init__(self) -> None:
        """Check the size; the other fields are those of `Vocabulary.from_texts`, which checks them.

        Raises:
            InputError: a size that is none.
        """
        check_size("size", self.size)

    def build(self, texts: Sequence[str], *, show_progress: bool = False) -> Vocabulary:
        """Return the vocabulary of `texts`."""
        return Vocabulary.from_texts(
            texts,
            tokeniser=self.tokeniser,
            max_size=self.size,
            min_df=self.min_df,
            max_df=self.max_df,
            ngram_range=self.ngram_range,
            show_progress=show_progress,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain JSON values."""
        return {
            "size": self.size,
            "min_df": self.min_df,
            "max_df": self.max_df,
            "ngram_range": list(self.ngram_range),
            "tokeniser": self.tokeniser.to_json(),
        }


@dataclass(frozen=True)
class _Given:
    """The choice of a vocabulary that is there already."""

    vocabulary: Vocabulary

    def build(self, texts: Sequence[str], *, show_progress: bool = False) -> Vocabulary:
        del texts, show_progress
        return self.vocabulary

    def to_json(self) -> dict[str, Any]:
        return {
            "sha256": sha256_of_lines(self.vocabulary.words),
            "tokeniser": self.vocabulary.tokeniser.to_json(),
            "ngram_range": list(self.vocabulary.ngram_range),
            "spans": self.vocabulary.spans,
        }


def choice_of(vocabulary: Vocabulary | VocabularyChoice | None) -> VocabularyChoice:
    """Return what `fit` was handed as a choice; None is the default `VocabularyConfig`."""
    if isinstance(vocabulary, Vocabulary):
        return _Given(vocabulary)
    return VocabularyConfig() if vocabulary is None else vocabulary
