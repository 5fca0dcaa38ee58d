"""`python -m benchmarks [NAME ...] [--case CASE]`."""

from __future__ import annotations

import argparse
import json

from benchmarks.chart import draw
from benchmarks.registry import NO_DATA, Benchmark, benchmarks, data_folder, run_case, work
from benchmarks.report import result_path, table, update_pages
from fliplens.files import atomic_file


def main(arguments: list[str] | None = None) -> int:
    """Run benchmarks and write their results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", help="which (default: all but the slow ones)")
    parser.add_argument("--case", action="append", help="only these cases of one benchmark; others keep their result")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.worker:
        work(*args.worker)
        return 0
    known = benchmarks()
    names = args.names or [name for name, one in known.items() if not one.slow]
    if unknown := [name for name in names if name not in known]:
        parser.error(f"expected {', '.join(known)}, found {', '.join(unknown)}")
    if args.case and len(names) != 1:
        parser.error(f"expected one benchmark with --case, found {len(names)}")
    if args.case and (unknown := [case for case in args.case if case not in known[names[0]].cases]):
        parser.error(f"expected cases {'; '.join(known[names[0]].cases)}, found {'; '.join(unknown)}")
    for name in names:
        benchmark = known[name]
        if benchmark.needs_data and data_folder() is None:
            print(f"{name}: skipped, as {NO_DATA}")
            continue
        if benchmark.needs_gpu and not _has_gpu():
            print(f"{name}: skipped, as this machine has no CUDA device")
            continue
        run(benchmark, args.case)
    update_pages()
    draw()
    return 0


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def run(benchmark: Benchmark, only: list[str] | None = None) -> None:
    """Run a benchmark's cases and write their results; a case that does not run keeps the result it has."""
    path = result_path(benchmark.name)
    old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"cases": {}}
    cases = {
        # Results of before had one machine for all cases.
        case: {**result, "machine": result.get("machine", old.get("machine"))}
        for case, result in old["cases"].items()
        if case in benchmark.cases
    }
    for case in only or benchmark.cases:
        if case in benchmark.cases_with_data and data_folder() is None:
            print(f"{benchmark.name}, {case}: skipped, as {NO_DATA}")
            continue
        cases[case] = run_case(benchmark.name, case)
        # After each case, so that one that fails or is stopped takes none of the others with it.
        document = {"benchmark": benchmark.name, "cases": cases}
        with atomic_file(path) as new:
            new.write((json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode())
    if cases:
        print(f"\n{benchmark.name}\n\n{table(benchmark, {'cases': cases})}")


if __name__ == "__main__":
    raise SystemExit(main())
