"""Table 1: does factorisation help, and how low may the rank be?"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from fliplens.studies.config import StudyConfig
from fliplens.studies.findings import compared, measured
from fliplens.studies.located import Located
from fliplens.studies.page import Study
from fliplens.studies.plan import Comparing, Evaluating, Fitting, Measurement, ModelKind, Plan, StudyKind, View
from fliplens.studies.plots import BarPlot, Plot
from fliplens.studies.results import PRIORS, accuracy, difference
from fliplens.studies.sides import Sides
from fliplens.studies.tables import Cell, Column, Table

__all__ = ["RANK"]

YARDSTICKS: dict[ModelKind, str] = {
    "frequency": "most frequent words",
    "shuffled": "control: shuffled vectors",
    "ridge": "ridge",
    "probe": "one hidden layer",
}
LABELS: dict[str, str] = dict(YARDSTICKS.items())
CONTROLS = (("shuffled", "frequency"),)
"""Pairs beside those with the reference: what is learned from shuffled vectors must be no more than frequency."""


def _ranks(config: StudyConfig) -> dict[str, tuple[int | str, Located]]:
    """Return name → rank and where it is asked for, highest first, as the paper lists them."""
    place = config.own.need("ranks", 'such as ["full", 512, 256, 128]')
    ranks: dict[int | str, Located] = {}
    for one in place.list():
        value = one.plain()
        if value != "full" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            one.fail('a rank: "full" for one matrix, or a whole number')
        ranks.setdefault(value, one)
    numbers = sorted((rank for rank in ranks if isinstance(rank, int)), reverse=True)
    if not numbers:
        place.fail("at least one rank of factors", "none")
    named: dict[str, int | str] = {"LiP": "full"} if "full" in ranks else {}
    named |= {f"rank {one}": one for one in numbers}
    return {name: (rank, ranks[rank]) for name, rank in named.items()}


def _yardsticks(config: StudyConfig) -> dict[ModelKind, Located]:
    place = config.own.get("yardsticks")
    found: dict[ModelKind, Located] = {}
    for one in [] if place is None else place.list():
        name = next((name for name in YARDSTICKS if name == one.text()), None)
        if name is None:
            one.fail(f"yardsticks out of {', '.join(YARDSTICKS)}")
        found.setdefault(name, one)
    return found


def _reference(config: StudyConfig) -> str:
    """Return what all others are compared with: the lens of the highest rank."""
    return next(name for name in _ranks(config) if name != "LiP")


def _plan(config: StudyConfig) -> Plan:
    sides = Sides.of(config)
    make = partial(Fitting, sides.words, sides.primary, sides.paired, config.encoder)
    ranks = _ranks(config)
    fittings = {name: make(recipe={"rank": rank}, place=place) for name, (rank, place) in ranks.items()}
    reference = _reference(config)
    for name, place in _yardsticks(config).items():
        # What is trained as a lens is has the rank of the one that it is compared with.
        recipe = {"rank": ranks[reference][0]} if name in ("probe", "shuffled") else {}
        fittings[name] = make(model=name, recipe=recipe, place=place)
    measurements: dict[str, Measurement] = {name: Evaluating(name, sides.words, sides.views) for name in fittings}
    pairs = [(reference, name) for name in fittings if name != reference]
    for one, other in [*pairs, *CONTROLS]:
        if {one, other} <= fittings.keys():
            for view in sides.views:
                measurements[_difference(one, other, view)] = Comparing((one, other), sides.words, (view, view))
    return Plan(fittings, measurements)


def _difference(one: str, other: str, view: View) -> str:
    return f"{one} - {other} on {view.side}"


def _write_up(config: StudyConfig, plan: Plan, found: Mapping[str, Any]) -> Study:
    sides = Sides.of(config)
    ranks = _ranks(config)
    reference = _reference(config)
    tables, plots, findings = {}, {}, []
    plot: Plot
    for position, said in PRIORS.items():
        rows: list[list[Any]] = []
        for name in plan.fittings:
            cells = [accuracy(found[name], view, position) for view in sides.names]
            if name == "frequency" and position == "without_prior":
                cells = [Cell.nothing("it is its prior, without which all words score alike")] * len(cells)
            kind = ("", LABELS.get(name, ""))
            if name in ranks:
                kind = ("no" if name == "LiP" else "yes", str(ranks[name][0]))
            rows.append([*kind, *cells])
        table = Table.build(
            f"Accuracy by factorisation and rank{said}",
            [Column("Factorised"), Column("Dimension"), *(Column.percent(view.side) for view in sides.views)],
            rows,
            source="Table 1",
        ).with_best()
        key = "table" if position == "with_prior" else "without-prior"
        tables[key] = table
        plot = BarPlot.of(table, range(2, 2 + len(sides.views)), y_label="accuracy", names=(0, 1))
        plots["plot" if position == "with_prior" else "plot-without-prior"] = BarPlot(
            plot.title, plot.y_label, tuple(_label(name) for name in plan.fittings), plot.bars, decimals=1
        )
    for view in sides.views:
        findings.append(
            measured(f"Accuracy of {_label(reference)} on {view.side}", accuracy(found[reference], sides.name(view)))
        )
        for one, other in [*((reference, name) for name in plan.fittings), *CONTROLS]:
            if _difference(one, other, view) in found:
                cell: Cell = difference(found[_difference(one, other, view)])
                findings.append(f"On {view.side}: " + compared(_label(one), _label(other), cell))
    return Study(
        config.title or "Factorisation and rank",
        "How many of a sentence's words a lens reads, as one full matrix (LiP) and as two factors of several ranks, "
        f"trained on {sides.told()} by the same recipe. A hidden layer and the control have the highest of these "
        "ranks.",
        tables,
        plots,
        tuple(findings),
    )


def _label(name: str) -> str:
    return LABELS.get(name, name if name == "LiP" else f"FLiP {name}")


RANK = StudyKind("rank", (*Sides.SETTINGS, "ranks", "yardsticks"), _plan, _write_up)
