"""Tables from committed results, and the pages that quote them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from benchmarks.registry import RESULTS, ROOT, Benchmark, benchmarks

PAGES = (ROOT / "README.md", ROOT / "docs" / "benchmarks.md")
BLOCK = re.compile(r"(<!-- benchmark ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(benchmark: Benchmark, document: dict[str, Any]) -> str:
    """Return a benchmark's results as a Markdown table with the machine below it."""
    headings = ["", *benchmark.columns]
    rows = [
        [case, *(cell(document["cases"][case]) for cell in benchmark.columns.values())]
        for case in benchmark.cases
        if case in document["cases"]
    ]
    lines = [headings, ["---"] * len(headings), *rows]
    machine = document["machine"]
    return (
        "\n".join("| " + " | ".join(line) + " |" for line in lines)
        + f"\n\n{benchmark.description[0].upper()}{benchmark.description[1:]}. {machine['threads']} cores of "
        f"{machine['processor']}, {machine['float32_gflops']} GFLOP/s in a float32 matrix product, "
        f"torch {machine['versions']['torch']}.\n"
    )


def with_results(text: str) -> str:
    """Return a page with every block between benchmark markers written anew from the committed results."""
    known = benchmarks()

    def block(match: re.Match[str]) -> str:
        document = json.loads(result_path(match[2]).read_text(encoding="utf-8"))
        return f"{match[1]}{table(known[match[2]], document)}{match[3]}"

    return BLOCK.sub(block, text)


def result_path(name: str) -> Path:
    """Return where a benchmark's committed results lie."""
    return RESULTS / f"{name}.json"


def update_pages() -> None:
    """Write the pages' figures anew from the committed results."""
    for page in PAGES:
        page.write_text(with_results(page.read_text(encoding="utf-8")), encoding="utf-8")
