"""Small corpora on disk and configs of studies, for the tests of `fliplens.studies`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from toys import ToyEncoder, toy_texts

from fliplens.files import write_lines

ROWS = {"train": 90, "dev": 30, "test": 40}
TRAIN = {"passes": 2, "batch_size": 16, "rank": 4, "explain_away": False}
Vectors = NDArray[np.float32]


def other_language(texts: list[str]) -> list[str]:
    """Return what stands for translations: the same words, read backwards."""
    return [" ".join(word[::-1] for word in text.split()) for text in texts]


def drawn(split: str, *, seed: int = 0) -> tuple[list[str], Vectors, Vectors]:
    """Return sentences of a split, their vectors, and vectors of a second side of them."""
    texts = toy_texts(ROWS[split], seed=10 * seed + list(ROWS).index(split))
    return texts, ToyEncoder().encode(texts), ToyEncoder(noise=0.12).encode(texts)


@dataclass
class StudyFiles:
    """A folder with two corpora of two sides each, and the config of a study on them.

    `spoken` has the sides text and noisy (vectors alone); `crossed` the sides en and ed, both with texts.
    """

    folder: Path
    config: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def write(cls, folder: Path, *corpora: str, **more: Any) -> StudyFiles:
        """Write the files, and a config of some of the corpora with more settings."""
        folder.mkdir(parents=True, exist_ok=True)
        splits: dict[str, dict[str, Any]] = {"spoken": {}, "crossed": {}}
        for split in ROWS:
            texts, vectors, noisy = drawn(split)
            write_lines(folder / f"{split}.txt", texts)
            np.save(folder / f"{split}.npy", vectors)
            np.save(folder / f"{split}-noisy.npy", noisy)
            splits["spoken"][split] = {
                "text": {"texts": f"{split}.txt", "embeddings": f"{split}.npy"},
                "noisy": {"embeddings": f"{split}-noisy.npy"},
            }
            texts, vectors, noisy = drawn(split, seed=1)
            write_lines(folder / f"{split}.en.txt", texts)
            write_lines(folder / f"{split}.ed.txt", other_language(texts))
            np.save(folder / f"{split}.en.npy", vectors)
            np.save(folder / f"{split}.ed.npy", noisy)
            splits["crossed"][split] = {
                side: {"texts": f"{split}.{side}.txt", "embeddings": f"{split}.{side}.npy"} for side in ("en", "ed")
            }
        config = {
            "encoders": ["toy"],
            "corpora": {name: splits[name] for name in corpora or ("spoken",)},
            "train": dict(TRAIN),
            **more,
        }
        found = cls(folder, config)
        found.save()
        return found

    @property
    def path(self) -> Path:
        """The config's file."""
        return self.folder / "study.yaml"

    def save(self) -> Path:
        """Write the config as it stands now."""
        self.path.write_text(yaml.safe_dump(self.config, sort_keys=False), encoding="utf-8")
        return self.path
