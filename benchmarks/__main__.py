"""`python -m benchmarks [NAME ...] [--case CASE]`."""

from __future__ import annotations

import argparse
import json

from benchmarks.chart import draw
from benchmarks.registry import Benchmark, benchmarks, data_folder, machine, run_case, work
from benchmarks.report import result_path, table, update_pages
from fliplens.files import atomic_file


def main() -> int:
    """Run benchmarks and write their results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help="which (default: all but the slow ones)")
    parser.add_argument("--case", action="append", help="only these cases of one benchmark; others keep their result")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        work(*args.worker)
        return 0
    known = benchmarks()
    names = args.names or [name for name, one in known.items() if not one.slow]
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"expected {', '.join(known)}, found {', '.join(unknown)}")
    for name in names:
        benchmark = known[name]
        if benchmark.needs_data and data_folder() is None:
            print(f"{name}: skipped, as FLIPLENS_DATA names no folder of real text")
            continue
        if benchmark.needs_gpu and not _has_gpu():
            print(f"{name}: skipped, as this machine has no CUDA device")
            continue
        _run(benchmark, args.case)
    update_pages()
    draw()
    return 0


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _run(benchmark: Benchmark, only: list[str] | None) -> None:
    path = result_path(benchmark.name)
    cases = json.loads(path.read_text())["cases"] if only and path.is_file() else {}
    ran = machine()
    for case in benchmark.cases:
        if only and case not in only:
            continue
        cases[case] = run_case(benchmark.name, case)
        # After each case, so that one that fails or is stopped takes none of the others with it.
        document = {"benchmark": benchmark.name, "machine": ran, "cases": cases}
        with atomic_file(path) as new:
            new.write((json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode())
    print(f"\n{benchmark.name}\n\n{table(benchmark, document)}")


raise SystemExit(main())
