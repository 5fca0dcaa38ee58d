"""Progress on long work: one bar, on stderr, that a library call shows only when it is asked to."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import Any, TypeVar

__all__ = ["Progress", "say", "track"]

T = TypeVar("T")


class Progress:
    """A progress bar that gives count, rate and time left; a context manager.

    Args:
        what: a word or two that name the work.
        total: how many units there are, if known.
        unit: what one unit is called in the rate.
        show: False does nothing at all.
        done: units that an earlier run already did.
        delay: seconds before the bar shows: work that is done sooner shows none.
    """

    def __init__(
        self, what: str, *, total: int | None, unit: str, show: bool, done: int = 0, delay: float = 0.0
    ) -> None:
        self._bar: Any = None
        if show:
            from tqdm import tqdm

            # Redrawing twice a second suits a terminal; a log file would fill, so there it is every few seconds.
            interval = 0.5 if sys.stderr.isatty() else 5.0
            self._bar = tqdm(
                desc=what,
                total=total,
                initial=done,
                unit=f" {unit}",
                mininterval=interval,
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


def say(text: str) -> None:
    """Write one line about long work to stderr, as the command line writes its own."""
    sys.stderr.write(f"fliplens: {text}\n")


def track(
    items: Iterable[T], *, what: str, total: int | None = None, unit: str = "it", show: bool = False
) -> Iterator[T]:
    """Iterate over `items` with a progress bar on stderr.

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
