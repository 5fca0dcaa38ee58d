"""Tables 4 and 5: words of one language or the other, read from vectors of both; the same over encoders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fliplens.lenses.extractor import ViewName
from fliplens.studies.config import StudyConfig
from fliplens.studies.findings import compared
from fliplens.studies.names import STUDIES
from fliplens.studies.page import Study
from fliplens.studies.plan import Comparing, Evaluating, Fitting, Measurement, Plan, StudyKind, View
from fliplens.studies.plots import BarPlot, Bars, Plot
from fliplens.studies.results import PRIORS, accuracy, difference
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


@dataclass(frozen=True)
class _Reading:
    """Words of one side, read from the vectors of it or of the other."""

    label: str
    """Of the case."""
    words: View
    vectors: View

    @property
    def model(self) -> str:
        """Name of the lens, which has seen both sides."""
        return f"{self.label}: words of {self.words.side}"

    @property
    def view(self) -> ViewName:
        """What the evaluation of the lens calls the vectors."""
        return "primary" if self.words == self.vectors else "paired"

    @property
    def said(self) -> str:
        """It in words, without the case."""
        return f"{self.words.side} words from {self.vectors.side} vectors"


def _readings(label: str, views: tuple[View, View]) -> tuple[_Reading, ...]:
    """Return the four of a case, as the paper's table orders them."""
    return tuple(_Reading(label, order[0], vectors) for order in (views, views[::-1]) for vectors in order)


def _drop(reading: _Reading) -> str:
    """Return the name of the comparison of the other language's vectors with the words' own."""
    return f"{reading.model}, {reading.vectors.side} - {reading.words.side}"


def _between(one: _Reading, other: _Reading) -> str:
    """Return the name of the comparison of two encoders."""
    return f"{one.label} - {other.label}: {one.said}"


def _rivals(kind: str, config: StudyConfig) -> list[tuple[_Reading, _Reading]]:
    """Return which readings are compared over encoders: the first encoder's with each other one's."""
    if kind == "vocabulary":
        return []
    by_corpus: dict[tuple[View, View], list[str]] = {}
    for label, (views, _) in _cases(kind, config).items():
        by_corpus.setdefault(views, []).append(label)
    return [
        pair
        for views, (first, *others) in by_corpus.items()
        for other in others
        for pair in zip(_readings(first, views), _readings(other, views), strict=True)
    ]


def _plan(kind: str, config: StudyConfig) -> Plan:
    fittings: dict[str, Fitting] = {}
    measurements: dict[str, Measurement] = {}
    for label, (views, encoder) in _cases(kind, config).items():
        for one in _readings(label, views):
            own = one.words
            if one.view == "primary":
                other = views[1 - views.index(own)]
                fittings[one.model] = Fitting(own, own, other, encoder)
                measurements[one.model] = Evaluating(one.model, own, (own, other))
            else:
                measurements[_drop(one)] = Comparing((one.model, one.model), own, (one.vectors, own))
    for one, two in _rivals(kind, config):
        measurements[_between(one, two)] = Comparing((one.model, two.model), one.words, (one.vectors, two.vectors))
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
            for one in _readings(label, views):
                cell = accuracy(found[one.model], one.view, position)
                if one.view == "paired":
                    change = difference(found[_drop(one)], position)
                    cell = replace(cell, difference=change) if cell.mean is not None else cell
                    if position == "with_prior":
                        own = f"{one.words.side} words from {one.words.side} vectors"
                        findings.append(f"{label}: " + compared(one.said, own, change))
                else:
                    groups.append(f"{label}: {one.words.side} words")
                bars["the words' own language" if one.view == "primary" else "the other language"].append(cell)
                row.append(cell)
            rows.append(row)
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
                "In brackets: the change from the column before, sentence by sentence, with its p-value. Accuracies "
                "of different vocabularies are fractions of different words and compare with care.",
            ),
            source=STUDIES[kind].source,
        )
        tables["table" if position == "with_prior" else "without-prior"] = table
        plots["plot" if position == "with_prior" else "plot-without-prior"] = BarPlot(
            f"{title}{said}",
            "accuracy",
            tuple(groups),
            tuple(Bars(label, tuple(cells)) for label, cells in bars.items()),
        )
        for one, two in _rivals(kind, config):
            cell = difference(found[_between(one, two)], position)
            findings.append(f"{one.said}{said}: " + compared(one.label, two.label, cell))
    asked = (
        "A lens is trained on vectors of both languages (alpha 0.5), once with the words of the one and once with "
        "those of the other."
    )
    if kind == "encoders":
        asked += " The same for every encoder, on the same sentences."
    return Study(config.title or title, asked, tables, plots, tuple(findings))


VOCABULARY = StudyKind("vocabulary", ("sides",), partial(_plan, "vocabulary"), partial(_write_up, "vocabulary"))
ENCODERS = StudyKind("encoders", ("sides",), partial(_plan, "encoders"), partial(_write_up, "encoders"))
