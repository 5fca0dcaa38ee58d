"""Ctrl-C and SIGTERM while a lens is fitted: the running step ends, the checkpoint is written, then we leave."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

__all__ = ["StopOnSignal", "Terminated"]


class Terminated(KeyboardInterrupt):
    """SIGTERM; a `KeyboardInterrupt` of its own exit status."""


class StopOnSignal:
    """A context manager that is asked by `fit`, as `stop`, whether a signal has come.

    Until it asks for the first time there is nothing to keep, and a signal ends the command at once. So
    does a second signal, unless several processes train together: there the terminal and torchrun both send one.
    Handlers are set in the main thread only, and put back at the end.

    Args:
        patient: heed no second signal.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.number: int | None = None
        """The signal that came, if one did."""
        self._patient = patient
        self._asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        """Return whether a signal has come."""
        self._asked = True
        return self.number is not None

    @property
    def exit_status(self) -> int:
        """128 and the signal's number, as shells count."""
        return 128 + (self.number or signal.SIGINT)

    def __enter__(self) -> StopOnSignal:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        first = self.number is None
        self.number = number if first else self.number
        if not self._asked or not (first or self._patient):
            raise Terminated if number == signal.SIGTERM else KeyboardInterrupt
