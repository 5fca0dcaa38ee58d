"""Sentences a second of MiniLM here and by sentence-transformers' own `encode`, in turns in one process.

The work of a token is its six layers' products, 2 · 6 · (4·384² + 2·384·1536) floating-point operations; divided
by the time it gives the share of the float32 peak, measured in the same minutes, that either reaches. Tokens are
the texts' own, padding not counted, so padding shows as a lower share.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.registry import Benchmark, common_voice_texts, matrix_product_peak

ROUNDS = 7
SENTENCES = 1500
LAYERS, WIDTH, INNER = 6, 384, 1536
FLOPS_A_TOKEN = 2 * LAYERS * (4 * WIDTH**2 + 2 * WIDTH * INNER)


def _installed() -> list[str]:
    from fliplens.corpora.installed import installed_sentences

    return installed_sentences(SENTENCES, seed=0)


def _common_voice() -> list[str]:
    texts = common_voice_texts("en", "dev")
    # As a corpus comes: not sorted by anything.
    return texts[:: max(1, len(texts) // SENTENCES)][:SENTENCES]


def _compare(texts_of: Callable[[], list[str]]) -> dict[str, Any]:
    """Time both on the same sentences, in turns, so that what else the machine does falls on both."""
    import numpy as np
    import torch

    from fliplens.encoders import load_encoder

    texts = texts_of()
    encoder: Any = load_encoder("minilm")
    ways: dict[str, Callable[[], Any]] = {
        "theirs": lambda: encoder.model.encode(texts, show_progress_bar=False),
        "ours": lambda: encoder.encode(texts),
    }
    vectors = {name: way() for name, way in ways.items()}  # the first call of each is not timed
    tokens = sum(len(row) for row in encoder.model.tokenizer(texts, truncation=True)["input_ids"])
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    peaks = []
    for turn in range(ROUNDS):
        peaks.append(matrix_product_peak(torch.float32, 2048))
        # Neither is always the first of a round.
        for name, way in list(ways.items())[:: 1 if turn % 2 == 0 else -1]:
            started = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - started)
    median = {name: statistics.median(taken) for name, taken in seconds.items()}
    peak = statistics.median(peaks)
    a, b = (vectors[name].astype(np.float64) for name in ("theirs", "ours"))
    cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return {
        "sentences": len(texts),
        "tokens": tokens,
        "precision": encoder.precision,
        "seconds": {name: [round(one, 3) for one in taken] for name, taken in seconds.items()},
        "sentences_per_second": {name: round(len(texts) / one, 1) for name, one in median.items()},
        "ratio": round(median["theirs"] / median["ours"], 3),
        "ratio_by_round": [round(t / o, 3) for t, o in zip(seconds["theirs"], seconds["ours"], strict=True)],
        "float32_gflops": round(peak, 1),
        "share_of_float32_peak": {
            name: round(tokens * FLOPS_A_TOKEN / one / 1e9 / peak, 3) for name, one in median.items()
        },
        "smallest_cosine": float(cosines.min()),
        "largest_difference": float(np.abs(a - b).max()),
    }


def _both(name: str) -> Callable[[dict[str, Any]], str]:
    def cell(result: dict[str, Any]) -> str:
        values = result[name]
        if name.startswith("share"):
            return f"{100 * values['theirs']:.0f} %, {100 * values['ours']:.0f} %"
        return f"{values['theirs']:.0f}, {values['ours']:.0f}"

    return cell


BENCHMARKS = [
    Benchmark(
        name="encoding",
        description="MiniLM sentences a second, sentence-transformers' default encode and ours in turns "
        f"(medians of {ROUNDS}), their ratio with its least and greatest in a round, and the share that either "
        "reaches of the float32 peak measured in the same run",
        cases={
            "installed documentation": partial(_compare, _installed),
            "Common Voice, en.dev": partial(_compare, _common_voice),
        },
        columns={
            "sentences": lambda result: str(result["sentences"]),
            "tokens a sentence": lambda result: f"{result['tokens'] / result['sentences']:.1f}",
            "precision": lambda result: str(result["precision"]),
            "theirs, ours, sentences/s": _both("sentences_per_second"),
            "ratio": lambda result: (
                f"{result['ratio']:.2f} ({min(result['ratio_by_round']):.2f}-{max(result['ratio_by_round']):.2f})"
            ),
            "float32 peak, GFLOP/s": lambda result: f"{result['float32_gflops']:.0f}",
            "share of the peak": _both("share_of_float32_peak"),
            "smallest cosine": lambda result: f"{result['smallest_cosine']:.6f}",
        },
        needs_data=False,
        cases_with_data=frozenset({"Common Voice, en.dev"}),
    )
]
