"""Reading top words: rows a second against the best plain "multiply, then topk", in one process, interleaved.

The plain way is tried with scores as (rows, V) and as (V, rows), the latter also transposed before topk, each in
several batch sizes; it is compared by the fastest of all of them. Rows are float32 in memory; E2 is part of all.
Few rows take milliseconds, so they are read many times a round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.registry import Benchmark, common_voice_texts, common_voice_vectors, matrix_product_peak

if TYPE_CHECKING:
    from torch import Tensor

    from fliplens.arithmetic.objective import Factors

N = 10
ROWS = 1024
ROUNDS = 5
LEAST_SECONDS = 0.3
"""Of one way in one round: it is repeated that long."""
BATCHES = (64, 256, 1024)


def _synthetic(*, n_words: int, rank: int, dim: int, rows: int = ROWS) -> dict[str, Any]:
    """Read the first of ROWS vectors of made-up sentences of eight words, of the spectrum of lenses of real text."""
    import torch

    from fliplens.arithmetic.objective import Factors

    torch.manual_seed(0)
    # A trained lens's scores spread over its principal components with energies near 1/k.
    E1 = torch.randn(n_words, rank) * torch.arange(1, rank + 1).rsqrt()
    E2 = torch.linalg.qr(torch.randn(dim, rank))[0].T.contiguous()
    b = -torch.arange(1, n_words + 1).log()
    latent = E1[torch.randint(0, n_words, (ROWS, 8))].sum(dim=1) + 0.1 * torch.randn(ROWS, rank)
    # A standard deviation of 1.7 over the words, as theirs.
    latent *= 1.7 / (latent[:64] @ E1.T).std()
    return _compare(Factors(E1, E2, b), (latent @ E2)[:rows], b)


def _real(rows: int = ROWS) -> dict[str, Any]:
    """Read en.dev by a lens of en.train, one pass from sentence means: any real lens would do."""
    import torch

    from fliplens import TrainConfig, fit

    lens = fit(
        common_voice_texts("en", "train"),
        common_voice_vectors("en", "train"),
        config=TrainConfig(passes=1, anchor="sentences"),
    )
    vectors = common_voice_vectors("en", "dev").block(0, rows)
    return _compare(lens.factors, torch.from_numpy(vectors), lens.bias())


def _compare(factors: Factors, s: Tensor, b: Tensor) -> dict[str, Any]:
    import torch

    from fliplens.arithmetic.top import Reader, folding_pays, sweep_precision

    (n_words, rank), dim = factors.E1.shape, s.shape[1]
    precision = sweep_precision("cpu", len(s))
    started = time.perf_counter()
    reader = Reader(factors, precision=precision, folded=folding_pays(len(s), n_words, dim, rank))
    prepared = time.perf_counter() - started
    full = Reader(factors, prepared=reader.prepared)
    # Forgets the peak that making the data left.
    Path("/proc/self/clear_refs").write_text("5")
    before = _peak_kilobytes()
    best = reader.top(s, b, N)
    grown = _peak_kilobytes() - before
    contenders: dict[str, Callable[[], Any]] = {
        "reader": lambda: reader.top(s, b, N),
        "reader with probabilities": lambda: full.top(s, b, N, normalise=True),
        **plain_ways(factors, s, b),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    peaks = []
    with torch.inference_mode():
        for _ in range(ROUNDS):
            peaks.append(matrix_product_peak(getattr(torch, precision), 2048))
            for name, run in contenders.items():
                seconds[name].append(_seconds(run))
    rates = {name: len(s) / statistics.median(taken) for name, taken in seconds.items()}
    plain = max((name for name in rates if name.startswith("plain")), key=lambda name: rates[name])
    product = 2 * n_words * rank / 1e9
    same = (_plain(factors, s, b, "rows × V", min(256, len(s)))()[1] == best.indices).all(dim=1)
    return {
        "vocabulary_size": n_words,
        "rank": rank,
        "dim": dim,
        "rows": len(s),
        "n": N,
        "sweep": precision,
        "prepare_seconds": round(prepared, 3),
        "rows_per_second": {name: round(rate, 1) for name, rate in rates.items()},
        "best_plain": plain,
        "ratio": round(rates["reader"] / rates[plain], 2),
        "ratio_with_probabilities": round(rates["reader with probabilities"] / rates[plain], 2),
        "peak_gflops": round(statistics.median(peaks)),
        "share_of_peak": round(product * rates["reader"] / statistics.median(peaks), 3),
        "share_of_peak_plain": round(product * rates[plain] / statistics.median(peaks), 3),
        "rows_with_the_plain_words": round(float(same.float().mean()), 4),
        "reader_memory_mb": round(grown / 2**10, 1),
    }


def _peak_kilobytes() -> int:
    """Return the most memory that this process has had since its peak was last forgotten."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _seconds(run: Callable[[], Any]) -> float:
    """Return the mean seconds of a run that is repeated for LEAST_SECONDS, once at least."""
    started, times = time.perf_counter(), 0
    while not times or time.perf_counter() - started < LEAST_SECONDS:
        run()
        times += 1
    return (time.perf_counter() - started) / times


def plain_ways(factors: Factors, s: Tensor, b: Tensor) -> dict[str, Callable[[], Any]]:
    """Return the nine plain ways to read rows, fewer where there are fewer rows than a batch."""
    return {
        f"plain, {layout}, batches of {batch}": _plain(factors, s, b, layout, batch)
        for layout in ("rows × V", "V × rows", "V × rows, transposed")
        for batch in dict.fromkeys(min(batch, len(s)) for batch in BATCHES)
    }


def _plain(factors: Factors, s: Tensor, b: Tensor, layout: str, batch: int) -> Callable[[], Any]:
    """Return the plain way: multiply, add the bias, topk, with its buffer kept."""
    import torch

    E1, n_words = factors.E1, len(b)

    def run() -> Any:
        values, indices = [], []
        buffer = torch.empty((batch, n_words) if layout == "rows × V" else (n_words, batch))
        for start in range(0, len(s), batch):
            latent = factors.project(s[start : start + batch])
            if layout == "rows × V":
                scores = torch.addmm(b, latent, E1.T, out=buffer[: len(latent)])
            else:
                scores = torch.addmm(b[:, None], E1, latent.T, out=buffer[:, : len(latent)])
            if layout == "V × rows":
                top = scores.topk(N, dim=0)
                values.append(top.values.T)
                indices.append(top.indices.T)
            else:
                top = (scores if layout == "rows × V" else scores.T.contiguous()).topk(N, dim=1)
                values.append(top.values)
                indices.append(top.indices)
        return torch.cat(values), torch.cat(indices)

    return run


def _ratio(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda result: f"{result[name]:.2f}"


COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "vectors": lambda result: str(result["rows"]),
    "V": lambda result: str(result["vocabulary_size"]),
    "rank": lambda result: str(result["rank"]),
    "sweep": lambda result: result["sweep"],
    "rows/s": lambda result: f"{result['rows_per_second']['reader']:.0f}",
    "with probabilities": lambda result: f"{result['rows_per_second']['reader with probabilities']:.0f}",
    "best plain": lambda result: f"{result['rows_per_second'][result['best_plain']]:.0f}",
    "ratio": _ratio("ratio"),
    "ratio, probabilities": _ratio("ratio_with_probabilities"),
    "share of the product's peak": lambda result: (
        f"{100 * result['share_of_peak']:.0f}% of {result['peak_gflops']} GFLOP/s"
    ),
    "memory, MB": lambda result: f"{result['reader_memory_mb']:.0f}",
}
DESCRIPTION = (
    "rows a second whose 10 best words are read, against the fastest of nine plain ways to multiply and topk "
    "(float32, which gives no probabilities), and the share of the matrix product's peak in the same run; "
    f"medians of {ROUNDS}, in turns"
)


def _sizes(name: str) -> dict[str, int]:
    """Return the names of the cases of a lens with how many rows each reads: a file's worth, a few, one."""
    return {name: ROWS, f"{name}, 8 vectors": 8, f"{name}, 1 vector": 1}


BENCHMARKS = [
    Benchmark(
        name="reading",
        description=DESCRIPTION,
        cases={
            name: partial(_synthetic, n_words=100_000, rank=512, dim=1024, rows=rows)
            for name, rows in _sizes("V 100,000, rank 512").items()
        },
        columns=COLUMNS,
        needs_data=False,
    ),
    Benchmark(
        name="reading-common-voice",
        description=DESCRIPTION,
        cases={name: partial(_real, rows) for name, rows in _sizes("Common Voice English").items()},
        columns=COLUMNS,
        needs_data=True,
    ),
]
