"""Tables from committed results, and the pages that quote them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.registry import RESULTS, ROOT, Benchmark, benchmarks
from fliplens.studies.rendering import to_markdown
from fliplens.studies.tables import Table

DOCS = ROOT / "docs"
PAGES = (
    ROOT / "README.md",
    DOCS / "benchmarks.md",
    DOCS / "languages.md",
    DOCS / "tuning.md",
    DOCS / "results" / "README.md",
)
STUDIES = DOCS / "results"
STUDY_BLOCK = re.compile(r"(<!-- study ([\w-]+)/([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
BLOCK = re.compile(r"(<!-- benchmark ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(benchmark: Benchmark, document: dict[str, Any]) -> str:
    """Return a benchmark's results as a Markdown table with the machines that ran the cases below it."""
    headings = ["", *benchmark.columns]
    shown = {case: document["cases"][case] for case in benchmark.cases if case in document["cases"]}
    rows = [[case, *(cell(result) for cell in benchmark.columns.values())] for case, result in shown.items()]
    lines = [headings, ["---"] * len(headings), *rows]
    # Results of before had one machine for all cases.
    ran = [result.get("machine") or document["machine"] for result in shown.values()]
    return (
        "\n".join("| " + " | ".join(line) + " |" for line in lines)
        + f"\n\n{benchmark.description[0].upper()}{benchmark.description[1:]}. {_machines(ran)}.\n"
    )


def _machines(ran: list[dict[str, Any]]) -> str:
    """Return what ran the cases of a table in words: names that differ all, speeds that differ as a range."""
    speeds = [one["float32_gflops"] for one in ran]
    speed = f"{min(speeds)}" if min(speeds) == max(speeds) else f"{min(speeds)}-{max(speeds)}"
    processors = dict.fromkeys(f"{one['threads']} cores of {one['processor']}" for one in ran)
    versions = dict.fromkeys(one["versions"]["torch"] for one in ran)
    return f"{' and '.join(processors)}, {speed} GFLOP/s in a float32 matrix product, torch {' and '.join(versions)}"


def with_error(metric: dict[str, Any]) -> str:
    """Return a metric's mean and standard error, per cent."""
    return f"{100 * metric['mean']:.2f} ± {100 * metric['se']:.2f}"


def with_results(text: str) -> str:
    """Return a page with every block between markers written anew from the committed results.

    The block of a benchmark or study without results stays as it is.
    """
    known = benchmarks()

    def block(match: re.Match[str]) -> str:
        benchmark, path = known[match[2]], result_path(match[2])
        if not path.is_file():
            return match[0]
        document = json.loads(path.read_text(encoding="utf-8"))
        return f"{match[1]}{table(benchmark, document)}{match[3]}"

    def study_block(match: re.Match[str]) -> str:
        path = STUDIES / match[2] / f"{match[3]}.json"
        if not path.is_file():
            return match[0]
        shown = to_markdown(Table.from_json(json.loads(path.read_text(encoding="utf-8"))))
        # Its heading is the page's business.
        return f"{match[1]}{shown.partition(chr(10) * 2)[2].strip()}\n{match[4]}"

    return STUDY_BLOCK.sub(study_block, BLOCK.sub(block, text))


def result_path(name: str) -> Path:
    """Return where a benchmark's committed results lie."""
    return RESULTS / f"{name}.json"


def update_pages() -> None:
    """Write the pages' figures anew from the committed results."""
    for page in PAGES:
        if page.is_file():
            page.write_text(with_results(page.read_text(encoding="utf-8")), encoding="utf-8")
