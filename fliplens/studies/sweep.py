"""Section 3.5: a grid of the recipe's settings, chosen from on dev; test is read once, by the one chosen."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from functools import partial
from typing import Any

from fliplens.errors import InputError
from fliplens.settings import FitSettings
from fliplens.studies.config import StudyConfig
from fliplens.studies.findings import highest, measured
from fliplens.studies.page import Study
from fliplens.studies.plan import Evaluating, Fitting, Plan, StudyKind
from fliplens.studies.plots import BarPlot, Plot
from fliplens.studies.results import accuracy
from fliplens.studies.sides import Sides
from fliplens.studies.tables import Cell, Column, Table

__all__ = ["SWEEP"]

GRID = ("rank", "l1", "weight_decay", "alpha")


def _cases(config: StudyConfig) -> dict[str, dict[str, Any]]:
    """Return label → settings: every combination of the grid."""
    grid = config.own.need("grid", f"lists of values of {', '.join(GRID)}")
    grid.only(*GRID)
    values: dict[str, list[Any]] = {}
    for name, one in grid.items():
        for item in one.list():
            item.checked(partial(_check, config, name))
        values[name] = [item.plain() for item in one.list()]
    if not values or not all(values.values()):
        grid.fail(f"at least one value of each of some of {', '.join(GRID)}", "none")
    combinations = [dict(zip(values, chosen, strict=True)) for chosen in itertools.product(*values.values())]
    return {", ".join(f"{name} {value}" for name, value in one.items()): one for one in combinations}


def _check(config: StudyConfig, name: str, value: Any) -> None:
    """Refuse a value that a setting cannot have."""
    if value is None:
        raise InputError(f"expected a value of {name}, found nothing")
    FitSettings.from_mapping({**config.settings, name: value})


def _plan(config: StudyConfig) -> Plan:
    sides = Sides.of(config)
    corpus = config.corpora[sides.words.corpus]
    if "dev" not in corpus.splits:
        corpus.place.fail("dev sentences to choose by", "none")
    fittings = {
        name: Fitting(
            sides.words, sides.primary, sides.paired, config.encoder, recipe=recipe, place=config.own.get("grid")
        )
        for name, recipe in _cases(config).items()
    }
    return Plan(
        fittings,
        {name: Evaluating(name, sides.words, sides.views, split="dev") for name in fittings},
        lambda found: {"chosen": Evaluating(_chosen(fittings, sides, found), sides.words, sides.views)},
    )


def _score(found: Mapping[str, Any], sides: Sides, name: str) -> float:
    """Return what is chosen by: mean dev accuracy over the views, with the prior, as in early stopping."""
    cells = [accuracy(found[name], view) for view in sides.names]
    return sum(cell.mean or 0.0 for cell in cells) / len(cells)


def _chosen(fittings: Mapping[str, Fitting], sides: Sides, found: Mapping[str, Any]) -> str:
    return max(fittings, key=lambda name: _score(found, sides, name))


def _write_up(config: StudyConfig, plan: Plan, found: Mapping[str, Any]) -> Study:
    sides = Sides.of(config)
    cases = _cases(config)
    names = list(next(iter(cases.values())))
    rows: list[list[Cell | str]] = [
        [*(str(recipe[one]) for one in names), *(accuracy(found[label], view) for view in sides.names)]
        for label, recipe in cases.items()
    ]
    table = Table.build(
        "Accuracy on dev over the grid",
        [*(Column(name) for name in names), *(Column.percent(view.side) for view in sides.views)],
        rows,
        source="Section 3.5",
    ).with_best()
    best = _chosen(plan.fittings, sides, found)
    findings = [
        f"Chosen by the mean dev accuracy over {len(sides.views)} views: {best}.",
        *(
            f"{view.side}, dev: " + highest({label: accuracy(found[label], name) for label in cases})
            for view, name in zip(sides.views, sides.names, strict=True)
        ),
        *(
            measured(f"Accuracy of the chosen one on test, {view.side}", accuracy(found["chosen"], name))
            for view, name in zip(sides.views, sides.names, strict=True)
        ),
    ]
    plots: dict[str, Plot] = {}
    if len(cases) <= 16:
        plots["plot"] = BarPlot.of(
            table,
            range(len(names), len(names) + len(sides.views)),
            y_label="accuracy on dev",
            names=tuple(range(len(names))),
        )
    return Study(
        config.title or "Settings of the recipe",
        f"Every combination of {', '.join(names)}, trained on {sides.told()} and measured on dev. Test sentences are "
        "read once, by the lens chosen.",
        {"table": table},
        plots,
        tuple(findings),
    )


SWEEP = StudyKind("sweep", (*Sides.SETTINGS, "grid"), _plan, _write_up)
