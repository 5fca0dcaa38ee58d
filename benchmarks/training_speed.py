"""FLiPLens's trainer against the paper's recipe in plain PyTorch (`benchmarks/plain.py`), on Common Voice English."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.registry import AnonymousMemory, Benchmark, common_voice_texts, common_voice_vectors

RANK = 384
ROUNDS = 3
METHODS = ("plain", "paper", "default")


def _load() -> tuple[Any, Any, Any]:
    """Return the vocabulary, counts and vectors of en.train."""
    from fliplens import Vocabulary

    texts = common_voice_texts("en", "train")
    vocabulary = Vocabulary.from_texts(texts)
    return vocabulary, vocabulary.counts(texts), common_voice_vectors("en", "train")


def _one_pass(method: str) -> Callable[[], float]:
    """Return what trains one pass over all rows from the start and returns its seconds, evaluation left out."""
    import torch

    from benchmarks.plain import train_plain
    from fliplens import TrainConfig
    from fliplens.arithmetic.sampling import share_for
    from fliplens.training import train
    from fliplens.training.views import Views

    _, counts, vectors = _load()
    if method == "plain":
        matrix = torch.from_numpy(vectors.to_numpy())
        return lambda: train_plain(matrix, counts, rank=RANK, passes=1).seconds[0]
    config = TrainConfig.from_recipe(method, rank=RANK)
    if method == "default":
        # Word vectors make a better start, not another pass: sentence means spare the encoder. Steps are those of the
        # whole training, of which one pass is timed.
        n_steps = config.passes * -(-len(vectors) // config.batch_size)
        config = dataclasses.replace(config, anchor="sentences", share=share_for(n_steps))
    config = dataclasses.replace(config, passes=1)
    return lambda: train(Views(counts, vectors), config).seconds


def _in_turns() -> dict[str, Any]:
    """Time one pass of each method, in turns, so that what else the machine does meets all alike."""
    import torch

    vocabulary, _, vectors = _load()
    work = {method: _one_pass(method) for method in METHODS}
    taken: dict[str, list[float]] = {method: [] for method in METHODS}
    for _ in range(ROUNDS):
        for method, one in work.items():
            taken[method].append(round(one(), 3))
    return {
        "rows": len(vectors),
        "vocabulary_size": len(vocabulary),
        "rank": RANK,
        "threads": torch.get_num_threads(),
        "seconds": taken,
        "median_seconds": {method: statistics.median(seconds) for method, seconds in taken.items()},
    }


def _memory(method: str) -> dict[str, Any]:
    """Train one pass in this process alone; its peak memory is in the result."""
    work = _one_pass(method)
    with AnonymousMemory() as memory:
        before = memory.peak_gb
        seconds = work()
    return {
        "seconds": round(seconds, 3),
        "anonymous_before_gb": round(before, 3),
        "peak_anonymous_gb": round(memory.peak_gb, 3),
    }


def _to_the_end() -> dict[str, Any]:
    """Run the plain recipe to its early stop on a seeded twentieth of en.train; score en.dev."""
    import numpy as np
    import torch

    from benchmarks.plain import recall, train_plain

    vocabulary, counts, vectors = _load()
    known = vocabulary.references(common_voice_texts("en", "dev")).counts
    dev = {
        name: torch.from_numpy(common_voice_vectors(view, "dev").to_numpy())
        for name, view in (("text", "en"), ("noisy", "en-noisy"))
    }
    matrix = torch.from_numpy(vectors.to_numpy())
    order = np.random.default_rng(0).permutation(len(vectors))
    held, kept = (np.sort(part) for part in np.split(order, [len(order) // 20]))
    run = train_plain(
        matrix[kept],
        counts[kept],
        rank=RANK,
        held_out=(matrix[held], counts[held]),
        watch=lambda model: recall(model, dev["text"], known, factor=1.0, bias=True),
    )
    scores = {
        name: {
            "with_prior": recall(run.model, one, known, factor=1.0, bias=True),
            "without_prior": recall(run.model, one, known, factor=1.0, bias=False),
        }
        for name, one in dev.items()
    }
    return {
        "rows_trained": len(kept),
        "vocabulary_size": len(vocabulary),
        "rank": RANK,
        "passes": len(run.seconds),
        "training_seconds": round(sum(run.seconds), 1),
        "median_seconds": round(statistics.median(run.seconds), 2),
        "accuracy": scores,
        "curve": run.curve,
    }


def _seconds(method: str) -> Callable[[dict[str, Any]], str]:
    def cell(result: dict[str, Any]) -> str:
        median = result["median_seconds"]
        ratio = median["plain"] / median[method]
        return f"{median[method]:.1f}" + ("" if method == "plain" else f" ({ratio:.2f} × as fast)")

    return cell


def _accuracy(view: str, position: str) -> Callable[[dict[str, Any]], str]:
    return lambda result: f"{100 * result['accuracy'][view][position]:.2f}"


BENCHMARKS = [
    Benchmark(
        name="training-speed",
        description=(
            "seconds a pass over en.train, one view, float32 and rank 384: the median of three, taken in turns in "
            "one process; dev evaluations left out"
        ),
        cases={"one pass": _in_turns},
        columns={
            "rows": lambda result: f"{result['rows']:,}",
            "V": lambda result: f"{result['vocabulary_size']:,}",
            "plain PyTorch, s": _seconds("plain"),
            "FLiPLens, recipe paper, s": _seconds("paper"),
            "FLiPLens, recipe default, s": _seconds("default"),
        },
        needs_data=True,
    ),
    Benchmark(
        name="training-memory",
        description="the same passes, each method in a process of its own",
        cases={
            "plain PyTorch": partial(_memory, "plain"),
            "FLiPLens, recipe paper": partial(_memory, "paper"),
            "FLiPLens, recipe default": partial(_memory, "default"),
        },
        columns={
            "peak memory, GB": lambda result: f"{result['peak_memory_gb']:.2f}",
            "anonymous, GB": lambda result: f"{result['peak_anonymous_gb']:.2f}",
            "of which training, GB": lambda result: (
                f"{result['peak_anonymous_gb'] - result['anonymous_before_gb']:.2f}"
            ),
        },
        needs_data=True,
    ),
    Benchmark(
        name="plain-to-the-end",
        description=(
            "the paper's recipe in plain PyTorch, run to its early stop on a twentieth of en.train; accuracy on "
            "en.dev, per cent; beside other work, so its seconds say nothing, `training-speed` does"
        ),
        cases={"plain to the end": _to_the_end},
        columns={
            "V": lambda result: f"{result['vocabulary_size']:,}",
            "text": _accuracy("text", "with_prior"),
            "text, no prior": _accuracy("text", "without_prior"),
            "noisy": _accuracy("noisy", "with_prior"),
            "noisy, no prior": _accuracy("noisy", "without_prior"),
            "passes": lambda result: str(result["passes"]),
            "peak memory, GB": lambda result: f"{result['peak_memory_gb']:.2f}",
        },
        needs_data=True,
        slow=True,
    ),
]
