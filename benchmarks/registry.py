"""What a benchmark is, which there are, and how one case runs in a process of its own."""

from __future__ import annotations

import importlib
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fliplens.embeddings import Embeddings

ROOT = Path(__file__).resolve().parents[1]
RESULTS = Path(__file__).resolve().parent / "results"
NO_DATA = "there is no folder of real text (FLIPLENS_DATA, else ../shared/data beside the clone)"
PACKAGES = ("torch", "numpy", "scipy", "sentence-transformers", "transformers", "fliplens")


@dataclass(frozen=True)
class Benchmark:
    """A named set of cases, each run in a fresh process so that its peak memory is its own."""

    name: str
    description: str
    cases: Mapping[str, Callable[[], dict[str, Any]]]
    columns: Mapping[str, Callable[[dict[str, Any]], str]]
    """Heading → cell of a case's result."""
    needs_data: bool
    """Whether all of it reads the folder of real text (`data_folder`)."""
    needs_gpu: bool = False
    """Whether it needs a CUDA device."""
    slow: bool = False
    """Left out unless it is named."""
    cases_with_data: frozenset[str] = frozenset()
    """Cases that read the folder of real text where the others do not."""


def benchmarks() -> dict[str, Benchmark]:
    """Return all benchmarks by name."""
    found = {}
    for module in (
        "common_voice",
        "decoding",
        "encoding",
        "encoding_length",
        "installed_documentation",
        "languages",
        "objective_cuda",
        "opening",
        "paper_scale",
        "reading",
        "splice",
        "training_speed",
        "tuning",
    ):
        for benchmark in importlib.import_module(f"benchmarks.{module}").BENCHMARKS:
            found[benchmark.name] = benchmark
    return found


def data_folder() -> Path | None:
    """Return the folder of real text (FLIPLENS_DATA, else ../shared/data beside the clone), None where absent."""
    named = os.environ.get("FLIPLENS_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    return folder if folder.is_dir() else None


def require_data() -> Path:
    """Return the folder of real text, which the caller knows to be there."""
    folder = data_folder()
    if folder is None:
        raise SystemExit(NO_DATA)
    return folder


def common_voice_texts(name: str, split: str) -> list[str]:
    """Return the sentences of Common Voice in one language: en, de, fr; train or dev."""
    from fliplens.files import read_lines

    return read_lines(require_data() / "common-voice" / f"{name}.{split}.txt")


def common_voice_vectors(name: str, split: str) -> Embeddings:
    """Return MiniLM's vectors of the same sentences, en, or of their noisy channel, en-noisy."""
    from fliplens import open_embeddings

    return open_embeddings(require_data() / "common-voice" / f"{name}.{split}.minilm.npy")


def run_case(benchmark: str, case: str) -> dict[str, Any]:
    """Run one case in a fresh process; return its result with machine, wall time and peak memory."""
    ran = machine()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "benchmarks", "--worker", benchmark, case, str(out)], cwd=ROOT, check=True
        )
        result: dict[str, Any] = json.loads(out.read_text())
        result["process_seconds"] = round(time.perf_counter() - started, 1)
        result["machine"] = ran
        return result


def work(benchmark: str, case: str, out: str) -> None:
    """Run one case here and write its result; what `run_case` starts."""
    result = benchmarks()[benchmark].cases[case]()
    result["peak_memory_gb"] = peak_memory_gb()
    Path(out).write_text(json.dumps(result))


def peak_memory_gb() -> float:
    """Return the most memory that this process has had so far, GiB."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)


def machine() -> dict[str, Any]:
    """Return what runs a case: processor, cores, measured matrix-product peak, versions, commit."""
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from fliplens.devices import processor

    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    return {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "float32_gflops": round(matrix_product_peak(torch.float32, 2048)),
        "versions": versions,
        "commit": commit(),
    }


def commit() -> str:
    """Return the commit of the code that runs, "-dirty" behind it where code has changed since; else "unknown"."""
    # Results and the pages that quote them change while benchmarks run, and change no result.
    code = ("benchmarks", "fliplens", "constraints.txt", "pyproject.toml", ":!benchmarks/results")
    try:
        head = _git("rev-parse", "HEAD")
        return f"{head}-dirty" if _git("status", "--porcelain", "--", *code) else head
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def matrix_product_peak(dtype: Any, size: int, device: str = "cpu") -> float:
    """Return GFLOP/s of a square matrix product, the best of seven."""
    import torch

    a, b = (torch.randn(size, size).to(device, dtype) for _ in range(2))
    best = float("inf")
    for _ in range(7):
        started = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best / 1e9


class AnonymousMemory:
    """The process's anonymous memory, looked at by a thread all along; a context manager. Linux only.

    Memory-mapped files, which the system drops when it needs the memory, do not count, as they do in the peak
    that `getrusage` tells. What comes and goes between two looks is missed.

    Args:
        interval: seconds between two looks.
    """

    def __init__(self, interval: float = 0.005) -> None:
        self._interval = interval
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peak_gb = 0.0
        """The most since the last `restart`, GiB."""
        self.highest_gb = 0.0
        """The most of all, GiB."""

    def __enter__(self) -> AnonymousMemory:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def restart(self) -> None:
        """Forget the peak so far."""
        self.peak_gb = 0.0
        self._look()

    def _watch(self) -> None:
        while not self._ended.wait(self._interval):
            self._look()

    def _look(self) -> None:
        status = Path("/proc/self/status").read_text()
        now = int(status.partition("RssAnon:")[2].split()[0]) / 2**20
        self.peak_gb, self.highest_gb = max(self.peak_gb, now), max(self.highest_gb, now)
