"""Plots of results as values, and their drawings: lines with bands, grouped bars with error bars.

A plot is made of the same cells as a table, so that both show the same numbers. `render` draws one as SVG or PNG,
which needs matplotlib (the extra `plots`). Colours suit the colour-blind; markers, dashes and hatches tell the same
things apart without colour.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fliplens.errors import InputError
from fliplens.studies.drawing import COLOURS, DASHES, HATCHES, MARKERS, new_axes, save, style, told_apart
from fliplens.studies.rendering import MINUS, one_line, show_number
from fliplens.studies.tables import Cell, Table, clean

__all__ = ["BarPlot", "Bars", "Line", "LinePlot", "Plot", "render"]

_WIDTH = 7.0
_NOTE = {"fontsize": 8, "color": "0.35"}


@dataclass(frozen=True)
class Line:
    """One line of a plot.

    Raises:
        InputError: not one cell for each x.
    """

    label: str
    """Its name in the legend."""
    x: tuple[float, ...]
    """Where it was measured, rising."""
    y: tuple[Cell, ...]
    """One cell each; where one has no number, the line is broken."""
    colour: int | None = None
    """Which colour and marker, from 0; None: the line's own place. Lines that share something share it."""
    dash: int | None = None
    """Which dashes, from 0; None: the line's own place."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "x", tuple(float(x) for x in self.x))
        object.__setattr__(self, "y", tuple(self.y))
        if len(self.x) != len(self.y):
            raise InputError(f"expected a cell for each of {len(self.x)} x of {self.label!r}, found {len(self.y)}")


@dataclass(frozen=True)
class LinePlot:
    """Lines over a number, with bands of their 95% intervals.

    Raises:
        InputError: no lines, an unknown kind of axis.
    """

    title: str
    """What it shows, in one line."""
    x_label: str
    """What x is, with its unit."""
    y_label: str
    """What y is, without its unit."""
    lines: tuple[Line, ...]
    """At least one."""
    unit: str = "%"
    """Of y, shown after its label."""
    scale: float = 100.0
    """Cells are multiplied by it."""
    x_axis: Literal["linear", "log"] = "linear"
    """Steps of x of the same length, or of the same ratio (ranks)."""
    x_ticks: tuple[tuple[float, str], ...] = ()
    """Places of x and what is written there; without any, matplotlib chooses, or on a log axis all x."""
    from_zero: bool = True
    """Whether y starts at 0 where all numbers are above it."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "lines", tuple(self.lines))
        if not self.lines:
            raise InputError(f"expected lines in {self.title!r}, found none: give at least one")
        if self.x_axis not in ("linear", "log"):
            raise InputError(f"expected x_axis to be linear or log, found {self.x_axis!r}: give one of them")
        if self.x_axis == "log" and any(x <= 0 for line in self.lines for x in line.x):
            raise InputError(f"expected x above 0 on the log axis of {self.title!r}, found others: use linear")


@dataclass(frozen=True)
class Bars:
    """One bar in each group."""

    label: str
    """Its name in the legend."""
    cells: tuple[Cell, ...]
    """One a group; without a number there is no bar, but a dash in its place."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "cells", tuple(self.cells))


@dataclass(frozen=True)
class BarPlot:
    """Groups of bars with error bars of their 95% intervals; they always start at 0.

    Raises:
        InputError: no bars, or not one cell for each group.
    """

    title: str
    """What it shows, in one line."""
    y_label: str
    """What the bars' length is, without its unit."""
    groups: tuple[str, ...]
    """Names under the groups."""
    bars: tuple[Bars, ...]
    """At least one."""
    unit: str = "%"
    """Of y, shown after its label."""
    scale: float = 100.0
    """Cells are multiplied by it."""
    decimals: int = 1
    """Of the numbers at the bars' ends."""
    x_label: str = ""
    """What the groups are."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", tuple(self.groups))
        object.__setattr__(self, "bars", tuple(self.bars))
        if not self.bars or not self.groups:
            raise InputError(f"expected bars and groups in {self.title!r}, found none: give at least one of each")
        for one in self.bars:
            if len(one.cells) != len(self.groups):
                raise InputError(
                    f"expected a cell for each of {len(self.groups)} groups in {one.label!r}, found "
                    f"{len(one.cells)}: give Cell.nothing(reason) where there is none"
                )

    @classmethod
    def of(
        cls, table: Table, columns: Sequence[int], *, y_label: str, names: Sequence[int] = (0,), decimals: int = 1
    ) -> BarPlot:
        """Return the plot of some columns of a table: a group for each of its rows, a bar for each column.

        Args:
            table: where the numbers are.
            columns: which of its columns (index from 0) are bars; the first one's unit and scale hold for all.
            y_label: what the numbers are.
            names: columns of words that together name a row.
            decimals: of the numbers at the bars' ends.
        """
        first = table.columns[columns[0]]
        return cls(
            table.title,
            y_label,
            tuple(", ".join(row[place].text or "" for place in names) for row in table.rows),
            tuple(Bars(table.columns[place].heading, table.column(place)) for place in columns),
            unit=first.unit,
            scale=first.scale,
            decimals=decimals,
        )


Plot = LinePlot | BarPlot


def render(plot: Plot, kind: Literal["svg", "png"]) -> bytes:
    """Return a drawing of a plot as the bytes of a file; the same plot gives the same bytes.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    text = " ".join(_texts(plot))
    with style(text):
        figure = _draw_lines(plot) if isinstance(plot, LinePlot) else _draw_bars(plot)
        return save(figure, kind)


def _texts(plot: Plot) -> list[str]:
    """Return all words of a plot."""
    if isinstance(plot, LinePlot):
        words = [plot.x_label, *(line.label for line in plot.lines), *(word for _, word in plot.x_ticks)]
    else:
        words = [plot.x_label, *plot.groups, *(one.label for one in plot.bars)]
    return [_shown(word) for word in [plot.title, plot.y_label, plot.unit, MINUS, *words]]


def _shown(text: str) -> str:
    return one_line(clean(text))


def _wrapped(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(_shown(text), width, break_long_words=True)) or " "


# Lines ----------------------------------------------------------------------------------------------------------


def _draw_lines(plot: LinePlot) -> Any:
    figure, axes = new_axes(_WIDTH, 4.2)
    handles, banded, lowest = [], False, 0.0
    for number, line in enumerate(plot.lines):
        look = number if line.colour is None else line.colour
        colour = told_apart(look, COLOURS)
        nan = float("nan")
        y = [nan if cell.mean is None else cell.mean * plot.scale for cell in line.y]
        ends = [cell.interval() or (nan, nan) for cell in line.y]
        (handle,) = axes.plot(
            line.x,
            y,
            color=colour,
            marker=told_apart(look, MARKERS),
            markersize=5,
            markeredgecolor="white",
            markeredgewidth=0.6,
            # Enough marks to tell lines apart, not so many that they hide them.
            markevery=max(1, len(line.x) // 12),
            linestyle=told_apart(number if line.dash is None else line.dash, DASHES),
            linewidth=1.7,
            zorder=3,
        )
        handles.append(handle)
        lowest = min([lowest, *(value for value in y if value == value)])
        if any(low == low for low, _ in ends):
            banded = True
            low, high = ([end * plot.scale for end in side] for side in zip(*ends, strict=True))
            axes.fill_between(line.x, low, high, color=colour, alpha=0.18, linewidth=0, zorder=2)
    _scale_x(plot, axes)
    axes.set_xlabel(_shown(plot.x_label))
    axes.margins(x=0.02)
    if plot.from_zero and lowest >= 0:
        axes.set_ylim(0, None)
    _finish(figure, axes, plot, handles, [line.label for line in plot.lines], "band: 95% interval" * banded)
    return figure


def _scale_x(plot: LinePlot, axes: Any) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    ticks = plot.x_ticks
    if plot.x_axis == "log":
        axes.set_xscale("log", base=2)
        axes.xaxis.set_minor_locator(NullLocator())
        ticks = ticks or tuple((x, f"{x:g}") for x in sorted({x for line in plot.lines for x in line.x}))
    if ticks:
        axes.xaxis.set_major_locator(FixedLocator([x for x, _ in ticks]))
        axes.set_xticklabels(["\n".join(map(_shown, word.split("\n"))) for _, word in ticks])
    elif all(x.is_integer() for line in plot.lines for x in line.x):
        axes.xaxis.get_major_locator().set_params(integer=True)


# Bars -----------------------------------------------------------------------------------------------------------


def _draw_bars(plot: BarPlot) -> Any:
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    n_bars = len(plot.groups) * len(plot.bars)
    width = min(14.0, max(_WIDTH, 1.4 + 0.3 * n_bars))
    figure, axes = new_axes(width, 4.2)
    thick = 0.8 / len(plot.bars)
    handles, with_errors = [], False
    for number, one in enumerate(plot.bars):
        colour = to_rgb(told_apart(number, COLOURS))
        # Lighter fills, most where there is a hatch, so that it and error bars are seen.
        white = 0.45 if told_apart(number, HATCHES) else 0.2
        fill = [white + (1 - white) * part for part in colour]
        look = {"facecolor": fill, "edgecolor": colour, "hatch": told_apart(number, HATCHES), "linewidth": 1.0}
        handles.append(Patch(**look))
        places = [group + (number - (len(plot.bars) - 1) / 2) * thick for group in range(len(plot.groups))]
        heights = [0.0 if cell.mean is None else cell.mean * plot.scale for cell in one.cells]
        there = [group for group, cell in enumerate(one.cells) if cell.mean is not None]
        axes.bar(
            [places[group] for group in there], [heights[group] for group in there], thick * 0.92, zorder=2, **look
        )
        for place, cell, height in zip(places, one.cells, heights, strict=True):
            end = height
            if (ends := cell.interval()) is not None and cell.mean is not None:
                with_errors = True
                low, high = (side * plot.scale for side in ends)
                axes.errorbar(
                    place, height, [[max(0.0, height - low)], [max(0.0, high - height)]],
                    color="0.1", capsize=2.5, elinewidth=1.0, capthick=1.0, zorder=4,
                )  # fmt: skip
                end = max(high, height) if height >= 0 else min(low, height)
            shown = "–" if cell.mean is None else show_number(height, plot.decimals)
            below = end < 0
            axes.annotate(
                shown,
                (place, end),
                (0, -3 if below else 3),
                textcoords="offset points",
                ha="center",
                va="top" if below else "bottom",
                fontsize=8 if n_bars <= 16 else 7,
                zorder=5,
            )
    axes.set_xticks(
        range(len(plot.groups)), [_wrapped(group, _letters_a_group(plot, width)) for group in plot.groups]
    )
    axes.tick_params(axis="x", length=0)
    axes.set_xlim(-0.6, len(plot.groups) - 0.4)
    bottom, top = axes.get_ylim()
    axes.set_ylim(min(bottom, 0.0) * 1.1, max(top, 0.0) * 1.05)
    axes.axhline(0, color="0.1", linewidth=0.8, zorder=3)
    axes.set_xlabel(_shown(plot.x_label))
    note = "error bar: 95% interval" * with_errors
    _finish(figure, axes, plot, handles, [one.label for one in plot.bars], note)
    return figure


def _letters_a_group(plot: BarPlot, width: float) -> int:
    """Return how many letters of a name fit under a group."""
    return max(6, int((width - 1.0) / len(plot.groups) / 0.085))


# Both -----------------------------------------------------------------------------------------------------------


def _finish(figure: Any, axes: Any, plot: Plot, handles: list[Any], labels: list[str], note: str) -> None:
    """Write title, y, legend and note; the legend stands outside the axes, where it covers nothing."""
    unit = f", {_shown(plot.unit)}" if plot.unit else ""
    axes.set_ylabel(_shown(plot.y_label) + unit)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}".replace("-", MINUS))
    inches = figure.get_size_inches()[0]
    title = _wrapped(plot.title, int(inches * 11))
    if len(labels) > 1 or labels[0].strip():
        shown = [_wrapped(label, 40) for label in labels]
        widest = max(len(line) for label in shown for line in label.split("\n"))
        columns = max(1, min(len(shown), int((inches - 0.6) / (0.75 + 0.085 * widest))))
        # As even as can be: four names stand two by two, not three and one.
        columns = -(-len(shown) // -(-len(shown) // columns))
        figure.legend(
            handles, shown, title=title, title_fontsize=11, alignment="left", loc="outside upper left", ncols=columns,
            fontsize=9, borderpad=0.2, borderaxespad=0.2,
        )  # fmt: skip
    else:
        axes.set_title(title)
    if note:
        figure.supxlabel(note, x=0.99, ha="right", **_NOTE)
