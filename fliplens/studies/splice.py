"""Table 6: a lens against SpLiCE on one vocabulary of concepts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fliplens.studies.config import StudyConfig
from fliplens.studies.findings import compared, times
from fliplens.studies.page import Study
from fliplens.studies.plan import Comparing, Evaluating, Fitting, Plan, StudyKind
from fliplens.studies.plots import BarPlot
from fliplens.studies.results import accuracy, difference
from fliplens.studies.sides import Sides
from fliplens.studies.tables import Cell, Column, Table

__all__ = ["SPLICE"]

METHODS = {"splice": "SpLiCE", "flip": "FLiP"}


def _plan(config: StudyConfig) -> Plan:
    if not config.settings.get("concepts"):
        (config.own.get("vocabulary") or config.own).fail(
            "concepts: true in the vocabulary of a splice study", "none"
        )
    sides = Sides.of(config)
    encoder = config.encoder
    fittings = {
        "splice": Fitting(sides.words, sides.primary, sides.paired, encoder, model="splice"),
        "flip": Fitting(sides.words, sides.primary, sides.paired, encoder),
    }
    measurements: dict[str, Any] = {name: Evaluating(name, sides.words, sides.views) for name in fittings}
    for view in sides.views:
        measurements[f"difference on {view.side}"] = Comparing(("flip", "splice"), sides.words, (view, view))
    return Plan(fittings, measurements)


def _write_up(config: StudyConfig, _plan: Plan, found: Mapping[str, Any]) -> Study:
    sides = Sides.of(config)
    rows: list[list[Cell | str]] = [
        [METHODS[name], *(accuracy(found[name], view) for view in sides.names)] for name in METHODS
    ]
    rows.insert(2, ["FLiP, prior removed", *(accuracy(found["flip"], view, "without_prior") for view in sides.names)])
    table = Table.build(
        "Span-aware accuracy of SpLiCE and FLiP",
        [Column("Method"), *(Column.percent(view.side) for view in sides.views)],
        rows,
        source="Table 6",
        notes=(
            "SpLiCE has no prior; its penalty is chosen on held-out rows, and each view's own mean is taken off its "
            "vectors.",
        ),
    ).with_best()
    findings = []
    for view in sides.views:
        one, two = (accuracy(found[name], sides.name(view)) for name in ("flip", "splice"))
        findings.append(
            f"On {view.side}: " + compared("FLiP", "SpLiCE", difference(found[f"difference on {view.side}"]))
        )
        findings.append(f"On {view.side}: " + times("FLiP", "SpLiCE", one, two))
        # SpLiCE reads the same wherever the dial stands.
        bare = difference(found[f"difference on {view.side}"], "without_prior")
        findings.append(f"On {view.side}: " + compared("FLiP with its prior removed", "SpLiCE", bare))
    return Study(
        config.title or "FLiP and SpLiCE",
        "Both name the same concepts, words and pairs of words, in the same sentences: SpLiCE as a sparse "
        f"non-negative sum of the concepts' own vectors, the lens by its linear map, trained on {sides.told()}.",
        {"table": table},
        {"plot": BarPlot.of(table, range(1, 1 + len(sides.views)), y_label="span-aware accuracy")},
        tuple(findings),
    )


SPLICE = StudyKind("splice", Sides.SETTINGS, _plan, _write_up)
