"""Tables 2 and 3: train on one view, read the other. Modalities of one language, or languages of one meaning."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from fliplens.studies.config import StudyConfig
from fliplens.studies.findings import compared
from fliplens.studies.page import Study
from fliplens.studies.plan import Comparing, Evaluating, Fitting, Measurement, Plan, StudyKind, View
from fliplens.studies.plots import BarPlot, Bars, Plot
from fliplens.studies.results import PRIORS, accuracy, difference, jaccard
from fliplens.studies.sides import side_names, two_sides
from fliplens.studies.tables import Cell, Column, Table

__all__ = ["LANGUAGE", "MODALITY"]

SAID = {
    "modality": (
        "Modality alignment",
        "Table 2",
        "A lens is trained on one channel alone and reads the other: if the space is the same, little is lost.",
    ),
    "language": (
        "Language alignment",
        "Table 3",
        "A lens names words of one language; it is trained on vectors of that language alone, or of its translations "
        "alone, and reads both.",
    ),
}


def _views(config: StudyConfig) -> dict[str, tuple[View, View]]:
    """Return corpus → its two sides; the first one's words are read from both."""
    return {name: two_sides(corpus, config) for name, corpus in config.corpora.items()}


def _plan(config: StudyConfig) -> Plan:
    encoder = config.encoder
    fittings: dict[str, Fitting] = {}
    measurements: dict[str, Measurement] = {}
    for corpus, views in _views(config).items():
        words = views[0]
        for view in views:
            name = _name(corpus, view)
            # The other view counts nothing: alpha is 0 or 1, and only one view is read.
            fittings[name] = Fitting(words, view, None, encoder)
            measurements[name] = Evaluating(name, words, views)
        for trained, other in (views, views[::-1]):
            # How much a lens loses on the view that it never saw, against the lens that was trained on it.
            names = (_name(corpus, trained), _name(corpus, other))
            measurements[f"{names[0]} / {names[1]}"] = Comparing(names, words, (other, other))
    return Plan(fittings, measurements)


def _name(corpus: str, view: View) -> str:
    return f"{corpus}, trained on {view.side}"


def _write_up(kind: str, config: StudyConfig, _plan: Plan, found: Mapping[str, Any]) -> Study:
    title, source, asked = SAID[kind]
    all_views = _views(config)
    tables: dict[str, Table] = {}
    plots: dict[str, Plot] = {}
    findings = []
    for position, said in PRIORS.items():
        rows: list[list[Cell | str]] = []
        for corpus, views in all_views.items():
            for trained, other in (views, views[::-1]):
                name = _name(corpus, trained)
                against = found[f"{name} / {_name(corpus, other)}"]
                own = accuracy(found[name], ("primary", "paired")[views.index(trained)], position)
                loss = difference(against, position)
                cells = [own, loss] if trained == views[0] else [loss, own]
                rows.append([corpus, trained.side, *cells, jaccard(against, position)])
                if position == "with_prior":
                    findings.append(
                        f"{corpus}, read from {other.side}: "
                        + compared(f"the lens trained on {trained.side}", f"the one trained on {other.side}", loss)
                    )
        headings = side_names(list(all_views.values()))
        table = Table.build(
            f"{title}{said}",
            [
                Column("Corpus"),
                Column("Trained on"),
                *(Column.percent(heading, "Accuracy, tested on", better=None) for heading in headings),
                Column.percent("Jaccard index", better=None),
            ],
            rows,
            notes=(
                "With a sign: accuracy minus that of the lens trained on that very view, in points, with its paired "
                "p-value. Jaccard index: the words that both lenses read rightly from the view that the row's lens "
                "was not trained on, over those that either does.",
            ),
            source=source,
            breaks=range(2, len(rows), 2),
        )
        key = "table" if position == "with_prior" else "without-prior"
        tables[key] = table
        groups, bars = [], {"trained on the view it reads": [], "trained on the other view": []}  # type: ignore[var-annotated]
        for corpus, views in all_views.items():
            for number, view in enumerate(views):
                groups.append(f"{corpus}, {view.side}")
                for label, trained in zip(bars, (view, views[1 - number]), strict=True):
                    bars[label].append(
                        accuracy(found[_name(corpus, trained)], ("primary", "paired")[number], position)
                    )
        plots["plot" if position == "with_prior" else "plot-without-prior"] = BarPlot(
            f"{title}{said}",
            "accuracy",
            tuple(groups),
            tuple(Bars(label, tuple(cells)) for label, cells in bars.items()),
            x_label="vectors read",
        )
    return Study(config.title or title, asked, tables, plots, tuple(findings))


MODALITY = StudyKind("modality", ("sides",), _plan, partial(_write_up, "modality"))
LANGUAGE = StudyKind("language", ("sides",), _plan, partial(_write_up, "language"))
