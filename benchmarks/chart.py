"""Accuracy against training time as one drawing, from the committed results alone: `docs/images`.

Needs matplotlib (the extra `benchmarks`); drawn in the style of `fliplens study`. Grey tones, markers and words set
the lines apart, not colours. The same results always give the same bytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.registry import RESULTS, ROOT
from fliplens.files import atomic_file
from fliplens.studies.drawing import new_axes, save, style

CHART = ROOT / "docs" / "images" / "accuracy-over-time.svg"


@dataclass(frozen=True)
class Line:
    """A method's line: which case of which results, and how it is drawn."""

    label: str
    benchmark: str
    case: str
    marker: str
    grey: str
    style: str
    pace: str = ""
    """Method of `training-speed` whose seconds a pass, times the passes taken, stand for seconds that other work
    beside the run has spoilt."""


LINES = (
    Line("FLiPLens, default recipe", "common-voice", "FLiP rank 384", "o", "0.0", "-"),
    Line(
        "FLiPLens, the paper's recipe",
        "common-voice-paper",
        "FLiP rank 384, recipe paper",
        "s",
        "0.35",
        "--",
        "paper",
    ),
    Line("plain PyTorch, the paper's recipe", "plain-to-the-end", "plain to the end", "^", "0.6", ":", "plain"),
)


def points(case: dict[str, Any]) -> list[tuple[float, float]]:
    """Return (seconds of training, accuracy on dev) of a case, in order of time.

    They come from its `curve`; without one there is the end of the training alone.
    """
    curve = [(float(seconds), float(accuracy)) for seconds, accuracy in case.get("curve") or []]
    if not curve and "training_seconds" in case:
        text = case.get("text", {}).get("accuracy", {}).get("with_prior", {}).get("mean")
        text = case.get("accuracy", {}).get("text", {}).get("with_prior") if text is None else text
        curve = [] if text is None else [(float(case["training_seconds"]), float(text))]
    # A logarithm has no place for the start itself.
    return sorted((seconds, accuracy) for seconds, accuracy in curve if seconds > 0)


def collect(results: Path = RESULTS) -> list[tuple[Line, list[tuple[float, float]]]]:
    """Return the lines for which there are results, with their points."""
    found = []
    for line in LINES:
        path = results / f"{line.benchmark}.json"
        cases = json.loads(path.read_text(encoding="utf-8"))["cases"] if path.is_file() else {}
        case = cases.get(line.case)
        if case is not None and line.pace:
            case = _paced(case, results / "training-speed.json", line.pace)
        if case is not None and (drawn := points(case)):
            found.append((line, drawn))
    return found


def _paced(case: dict[str, Any], speeds: Path, method: str) -> dict[str, Any] | None:
    """Return a case as if each pass had taken what it takes alone; None where that was not measured."""
    if not speeds.is_file():
        return None
    measured = json.loads(speeds.read_text(encoding="utf-8"))["cases"]["one pass"]["median_seconds"]
    seconds = case["passes"] * measured[method]
    scores = [accuracy for _, accuracy in case.get("curve") or []]
    # Evaluations are evenly spaced, the last one at the end.
    curve = [[seconds * (number + 1) / len(scores), accuracy] for number, accuracy in enumerate(scores)]
    return {**case, "curve": curve, "training_seconds": seconds}


def draw(path: Path = CHART, results: Path = RESULTS) -> bool:
    """Draw the chart; return False, and do nothing, where there are no results or no matplotlib."""
    lines = collect(results)
    try:
        from matplotlib.ticker import FuncFormatter, NullFormatter
    except ImportError:
        return False
    if not lines:
        return False
    with style():
        figure, axes = new_axes(7.0, 3.9)
        for line, drawn in lines:
            seconds, accuracy = zip(*drawn, strict=True)
            axes.plot(
                seconds,
                [100 * one for one in accuracy],
                color=line.grey,
                marker=line.marker,
                markersize=5,
                linestyle=line.style,
                linewidth=1.5,
                label=line.label,
            )
        axes.set_xscale("log")
        axes.set_xlabel("seconds of training")
        axes.set_ylabel("accuracy on dev, %")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_ylim(0, None)
        axes.grid(visible=True, color="0.9", linewidth=0.8)
        axes.legend(loc="lower right")
        with atomic_file(path) as stream:
            stream.write(save(figure, "svg"))
    return True
