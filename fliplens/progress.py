"""Progress on long work: one bar, on stderr, that a library call shows only when it is asked to."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

__all__ = ["track"]

T = TypeVar("T")


def track(
    items: Iterable[T], *, what: str, total: int | None = None, unit: str = "it", show: bool = False
) -> Iterator[T]:
    """Iterate over `items` with a progress bar on stderr that gives count, rate and time left.

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
    from tqdm import tqdm

    # Redrawing twice a second suits a terminal; a log file would fill, so there it is every few seconds.
    interval = 0.5 if sys.stderr.isatty() else 5.0
    yield from tqdm(
        items, desc=what, total=total, unit=unit, mininterval=interval, file=sys.stderr, dynamic_ncols=True
    )
