"""What commands print: one JSON document, or tables that suit a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from fliplens.evaluation import AtPriors, EvaluationResult

__all__ = ["print_evaluation", "print_json", "print_table", "print_text"]


def print_json(value: Any) -> None:
    """Write one JSON document to stdout; in escapes where the terminal's encoding lacks a letter."""
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2, allow_nan=False)
    sys.stdout.write(text + "\n")


def print_text(text: str) -> None:
    """Write lines of text to stdout."""
    sys.stdout.write(text + "\n")


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> None:
    """Write a table to stdout.

    Args:
        title: above it.
        columns: headings.
        rows: cells; they are data, no markup in them is acted on.
        left: how many first columns are text, and so aligned left.
    """
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False, show_header=any(columns))
    for number, column in enumerate(columns):
        table.add_column(Text(column), justify="left" if number < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    # A pipe or a log has no width of its own.
    width = None if sys.stdout.isatty() else 100
    Console(file=sys.stdout, highlight=False, width=width).print(table)


def percent(at: AtPriors, name: str) -> str:
    """Return "65.12 ± 0.34" of one position of the dial, in per cent."""
    one = getattr(at, name)
    return f"{100 * one.mean:.2f} ± {100 * one.se:.2f}"


def print_evaluation(title: str, result: EvaluationResult) -> None:
    """Write the metrics of every view as one table."""
    headings = {"with_prior": "prior 1", "without_prior": "prior 0"}
    if result.prior is not None and result.prior not in (0.0, 1.0):
        headings["at_prior"] = f"prior {result.prior:g}"
    names = list(headings)
    rows: list[list[str]] = []
    for view_name, view in result.views.items():
        for metric, at in view.metrics.items():
            shown = f"{metric}@{result.topn}" if metric in ("precision", "recall", "f1") else metric
            cells = []
            for name in names:
                one = getattr(at, name)
                if metric == "perplexity":
                    cells.append(f"{one.mean:.1f} ± {one.se:.1f}")
                else:
                    cells.append(f"{percent(at, name)} [{100 * one.ci95[0]:.2f}, {100 * one.ci95[1]:.2f}]")
            rows.append([view_name, shown, *cells])
        for depth in (1, 5, 10, 50):
            recalls = [view.entity_recall[name] for name in names if name in view.entity_recall]
            if recalls and depth <= len(recalls[0].strict):
                for kind in ("strict", "partial"):
                    cells = [f"{100 * getattr(recall, kind)[depth - 1].mean:.2f}" for recall in recalls]
                    rows.append([view_name, f"entity recall@{depth}, {kind}", *cells])
    print_table(title, ["view", "metric", *(headings[name] for name in names)], rows, left=2)
    print_text(
        f"mean ± standard error [bootstrap 95%], per cent, perplexity apart; {result.n_evaluated} sentences, "
        f"{result.n_skipped} without a known word left out; vocabulary {result.vocabulary_size}"
    )
