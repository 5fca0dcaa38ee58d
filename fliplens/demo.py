"""The main job on what is already on the machine: installed documentation → vectors → lens → words, measured.

Every stage leaves its result in the run's folder, so that a killed demo goes on where it stopped and a finished
one only prints again.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fliplens.baselines.linear import frequency_factors
from fliplens.corpora.installed import installed_sentences
from fliplens.embeddings import Embeddings
from fliplens.encoding.kept_vectors import KeptEncoder
from fliplens.errors import InputError
from fliplens.evaluation.evaluating import EvaluationResult, evaluate
from fliplens.files import FolderKind, check_free, read_json, read_lines, sha256_of_lines, write_json, write_lines
from fliplens.lenses.lens import Lens
from fliplens.lenses.words import Words
from fliplens.training.fitting import fit
from fliplens.training.recipes import TrainConfig

__all__ = ["EXAMPLES_PRIOR", "DemoResult", "DemoRow", "run_demo"]

ENCODER = "minilm"
MARKER = "demo.json"
SPLITS = ("train", "dev", "test")
FOLDER = FolderKind(
    MARKER,
    r"demo\.json|results\.json|(train|dev|test)\.txt|(train|dev|test|words)(\.npy|\.npy\.parts|\.manifest\.json)"
    r"|lens|lip|\..+\.tmp(\.old)?",
)
HELD_OUT_SHARE = 0.05
EXAMPLES = 12
EXAMPLES_PRIOR = 0.5
"""Half the prior: fewer stop words than the published formula, fewer rare look-alikes than none."""
TOPN = 10


@dataclass(frozen=True)
class DemoRow:
    """One method of the demo's table."""

    name: str
    result: EvaluationResult
    """On the test sentences."""
    parameters: int
    seconds: float | None
    """Training time; None where nothing is trained."""


@dataclass(frozen=True)
class DemoResult:
    """What the demo found."""

    folder: Path
    sizes: dict[str, int]
    """Sentences in train, dev and test."""
    vocabulary_size: int
    rows: list[DemoRow]
    examples: list[tuple[str, Words]]
    """Held-out sentences, and the words read from their vectors at prior EXAMPLES_PRIOR."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "folder": str(self.folder),
            "sentences": self.sizes,
            "vocabulary_size": self.vocabulary_size,
            "methods": [
                {
                    "name": row.name,
                    "parameters": row.parameters,
                    "training_seconds": row.seconds,
                    **row.result.to_json(),
                }
                for row in self.rows
            ],
            "examples": [{"text": text, "words": words.to_json()} for text, words in self.examples],
        }


def run_demo(
    folder: str | Path,
    *,
    sentences: int = 20000,
    seed: int = 0,
    overwrite: bool = False,
    device: str = "auto",
    show_progress: bool = False,
) -> DemoResult:
    """Fit and measure a lens on the documentation installed with Python, encoded by MiniLM.

    Args:
        folder: gets everything: texts, vectors, lenses, results. What an earlier run left there is used.
        sentences: how many to sample.
        seed: of the sample, the split and the training.
        overwrite: forget an earlier run of other settings; without it that is an error.
        device: auto, cpu, cuda or mps.
        show_progress: bars on stderr.

    Raises:
        InputError: the folder holds something else, or too few sentences were found.
        MissingExtraError: sentence-transformers is not installed.
    """
    folder = Path(folder)
    texts = _corpus(folder, sentences, seed, overwrite=overwrite, show_progress=show_progress)
    # `fit` asks it for the vectors of the vocabulary, once for each lens.
    encoder = KeptEncoder(ENCODER, lambda _: folder / "words.npy", device=device, show_progress=show_progress)
    vectors = {split: encoder.vectors(texts[split], folder / f"{split}.npy") for split in SPLITS}
    lenses = {
        name: _fitted(folder / name, rank, seed, texts, vectors, encoder, device, show_progress)
        for name, rank in (("lens", None), ("lip", "full"))
    }
    lens, lip = lenses["lens"], lenses["lip"]
    frequency = frequency_factors(lens.vocabulary.counts(texts["train"]), lens.dim)
    methods = [
        ("most frequent words", Lens(frequency, lens.vocabulary), None),
        ("LiP, one full matrix", lip, _seconds(lip)),
        (f"FLiP, rank {lens.rank}", lens, _seconds(lens)),
    ]
    rows = [
        DemoRow(name, evaluate(one, texts["test"], vectors["test"], topn=TOPN), _parameters(one, seconds), seconds)
        for name, one, seconds in methods
    ]
    chosen = np.sort(np.random.default_rng(seed).permutation(len(texts["test"]))[:EXAMPLES])
    top = lens.top(vectors["test"].subset(chosen), TOPN, prior=EXAMPLES_PRIOR)
    result = DemoResult(
        folder=folder,
        sizes={split: len(texts[split]) for split in SPLITS},
        vocabulary_size=len(lens.vocabulary),
        rows=rows,
        examples=[(texts["test"][row], words) for row, words in zip(chosen, top, strict=True)],
    )
    write_json(folder / "results.json", result.to_json())
    return result


def _corpus(folder: Path, sentences: int, seed: int, *, overwrite: bool, show_progress: bool) -> dict[str, list[str]]:
    """Return the texts of each split: an earlier run's, or a fresh sample."""
    settings = {"format_version": 1, "sentences": sentences, "seed": seed}
    marker = folder / MARKER
    if not overwrite and marker.is_file():
        found = read_json(marker)
        if isinstance(found, dict) and found.get("settings") == settings:
            files = {split: folder / f"{split}.txt" for split in SPLITS}
            if all(file.is_file() for file in files.values()):
                texts = {split: read_lines(file) for split, file in files.items()}
                if found.get("sha256") == {split: sha256_of_lines(lines) for split, lines in texts.items()}:
                    return texts
            # This very demo, killed while it wrote its sample.
            overwrite = True
    check_free(folder, kind=FOLDER, overwrite=overwrite)
    if folder.is_dir():
        shutil.rmtree(folder)
    if sentences < 200:
        raise InputError(f"expected at least 200 sentences for a demo that means anything, found {sentences}")
    sample = installed_sentences(sentences, seed=seed, show_progress=show_progress, processes=2)
    if len(sample) < 200:
        raise InputError(
            f"expected at least 200 sentences in the installed documentation, found {len(sample)}: "
            "install some packages, or fit a lens on your own text"
        )
    held = int(len(sample) * HELD_OUT_SHARE)
    texts = {"dev": sample[:held], "test": sample[held : 2 * held], "train": sample[2 * held :]}
    # The marker comes first: whatever of the sample a kill leaves is known to be ours.
    write_json(marker, {"settings": settings, "sha256": {s: sha256_of_lines(t) for s, t in texts.items()}})
    for split, lines in texts.items():
        write_lines(folder / f"{split}.txt", lines)
    return texts


def _fitted(
    folder: Path,
    rank: Any,
    seed: int,
    texts: dict[str, list[str]],
    vectors: dict[str, Embeddings],
    encoder: KeptEncoder,
    device: str,
    show_progress: bool,
) -> Lens:
    """Return a lens: an earlier run's if it was made from the same text by the same recipe."""
    config = TrainConfig(rank=rank, seed=seed)
    if (folder / "config.json").is_file():
        with contextlib.suppress(InputError):
            lens = Lens.load(folder)
            made_from = lens.config.get("data", {}).get("sha256")
            if made_from == sha256_of_lines(texts["train"]) and lens.config.get("recipe") == config.to_json():
                return lens
    lens = fit(
        texts["train"],
        vectors["train"],
        dev_texts=texts["dev"],
        dev_embeddings=vectors["dev"],
        encoder=encoder,
        config=config,
        device=device,
        show_progress=show_progress,
    )
    lens.save(folder, overwrite=True)
    return lens


def _seconds(lens: Lens) -> float | None:
    seconds = lens.config.get("training", {}).get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else None


def _parameters(lens: Lens, seconds: float | None) -> int:
    """Return how many numbers the lens learned; the frequency baseline has its bias alone."""
    if seconds is None:
        return lens.factors.b.numel()
    return sum(tensor.numel() for tensor in lens.factors.tensors())
