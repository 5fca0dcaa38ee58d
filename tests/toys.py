"""Small made-up data in which words really are linear in the vectors, so that a lens has something to find."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

WORDS = tuple(
    "river stone cloud winter garden candle paper silver window summer bridge harbour lantern meadow orchard "  # noqa: SIM905
    "thunder velvet whisper anchor basket copper feather granite hollow island jungle kettle ladder marble "
    "needle".split()
)
DIM = 16


class ToyEncoder:
    """An encoder whose vector is the mean of fixed random word vectors, plus a little of the text's length."""

    spec = "toy"
    name = "toy encoder"
    revision = "1"
    dim = DIM
    modality = "text"
    language = "en"
    normalised = False

    def __init__(self, *, noise: float = 0.02) -> None:
        self.noise = noise
        self.calls: list[int] = []

    def encode(self, inputs: Sequence[str], *, show_progress: bool = False) -> NDArray[np.float32]:
        self.calls.append(len(inputs))
        return np.stack([self._one(text) for text in inputs]) if inputs else np.zeros((0, DIM), np.float32)

    def _one(self, text: str) -> NDArray[np.float32]:
        words = text.lower().split() or [""]
        vector = np.mean([self._word(word) for word in words], axis=0)
        noise = np.random.default_rng(abs(sum(map(ord, text)))).standard_normal(DIM)
        shifted: NDArray[np.float32] = (vector + self.noise * noise + 0.1).astype(np.float32)
        return shifted

    @staticmethod
    def _word(word: str) -> NDArray[np.float64]:
        seed = int.from_bytes(word.encode("utf-8")[:16].ljust(16, b"\0"), "little")
        vector: NDArray[np.float64] = np.random.default_rng(seed).standard_normal(DIM) / DIM**0.5
        return vector


def toy_texts(n: int, *, seed: int = 0) -> list[str]:
    """Return n sentences of two to four of the WORDS."""
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, size=random.integers(2, 5), replace=False)) for _ in range(n)]


def toy_corpus(n: int, *, seed: int = 0) -> tuple[list[str], NDArray[np.float32]]:
    """Return n sentences and their vectors."""
    texts = toy_texts(n, seed=seed)
    return texts, ToyEncoder().encode(texts)
