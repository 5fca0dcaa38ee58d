"""What an engine does: it runs work on pieces, somewhere, and tells how each went."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from fliplens.errors import FliplensError, reason_of

__all__ = ["Engine", "Outcome", "Piece", "Work", "attempted"]


class Piece(NamedTuple):
    """Rows that are worked on at once."""

    number: int
    """From 0, in the order of the rows."""
    first: int
    """The first row."""
    stop: int
    """The row behind the last one."""


@dataclass(frozen=True)
class Outcome:
    """How work on a piece went."""

    number: int
    """The piece's."""
    rows: int = 0
    """Rows in its file."""
    facts: str = ""
    """What else the work tells, as JSON."""
    sha256: str = ""
    """Of its file."""
    size: int = 0
    """Bytes in its file."""
    error: str = ""
    """Why there is no file; "" where there is one."""
    exit_status: int = 0
    """Of that error."""


class Work(Protocol):
    """What is done with a piece. It travels to where it is done; what is heavy in it is loaded there, once."""

    def __call__(self, piece: Piece) -> Outcome:
        """Do it.

        Raises:
            FliplensError: it cannot be done.
        """
        ...


class Engine(Protocol):
    """What runs work."""

    def run(self, work: Work, pieces: Sequence[Piece]) -> Iterator[Outcome]:
        """Yield the outcome of each piece, in whatever order they are done.

        Raises:
            FliplensError: the engine itself failed.
        """
        ...


def attempted(work: Work, piece: Piece) -> Outcome:
    """Do the work on a piece, with what it fails with as an outcome: exceptions do not travel well."""
    try:
        return work(piece)
    except FliplensError as error:
        return Outcome(piece.number, error=str(error), exit_status=error.exit_status)
    except Exception as error:
        # Of a model, or a disk: whatever it is, the other pieces are as whole as before.
        reason = reason_of(f"{type(error).__name__}: {error}", 300)
        rows = f"rows {piece.first} to {piece.stop}"
        return Outcome(piece.number, error=f"expected to be done with {rows}, found {reason}", exit_status=1)
