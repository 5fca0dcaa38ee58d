"""What every tagger offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

__all__ = ["DecliningTagger", "Tagger"]


@runtime_checkable
class Tagger(Protocol):
    """Something that finds the named entities of sentences."""

    @property
    def spec(self) -> str:
        """What `load_tagger` takes to get this tagger again."""
        ...

    @property
    def revision(self) -> str | None:
        """Which version of it: a commit, or `sha256:` and a hash; None if not known."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """What else decides its answers, as JSON: a job is continued only under the same settings."""
        ...

    @property
    def texts_a_call(self) -> int:
        """How many texts to hand to one `tag`, when there are many: what a killed job can lose."""
        ...

    def tag(self, texts: Sequence[str]) -> list[list[str]]:
        """Return the names in each of n texts, in the order of the texts.

        Names need not be clean: whoever writes them drops those that their text does not hold, and repeats.

        Raises:
            FliplensError: the tagger did not answer.
        """
        ...


@runtime_checkable
class DecliningTagger(Tagger, Protocol):
    """A tagger that may decline a text: it then answers with no names, and counts."""

    @property
    def declined(self) -> int:
        """How many texts it has declined so far."""
        ...
