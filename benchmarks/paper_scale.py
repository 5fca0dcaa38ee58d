"""Training at the paper's scale on synthetic rows: 1.7 million × 1,024, two views, V = 100,000, rank 512.

The rows are float16 shards, written to a temporary folder (7 GB) and memory-mapped; the bags hold some 12 words a
row, Zipf-distributed. A full pass takes long on a few cores and tells no more than some of its steps do: `train`
runs on rows spread evenly over all of the file. What it costs to read the files, to find out what training needs to
know before its first step, and to learn explaining away after its last, is measured on all rows.
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.registry import AnonymousMemory, Benchmark, matrix_product_peak

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

    from fliplens.training import TrainResult
    from fliplens.training.views import Views

ROWS, DIM, VOCABULARY, RANK, WORDS_A_ROW = 1_700_000, 1024, 100_000, 512, 12
SHARD_ROWS = 100_000


def _write_view(folder: Path, seed: int) -> list[Path]:
    """Write one view's shards: normal vectors around a mean, no two alike."""
    import numpy as np

    from fliplens.embeddings import write_npy

    random = np.random.default_rng(seed)
    base = (0.02 + 0.03 * random.standard_normal((10_000, DIM), dtype=np.float32)).astype(np.float16)
    paths = []
    for start in range(0, ROWS, SHARD_ROWS):
        n = min(SHARD_ROWS, ROWS - start)
        path = folder / f"view-{seed}-{start:07d}.npy"
        blocks = (np.roll(base, (start + at) // len(base), axis=1) for at in range(0, n, len(base)))
        with path.open("wb") as stream:
            write_npy(stream, (n, DIM), blocks, "float16")
            stream.flush()
            os.fsync(stream.fileno())
        paths.append(path)
    return paths


def _forget(paths: list[Path]) -> None:
    """Drop the files from the system's cache, so that the next read is the disk's; they must not be mapped."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _bags() -> csr_matrix:
    """Return counts (ROWS, VOCABULARY) of Zipf-distributed words."""
    import numpy as np
    from scipy.sparse import csr_matrix

    random = np.random.default_rng(0)
    share = 1 / np.arange(1, VOCABULARY + 1)
    cumulated = np.cumsum(share / share.sum())
    lengths = np.maximum(random.poisson(WORDS_A_ROW, ROWS), 1)
    ends = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    words = np.empty(ends[-1], dtype=np.int32)
    for start in range(0, len(words), 2**20):
        stop = min(start + 2**20, len(words))
        words[start:stop] = np.searchsorted(cumulated[:-1], random.random(stop - start))
    counts = csr_matrix((np.ones(len(words), np.float32), words, ends), shape=(ROWS, VOCABULARY))
    counts.sum_duplicates()
    return counts


def _paper_scale(*, small_steps: int = 24, large_steps: int = 2, sampled_steps: int = 96) -> dict[str, Any]:
    import numpy as np

    from fliplens.embeddings import Embeddings
    from fliplens.training.views import WINDOW_ROWS, Views

    with tempfile.TemporaryDirectory() as folder, AnonymousMemory() as memory:
        files = [_write_view(Path(folder), seed) for seed in (1, 2)]

        def opened() -> Views:
            views = [Embeddings([np.load(path, mmap_mode="r") for path in paths]) for paths in files]
            return Views(counts, *views)

        counts = _bags()
        memory.restart()
        result: dict[str, Any] = {
            "rows": ROWS,
            "dim": DIM,
            "views": 2,
            "vocabulary_size": VOCABULARY,
            "rank": RANK,
            "words": int(counts.nnz),
            "data_gb": round(memory.peak_gb, 3),
        }
        memory.restart()
        for name, window, steps in (("by_runs", WINDOW_ROWS, 256), ("full_shuffle", ROWS, 32)):
            _forget([path for paths in files for path in paths])
            result[f"cold_batches_{name}"] = _batches_alone(opened(), window, steps)
        result["batches_peak_anonymous_gb"] = round(memory.peak_gb, 3)
        views = opened()
        memory.restart()
        result["statistics"] = _statistics(views)
        result["statistics"]["peak_anonymous_gb"] = round(memory.peak_gb, 3)
        for size, steps in ((256, small_steps), (6000, large_steps)):
            result[f"steps_of_{size}"] = _steps(views, size, steps, memory, softmax="full")[0]
        result["sampled_steps_of_256"], trained = _steps(views, 256, sampled_steps, memory, softmax="sampled")
        result["explain_away"] = _explain_away(views, trained, memory)
        result["peak_anonymous_gb"] = round(memory.highest_gb, 3)
    return result


def _batches_alone(views: Views, window: int, steps: int) -> dict[str, Any]:
    """Time batches of 256 without any training, from a disk that was not read before."""
    import itertools

    import numpy as np
    import torch

    from fliplens.training.anchoring import Coordinates
    from fliplens.training.views import batch, batches

    weighted = views.weighted(0.5)
    coordinates = Coordinates(np.zeros(DIM, np.float32), 1.0)

    def prepare(rows: NDArray[np.int64]) -> Any:
        return batch(views.counts, weighted, rows, coordinates, torch.device("cpu"))

    order = batches(ROWS, 256, seed=0, number=1, window=window)
    started = time.perf_counter()
    for rows in itertools.islice(order, steps):
        prepare(rows)
    seconds = time.perf_counter() - started
    return {"steps": steps, "seconds": round(seconds, 3), "rows_per_second": round(256 * steps / seconds)}


def _statistics(views: Any) -> dict[str, Any]:
    """Time what `fit` finds out about all rows of both views before and after training."""
    from fliplens.lenses.fingerprint import Fingerprint
    from fliplens.training.anchoring import covariance, sentence_means

    both = views.weighted(0.5)
    work: dict[str, Callable[[], object]] = {
        "finite_check": lambda: [view.check_finite() for view, _ in both],
        "covariance": lambda: [covariance(view) for view, _ in both],
        "sentence_means": lambda: sentence_means(both, views.counts),
        "fingerprint": lambda: Fingerprint.of(views.primary),
    }
    seconds = {}
    for name, one in work.items():
        started = time.perf_counter()
        one()
        seconds[name] = round(time.perf_counter() - started, 2)
    return {"seconds": seconds, "seconds_together": round(sum(seconds.values()), 1)}


def _steps(
    views: Views, size: int, steps: int, memory: AnonymousMemory, *, softmax: Literal["sampled", "full"]
) -> tuple[dict[str, Any], TrainResult]:
    """Train on rows spread over the whole file; return also what was trained.

    Over all words, the steps are compared with the matrix-product peak of the same minute. Of the sampled softmax no
    such share is told, as its work depends on the words each step draws.
    """
    import numpy as np
    import torch

    from fliplens.arithmetic.sampling import share_for
    from fliplens.devices import resolve_device
    from fliplens.training import train
    from fliplens.training.recipes import TrainConfig
    from fliplens.training.views import Views

    spread = np.linspace(0, ROWS - 1, size * steps).astype(np.int64)
    some = Views(views.counts[spread], *(view.subset(spread) for view, _ in views.weighted(0.5)))
    device = resolve_device("auto")
    memory.restart()
    before = memory.peak_gb
    config = TrainConfig(rank=RANK, batch_size=size, softmax=softmax)
    # Steps are those of the whole training, of which a few are timed.
    share = share_for(config.passes * -(-ROWS // size))
    trained = train(some, dataclasses.replace(config, passes=1, share=share), device=device)
    used = memory.peak_gb - before
    # The anchor is made once; its seconds are no steps'.
    start, end = (trained.history[at].seconds for at in (0, -1))
    rows_per_second = size * steps / (end - start)
    # E1, E2 and b, each with its gradient and AdamW's two moments.
    parameters = 4 * 4 * (VOCABULARY * RANK + RANK * DIM + VOCABULARY) / 2**30
    result = {
        "softmax": softmax,
        "steps": steps,
        "anchor_seconds": round(start, 2),
        "seconds": round(end - start, 2),
        "rows_per_second": round(rows_per_second, 1),
        "precision": trained.precision,
        "device": device.type,
        "peak_anonymous_gb": round(before + used, 3),
        "beyond_data_and_parameters_mb": round(1024 * (used - parameters)) if device.type == "cpu" else None,
    }
    if softmax == "full":
        peak = matrix_product_peak(getattr(torch, trained.precision), 4096, device.type)
        # Three products with E1 (and with E2 two: nothing is needed of the embeddings' own gradients), two views.
        flops = 2 * (6 * VOCABULARY * RANK + 4 * RANK * DIM) * rows_per_second
        result["gflops"] = round(flops / 1e9, 1)
        result["peak_gflops"] = round(peak, 1)
        result["share_of_peak"] = round(flops / 1e9 / peak, 3)
    return result, trained


def _explain_away(views: Views, trained: TrainResult, memory: AnonymousMemory) -> dict[str, Any]:
    """Learn what `fit` learns when training is over, from all rows as it does: its time and memory."""
    from fliplens.devices import resolve_device
    from fliplens.training.explaining_away import learn

    device = resolve_device("auto")
    memory.restart()
    before = memory.peak_gb
    started = time.perf_counter()
    learn(views, trained.factors.map(lambda tensor: tensor.to(device)), trained.prior.to(device), alpha=0.5)
    return {
        "seconds": round(time.perf_counter() - started, 2),
        "anonymous_before_gb": round(before, 3),
        "peak_anonymous_gb": round(memory.peak_gb, 3),
    }


def _share(size: int) -> Callable[[dict[str, Any]], str]:
    def cell(result: dict[str, Any]) -> str:
        one = result[f"steps_of_{size}"]
        share = f"{100 * one['share_of_peak']:.0f}% of {one['peak_gflops']:.0f} GFLOP/s"
        return f"{one['rows_per_second']:.0f} rows/s, {share}"

    return cell


def _sampled(result: dict[str, Any]) -> str:
    return f"{result['sampled_steps_of_256']['rows_per_second']:.0f} rows/s"


def _learning(result: dict[str, Any]) -> str:
    one = result["explain_away"]
    return f"{one['seconds']:.0f} s, {one['peak_anonymous_gb']:.2f} GB"


def _cold(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda result: f"{result[f'cold_batches_{name}']['rows_per_second']:,}"


BENCHMARKS = [
    Benchmark(
        name="paper-scale",
        description=(
            "1.7 million rows × 1,024 in float16 shards, two views, V = 100,000, rank 512, synthetic; rows/s count a "
            "row and its two views once, the anchor's making left out; the share is of the matrix-product peak "
            "measured in the same run, named behind it; memory is anonymous, all in all and while learning to "
            "explain away; what lies beyond data and parameters is that of the steps of 6,000"
        ),
        cases={"two views": _paper_scale},
        columns={
            "steps of 256, full softmax": _share(256),
            "steps of 6,000, full softmax": _share(6000),
            "steps of 256, sampled softmax": _sampled,
            "statistics of all rows, s": lambda result: f"{result['statistics']['seconds_together']:.0f}",
            "batches alone, cold disk, rows/s": _cold("by_runs"),
            "with a full shuffle": _cold("full_shuffle"),
            "learning to explain away": _learning,
            "peak anonymous memory, GB": lambda result: f"{result['peak_anonymous_gb']:.2f}",
            "beyond data and parameters, MB": lambda result: str(
                result["steps_of_6000"]["beyond_data_and_parameters_mb"]
            ),
        },
        needs_data=False,
        slow=True,
    )
]
