"""Settings of the default recipe, tried on the last 3,000 rows of four training texts: what docs/tuning.md rests on.

Each lens and its vocabulary come from the rows before those; no dev or test text is looked at. Vectors that are not
at hand are encoded once into `runs/tuning`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.registry import ROOT, Benchmark, require_data

HELD_OUT = 3000
MOST_ROWS = 40_000
TEXTS = ("en", "de", "fr", "docs")
SETTINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "four passes": {"passes": 4},
    "E1 rate 2e-3": {"learning_rate": 2e-3},
    "E1 rate 5e-4": {"learning_rate": 5e-4},
    "bias rate 1e-2": {"learning_rate_bias": 1e-2},
    "batch 512": {"batch_size": 512},
    "head 1,000, share 0.1": {"head": 1000, "share": 0.1},
    "full softmax": {"softmax": "full"},
    "anchor sentences": {"anchor": "sentences"},
    "whitened": {"whiten": True},
    "rank 128": {"rank": 128},
    "LiP": {"rank": "full"},
}


def _texts(name: str) -> list[str]:
    from fliplens.corpora.installed import installed_sentences
    from fliplens.files import read_lines

    if name == "docs":
        return list(installed_sentences(30_000))
    return read_lines(require_data() / "common-voice" / f"{name}.train.txt")[: None if name == "en" else MOST_ROWS]


def _encoded(texts: list[str]) -> Any:
    """Return MiniLM vectors of texts, encoded once: the file's name tells which texts they are."""
    from fliplens import load_encoder
    from fliplens.encoding import encode_texts
    from fliplens.files import sha256_of_lines

    out = ROOT / "runs" / "tuning" / f"{sha256_of_lines(texts)[:16]}.npy"
    out.parent.mkdir(parents=True, exist_ok=True)
    return encode_texts(texts, load_encoder("minilm"), out, show_progress=True)


def _try(text: str, setting: str) -> dict[str, Any]:
    import numpy as np

    from fliplens import TrainConfig, Vocabulary, open_embeddings
    from fliplens.training import train
    from fliplens.views import Views

    texts = _texts(text)
    ready = require_data() / "common-voice" / f"{text}.train.minilm.npy"
    vectors = open_embeddings(ready) if ready.is_file() else _encoded(texts)
    first = len(texts) - HELD_OUT
    vocabulary = Vocabulary.from_texts(texts[:first])
    counts = vocabulary.counts(texts[:first])
    useful = np.flatnonzero(np.diff(counts.indptr))
    result = train(
        Views(counts[useful], vectors.subset(useful)),
        TrainConfig(**SETTINGS[setting]),
        dev=Views(vocabulary.references(texts[first:]).counts, vectors.subset(np.arange(first, len(texts)))),
        word_vectors=_encoded(list(vocabulary.words)).to_numpy(),
    )
    return {
        "rows": len(useful),
        "vocabulary_size": len(vocabulary),
        "settings": SETTINGS[setting],
        "curve": [[round(record.seconds, 2), round(record.dev or 0, 4)] for record in result.history],
    }


BENCHMARKS = [
    Benchmark(
        name="tuning",
        description="accuracy on the last 3,000 rows of each training text, at the anchor and after each pass",
        cases={f"{text}: {name}": partial(_try, text, name) for text in TEXTS for name in SETTINGS},
        columns={
            "rows": lambda result: str(result["rows"]),
            "V": lambda result: str(result["vocabulary_size"]),
            "accuracy": lambda result: " · ".join(f"{100 * one:.1f}" for _, one in result["curve"]),
            "training, s": lambda result: f"{result['curve'][-1][0]:.1f}",
        },
        needs_data=True,
        slow=True,
    )
]
