"""Where words appear in a model, and where they fade: a lens for every layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fliplens.encoders.registry import FAMILIES, parse_spec
from fliplens.studies.config import StudyConfig
from fliplens.studies.findings import compared, highest, trend
from fliplens.studies.page import Study
from fliplens.studies.plan import Comparing, Evaluating, Fitting, Measurement, Plan, StudyKind
from fliplens.studies.plots import Line, LinePlot, Plot
from fliplens.studies.results import PRIORS, accuracy, difference
from fliplens.studies.sides import Sides
from fliplens.studies.tables import Cell, Column, Table

__all__ = ["LAYERS"]

OPTION = "layer"


def _layers(config: StudyConfig) -> list[int]:
    place = config.own.need("layers", "numbers of layers, such as [0, 1, 2, 3]; 0 is what goes into the first one")
    numbers = []
    for one in place.list():
        value = one.plain()
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            one.fail("a layer's number, from 0")
        numbers.append(value)
    if not numbers:
        place.fail("at least one layer", "none")
    return sorted(set(numbers))


def _label(layer: int) -> str:
    return f"layer {layer}"


def _adapt(config: StudyConfig) -> StudyConfig:
    """Return the settings with an encoder for every layer of the one that they name."""
    place = config.own.need("encoders", "the spec of a model, such as [hf:OWNER/NAME]")
    spec = place.asking(lambda: parse_spec(config.encoders[config.encoder]))
    if OPTION not in FAMILIES[spec.family].options or len(config.encoders) != 1:
        known = ", ".join(family.form for family in FAMILIES.values() if OPTION in family.options)
        place.fail(f"one model whose layers can be had ({known})", ", ".join(config.encoders.values()))
    if OPTION in spec.options:
        place.fail(f"a model without {OPTION}=, which the setting layers varies", repr(str(spec)))
    for corpus in config.corpora.values():
        for side in (side for split in corpus.splits.values() for side in split.sides.values()):
            for file in side.embeddings.values():
                file.fail("no embeddings in a study of layers, which makes those of each layer", file.shown())
    encoders = {
        _label(layer): str(replace(spec, options={**spec.options, OPTION: str(layer)})) for layer in _layers(config)
    }
    return replace(config, encoders=encoders)


def _plan(config: StudyConfig) -> Plan:
    sides = Sides.of(config)
    place = config.own.get("layers")
    fittings = {
        label: Fitting(sides.words, sides.primary, sides.paired, label, place=place) for label in config.encoders
    }
    measurements: dict[str, Measurement] = {label: Evaluating(label, sides.words, sides.views) for label in fittings}
    last = list(fittings)[-1]
    for label in fittings:
        if label != last:
            for view in sides.views:
                measurements[f"{label} - {last} on {view.side}"] = Comparing((label, last), sides.words, (view, view))
    return Plan(fittings, measurements)


def _write_up(config: StudyConfig, plan: Plan, found: Mapping[str, Any]) -> Study:
    sides, layers = Sides.of(config), _layers(config)
    labels = list(plan.fittings)
    last = labels[-1]
    columns = [
        Column.percent(view.side, "prior removed" if said else "with the prior")
        for said in PRIORS.values()
        for view in sides.views
    ]
    rows: list[list[Cell]] = [
        [
            Cell(float(layer)),
            *(accuracy(found[label], name, position) for position in PRIORS for name in sides.names),
        ]
        for layer, label in zip(layers, labels, strict=True)
    ]
    table = Table.build("Accuracy by layer", [Column("layer", decimals=0), *columns], rows).with_best()
    findings = []
    for view, name in zip(sides.views, sides.names, strict=True):
        for position, said in PRIORS.items():
            cells = [accuracy(found[label], name, position) for label in labels]
            on = f"Accuracy on {view.side}{said}"
            findings.append(trend(on, "layer", [float(layer) for layer in layers], cells))
            findings.append(f"{view.side}{said}: " + highest(dict(zip(labels, cells, strict=True))))
            best = max(labels, key=lambda label: accuracy(found[label], name, position).mean or 0.0)
            if best != last:
                cell = difference(found[f"{best} - {last} on {view.side}"], position)
                findings.append(f"On {view.side}{said}: " + compared(best, last, cell))
    plots: dict[str, Plot] = {}
    if len(layers) > 1:
        plots["plot"] = LinePlot(
            "Accuracy by layer",
            "layer",
            "accuracy",
            tuple(
                Line(
                    f"{view.side}{said or ', with the prior'}",
                    tuple(float(layer) for layer in layers),
                    tuple(accuracy(found[label], name, position) for label in labels),
                    colour=number,
                    dash=list(PRIORS).index(position),
                )
                for number, (view, name) in enumerate(zip(sides.views, sides.names, strict=True))
                for position, said in PRIORS.items()
            ),
            x_ticks=tuple((float(layer), str(layer)) for layer in layers),
        )
    return Study(
        config.title or "Layers",
        "How many of a sentence's words a lens reads from the pooled hidden states of each layer of a model, 0 being "
        f"what goes into its first layer. Every layer has a lens of its own, trained on {sides.told()} by the same "
        "recipe. The best layer is picked by these very numbers, so that its lead is somewhat too large.",
        {"table": table},
        plots,
        tuple(findings),
    )


LAYERS = StudyKind("layers", (*Sides.SETTINGS, "layers"), _plan, _write_up, _adapt)
