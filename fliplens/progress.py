"""Progress on long work, on stderr, that a library call shows only when it is asked to.

A terminal gets a bar. A log gets plain lines instead, each whole: one now and then (`SECONDS`), none for work that is
done sooner.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import Any, TypeVar

__all__ = ["Progress", "say", "track"]

T = TypeVar("T")

SECONDS = 30.0
"""Between two lines of a log; the environment variable FLIPLENS_PROGRESS_SECONDS has another number."""


class Progress:
    """What tells count, rate and time left of one piece of work; a context manager.

    Args:
        what: a word or two that name the work.
        total: how many units there are, if known.
        unit: what one unit is called in the rate.
        show: False does nothing at all.
        done: units that an earlier run already did.
        delay: seconds before anything shows: work that is done sooner shows nothing.
    """

    def __init__(
        self, what: str, *, total: int | None, unit: str, show: bool, done: int = 0, delay: float = 0.0
    ) -> None:
        self._bar: Any = None
        if not show:
            return
        if not sys.stderr.isatty():
            self._bar = _Lines(what, total, unit, done, delay)
            return
        from tqdm import tqdm

        self._bar = tqdm(
            desc=what,
            total=total,
            initial=done,
            unit=f" {unit}",
            mininterval=0.5,
            file=sys.stderr,
            dynamic_ncols=True,
            delay=delay,
        )

    def update(self, units: int = 1) -> None:
        """Count `units` more as done."""
        if self._bar is not None:
            self._bar.update(units)

    def note(self, text: str) -> None:
        """Show a few words behind the bar."""
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()


class _Lines:
    """Lines of a log, by the calls that tqdm has for its bar."""

    def __init__(self, what: str, total: int | None, unit: str, done: int, delay: float) -> None:
        self._what, self._total, self._unit = what, total, unit
        self._first = self._done = done
        self._note = ""
        self._every = _seconds()
        self._begun = self._last = time.monotonic()
        self._delay = delay
        self._written: int | None = None
        """Units of the last line; None before there was one."""

    def update(self, units: int) -> None:
        self._done += units
        now = time.monotonic()
        if now - self._last >= self._every and now - self._begun >= self._delay:
            self._last = now
            self._write(now)

    def set_postfix_str(self, text: str, *, refresh: bool) -> None:
        del refresh  # a note waits for the next line
        self._note = text

    def close(self) -> None:
        """Bring what was begun to its end: a log whose last line says 70% looks like a job that was killed."""
        if self._written not in (None, self._done):
            self._write(time.monotonic())

    def _write(self, now: float) -> None:
        self._written = self._done
        share = f"{math.floor(100 * self._done / self._total)}%, " if self._total else ""
        parts = [f"{share}{self._done}{'' if self._total is None else f'/{self._total}'} {self._unit}"]
        new, spent = self._done - self._first, now - self._begun
        if new and spent:
            rate = new / spent
            parts.append(f"{_short(rate)} {self._unit}/s" if rate >= 1 else f"{_short(1 / rate)} s each")
            if self._total is not None and self._done < self._total:
                parts.append(f"{_clock((self._total - self._done) / rate)} left")
        if self._note:
            parts.append(self._note)
        say(f"{self._what}: {', '.join(parts)}")


def _seconds() -> float:
    try:
        return float(os.environ.get("FLIPLENS_PROGRESS_SECONDS", ""))
    except ValueError:
        return SECONDS


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def say(text: str) -> None:
    """Write one line about long work to stderr, as the command line writes its own; a bar that shows makes way."""
    line = f"fliplens: {text}"
    # Without tqdm there is no bar.
    if "tqdm" in sys.modules and sys.stderr.isatty():
        from tqdm import tqdm

        tqdm.write(line, file=sys.stderr)
    else:
        sys.stderr.write(f"{line}\n")


def track(
    items: Iterable[T], *, what: str, total: int | None = None, unit: str = "it", show: bool = False
) -> Iterator[T]:
    """Iterate over `items`, telling how far it is on stderr.

    Args:
        items: what to iterate over.
        what: a word or two that name the work.
        total: how many items there are, if `items` has no length.
        unit: what one item is called in the rate.
        show: False (what the library does unless told) iterates silently.
    """
    if not show:
        yield from items
        return
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Progress(what, total=total, unit=unit, show=show) as bar:
        for item in items:
            yield item
            bar.update()
