"""Named entities of sentences, as the published code's JSONL lists them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fliplens.errors import InputError
from fliplens.files import read_lines
from fliplens.text.spans import ngrams
from fliplens.text.vocabulary import Vocabulary

__all__ = ["Entities", "read_entities"]


@dataclass(frozen=True)
class Entities:
    """The entities of n sentences, as words of one vocabulary, flattened."""

    words: NDArray[np.int64]
    """(m,) vocabulary index of each entity word, -1 where the vocabulary lacks it. With a vocabulary of
    `spans="longest"` (m, c): behind it the longer terms that cover the word within its entity, -1 to fill up."""
    word_entity: NDArray[np.int64]
    """(m,) which entity each word belongs to."""
    entity_row: NDArray[np.int64]
    """(entities,) which sentence each entity belongs to."""

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Return words, word_entity and entity_row, as the metrics take them."""
        return self.words, self.word_entity, self.entity_row

    @property
    def n_rows(self) -> int:
        """How many sentences have an entity."""
        return len(np.unique(self.entity_row))

    def subset(self, rows: NDArray[np.int64]) -> Entities:
        """Return the entities of some of the sentences; `rows` (ascending) become 0, 1, 2, ..."""
        kept = np.isin(self.entity_row, rows)
        number = np.cumsum(kept) - 1
        of_kept = kept[self.word_entity]
        return Entities(
            self.words[of_kept],
            number[self.word_entity[of_kept]],
            np.searchsorted(rows, self.entity_row[kept]),
        )

    @classmethod
    def of(cls, names: Sequence[Sequence[str]], vocabulary: Vocabulary) -> Entities:
        """Cut each sentence's entity names into words.

        Case and punctuation go as in any reference text; a name given twice counts once, and one without any
        word does not count. A vocabulary of `spans="longest"` has one term for words that it knows together, and
        it alone was trained where they stand together: "new york" reads both words of the entity "New York".
        """
        words: list[list[int]] = []
        word_entity: list[int] = []
        entity_row: list[int] = []
        for row, row_names in enumerate(names):
            distinct = dict.fromkeys(tuple(vocabulary.tokeniser.reference_terms(name)) for name in row_names)
            for terms in distinct:
                if not terms:
                    continue
                words.extend(_readings(terms, vocabulary))
                word_entity.extend([len(entity_row)] * len(terms))
                entity_row.append(row)
        width = max(map(len, words), default=1)
        filled = np.array([one + [-1] * (width - len(one)) for one in words], dtype=np.int64).reshape(-1, width)
        return cls(
            filled if vocabulary.spans == "longest" else filled[:, 0],
            np.asarray(word_entity, dtype=np.int64),
            np.asarray(entity_row, dtype=np.int64),
        )


def _readings(terms: tuple[str, ...], vocabulary: Vocabulary) -> list[list[int]]:
    """Return, for each word of an entity, the terms by which it is read: itself (-1 if unknown), then longer ones."""
    found = [[vocabulary.index.get(term, -1)] for term in terms]
    if vocabulary.spans == "longest":
        for n in range(2, vocabulary.ngram_range[1] + 1):
            for start, term in enumerate(ngrams(terms, (n, n))):
                if term in vocabulary:
                    for readings in found[start : start + n]:
                        readings.append(vocabulary.index[term])
    return found


def read_entities(path: str | Path, texts: Sequence[str], vocabulary: Vocabulary) -> Entities:
    """Read `{"text", "line_number" (from 1), "entity_names": [...]}` a line, and match them with `texts`.

    A line belongs to the text of its `line_number`; without one, to every text that reads the same after
    tokenisation.

    Raises:
        InputError: the file is missing or not such JSONL, a line number out of range, a text that is not the one
            in that line, or no entity at all.
    """
    names: list[list[str]] = [[] for _ in texts]
    cut = vocabulary.tokeniser.reference_terms
    by_text: dict[tuple[str, ...], list[int]] | None = None
    for number, line in enumerate(read_lines(path), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InputError(f"expected JSON in line {number} of {path}, found something else") from error
        if not isinstance(value, dict):
            raise InputError(f"expected a JSON object in line {number} of {path}, found {type(value).__name__}")
        found = value.get("entity_names", [])
        if not (isinstance(found, list) and all(isinstance(name, str) for name in found)):
            raise InputError(f"expected entity_names as a list of strings in line {number} of {path}")
        text, place = value.get("text"), value.get("line_number")
        if isinstance(place, int) and not isinstance(place, bool):
            if not 1 <= place <= len(texts):
                raise InputError(
                    f"expected line_number from 1 to {len(texts)} in line {number} of {path}, found {place}"
                )
            if isinstance(text, str) and cut(text) != cut(texts[place - 1]):
                raise InputError(
                    f"expected the text of line {place} in line {number} of {path}, found another "
                    f"({text[:60]!r}): the entities belong to a different text file"
                )
            names[place - 1].extend(found)
        elif isinstance(text, str):
            if by_text is None:
                by_text = {}
                for row, other in enumerate(texts):
                    by_text.setdefault(tuple(cut(other)), []).append(row)
            for row in by_text.get(tuple(cut(text)), []):
                names[row].extend(found)
        else:
            raise InputError(f"expected a text or a line_number in line {number} of {path}, found neither")
    entities = Entities.of(names, vocabulary)
    if not len(entities.entity_row):
        raise InputError(f"expected entities of the texts in {path}, found none that match them")
    return entities
