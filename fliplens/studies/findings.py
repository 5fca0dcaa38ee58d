"""Sentences that say what cells show, and no more than they show.

A difference is claimed only where it is beyond chance by everything that is known of it: its 95% interval leaves out
zero and p is below 0.05. Without either, the sentence says that chance was not looked at.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fliplens.errors import InputError
from fliplens.studies.rendering import show_number, show_p
from fliplens.studies.tables import Cell

__all__ = ["PER_CENT", "Scale", "beyond_chance", "compared", "highest", "measured", "times", "trend"]

SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Scale:
    """How numbers are said."""

    factor: float = 1.0
    """Numbers are multiplied by it."""
    decimals: int = 2
    """Digits after the point."""
    unit: str = ""
    """Said after a number: "%", " s"."""
    step: str = ""
    """Said after a difference: " points"."""

    def value(self, number: float) -> str:
        """Return a number with its unit."""
        return show_number(number * self.factor, self.decimals) + self.unit

    def change(self, number: float) -> str:
        """Return a difference with its unit; one too small for the decimals is not called zero."""
        shown, unit = show_number(number * self.factor, self.decimals), self.step or self.unit
        if number and not shown.strip("0."):
            return f"less than {show_number(10.0**-self.decimals, self.decimals)}{unit}"
        return shown + unit

    def bare(self, number: float) -> str:
        """Return a number without a unit."""
        return show_number(number * self.factor, self.decimals)


PER_CENT = Scale(100.0, 1, "%", " points")
"""Shares as per cent with one decimal, their differences as points."""


def measured(name: str, cell: Cell, scale: Scale = PER_CENT) -> str:
    """Return what was measured of one thing, with its 95% interval, else its standard error; or why nothing was."""
    if cell.mean is None:
        return _unmeasured(name, cell)
    number = f"{name}: {scale.value(cell.mean)}"
    if cell.ci95 is not None:
        return f"{number} (95% interval {_interval(cell.ci95, scale)})."
    return f"{number} (standard error {scale.bare(cell.se)})." if cell.se is not None else f"{number}."


def compared(first: str, second: str, difference: Cell, scale: Scale = PER_CENT) -> str:
    """Return how far the first is above or below the second, or that chance explains it.

    Args:
        first: name of what the difference was taken from.
        second: name of what was taken away.
        difference: first minus second, with what is known of its uncertainty.
        scale: how numbers are said.
    """
    if difference.mean is None:
        return _unmeasured(f"the difference between {first} and {second}", difference)
    mean, evidence = difference.mean, _evidence(difference, scale)
    size = scale.change(abs(mean))
    direction = "above" if mean > 0 else "below"
    if not evidence:
        if mean == 0:
            return f"{first} and {second} are equal; how far chance goes was not measured."
        return f"{first} is {size} {direction} {second}; whether that is more than chance was not measured."
    if not beyond_chance(difference):
        return f"No difference beyond chance between {first} and {second} ({scale.change(mean)}, {evidence})."
    return f"{first} is {size} {direction} {second} ({evidence})."


def beyond_chance(difference: Cell) -> bool:
    """Return whether all that is known of a difference says that it is more than chance; False if nothing is."""
    if difference.mean is None or ((interval := difference.interval()) is None and difference.p is None):
        return False
    if interval is not None and interval[0] <= 0 <= interval[1]:
        return False
    return difference.p is None or difference.p < SIGNIFICANT


def highest(cells: Mapping[str, Cell], scale: Scale = PER_CENT) -> str:
    """Return which of several things has the highest number and by how much it leads the next one.

    The lead is only described: where the two 95% intervals touch, the sentence says so. A difference over the same
    sentences (`compared`) can tell more.
    """
    numbers = {name: cell for name, cell in cells.items() if cell.mean is not None}
    if not numbers:
        return "Nothing was measured."
    ranked = sorted(numbers, key=lambda name: -_mean(numbers[name]))
    best = numbers[ranked[0]]
    shown = scale.value(_mean(best))
    if len(ranked) == 1:
        return f"Only {ranked[0]} was measured: {shown}."
    second = numbers[ranked[1]]
    if _mean(best) == _mean(second):
        level = [name for name in ranked if _mean(numbers[name]) == _mean(best)]
        return f"{_listed(level)} are level at the highest, {shown}."
    lead = scale.change(_mean(best) - _mean(second))
    sentence = f"{ranked[0]} is highest with {shown}, {lead} above the next, {ranked[1]}"
    one, two = best.interval(), second.interval()
    if one is None or two is None:
        return f"{sentence}; whether that is more than chance was not measured."
    return f"{sentence}; their 95% intervals overlap." if one[0] <= two[1] else f"{sentence}."


def trend(name: str, along: str, xs: Sequence[float], cells: Sequence[Cell], scale: Scale = PER_CENT) -> str:
    """Return how a number goes along another: from where to where, and whether it turns on its way.

    Args:
        name: what was measured.
        along: the other's name: "n", "rank", "layer".
        xs: its values, rising.
        cells: one a value; those without a number are left out.
        scale: how numbers are said.

    Raises:
        InputError: not as many cells as values.
    """
    if len(xs) != len(cells):
        raise InputError(f"expected one cell for each of {len(xs)} values of {along}, found {len(cells)}: pair them")
    points = [(x, _mean(cell)) for x, cell in zip(xs, cells, strict=True) if cell.mean is not None]
    if len(points) < 2:
        return f"{name} was measured at {len(points) or 'no'} value{'s' * (not points)} of {along}: no trend to tell."
    (first, start), (last, end) = points[0], points[-1]
    ends = f"from {scale.value(start)} at {along} = {first:g} to {scale.value(end)} at {along} = {last:g}"
    steps = [after - before for (_, before), (_, after) in itertools.pairwise(points)]
    if all(step >= 0 for step in steps) and end > start:
        return f"{name} rises {ends}, nowhere falling."
    if all(step <= 0 for step in steps) and end < start:
        return f"{name} falls {ends}, nowhere rising."
    if start == end and not any(steps):
        return f"{name} stays at {scale.value(start)} from {along} = {first:g} to {last:g}."
    top_x, top = max(points, key=lambda point: point[1])
    low_x, low = min(points, key=lambda point: point[1])
    return (
        f"{name} goes {ends}, not steadily: highest {scale.value(top)} at {along} = {top_x:g}, "
        f"lowest {scale.value(low)} at {along} = {low_x:g}."
    )


def times(first: str, second: str, one: Cell, two: Cell) -> str:
    """Return how many times as high the first number is as the second."""
    for name, cell in ((first, one), (second, two)):
        if cell.mean is None:
            return _unmeasured(name, cell)
    if _mean(two) <= 0:
        return f"{second} is at {show_number(_mean(two), 2)}: no ratio to {first} can be taken."
    return f"{first} is {show_number(_mean(one) / _mean(two), 2)} times as high as {second}."


def _unmeasured(name: str, cell: Cell) -> str:
    why = cell.missing if cell.missing is not None else "it is no number"
    return f"{name[0].upper()}{name[1:]} was not measured: {why.rstrip('.')}."


def _mean(cell: Cell) -> float:
    if cell.mean is None:
        raise AssertionError("only numbers get here")
    return cell.mean


def _interval(ends: tuple[float, float], scale: Scale) -> str:
    """Return "1.9 to 2.7"; the ends keep their order and sign."""
    return f"{scale.bare(ends[0])} to {scale.bare(ends[1])}"


def _evidence(difference: Cell, scale: Scale) -> str:
    """Return what is known of a difference's uncertainty; the interval is the one of what the sentence claims."""
    ends = difference.interval()
    parts = []
    if ends is not None:
        # "2.3 below" goes with 1.9 to 2.7, "no difference" with the ends as they are.
        below = difference.mean is not None and difference.mean < 0 and beyond_chance(difference)
        parts.append(f"95% interval {_interval((-ends[1], -ends[0]) if below else ends, scale)}")
    if difference.p is not None:
        parts.append(show_p(difference.p))
    return ", ".join(parts)


def _listed(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"
