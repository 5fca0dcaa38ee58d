"""What became of the rows of a corpus: how many were read, kept, and left out, and why."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from fliplens.errors import FliplensWarning, InputError
from fliplens.wording import counted

__all__ = ["BadRows", "Counts"]

PATIENCE = 1000
"""Rows at the start of a file that may all be malformed before it is taken for one of another layout."""


@dataclass
class Counts:
    """Rows by what became of them. A row is counted once, under the first reason that it gives to leave it out."""

    read: int = 0
    """Rows that the source holds."""
    changed: int = 0
    """Rows of which cleaning altered a text (Unicode form, control characters, spaces), kept or not."""
    malformed: int = 0
    """Rows that are not laid out as the others: of another number of columns, with quotation marks that are not
    closed, no JSON, something else than text in a column of text."""
    few_votes: int = 0
    """Clips with fewer votes for them, or more against them, than asked for."""
    empty: int = 0
    """A side without text."""
    mangled: int = 0
    """A side with U+FFFD, which stands where an earlier conversion lost a letter, or with bytes that are no UTF-8."""
    too_few_words: int = 0
    """A side of fewer words, counted between spaces, than asked for."""
    too_many_words: int = 0
    """A side of more words than asked for."""
    too_few_characters: int = 0
    """A side of fewer characters than asked for."""
    too_many_characters: int = 0
    """A side of more characters than asked for."""
    identical: int = 0
    """Two sides with the same text: not translated."""
    no_audio: int = 0
    """The clip's file is not there."""
    bad_audio: int = 0
    """The clip's file is empty, cut off, or no audio."""
    too_brief: int = 0
    """A clip of fewer seconds than asked for."""
    too_lengthy: int = 0
    """A clip of more seconds than asked for."""
    silent: int = 0
    """A clip that never rises above -80 dB of full scale; known only where clips are decoded."""
    duplicate: int = 0
    """Rows like an earlier one."""
    in_other_split: int = 0
    """Rows that share a sentence with a split that is tested on (of sources that come with splits of their own)."""
    beyond_limit: int = 0
    """Rows that were not drawn, of more than asked for."""
    dissimilar: int = 0
    """Rows whose views are not more alike than the threshold."""

    @property
    def dropped(self) -> dict[str, int]:
        """Reason → rows, of the reasons there were, in the order in which they are looked for."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: n for name, n in found.items() if n and name not in ("read", "changed")}

    @property
    def kept(self) -> int:
        """Rows that nothing left out so far."""
        return self.read - sum(self.dropped.values())

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"read": self.read, "changed": self.changed, "kept": self.kept, "dropped": self.dropped}


class BadRows:
    """The rows of one file that are not laid out as its others: counted as malformed, the first one told.

    Args:
        place: what the file is called.
        counts: gets them. Whoever reads counts every row as read before it is found bad.
    """

    def __init__(self, place: str | Path, counts: Counts) -> None:
        self._place = place
        self._counts = counts
        self._start = counts.read
        self._n = 0
        self._first = ""

    def add(self, problem: str) -> None:
        """Count one more.

        Args:
            problem: what was expected where, and what was found.

        Raises:
            InputError: none of many rows was good so far: the file is of another layout.
        """
        self._counts.malformed += 1
        self._n += 1
        self._first = self._first or problem
        if self._n == PATIENCE:
            self._check()

    def end(self) -> None:
        """Tell of the bad rows of a file that was read to its end.

        Raises:
            InputError: there were no others.

        Warns:
            FliplensWarning: there were some.
        """
        self._check()
        if self._n:
            warnings.warn(
                f"left out {counted(self._n, 'row')} of {self._place} as malformed, the first: {self._first}",
                FliplensWarning,
                stacklevel=2,
            )

    def _check(self) -> None:
        if self._n and self._counts.read - self._start == self._n:
            raise InputError(
                f"{self._first}, and no row before or behind it that is laid out so: is the file of another kind, or "
                "were its columns named wrongly?"
                if self._n > 1
                else f"{self._first}, and no other row: is the file of another kind?"
            )
