"""Figure 1: how many named entities are among the top n words, with and without the prior."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fliplens.studies.config import StudyConfig
from fliplens.studies.findings import compared, trend
from fliplens.studies.page import Study, short_names
from fliplens.studies.plan import Evaluating, Fitting, Plan, StudyKind
from fliplens.studies.plots import Line, LinePlot
from fliplens.studies.results import estimate
from fliplens.studies.sides import Sides
from fliplens.studies.tables import Cell, Column, Table

__all__ = ["ENTITIES"]

SHOWN = 10
"""n of the figure, at most; the table goes as deep as the evaluation."""
KINDS = ("strict", "partial")
POSITIONS = {"with_prior": "with the prior", "without_prior": "prior removed"}


def _plan(config: StudyConfig) -> Plan:
    sides = Sides.of(config)
    fittings = {"flip": Fitting(sides.words, sides.primary, sides.paired, config.encoder)}
    return Plan(fittings, {"flip": Evaluating("flip", sides.words, sides.views, entities=True)})


def _write_up(config: StudyConfig, _plan: Plan, found: Mapping[str, Any]) -> Study:
    sides = Sides.of(config)
    tables, plots, findings = {}, {}, []
    shorts = short_names([view.side for view in sides.views])
    for view, name in zip(sides.views, sides.names, strict=True):
        short = shorts[view.side]
        measured = found["flip"]["views"][name]
        recall, gain = measured["entity_recall"], measured["entity_gain"]
        depth = len(recall["with_prior"]["strict"])
        columns = [
            Column.percent(said, kind, better=None, shows=("se", "p"))
            for kind in KINDS
            for said in (*POSITIONS.values(), "gain")
        ]
        cells = {
            (kind, position): [estimate(one) for one in recall[position][kind]]
            for kind in KINDS
            for position in POSITIONS
        }
        gains = {kind: [estimate(one, signed=True) for one in gain[kind]] for kind in KINDS}
        title = f"Named-entity recall among the top n words, {view.side}"
        tables[f"table-{short}"] = Table.build(
            title,
            [Column("n", decimals=0, better=None), *columns],
            [
                [
                    Cell(float(n + 1)),
                    *(
                        one
                        for kind in KINDS
                        for one in (*(cells[kind, position][n] for position in POSITIONS), gains[kind][n])
                    ),
                ]
                for n in range(depth)
            ],
            notes=(
                f"Means over the {gains['strict'][0].n or 0:,} sentences that have names. Gain: recall with the "
                "prior removed minus that with it, sentence by sentence, with its p-value.",
            ),
            source="Figure 1",
        )
        shown = range(min(SHOWN, depth))
        plots[f"plot-{short}"] = LinePlot(
            title,
            "n, words looked at",
            "entity recall",
            tuple(
                Line(
                    f"{kind}, {POSITIONS[position]}",
                    tuple(float(n + 1) for n in shown),
                    tuple(column[n] for n in shown),
                    colour=KINDS.index(kind),
                    dash=list(POSITIONS).index(position),
                )
                for (kind, position), column in cells.items()
            ),
            x_ticks=tuple((float(n + 1), str(n + 1)) for n in shown),
        )
        for (kind, position), column in cells.items():
            said = f"On {view.side}, {kind} recall {POSITIONS[position]}"
            findings.append(trend(said, "n", [float(n + 1) for n in shown], [column[n] for n in shown]))
        for kind, column in gains.items():
            n = shown[-1]
            findings.append(
                f"On {view.side}, n = {n + 1}: "
                + compared(f"{kind} recall with the prior removed", f"{kind} recall with the prior", column[n])
            )
    return Study(
        config.title or "Named entities",
        "Whether the names in a sentence are among the n best words read from its vector: strict counts a name whose "
        f"words are all there, partial the share of its words. The lens was trained on {sides.told()}.",
        tables,
        plots,
        tuple(findings),
    )


ENTITIES = StudyKind("entities", Sides.SETTINGS, _plan, _write_up)
