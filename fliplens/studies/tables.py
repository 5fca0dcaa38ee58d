"""Tables of results as values: cells with their uncertainty, columns under headings of several levels, JSON.

A table holds numbers as they were measured (a share stays a share) and says how they are shown (per cent, two
decimals). `fliplens.studies.rendering` shows it. A number in it is always finite: a mean that is not becomes a
missing cell, which says why; an error or an interval that is not becomes None.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast, get_args

from fliplens.errors import InputError

__all__ = ["FORMAT", "FORMAT_VERSION", "Cell", "Column", "Measured", "Part", "Table", "clean"]

FORMAT = "fliplens-table"
FORMAT_VERSION = 1

Part = Literal["se", "ci95", "p", "difference"]
_SURROGATE = re.compile("[\ud800-\udfff]")


class Measured(Protocol):
    """What a cell is made from: `fliplens.arithmetic.metrics.Estimate` and whatever looks like it."""

    @property
    def mean(self) -> float:
        """The estimate itself."""

    @property
    def se(self) -> float:
        """Its standard error."""

    @property
    def ci95(self) -> tuple[float, float]:
        """Its 95% interval."""


def clean(text: str) -> str:
    """Return a text that can be encoded: lone surrogates become U+FFFD, the sign for what cannot be shown."""
    return _SURROGATE.sub("\ufffd", text)


@dataclass(frozen=True)
class Cell:
    """One number with what is known of its uncertainty, or a text, or nothing with a reason.

    Exactly one of `mean`, `text` and `missing` is given. A mean that is NaN or infinite becomes `missing`.

    Raises:
        InputError: none or several of them; an interval that is upside down; p outside 0..1; uncertainty of
            something that is no number.
    """

    mean: float | None = None
    """The number as measured, before its column's scale."""
    se: float | None = None
    """Standard error, in the same scale."""
    ci95: tuple[float, float] | None = None
    """95% interval (low, high), in the same scale."""
    p: float | None = None
    """Two-sided p-value against no difference."""
    n: int | None = None
    """How many sentences count."""
    difference: Cell | None = None
    """Difference from a number beside it, shown in brackets after the number (as in table 4 of the paper)."""
    signed: bool = False
    """The number is itself a difference: shown with its sign (as in tables 2 and 3)."""
    best: bool = False
    """Shown in bold."""
    text: str | None = None
    """Words instead of a number."""
    missing: str | None = None
    """Why there is neither."""

    def __post_init__(self) -> None:
        given = [name for name in ("mean", "text", "missing") if getattr(self, name) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise InputError(f"expected a cell of one of mean, text, missing, found {found}: give exactly one")
        for name in ("text", "missing"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, clean(str(value)))
        if self.mean is None:
            extra = [name for name in ("se", "ci95", "p", "difference") if getattr(self, name) is not None]
            if extra or self.signed or self.best:
                found = ", ".join([*extra, *(name for name in ("signed", "best") if getattr(self, name))])
                raise InputError(f"expected a number with {found}, found a cell without one: leave these out")
            return
        self._check_number()

    def _check_number(self) -> None:
        mean = float(self.mean if self.mean is not None else math.nan)
        if not math.isfinite(mean):
            why = "undefined: nothing to average" if math.isnan(mean) else "infinite"
            for field in dataclasses.fields(self):
                object.__setattr__(self, field.name, field.default)
            object.__setattr__(self, "missing", why)
            return
        object.__setattr__(self, "mean", mean)
        if self.se is not None:
            object.__setattr__(self, "se", float(self.se) if math.isfinite(self.se) else None)
        if self.ci95 is not None:
            low, high = (float(one) for one in self.ci95)
            object.__setattr__(self, "ci95", (low, high) if math.isfinite(low) and math.isfinite(high) else None)
            if low > high:
                raise InputError(f"expected a 95% interval (low, high), found ({low:g}, {high:g}): swap its ends")
        if self.p is not None:
            object.__setattr__(self, "p", None if math.isnan(self.p) else float(self.p))
        if self.p is not None and not 0 <= self.p <= 1:
            raise InputError(f"expected a p-value from 0 to 1, found {self.p:g}: check the test that gave it")
        if self.n is not None:
            object.__setattr__(self, "n", int(self.n))
        if self.difference is not None and self.difference.mean is not None:
            object.__setattr__(self, "difference", dataclasses.replace(self.difference, signed=True, best=False))
        elif self.difference is not None:
            # A difference that nobody could take is no difference.
            object.__setattr__(self, "difference", None)

    @classmethod
    def of(cls, estimate: Measured, *, signed: bool = False, difference: Cell | None = None) -> Cell:
        """Return the cell of an estimate: mean, standard error, 95% interval and, where it has them, n and p.

        Args:
            estimate: an `Estimate`, or the estimate of a difference.
            signed: it is a difference.
            difference: see the field.
        """
        p = getattr(estimate, "p_value", getattr(estimate, "p", None))
        n = getattr(estimate, "n", None)
        return cls(estimate.mean, se=estimate.se, ci95=estimate.ci95, p=p, n=n, signed=signed, difference=difference)

    @classmethod
    def of_text(cls, text: str) -> Cell:
        """Return a cell of words."""
        return cls(text=text)

    @classmethod
    def nothing(cls, reason: str) -> Cell:
        """Return a cell without a value; the reason is shown below the table."""
        return cls(missing=reason)

    def interval(self) -> tuple[float, float] | None:
        """Return the 95% interval: `ci95`, else that of a normal distribution from `se`, else None."""
        if self.ci95 is not None:
            return self.ci95
        if self.mean is None or self.se is None:
            return None
        return self.mean - 1.96 * self.se, self.mean + 1.96 * self.se

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; what is not given is null."""
        value: dict[str, Any] = {
            field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "difference"
        }
        value["ci95"] = None if self.ci95 is None else list(self.ci95)
        value["difference"] = None if self.difference is None else self.difference.to_json()
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Cell:
        """Return the cell that `to_json` wrote.

        Raises:
            InputError: something else was handed in.
        """
        values = _fields(cls, value)
        if values.get("ci95") is not None:
            values["ci95"] = tuple(values["ci95"])
        if values.get("difference") is not None:
            values["difference"] = cls.from_json(values["difference"])
        return cls(**values)


@dataclass(frozen=True)
class Column:
    """What the cells of a column have in common.

    Raises:
        InputError: a scale of 0 or below, negative decimals, an unknown part to show.
    """

    heading: str
    """Heading right above the cells."""
    groups: tuple[str, ...] = ()
    """Headings above it, outermost first; neighbours with the same ones stand under one heading."""
    unit: str = ""
    """Shown after the heading: "%", "s"."""
    scale: float = 1.0
    """Numbers are multiplied by it to be shown; 100 makes a share per cent."""
    decimals: int = 2
    """Digits after the point."""
    better: Literal["higher", "lower"] | None = None
    """Which numbers are better; None: neither. `Table.with_best` goes by it."""
    shows: tuple[Part, ...] = ("se", "p", "difference")
    """What is shown beside a number where it has it. Without a standard error, "se" shows the 95% interval."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "heading", clean(self.heading))
        object.__setattr__(self, "groups", tuple(clean(group) for group in _names(self.groups)))
        object.__setattr__(self, "unit", clean(self.unit))
        object.__setattr__(self, "shows", tuple(self.shows))
        object.__setattr__(self, "scale", float(self.scale))
        unknown = [part for part in self.shows if part not in get_args(Part)]
        if unknown:
            raise InputError(f"expected some of {', '.join(get_args(Part))} to show, found {unknown[0]!r}: mend it")
        if not 0 < self.scale < math.inf:
            raise InputError(f"expected a scale above 0, found {self.scale:g}: give 1, or 100 for per cent")
        if self.decimals < 0:
            raise InputError(f"expected decimals of 0 or more, found {self.decimals}: give how many digits")
        if self.better not in (None, "higher", "lower"):
            raise InputError(f"expected better to be higher, lower or None, found {self.better!r}: give one of them")

    @classmethod
    def percent(
        cls,
        heading: str,
        *groups: str,
        decimals: int = 2,
        better: Literal["higher", "lower"] | None = "higher",
        shows: tuple[Part, ...] = ("se", "p", "difference"),
    ) -> Column:
        """Return a column of shares shown as per cent; groups outermost first."""
        return cls(heading, groups, unit="%", scale=100.0, decimals=decimals, better=better, shows=shows)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**dataclasses.asdict(self), "groups": list(self.groups), "shows": list(self.shows)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Column:
        """Return the column that `to_json` wrote.

        Raises:
            InputError: something else was handed in.
        """
        values = _fields(cls, value)
        for name in ("groups", "shows"):
            values[name] = tuple(values.get(name) or ())
        return cls(**values)


@dataclass(frozen=True)
class Table:
    """A table of results.

    Raises:
        InputError: no columns, or a row of another length.
    """

    title: str
    """What it shows, in one line."""
    columns: tuple[Column, ...]
    """At least one."""
    rows: tuple[tuple[Cell, ...], ...]
    """As many cells each as there are columns."""
    notes: tuple[str, ...] = ()
    """Sentences below it."""
    source: str = ""
    """Which table of which paper it corresponds to, in words."""
    breaks: tuple[int, ...] = ()
    """Rows before which LaTeX draws a thin rule (index from 0)."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "title", clean(self.title))
        object.__setattr__(self, "source", clean(self.source))
        object.__setattr__(self, "columns", tuple(self.columns))
        object.__setattr__(self, "rows", tuple(tuple(row) for row in self.rows))
        object.__setattr__(self, "notes", tuple(clean(note) for note in self.notes))
        object.__setattr__(self, "breaks", tuple(self.breaks))
        if not self.columns:
            raise InputError(f"expected a table with columns, found none in {self.title!r}: give at least one")
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise InputError(
                    f"expected {len(self.columns)} cells in each row of {self.title!r}, found {len(row)} in row "
                    f"{number}: give one a column, Cell.nothing(reason) where there is none"
                )

    @classmethod
    def build(
        cls,
        title: str,
        columns: Iterable[Column],
        rows: Iterable[Iterable[object]],
        *,
        notes: Iterable[str] = (),
        source: str = "",
        breaks: Iterable[int] = (),
    ) -> Table:
        """Return a table from rows of plain things: cells stay, strings become text, numbers and estimates means.

        Raises:
            InputError: something else is in a row, or see the class.
        """
        return cls(
            title,
            tuple(columns),
            tuple(tuple(_cell(one) for one in row) for row in rows),
            notes=tuple(notes),
            source=source,
            breaks=tuple(breaks),
        )

    def column(self, number: int) -> tuple[Cell, ...]:
        """Return the cells of a column (index from 0)."""
        return tuple(row[number] for row in self.rows)

    @staticmethod
    def _shown(cell: Cell, column: Column) -> float:
        """Return a number as far as its column shows it."""
        return round((cell.mean or 0.0) * column.scale, column.decimals)

    def with_best(self) -> Table:
        """Return the table with the best numbers marked in each column that says what is better.

        Beside the best one those are marked that look the same as shown, or whose 95% intervals reach into its own:
        that they are worse is not known. Differences, and columns of less than two numbers, are not marked.
        """
        rows = [list(row) for row in self.rows]
        for place, column in enumerate(self.columns):
            cells = {
                number: cell
                for number, cell in enumerate(self.column(place))
                if cell.mean is not None and not cell.signed
            }
            if column.better is None or len(cells) < 2:
                continue
            sign = 1 if column.better == "higher" else -1
            best = max(cells.values(), key=lambda cell: sign * (cell.mean or 0.0))
            low, high = best.interval() or (best.mean, best.mean)
            for number, cell in cells.items():
                bottom, top = cell.interval() or (cell.mean, cell.mean)
                alike = self._shown(cell, column) == self._shown(best, column)
                reached = bottom <= high and top >= low  # type: ignore[operator]
                rows[number][place] = dataclasses.replace(cell, best=alike or reached)
        return dataclasses.replace(self, rows=tuple(tuple(row) for row in rows))

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values, numbers as measured."""
        return {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "title": self.title,
            "source": self.source,
            "columns": [column.to_json() for column in self.columns],
            "rows": [[cell.to_json() for cell in row] for row in self.rows],
            "notes": list(self.notes),
            "breaks": list(self.breaks),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Table:
        """Return the table that `to_json` wrote.

        Raises:
            InputError: something else was handed in, or a version that is not known here.
        """
        if not isinstance(value, Mapping) or value.get("format") != FORMAT:
            raise InputError(f"expected a table of the format {FORMAT}, found something else: give Table.to_json()")
        if value.get("format_version") != FORMAT_VERSION:
            raise InputError(
                f"expected a table of format version {FORMAT_VERSION}, found {value.get('format_version')!r}: "
                "read it with the version of FLiPLens that wrote it"
            )
        try:
            return cls(
                value["title"],
                tuple(Column.from_json(column) for column in value["columns"]),
                tuple(tuple(Cell.from_json(cell) for cell in row) for row in value["rows"]),
                notes=tuple(value["notes"]),
                source=value["source"],
                breaks=tuple(value["breaks"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"expected a table as Table.to_json gives it, found a part that is not ({error!r}): write it again"
            ) from error


def _cell(value: object) -> Cell:
    if isinstance(value, Cell):
        return value
    if isinstance(value, str):
        return Cell(text=value)
    # NumPy's numbers are numbers too, whatever their width.
    if isinstance(value, numbers.Real):
        return Cell(float(value))
    if all(hasattr(value, name) for name in ("mean", "se", "ci95")):
        return Cell.of(cast(Measured, value))
    raise InputError(
        f"expected a cell, a text, a number or an estimate, found {type(value).__name__}: "
        "give Cell.nothing(reason) where there is no value"
    )


def _names(groups: Any) -> Iterable[str]:
    """Return headings as several, also where one was given as it is: its letters are no headings."""
    return (groups,) if isinstance(groups, str) else tuple(groups)


def _fields(cls: type[Cell] | type[Column], value: Any) -> dict[str, Any]:
    """Return the keyword arguments of a dataclass out of a JSON object that may hold no others."""
    known = {field.name for field in dataclasses.fields(cls)}
    if not isinstance(value, Mapping) or not set(value) <= known:
        found = sorted(set(value) - known)[0] if isinstance(value, Mapping) else type(value).__name__
        raise InputError(f"expected a {cls.__name__.lower()} as its to_json gives it, found {found}: write it again")
    return dict(value)
