"""What is read from vectors: words with their scores, one vector's or many's."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from fliplens.text.vocabulary import Vocabulary

__all__ = ["TopWords", "Word", "Words"]

SHOWN_ROWS = 20


@dataclass(frozen=True)
class Word:
    """One word that a lens read from a vector."""

    word: str
    score: float
    """The score E1 · E2 · s + b at the prior dial that was asked for; of explain-away, the logit."""
    probability: float
    """The word's share of the softmax over the whole vocabulary, NaN where it was not asked for; of explain-away, the
    probability that the sentence holds the word, whatever the dial."""


@dataclass(frozen=True)
class Words(Sequence[Word]):
    """The top words of one vector, best first. In a notebook it shows as a small bar table."""

    words: tuple[Word, ...]

    @overload
    def __getitem__(self, item: int) -> Word: ...
    @overload
    def __getitem__(self, item: slice) -> Words: ...
    def __getitem__(self, item: int | slice) -> Word | Words:
        return Words(self.words[item]) if isinstance(item, slice) else self.words[item]

    def __len__(self) -> int:
        return len(self.words)

    def __str__(self) -> str:
        return " ".join(word.word for word in self.words)

    def to_json(self) -> list[dict[str, Any]]:
        """Return plain JSON values: word, score, probability (null where it was not asked for)."""
        return [
            {"word": w.word, "score": w.score, "probability": None if math.isnan(w.probability) else w.probability}
            for w in self.words
        ]

    @property
    def largest_probability(self) -> float:
        """The length of the longest bar; 1 where no word has a probability above 0."""
        return max((w.probability for w in self.words if w.probability > 0), default=1.0)

    def _repr_html_(self) -> str:
        """Return an HTML table with one bar a word; the bar is the probability, the longest one full width."""
        largest = self.largest_probability
        rows = "".join(
            "<tr>"
            f'<td style="text-align:left">{html.escape(word.word)}</td>'
            f'<td style="text-align:right">{word.score:.2f}</td>'
            + (
                "<td></td><td></td></tr>"
                if math.isnan(word.probability)
                else '<td style="text-align:left;width:12em"><div title="probability '
                f'{word.probability:.3f}" style="background:#4c78a8;height:0.8em;'
                f'width:{100 * word.probability / largest:.1f}%"></div></td>'
                f'<td style="text-align:right">{word.probability:.3f}</td></tr>'
            )
            for word in self.words
        )
        return (
            "<table><thead><tr><th>word</th><th>score</th><th></th><th>probability</th></tr></thead>"
            f"<tbody>{rows}</tbody></table>"
        )


@dataclass(frozen=True)
class TopWords(Sequence[Words]):
    """The top n words of many vectors, as arrays; an item is one vector's `Words`."""

    indices: NDArray[np.int64]
    """(rows, n) positions in the vocabulary, best first; ties go to the lower index. V where a row has fewer words,
    which only methods that name few words leave."""
    scores: NDArray[np.float32]
    """(rows, n), in the order of operations that `fliplens.arithmetic.ordered` states."""
    probabilities: NDArray[np.float32]
    """(rows, n); all NaN where they were not asked for."""
    vocabulary: Vocabulary = field(repr=False)

    @overload
    def __getitem__(self, item: int) -> Words: ...
    @overload
    def __getitem__(self, item: slice) -> TopWords: ...
    def __getitem__(self, item: int | slice) -> Words | TopWords:
        if isinstance(item, slice):
            return TopWords(self.indices[item], self.scores[item], self.probabilities[item], self.vocabulary)
        columns = (self.indices[item], self.scores[item], self.probabilities[item])
        return Words(
            tuple(
                Word(self.vocabulary[int(index)], float(score), float(probability))
                for index, score, probability in zip(*columns, strict=True)
                if index < len(self.vocabulary)
            )
        )

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[Words]:
        return (self[row] for row in range(len(self)))

    def _repr_html_(self) -> str:
        """Return an HTML table of one line a vector, the first SHOWN_ROWS of them."""
        rows = "".join(
            f'<tr><td>{row}</td><td style="text-align:left">{html.escape(str(self[row]))}</td></tr>'
            for row in range(min(len(self), SHOWN_ROWS))
        )
        left = len(self) - SHOWN_ROWS
        rest = f"<tr><td></td><td>and {left} more</td></tr>" if left > 0 else ""
        return f"<table><thead><tr><th>row</th><th>words</th></tr></thead><tbody>{rows}{rest}</tbody></table>"
