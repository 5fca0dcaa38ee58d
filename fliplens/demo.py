"""The main job on what is already on the machine: installed documentation → vectors → lens → words, measured.

Every stage leaves its result in the run's folder, so that a killed demo goes on where it stopped and a finished
one only prints again.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from fliplens.anchoring import log_unigrams
from fliplens.corpora.installed import installed_sentences
from fliplens.embeddings import Embeddings, manifest_path, open_embeddings
from fliplens.encoders import load_encoder
from fliplens.encoding import encode_texts
from fliplens.errors import InputError
from fliplens.evaluation import EvaluationResult, evaluate
from fliplens.files import FolderKind, check_free, read_json, read_lines, sha256_of_lines, write_json, write_lines
from fliplens.fitting import fit
from fliplens.lens import Lens
from fliplens.objective import Factors
from fliplens.recipes import TrainConfig
from fliplens.vocabulary import Vocabulary
from fliplens.words import Words

if TYPE_CHECKING:
    from fliplens.encoders import Encoder

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
    encoder = _LazyEncoder(device, folder / "words.npy", show_progress)
    vectors = {split: _encoded(folder / f"{split}.npy", texts[split], encoder) for split in SPLITS}
    lenses = {
        name: _fitted(folder / name, rank, seed, texts, vectors, encoder, device, show_progress)
        for name, rank in (("lens", None), ("lip", "full"))
    }
    lens, lip = lenses["lens"], lenses["lip"]
    methods = [
        ("most frequent words", _frequency_lens(lens, texts["train"]), None),
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


class _LazyEncoder:
    """The demo's encoder, loaded when a vector is really wanted, its vectors of the vocabulary kept on disk."""

    def __init__(self, device: str, words: Path, show_progress: bool) -> None:
        self._device, self._words, self._show = device, words, show_progress
        self._encoder: Encoder | None = None

    def get(self) -> Encoder:
        """Return the encoder itself."""
        if self._encoder is None:
            self._encoder = load_encoder(ENCODER, device=self._device)
        return self._encoder

    def encode_to(self, path: Path, texts: Sequence[str]) -> Embeddings:
        """Encode texts to one file, resumably."""
        return encode_texts(
            texts, self.get(), path, name=path.stem, rows_per_part=1024, overwrite=True, show_progress=self._show
        )

    # The encoder as `fit` wants it: it asks for the vectors of the vocabulary, once for each lens.

    @property
    def spec(self) -> str:
        return ENCODER

    @property
    def name(self) -> str:
        return self.get().name

    @property
    def revision(self) -> str | None:
        return self.get().revision

    @property
    def dim(self) -> int:
        return self.get().dim

    modality = "text"
    language = "en"
    normalised = True

    def encode(self, inputs: Sequence[str], *, show_progress: bool = False) -> NDArray[np.float32]:
        del show_progress
        return _encoded(self._words, inputs, self).to_numpy()


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


def _encoded(path: Path, texts: Sequence[str], encoder: _LazyEncoder) -> Embeddings:
    """Return the vectors of texts: those of an earlier run if they are of just these texts."""
    if path.is_file() and manifest_path(path).is_file():
        # A file that cannot be read any more is made again, like one that is not there.
        with contextlib.suppress(InputError):
            found = open_embeddings(path)
            if found.manifest is not None and found.manifest.source.get("sha256") == sha256_of_lines(texts):
                return found
    return encoder.encode_to(path, texts)


def _fitted(
    folder: Path,
    rank: Any,
    seed: int,
    texts: dict[str, list[str]],
    vectors: dict[str, Embeddings],
    encoder: _LazyEncoder,
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


def _frequency_lens(lens: Lens, texts: Sequence[str]) -> Lens:
    """Return the lens that ignores its vector: every score is the word's log frequency."""
    vocabulary: Vocabulary = lens.vocabulary
    return Lens(
        Factors(
            E1=torch.zeros(len(vocabulary), 1),
            E2=torch.zeros(1, lens.dim),
            b=log_unigrams(vocabulary.counts(texts)),
        ),
        vocabulary,
    )


def _seconds(lens: Lens) -> float | None:
    seconds = lens.config.get("training", {}).get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else None


def _parameters(lens: Lens, seconds: float | None) -> int:
    """Return how many numbers the lens learned; the frequency baseline has its bias alone."""
    if seconds is None:
        return lens.factors.b.numel()
    return sum(tensor.numel() for tensor in lens.factors.tensors())
