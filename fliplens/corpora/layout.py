"""The files of a prepared corpus: their names, and the two YAML files that put them to use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fliplens.files import FolderKind, atomic_file

__all__ = [
    "AUDIO_FOLDER",
    "DROPPED_CLIPS",
    "MARKER",
    "REPORT",
    "SPOOL",
    "UNFILTERED",
    "View",
    "folder_of",
    "label_of",
    "write_yaml",
]

MARKER = "corpus.json"
"""What the folder is: settings and sources. Written first, so that whatever a kill leaves is known to be ours."""
REPORT = "report.json"
"""What came out. Written last: with it the folder is finished."""
DROPPED_CLIPS = "dropped_clips.jsonl"
"""The clips that were left out, and why, a line each; no file where there are none."""
AUDIO_FOLDER = "audio"
UNFILTERED = "unfiltered"
SPOOL = ".spool"


def folder_of(splits: Iterable[str]) -> FolderKind:
    """Return what the folder of a corpus with these splits holds: nothing else is ever replaced."""
    named = "|".join(map(re.escape, splits))
    parts = rf"|(?:{named})\.[\w.-]+\.(txt|npy|npy\.parts|manifest\.json)" if named else ""
    return FolderKind(
        MARKER,
        r"corpus\.json|report\.json|dropped_clips\.jsonl|datasets\.yaml|study\.yaml|audio|unfiltered|\.spool"
        rf"{parts}|\..+\.tmp(\.old)?",
    )


@dataclass(frozen=True)
class View:
    """One side of a corpus: its sentences in one language, or the clips that speak them."""

    language: str
    speech: bool

    @property
    def modality(self) -> str:
        """What it is: text or speech."""
        return "speech" if self.speech else "text"

    @property
    def identifier(self) -> str:
        """What `datasets.yaml` calls it: `text_en`, `speech_en`."""
        return f"{self.modality}_{self.language}"

    @property
    def side(self) -> str:
        """What a study calls it: `en`, `speech`."""
        return "speech" if self.speech else self.language

    @property
    def stem(self) -> str:
        """What its files' names have behind the split."""
        return f"{self.language}.audio" if self.speech else self.language

    def texts(self, split: str) -> str:
        """Return the name of its sentences, or of the list of its clips."""
        return f"{split}.{self.stem}.txt"

    def vectors(self, split: str, label: str) -> str:
        """Return the name of its vectors by one encoder."""
        return f"{split}.{self.stem}.{label}.npy"


def similarity_name(split: str, pair: tuple[View, View], label: str) -> str:
    """Return the name of the similarity scores of two views."""
    return f"{split}.{pair[0].stem}-{pair[1].stem}.{label}.similarity.npy"


def label_of(spec: str) -> str:
    """Return an encoder's spec as a part of a file's name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", spec).strip("-")[-48:] or "encoder"


@dataclass(frozen=True)
class Vectors:
    """The views that one set of encoders, text and speech of one space, has vectors of."""

    label: str
    spec: str
    """The encoder of its texts, or of its speech where it has no texts."""
    views: tuple[View, ...]
    pairs: tuple[tuple[View, View], ...]
    """Those with similarity scores."""


def datasets_yaml(
    name: str, splits: Sequence[str], views: Sequence[View], vectors: Sequence[Vectors]
) -> dict[str, Any]:
    """Return the published `datasets.yaml`: a data set for each split, and for each further set of encoders."""
    texts = [view for view in views if not view.speech]
    found: dict[str, Any] = {}
    for number, one in enumerate(vectors or [Vectors("", "", (), ())]):
        for split in splits:
            found[f"{name}_{split}" + (f"_{one.label}" if number else "")] = {
                "embeddings": [
                    {
                        "id": view.identifier,
                        "file": view.vectors(split, one.label),
                        "modality": view.modality,
                        "language": view.language,
                    }
                    for view in one.views
                ],
                "texts": [
                    {"id": view.identifier, "file": view.texts(split), "language": view.language} for view in texts
                ],
                "sim_scores": [
                    {
                        "file": similarity_name(split, pair, one.label),
                        "pair": [view.identifier for view in pair],
                    }
                    for pair in one.pairs
                ],
            }
    return found


def study_yaml(
    name: str, splits: Sequence[str], views: Sequence[View], vectors: Sequence[Vectors]
) -> dict[str, Any] | None:
    """Return the settings of a study on the corpus; None without the splits that a study needs."""
    if not {"train", "test"} <= set(splits) <= {"train", "dev", "test"}:
        return None
    corpus: dict[str, Any] = {}
    for split in ("train", "dev", "test"):
        sides: dict[str, Any] = {}
        for view in views:
            files = {one.label: view.vectors(split, one.label) for one in vectors if view in one.views}
            # Speech that nothing has encoded is no side: a study encodes text alone.
            if not view.speech:
                sides[view.side] = {"texts": view.texts(split), **({"embeddings": files} if files else {})}
            elif files:
                sides[view.side] = {"embeddings": files}
        if split in splits:
            corpus[split] = sides
    encoders = {one.label: one.spec for one in vectors}
    return {**({"encoders": encoders} if encoders else {}), "corpora": {name: corpus}}


def write_yaml(path: Path, value: Mapping[str, Any], *comments: str) -> None:
    """Write a mapping as YAML, atomically, below lines of comment."""
    import yaml

    with atomic_file(path) as stream:
        for comment in comments:
            stream.write(f"# {comment}\n".encode())
        stream.write(yaml.safe_dump(dict(value), sort_keys=False, allow_unicode=True).encode())
