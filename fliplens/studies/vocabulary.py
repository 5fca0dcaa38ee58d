"""Tables 4 and 5: words of one language or the other, read from vectors of both; the same over encoders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from fliplens.studies.config import StudyConfig
from fliplens.studies.findings import highest
from fliplens.studies.page import Study
from fliplens.studies.plan import Evaluating, Fitting, Plan, StudyKind, View
from fliplens.studies.plots import BarPlot, Bars, Plot
from fliplens.studies.results import PRIORS, accuracy
from fliplens.studies.sides import side_names, two_sides
from fliplens.studies.tables import Cell, Column, Table

__all__ = ["ENCODERS", "VOCABULARY"]


def _cases(kind: str, config: StudyConfig) -> dict[str, tuple[tuple[View, View], str]]:
    """Return label → two sides and encoder: a row of the table each."""
    corpora = {name: two_sides(corpus, config) for name, corpus in config.corpora.items()}
    if kind == "vocabulary":
        return {name: (views, config.encoder) for name, views in corpora.items()}
    several = len(corpora) > 1
    return {
        f"{encoder}, {name}" if several else encoder: (views, encoder)
        for name, views in corpora.items()
        for encoder in config.encoders
    }


def _plan(kind: str, config: StudyConfig) -> Plan:
    fittings, measurements = {}, {}
    for label, (views, encoder) in _cases(kind, config).items():
        for words, other in (views, views[::-1]):
            name = f"{label}: words of {words.side}"
            fittings[name] = Fitting(words, words, other, encoder)
            measurements[name] = Evaluating(name, words, (words, other))
    return Plan(fittings, measurements)


def _write_up(kind: str, config: StudyConfig, _plan: Plan, found: Mapping[str, Any]) -> Study:
    cases = _cases(kind, config)
    tables: dict[str, Table] = {}
    plots: dict[str, Plot] = {}
    findings = []
    title = "Language of the vocabulary" if kind == "vocabulary" else "Embedding models"
    for position, said in PRIORS.items():
        rows: list[list[Cell | str]] = []
        groups = []
        bars: dict[str, list[Cell]] = {"the words' own language": [], "the other language": []}
        for label, (views, _) in cases.items():
            row: list[Cell | str] = [label]
            for words, _ in (views, views[::-1]):
                one = found[f"{label}: words of {words.side}"]
                own, crossed = accuracy(one, "primary", position), accuracy(one, "paired", position)
                row += [own, _with_change(crossed, own)]
                groups.append(f"{label}: {words.side} words")
                bars["the words' own language"].append(own)
                bars["the other language"].append(crossed)
            rows.append(row)
            if position == "with_prior":
                cells = {
                    f"{words.side} words from {view.side} vectors": accuracy(
                        found[f"{label}: words of {words.side}"], ("primary", "paired")[number], position
                    )
                    for words, order in ((views[0], views), (views[1], views[::-1]))
                    for number, view in enumerate(order)
                }
                findings.append(f"{label}: {highest(cells)}")
        names = side_names([views for views, _ in cases.values()])
        table = Table.build(
            f"{title}{said}",
            [
                Column("Corpus" if kind == "vocabulary" else "Encoder"),
                *(
                    Column.percent(f"{vectors} vectors", f"{words} words", better=None)
                    for words, order in ((names[0], names), (names[1], names[::-1]))
                    for vectors in order
                ),
            ],
            rows,
            notes=(
                "In brackets: the change from the column before. Accuracies of different vocabularies are fractions "
                "of different words and compare with care.",
            ),
            source="Table 4" if kind == "vocabulary" else "Table 5",
        )
        tables["table" if position == "with_prior" else "without-prior"] = table
        plots["plot" if position == "with_prior" else "plot-without-prior"] = BarPlot(
            f"{title}{said}",
            "accuracy",
            tuple(groups),
            tuple(Bars(label, tuple(cells)) for label, cells in bars.items()),
        )
    asked = (
        "A lens is trained on vectors of both languages (alpha 0.5), once with the words of the one and once with "
        "those of the other."
    )
    if kind == "encoders":
        asked += " The same for every encoder, on the same sentences."
    return Study(config.title or title, asked, tables, plots, tuple(findings))


def _with_change(cell: Cell, before: Cell) -> Cell:
    """Return a cell that also shows its difference from another, whose chance is not known."""
    if cell.mean is None or before.mean is None:
        return cell
    return replace(cell, difference=Cell(cell.mean - before.mean, signed=True))


VOCABULARY = StudyKind(
    "vocabulary", "Table 4", "the language of the words and of the vectors", ("sides",), partial(_plan, "vocabulary"),
    partial(_write_up, "vocabulary"),
)  # fmt: skip
ENCODERS = StudyKind(
    "encoders", "Table 5", "the encoder", ("sides",), partial(_plan, "encoders"), partial(_write_up, "encoders"),
)  # fmt: skip
