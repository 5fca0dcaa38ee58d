"""What a store of vectors offers to be imported: its rows in pages, in one stable order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

__all__ = ["Page", "Store"]


@dataclass(frozen=True)
class Page:
    """Some rows of a store that follow one another."""

    vectors: NDArray[Any]
    """(k, d)"""
    ids: Sequence[int | str] | None
    """What the store calls each of them; None where it has no names."""
    texts: Sequence[str] | None
    """The text kept with each, where it was asked for."""
    next: Any
    """Where the rows behind them begin, as a JSON value; None behind the last one."""


class Store(Protocol):
    """Rows that are read once, from a server or from anything else."""

    @property
    def name(self) -> str:
        """How messages and records call it; it holds no password."""

    @property
    def rows(self) -> int:
        """How many there are."""

    @property
    def dim(self) -> int:
        """d, the length of a vector."""

    @property
    def dtype(self) -> str:
        """float16, float32 or float64: what holds every vector exactly."""

    @property
    def state(self) -> Any:
        """A JSON value that changes when the rows do; None where there is nothing to tell."""

    def pages(self, start: Any, rows: int) -> Iterator[Page]:
        """Yield pages of some `rows` or fewer, in one order that stays the same.

        Args:
            start: None for the first row, or a page's `next`.
            rows: of a page, at most.
        """

    def close(self) -> None:
        """Let go of files and connections."""
