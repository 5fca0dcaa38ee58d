"""What commands print: one JSON document, or tables that suit a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fliplens.wording import counted

if TYPE_CHECKING:
    from fliplens.arithmetic.uncertainty import Difference, Estimate
    from fliplens.evaluation.comparison import Comparison
    from fliplens.evaluation.evaluating import AtPriors, EvaluationResult

__all__ = ["print_comparisons", "print_evaluation", "print_json", "print_table", "print_text", "vectors_of"]


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

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_header=any(columns))
    for number, column in enumerate(columns):
        table.add_column(Text(column), justify="left" if number < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    # A pipe or a log has no width of its own.
    width = None if sys.stdout.isatty() else 100
    console = Console(file=sys.stdout, highlight=False, width=width)
    # Not as the table's own, which is broken to the table's width, however narrow that is.
    console.print(Text(title, style="italic"))
    console.print(table)


def vectors_of(n: int, dim: int) -> str:
    """Return "2 vectors of 384 dimensions"."""
    return f"{counted(n, 'vector')} of {counted(dim, 'dimension')}"


def percent(at: AtPriors, name: str) -> str:
    """Return "65.12 ± 0.34" of one position of the dial, in per cent."""
    one = getattr(at, name)
    return f"{100 * one.mean:.2f} ± {100 * one.se:.2f}"


def _with_interval(one: Estimate | Difference, *, sign: str = "") -> str:
    """Return "65.12 ± 0.34 [64.45, 65.80]", in per cent."""
    low, high = one.ci95
    return f"{100 * one.mean:{sign}.2f} ± {100 * one.se:.2f} [{100 * low:.2f}, {100 * high:.2f}]"


def _headings(prior: float | None) -> dict[str, str]:
    """Return position of the dial → heading of its column; one that is there already gets no second column."""
    headings = {"with_prior": "prior 1", "without_prior": "prior 0"}
    if prior is not None and prior not in (0.0, 1.0):
        headings["at_prior"] = f"prior {prior:g}"
    return headings


def print_comparisons(title: str, comparisons: Mapping[str, Comparison], *, prior: float | None) -> None:
    """Write comparisons as one table, and below it what they leave out.

    Args:
        title: above it.
        comparisons: view → what two lenses read from it.
        prior: the extra position of the dial, if one was asked for.
    """
    headings = _headings(prior)
    rows: list[list[str]] = []
    for view, comparison in comparisons.items():
        columns = [comparison.positions()[name] for name in headings]
        rows += [
            [view, "accuracy of LENS", *(_with_interval(at.accuracy_a) for at in columns)],
            [view, "accuracy of OTHER", *(_with_interval(at.accuracy_b) for at in columns)],
            [view, "LENS - OTHER", *(_with_interval(at.difference, sign="+") for at in columns)],
            [view, "its p-value", *(f"{at.difference.p_value:.4f}" for at in columns)],
            [view, "Jaccard index", *(_with_interval(at.jaccard) for at in columns)],
            [view, "neither has a hit", *(str(at.n_empty) for at in columns)],
        ]
    print_table(title, ["view", "", *headings.values()], rows, left=2)
    print_text("mean ± standard error [bootstrap 95%], per cent; the difference is paired, sentence by sentence")
    for view, comparison in comparisons.items():
        text = (
            f"{view}: {counted(comparison.n_compared, 'sentence')} of which both know a word, "
            f"{comparison.n_skipped} others left out"
        )
        if comparison.vocabularies_differ:
            sizes = " and ".join(map(str, comparison.vocabulary_sizes))
            text += f"; vocabularies differ: {sizes} words, {comparison.n_shared_words} of them shared"
        print_text(text)


def print_evaluation(title: str, result: EvaluationResult) -> None:
    """Write the metrics of every view as one table."""
    headings = _headings(result.prior)
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
                    cells.append(_with_interval(one))
            rows.append([view_name, shown, *cells])
        for depth in (1, 5, 10, 50):
            recalls = [view.entity_recall[name] for name in names if name in view.entity_recall]
            if recalls and depth <= len(recalls[0].strict):
                for kind in ("strict", "partial"):
                    cells = [f"{100 * getattr(recall, kind)[depth - 1].mean:.2f}" for recall in recalls]
                    rows.append([view_name, f"entity recall@{depth}, {kind}", *cells])
    print_table(title, ["view", "metric", *(headings[name] for name in names)], rows, left=2)
    print_text(
        f"mean ± standard error [bootstrap 95%], per cent, perplexity apart; "
        f"{counted(result.n_evaluated, 'sentence')}, "
        f"{result.n_skipped} without a known word left out; vocabulary {result.vocabulary_size}"
    )
