"""Cleaning of text, the same for every language, and which rows are worth keeping."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fliplens.corpora.counting import Counts
from fliplens.corpora.rows import Row
from fliplens.errors import InputError

__all__ = ["Cleaning", "clean_rows", "clean_text"]

_CONTROLS = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"  # control characters that are no spaces
    "\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"  # soft hyphens, marks of direction
    "\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]"  # half characters (JSON escapes bring them), what is none
)
"""What is never text. The joiners U+200C and U+200D stay: Indic scripts and Persian are spelt with them."""


@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """Which texts are kept. Every side of a row must be within the bounds."""

    min_words: int = 1
    """Words, counted between spaces."""
    max_words: int | None = None
    """None: no limit. In scripts without spaces a sentence is one word: bound its characters instead."""
    min_characters: int = 1
    """Characters, after cleaning."""
    max_characters: int | None = None
    """None: no limit."""
    drop_identical: bool = True
    """Whether rows go of which two sides are the same text."""

    def __post_init__(self) -> None:
        for low, high, what in (
            (self.min_words, self.max_words, "words"),
            (self.min_characters, self.max_characters, "characters"),
        ):
            if low < 1 or (high is not None and high < low):
                raise InputError(f"expected 1 <= min_{what} <= max_{what}, found {low} and {high}")


def clean_text(text: str) -> str:
    """Return a text in Unicode's composed form (NFC), without control characters, one space between words.

    Whatever Unicode calls a space, line and paragraph separators included, is one; so are tabs.
    """
    if not text.isascii() and not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    if not text.isprintable():
        text = _CONTROLS.sub("", text)
        if not unicodedata.is_normalized("NFC", text):
            # What stood between a letter and its accent is gone.
            text = unicodedata.normalize("NFC", text)
    return " ".join(text.split())


def clean_rows(rows: Iterable[Row], cleaning: Cleaning, counts: Counts) -> Iterator[Row]:
    """Yield cleaned rows, without those that are not to be kept, which are counted."""
    low, high = cleaning.min_words, cleaning.max_words
    fewest, most = cleaning.min_characters, cleaning.max_characters
    bounded = low > 1 or high is not None
    measured = fewest > 1 or most is not None
    drop_identical = cleaning.drop_identical
    for row in rows:
        texts = tuple([clean_text(text) for text in row.texts])
        changed = texts != row.texts
        counts.changed += changed
        # One test each for what hardly ever happens; words and characters are counted only where somebody asks.
        if not all(texts):
            counts.empty += 1
        elif "\ufffd" in "".join(texts):
            counts.mangled += 1
        elif bounded and min(words := [text.count(" ") + 1 for text in texts]) < low:
            counts.too_few_words += 1
        elif bounded and high is not None and max(words) > high:
            counts.too_many_words += 1
        elif measured and min(map(len, texts)) < fewest:
            counts.too_few_characters += 1
        elif measured and most is not None and max(map(len, texts)) > most:
            counts.too_many_characters += 1
        elif drop_identical and len(texts) > 1 and len(set(texts)) < len(texts):
            counts.identical += 1
        else:
            yield row._replace(texts=texts) if changed else row
