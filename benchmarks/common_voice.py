"""Lenses on Common Voice English and MiniLM vectors: accuracy, training time, memory, evaluation time.

Vocabulary: every term of en.train by the default tokeniser, one-letter words kept. Training uses all of
en.train; nothing looks at en.dev before the lens is scored on it. A second, identical training is then scored on it
after every pass, for the curve alone.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from benchmarks.registry import Benchmark, common_voice_texts, common_voice_vectors, peak_memory_gb
from benchmarks.report import with_error


def _fit_and_score(
    *, rank: Any, paired: bool = False, recipe: str = "default", hold_out: float = 0.0
) -> dict[str, Any]:
    """Train one lens and score it on dev, each part timed by itself."""
    from fliplens import TrainConfig, Vocabulary, evaluate, fit, load_encoder
    from fliplens.training import train
    from fliplens.training.views import Views

    texts, dev_texts = common_voice_texts("en", "train"), common_voice_texts("en", "dev")
    train_views, dev = (
        [common_voice_vectors(view, split) for view in ("en", "en-noisy")] for split in ("train", "dev")
    )
    vocabulary = Vocabulary.from_texts(texts)
    anchored = recipe == "default"
    encoder = _Timed(load_encoder("minilm")) if anchored else None
    started = time.perf_counter()
    lens = fit(
        texts,
        train_views[0],
        paired=train_views[1] if paired else None,
        vocabulary=vocabulary,
        encoder=encoder,
        config=TrainConfig.from_recipe(recipe, rank=rank),
        hold_out=hold_out,
        show_progress=True,
    )
    fitted = time.perf_counter() - started
    peak = peak_memory_gb()
    started = time.perf_counter()
    result = evaluate(lens, dev_texts, dev[0], paired=dev[1])
    evaluated = time.perf_counter() - started
    training = lens.config["training"]
    curve = None
    if anchored:
        # The same training once more, for what dev would have said of it on the way; nothing is chosen by it.
        watched = train(
            Views(vocabulary.counts(texts), train_views[0], train_views[1] if paired else None),
            TrainConfig.from_recipe(recipe, rank=rank),
            dev=Views(vocabulary.references(dev_texts).counts, dev[0]),
            word_vectors=encoder.vectors if encoder else None,
        )
        curve = [[round(record.seconds, 2), round(record.dev or 0, 4)] for record in watched.history]
    return {
        "curve": curve,
        "vocabulary_size": len(vocabulary),
        "rank": rank,
        "recipe": recipe,
        "views_trained": 2 if paired else 1,
        "passes": len(training["history"]) - 1,
        "best_pass": training["best_pass"],
        "anchor": training["anchor"],
        "precision": training["precision"],
        "training_seconds": training["seconds"],
        "word_encoding_seconds": round(encoder.seconds, 1) if encoder else 0.0,
        "fit_seconds": round(fitted, 1),
        "peak_memory_after_fit_gb": peak,
        "evaluation_seconds_two_views": round(evaluated, 2),
        "text": result.views["primary"].to_json(),
        "noisy": result.views["paired"].to_json(),
    }


class _Timed:
    """An encoder that adds up how long it takes."""

    def __init__(self, encoder: Any) -> None:
        self._encoder, self.seconds, self.vectors = encoder, 0.0, None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode(self, inputs: Any, *, show_progress: bool = False) -> Any:
        """Encode, timed."""
        started = time.perf_counter()
        vectors = self._encoder.encode(inputs, show_progress=show_progress)
        self.seconds += time.perf_counter() - started
        self.vectors = vectors
        return vectors


def _evaluation() -> dict[str, Any]:
    """Time the evaluation of 4,000 sentences, one view, everything loaded: the median of five."""
    import statistics

    import numpy as np

    from fliplens import TrainConfig, Vocabulary, evaluate, fit

    texts, dev_texts = common_voice_texts("en", "train"), common_voice_texts("en", "dev")
    train, dev = (common_voice_vectors("en", split) for split in ("train", "dev"))
    # Which words a lens reads does not change how long they take to compare: one short pass will do.
    lens = fit(
        texts[:2000],
        train.subset(np.arange(2000)),
        vocabulary=Vocabulary.from_texts(texts),
        config=TrainConfig(passes=1, anchor="sentences", rank=384),
    )
    seconds: dict[str, float] = {}
    for metrics in ("accuracy", "all"):
        taken = []
        for _ in range(5):
            started = time.perf_counter()
            evaluate(lens, dev_texts, dev, metrics=metrics)
            taken.append(time.perf_counter() - started)
        seconds[metrics] = round(statistics.median(taken), 3)
    return {"sentences": len(dev_texts), "vocabulary_size": len(lens.vocabulary), "seconds": seconds}


def _percent(view: str, position: str) -> Any:
    return lambda result: with_error(result[view]["accuracy"][position])


def _reached(accuracy: float, result: dict[str, Any]) -> str:
    """Return the seconds of training after which text with prior had reached an accuracy, read at passes' ends."""
    return next((f"{seconds:.1f}" for seconds, found in result.get("curve") or [] if found >= accuracy), "")


COLUMNS = {
    "V": lambda result: str(result["vocabulary_size"]),
    "text": _percent("text", "with_prior"),
    "text, no prior": _percent("text", "without_prior"),
    "noisy": _percent("noisy", "with_prior"),
    "noisy, no prior": _percent("noisy", "without_prior"),
    "passes": lambda result: str(result["passes"]),
    "training, s": lambda result: f"{result['training_seconds']:.0f}",
    "s to 57.1": partial(_reached, 0.571),
    "s to 65.0": partial(_reached, 0.65),
    "word vectors, s": lambda result: f"{result['word_encoding_seconds']:.0f}",
    "fit, s": lambda result: f"{result['fit_seconds']:.0f}",
    # Results of before have only the process's own, which evaluation and the second training are part of.
    "peak memory, GB": lambda result: f"{result.get('peak_memory_after_fit_gb', result['peak_memory_gb']):.2f}",
}

TIMES = ("training, s", "s to 57.1", "s to 65.0", "word vectors, s", "fit, s")

BENCHMARKS = [
    Benchmark(
        name="common-voice",
        description=(
            "accuracy on en.dev, per cent ± standard error; trained on en.train, nothing chosen by dev; the seconds "
            "to 57.1 and 65.0 are those of a second, identical training, scored on dev after every pass; fit is "
            "training, word vectors and learning to explain away, all in all; peak memory is of the process up to "
            "the end of fit"
        ),
        cases={
            "FLiP rank 384": partial(_fit_and_score, rank=384),
            "FLiP rank 256": partial(_fit_and_score, rank=256),
            "FLiP rank 128": partial(_fit_and_score, rank=128),
            "LiP (full)": partial(_fit_and_score, rank="full"),
            "FLiP rank 384, text and noisy": partial(_fit_and_score, rank=384, paired=True),
        },
        columns=COLUMNS,
        needs_data=True,
    ),
    Benchmark(
        name="common-voice-paper",
        description="the same by the paper's own recipe, stopped on a twentieth of en.train",
        # Runs of half an hour each, beside other work: their seconds say nothing, `training-speed` does.
        cases={
            f"{name}, recipe paper": partial(_fit_and_score, rank=rank, recipe="paper", hold_out=0.05)
            for name, rank in (
                ("FLiP rank 384", 384),
                ("FLiP rank 256", 256),
                ("FLiP rank 128", 128),
                ("LiP (full)", "full"),
            )
        },
        columns={name: cell for name, cell in COLUMNS.items() if name not in TIMES},
        needs_data=True,
        slow=True,
    ),
    Benchmark(
        name="evaluation",
        description="seconds to evaluate en.dev, one view, once everything is loaded (median of 5)",
        cases={"rank 384": _evaluation},
        columns={
            "sentences": lambda result: str(result["sentences"]),
            "V": lambda result: str(result["vocabulary_size"]),
            "accuracy only, s": lambda result: f"{result['seconds']['accuracy']:.2f}",
            "all metrics, s": lambda result: f"{result['seconds']['all']:.2f}",
        },
        needs_data=True,
    ),
]
