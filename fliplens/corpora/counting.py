"""What became of the rows of a corpus: how many were read, kept, and left out, and why."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

__all__ = ["Counts"]


@dataclass
class Counts:
    """Rows by what became of them. A row is counted once, under the first reason that it gives to leave it out."""

    read: int = 0
    """Rows that the source holds."""
    changed: int = 0
    """Rows of which cleaning altered a text (Unicode form, control characters, spaces), kept or not."""
    malformed: int = 0
    """Lines with fewer columns than the layout has."""
    few_votes: int = 0
    """Clips with fewer votes for them, or more against them, than asked for."""
    empty: int = 0
    """A side without text."""
    mangled: int = 0
    """A side with U+FFFD, which stands where an earlier conversion lost a letter."""
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
