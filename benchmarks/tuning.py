"""Settings of the default recipe and of its decoding, tried on four training texts: what docs/tuning.md rests on.

The last 3,000 rows of each training text are scored; each lens and its vocabulary come from the rows before those.
No dev or test text is looked at. Vectors that are not at hand are encoded once into `runs/tuning`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest import mock

from benchmarks.registry import ROOT, Benchmark, common_voice_texts, common_voice_vectors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fliplens import Vocabulary
    from fliplens.arithmetic.decoding import ExplainingAway
    from fliplens.training import TrainResult
    from fliplens.training.views import Views

HELD_OUT = 3000
MOST_ROWS = 40_000
DOCUMENTATION_ROWS = 30_000
TEXTS = {"en": "English", "de": "German", "fr": "French", "docs": "documentation"}


@dataclasses.dataclass(frozen=True)
class Slice:
    """One training text: rows to train on, rows to score, and the encoder's vectors of the vocabulary's words."""

    texts: list[str]
    data: Views
    dev: Views
    dev_texts: list[str]
    vocabulary: Vocabulary
    word_vectors: NDArray[np.float32]


@dataclasses.dataclass(frozen=True)
class Setting:
    """What one row of the table changes: settings of the recipe, the optimiser, the training rows."""

    changes: dict[str, Any] = dataclasses.field(default_factory=dict)
    optimiser: str | None = None
    rows: Callable[[Slice], tuple[Any, NDArray[np.float32]]] | None = None


def _slice(name: str) -> Slice:
    import numpy as np

    from fliplens import Vocabulary
    from fliplens.corpora.installed import installed_sentences
    from fliplens.training.views import Views

    if name == "docs":
        texts = list(installed_sentences(DOCUMENTATION_ROWS))
    else:
        texts = common_voice_texts(name, "train")[: None if name == "en" else MOST_ROWS]
    vectors = common_voice_vectors("en", "train") if name == "en" else _encoded(texts)
    first = len(texts) - HELD_OUT
    vocabulary = Vocabulary.from_texts(texts[:first])
    counts = vocabulary.counts(texts[:first])
    useful = np.flatnonzero(np.diff(counts.indptr))
    return Slice(
        [texts[row] for row in useful],
        Views(counts[useful], vectors.subset(useful)),
        Views(vocabulary.references(texts[first:]).counts, vectors.subset(np.arange(first, len(texts)))),
        texts[first:],
        vocabulary,
        _encoded(list(vocabulary.words)).to_numpy(),
    )


def _encoded(texts: list[str]) -> Any:
    """Return MiniLM vectors of texts, encoded once: the file's name tells which texts they are."""
    from fliplens import load_encoder
    from fliplens.encoding.texts import encode_texts
    from fliplens.files import sha256_of_lines

    out = ROOT / "runs" / "tuning" / f"{sha256_of_lines(texts)[:16]}.npy"
    out.parent.mkdir(parents=True, exist_ok=True)
    return encode_texts(texts, load_encoder("minilm"), out, show_progress=True)


# What settings alone cannot say --------------------------------------------------------------------------------


def _vocabulary_as_rows(weight: float, part: Slice) -> tuple[Any, NDArray[np.float32]]:
    """Return every word as a sentence of its own, that counts as so much of a word."""
    import numpy as np
    from scipy.sparse import identity

    return identity(len(part.vocabulary), dtype=np.float32, format="csr") * np.float32(weight), part.word_vectors


def _clauses_as_rows(part: Slice) -> tuple[Any, NDArray[np.float32]]:
    """Return the first or the second half of every sentence, by a seeded draw."""
    import numpy as np

    random = np.random.default_rng(0)
    clauses = []
    for text in part.texts:
        words = text.split()
        middle = len(words) // 2
        clauses.append(" ".join(words[:middle] if random.random() < 0.5 and middle else words[middle:]))
    counts = part.vocabulary.counts(clauses)
    useful = np.flatnonzero(np.diff(counts.indptr))
    return counts[useful], _encoded(clauses).to_numpy()[useful]


def _optimiser(kind: str, part: Slice, n_steps: int) -> type:
    """Return the trainer's optimiser with one thing done otherwise."""
    import numpy as np
    import torch
    from torch import Tensor

    from fliplens.arithmetic.objective import Factors
    from fliplens.training.distributed import Group
    from fliplens.training.optimiser import Optimiser

    frequencies = torch.from_numpy(np.asarray(part.data.counts.sum(axis=0), dtype=np.float32).ravel())

    class Averaged(Optimiser):
        """The last step leaves the mean of the weights over the last third of the steps, every tenth looked at."""

        taken = seen = 0
        total: Factors | None = None

        def step(self, gradients: Factors, words: Tensor | None, group: Group) -> None:
            super().step(gradients, words, group)
            self.taken += 1
            factors = self.state.factors
            if 3 * self.taken > 2 * n_steps and (self.taken % 10 == 0 or self.taken == n_steps):
                if self.total is None:
                    self.total = factors.map(torch.zeros_like)
                self.seen += 1
                for total, one in zip(self.total.tensors(), factors.tensors(), strict=True):
                    total.add_(one.detach())
                    if self.taken == n_steps:
                        one.data.copy_(total / self.seen)

    class ByFrequency(Optimiser):
        """E1's rates in proportion to the fourth root of a word's frequency, 1 at ten, from 0.2 to 3."""

        def _step_rows(self, name: str, rows: Tensor, gradient: Tensor) -> None:
            if name != "E1":
                super()._step_rows(name, rows, gradient)
                return
            E1 = self.state.factors.E1
            before = E1[rows]
            super()._step_rows(name, rows, gradient)
            rates = (frequencies[rows] / 10).pow(0.25).clamp(0.2, 3.0)
            E1.index_copy_(0, rows, torch.lerp(before, E1[rows], rates[:, None]))

    class TowardsAnchor(Optimiser):
        """E1's rows decay towards where they started, at 30 rates a step over one plus a word's frequency."""

        anchor: Tensor | None = None

        def step(self, gradients: Factors, words: Tensor | None, group: Group) -> None:
            E1 = self.state.factors.E1
            if self.anchor is None:
                self.anchor = E1.clone()
            super().step(gradients, words, group)
            rows = torch.arange(len(E1)) if words is None else words
            pull = 30 * self.rate / (1 + frequencies[rows])
            E1.index_copy_(0, rows, torch.lerp(E1[rows], self.anchor[rows], pull[:, None]))

    return {"averaged": Averaged, "by frequency": ByFrequency, "towards anchor": TowardsAnchor}[kind]


CONSTANT: dict[str, Any] = {"schedule": "plateau", "plateau_patience": 1000}
SETTINGS = {
    "default": Setting(),
    "E1 rate 5e-4": Setting({"learning_rate": 5e-4}),
    "E1 rate 1.5e-3": Setting({"learning_rate": 1.5e-3}),
    "E1 rate 2e-3": Setting({"learning_rate": 2e-3}),
    "bias rate 1e-2": Setting({"learning_rate_bias": 1e-2}),
    "batch 128": Setting({"batch_size": 128}),
    "batch 512": Setting({"batch_size": 512}),
    "4 passes": Setting({"passes": 4}),
    "10 passes": Setting({"passes": 10}),
    "constant rates": Setting(CONSTANT),
    "constant rates, weights averaged": Setting(CONSTANT, optimiser="averaged"),
    "falling rates, weights averaged": Setting(optimiser="averaged"),
    "rates by frequency": Setting(optimiser="by frequency"),
    "rare words held to the anchor": Setting(optimiser="towards anchor"),
    "vocabulary added as rows": Setting(rows=partial(_vocabulary_as_rows, 1.0)),
    "vocabulary added as rows, weight 0.3": Setting(rows=partial(_vocabulary_as_rows, 0.3)),
    "vocabulary added as rows, weight 0.1": Setting(rows=partial(_vocabulary_as_rows, 0.1)),
    "half sentences added": Setting(rows=_clauses_as_rows),
    "anchor sentences": Setting({"anchor": "sentences"}),
    "whitened": Setting({"whiten": True}),
    "share 0.05": Setting({"share": 0.05}),
    "share 0.2": Setting({"share": 0.2}),
    "full softmax": Setting({"softmax": "full"}),
}


def _try(setting: Setting) -> dict[str, Any]:
    """Train on each text with one setting."""
    return {name: _train(_slice(name), setting) for name in TEXTS}


def _train(part: Slice, setting: Setting) -> dict[str, Any]:
    import numpy as np
    from scipy.sparse import vstack

    from fliplens import TrainConfig
    from fliplens.embeddings import Embeddings
    from fliplens.training import optimiser, train, trainer
    from fliplens.training.views import Views

    data = part.data
    if setting.rows is not None:
        counts, vectors = setting.rows(part)
        together = np.concatenate([data.primary.to_numpy(), vectors])
        data = Views(vstack([data.counts, counts], format="csr"), Embeddings([together]))
    config = TrainConfig(**setting.changes)
    n_steps = config.passes * -(-len(data.primary) // config.batch_size)
    chosen = optimiser.Optimiser if setting.optimiser is None else _optimiser(setting.optimiser, part, n_steps)
    # Without dev data: the weights of the last step are kept, whatever they score.
    with mock.patch.object(trainer, "Optimiser", chosen):
        result = train(data, config, word_vectors=part.word_vectors)
    return {
        "rows": len(data.primary),
        "vocabulary_size": len(part.vocabulary),
        "training_seconds": round(result.seconds, 2),
        "accuracy": _accuracy(part, result),
    }


def _accuracy(part: Slice, result: TrainResult, away: ExplainingAway | None = None) -> list[float]:
    """Return the accuracy on the rows held out with and without prior; by explaining away where that is given."""
    from fliplens import Lens, evaluate

    lens = Lens(result.factors, part.vocabulary, prior=result.prior, away=away)
    found = evaluate(
        lens,
        part.dev_texts,
        part.dev.primary,
        metrics="accuracy",
        decoding="plain" if away is None else "explain-away",
    )
    means = found.views["primary"].to_json()["accuracy"]
    return [round(float(means[position]["mean"]), 4) for position in ("with_prior", "without_prior")]


# Decoding ------------------------------------------------------------------------------------------------------

DECODINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "pool 8": {"pool": 8},
    "pool 16": {"pool": 16},
    "pool 64": {"pool": 64},
    "1 round": {"rounds": 1},
    "2 rounds": {"rounds": 2},
    "3 rounds": {"rounds": 3},
    "8 rounds": {"rounds": 8},
}


def _decode(name: str) -> dict[str, Any]:
    """Train the default lens of one text; score it plainly and with the words explained away in several ways."""
    from fliplens import TrainConfig
    from fliplens.training import train
    from fliplens.training.explaining_away import learn

    part = _slice(name)
    result = train(part.data, TrainConfig(), word_vectors=part.word_vectors)
    scores = {"plain": _accuracy(part, result)}
    seconds = {}
    for label, settings in DECODINGS.items():
        started = time.perf_counter()
        away = learn(part.data, result.factors, result.prior, **settings)
        seconds[label] = round(time.perf_counter() - started, 2)
        scores[label] = _accuracy(part, result, away)
    return {"training_seconds": round(result.seconds, 2), "learning_seconds": seconds, "accuracy": scores}


def _percent(scores: list[float]) -> str:
    return " / ".join(f"{100 * one:.1f}" for one in scores)


def _of_text(name: str, result: dict[str, Any]) -> str:
    return _percent(result[name]["accuracy"])


def _of_decoding(label: str, result: dict[str, Any]) -> str:
    return _percent(result["accuracy"][label])


BENCHMARKS = [
    Benchmark(
        name="tuning",
        description=(
            "accuracy with / without prior, per cent, on the last 3,000 rows of each training text, from the rows "
            "before them, rank 384, one seed (standard error about 0.35); seconds of training on English"
        ),
        cases={name: partial(_try, setting) for name, setting in SETTINGS.items()},
        columns={
            **{heading: partial(_of_text, name) for name, heading in TEXTS.items()},
            "English, s": lambda result: f"{result['en']['training_seconds']:.0f}",
        },
        needs_data=True,
        slow=True,
    ),
    Benchmark(
        name="tuning-decoding",
        description=(
            "accuracy with / without prior, per cent, on the same rows: of the default lens read plainly, and with "
            "its words explained away"
        ),
        cases={heading: partial(_decode, name) for name, heading in TEXTS.items()},
        columns={
            **{label: partial(_of_decoding, label) for label in ("plain", *DECODINGS)},
            "learned in, s": lambda result: f"{result['learning_seconds']['default']:.1f}",
        },
        needs_data=True,
        slow=True,
    ),
]
