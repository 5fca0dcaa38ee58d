"""How much one run may send to services that are paid by what they read."""

from __future__ import annotations

import threading

from fliplens.errors import FliplensError
from fliplens.services.calls import whole_number

__all__ = ["VARIABLE", "Budget", "Ledger"]

VARIABLE = "FLIPLENS_API_BUDGET"


class Ledger:
    """Characters that were sent so far, and may be billed."""

    def __init__(self) -> None:
        self.characters = 0
        self.lock = threading.Lock()


_OF_THIS_PROCESS = Ledger()


class Budget:
    """A limit on the characters that are sent, of all encoders of a process together.

    Characters, not tokens: they are known before a call, whatever the model, and a token is about four of them in
    English, one or two in many other languages. What a service refused or never got does not count; what it may have
    read, although no answer came, does.

    Args:
        limit: characters; None for no limit.
        ledger: where they are counted; this process's own unless told.
    """

    def __init__(self, limit: int | None, *, ledger: Ledger = _OF_THIS_PROCESS) -> None:
        self.limit = limit
        self._ledger = ledger

    @classmethod
    def from_environment(cls) -> Budget:
        """Return the budget that FLIPLENS_API_BUDGET sets, in characters.

        Raises:
            InputError: it is no whole number of 1 or more.
        """
        return cls(whole_number(VARIABLE))

    def reserve(self, characters: int) -> None:
        """Count characters that are about to be sent.

        Raises:
            FliplensError: they would exceed the limit; nothing is counted.
        """
        with self._ledger.lock:
            total = self._ledger.characters + characters
            if self.limit is not None and total > self.limit:
                raise FliplensError(
                    f"expected to send at most {self.limit:,} characters ({VARIABLE}), found {total:,} with the next "
                    f"call, which was not made: what was answered is kept; set {VARIABLE} for the rest, or unset it, "
                    "and run the same command again"
                )
            self._ledger.characters = total

    def release(self, characters: int) -> None:
        """Take back characters that no service read."""
        with self._ledger.lock:
            self._ledger.characters -= characters
