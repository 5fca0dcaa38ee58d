"""Plain decoding and explaining away on Common Voice English and MiniLM vectors: accuracy and time.

The lens is the one of the common-voice benchmark: every term of en.train, the default recipe, trained on all of
en.train; nothing looks at en.dev before it is scored, once, at the end. Both decodings read the same lens in one run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from benchmarks.reading import N as WORDS
from benchmarks.reading import plain_ways
from benchmarks.registry import Benchmark, common_voice_texts, common_voice_vectors
from benchmarks.report import with_error

REPEATS = 5


def _compare(*, rank: Any, rows: int | None = None) -> dict[str, Any]:
    """Train one lens, score dev by both decodings, and time them turn by turn.

    Args:
        rank: of the lens.
        rows: trains on this many rows of en.train and scores 1,000 behind them instead, so that a try-out leaves
            en.dev alone.
    """
    import numpy as np
    import torch

    from fliplens import TrainConfig, Vocabulary, evaluate, fit, load_encoder

    texts, vectors = common_voice_texts("en", "train"), common_voice_vectors("en", "train")
    if rows is None:
        dev_texts = common_voice_texts("en", "dev")
        views = {name: common_voice_vectors(name, "dev") for name in ("en", "en-noisy")}
    else:
        unseen = np.arange(rows, rows + 1000)
        dev_texts = [texts[row] for row in unseen]
        noisy = common_voice_vectors("en-noisy", "train")
        views = {"en": vectors.subset(unseen), "en-noisy": noisy.subset(unseen)}
        texts, vectors = texts[:rows], vectors.subset(np.arange(rows))
    lens = fit(
        texts,
        vectors,
        vocabulary=Vocabulary.from_texts(texts),
        encoder=load_encoder("minilm"),
        config=TrainConfig(rank=rank),
        hold_out=0.0,
        show_progress=True,
    )
    accuracy: dict[str, Any] = {}
    for decoding in ("plain", "explain-away"):
        result = evaluate(
            lens, dev_texts, views["en"], paired=views["en-noisy"], metrics="accuracy", decoding=decoding
        )
        accuracy[decoding] = {
            name: result.views[view].to_json()["accuracy"]
            for name, view in (("text", "primary"), ("noisy", "paired"))
        }
    s = torch.from_numpy(views["en"].to_numpy())
    ways: dict[str, Callable[[], Any]] = {
        "plain": lambda: lens.top(views["en"], WORDS),
        "explain-away": lambda: lens.top(views["en"], WORDS, decoding="explain-away"),
        **{f"torch, {name}": way for name, way in plain_ways(lens.factors, s, lens.bias()).items()},
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    median = {name: statistics.median(taken) for name, taken in seconds.items()}
    return {
        "vocabulary_size": len(lens.vocabulary),
        "rank": rank,
        "sentences": len(dev_texts),
        "accuracy": accuracy,
        "shares": None if lens.away is None else lens.away.to_json(),
        "training_seconds": lens.config["training"]["seconds"],
        "decoding_learned_seconds": lens.config["training"]["decoding_seconds"],
        "seconds": {name: round(value, 3) for name, value in median.items()},
        "torch_seconds": round(min(value for name, value in median.items() if name.startswith("torch")), 3),
        "ratio": round(median["explain-away"] / median["plain"], 2),
    }


def _full() -> dict[str, Any]:
    return _compare(rank=384)


def _percent(decoding: str, view: str, position: str) -> Any:
    return lambda result: with_error(result["accuracy"][decoding][view][position])


BENCHMARKS = [
    Benchmark(
        name="decoding",
        description="accuracy on en.dev by plain decoding and by explaining away, per cent ± standard error, and the "
        f"seconds to read {WORDS} words of each of its vectors (median of {REPEATS}, in turns), also by the fastest "
        "of nine plain ways to multiply and topk in torch, without probabilities",
        cases={"FLiP rank 384": _full},
        columns={
            "plain": _percent("plain", "text", "with_prior"),
            "explain-away": _percent("explain-away", "text", "with_prior"),
            "plain, no prior": _percent("plain", "text", "without_prior"),
            "explain-away, no prior": _percent("explain-away", "text", "without_prior"),
            "noisy, plain": _percent("plain", "noisy", "with_prior"),
            "noisy, explain-away": _percent("explain-away", "noisy", "with_prior"),
            "learned in, s": lambda result: f"{result['decoding_learned_seconds']:.1f}",
            "plain, s": lambda result: f"{result['seconds']['plain']:.2f}",
            "explain-away, s": lambda result: f"{result['seconds']['explain-away']:.2f}",
            "ratio": lambda result: f"{result['ratio']:.1f}",
            "best of plain torch, s": lambda result: f"{result['torch_seconds']:.2f}",
        },
        needs_data=True,
    ),
]
