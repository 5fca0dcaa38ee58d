"""The demo, timed: anyone can repeat it, as its text is the documentation installed with Python."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.registry import Benchmark


def _demo() -> dict[str, Any]:
    from fliplens.demo import run_demo

    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "demo"
        started = time.perf_counter()
        result = run_demo(run, show_progress=True)
        first = time.perf_counter() - started
        started = time.perf_counter()
        run_demo(run)
        second = time.perf_counter() - started
    return {
        "sentences": result.sizes,
        "vocabulary_size": result.vocabulary_size,
        "first_run_seconds": round(first, 1),
        "second_run_seconds": round(second, 1),
        "accuracy": {row.name: row.result.accuracy.to_json() for row in result.rows},
    }


BENCHMARKS = [
    Benchmark(
        name="installed-documentation",
        description="the demo: seconds, and accuracy of each method on held-out sentences, per cent",
        cases={"demo": _demo},
        columns={
            "sentences": lambda result: str(sum(result["sentences"].values())),
            "V": lambda result: str(result["vocabulary_size"]),
            "first run, s": lambda result: f"{result['first_run_seconds']:.0f}",
            "second run, s": lambda result: f"{result['second_run_seconds']:.1f}",
            "accuracy": lambda result: "; ".join(
                f"{name} {100 * one['with_prior']['mean']:.2f}" for name, one in result["accuracy"].items()
            ),
        },
        needs_data=False,
    )
]
