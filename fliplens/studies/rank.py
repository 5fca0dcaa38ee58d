"""Table 1: does factorisation help, and how low may the rank be?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fliplens.studies.config import StudyConfig
from fliplens.studies.findings import compared, measured
from fliplens.studies.page import Study
from fliplens.studies.plan import Comparing, Evaluating, Fitting, Plan, StudyKind
from fliplens.studies.plots import BarPlot, Plot
from fliplens.studies.results import PRIORS, accuracy, difference
from fliplens.studies.sides import Sides
from fliplens.studies.tables import Cell, Column, Table

__all__ = ["RANK"]

YARDSTICKS = {
    "frequency": "most frequent words",
    "shuffled": "control: shuffled vectors",
    "ridge": "ridge",
    "probe": "one hidden layer",
}


def _ranks(config: StudyConfig) -> dict[str, Any]:
    """Return name → rank, highest first, as the paper lists them."""
    place = config.own.need("ranks", 'such as ["full", 512, 256, 128]')
    ranks = []
    for one in place.list():
        value = one.plain()
        if value != "full" and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            one.fail('a rank: "full" for one matrix, or a whole number')
        ranks.append(value)
    numbers = sorted({rank for rank in ranks if rank != "full"}, reverse=True)
    if not numbers:
        place.fail("at least one rank of factors", "none")
    full = {"LiP": "full"} if "full" in ranks else {}
    return {**full, **{f"rank {rank}": rank for rank in numbers}}


def _yardsticks(config: StudyConfig) -> list[str]:
    place = config.own.get("yardsticks")
    names = []
    for one in [] if place is None else place.list():
        if one.text() not in YARDSTICKS:
            one.fail(f"yardsticks out of {', '.join(YARDSTICKS)}")
        names.append(one.text())
    return names


def _plan(config: StudyConfig) -> Plan:
    sides = Sides.of(config)
    encoder = config.encoder
    fittings = {
        name: Fitting(sides.words, sides.primary, sides.paired, encoder, recipe={"rank": rank})
        for name, rank in _ranks(config).items()
    }
    for name in _yardsticks(config):
        fittings[name] = Fitting(sides.words, sides.primary, sides.paired, encoder, model=name)  # type: ignore[arg-type]
    measurements: dict[str, Any] = {name: Evaluating(name, sides.words, sides.views) for name in fittings}
    best = next(name for name in fittings if name != "LiP")
    for name in fittings:
        for view in sides.views:
            if name != best:
                measurements[f"{best} - {name} on {view.side}"] = Comparing((best, name), sides.words, (view, view))
    return Plan(fittings, measurements)


def _write_up(config: StudyConfig, plan: Plan, found: Mapping[str, Any]) -> Study:
    sides = Sides.of(config)
    ranks = _ranks(config)
    best = next(name for name in plan.fittings if name != "LiP")
    tables, plots, findings = {}, {}, []
    plot: Plot
    for position, said in PRIORS.items():
        rows: list[list[Any]] = []
        for name in plan.fittings:
            cells = [accuracy(found[name], view, position) for view in sides.names]
            kind = ("", YARDSTICKS.get(name, ""))
            if name in ranks:
                kind = ("no" if name == "LiP" else "yes", str(ranks[name]))
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
            measured(f"Accuracy of {_label(best)} on {view.side}", accuracy(found[best], sides.name(view)))
        )
        for name in plan.fittings:
            if name != best:
                cell: Cell = difference(found[f"{best} - {name} on {view.side}"])
                findings.append(f"On {view.side}: " + compared(_label(best), _label(name), cell))
    return Study(
        config.title or "Factorisation and rank",
        "How many of a sentence's words a lens reads, as one full matrix (LiP) and as two factors of several ranks, "
        f"trained on {sides.told()} by the same recipe.",
        tables,
        plots,
        tuple(findings),
    )


def _label(name: str) -> str:
    return YARDSTICKS.get(name, name if name == "LiP" else f"FLiP {name}")


RANK = StudyKind(
    "rank", "Table 1", "factorised or not, and rank", (*Sides.SETTINGS, "ranks", "yardsticks"), _plan, _write_up
)
