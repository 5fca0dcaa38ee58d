"""What is asked of a corpus that is prepared, checked before anything is read."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fliplens.corpora.cleaning import Cleaning
from fliplens.corpora.clips import AUDIO, ClipBounds
from fliplens.corpora.grouping import DUPLICATES, targets
from fliplens.corpora.splits import checked_shares
from fliplens.embeddings import FLOAT_TYPES
from fliplens.errors import InputError

__all__ = ["PrepareConfig"]


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """What to read, what of it to keep, and what to make of it."""

    kind: str
    """One of `fliplens.corpora.sources.KINDS`."""
    sources: tuple[str, ...] = ()
    """Files, stems, folders or ids, as the kind has it."""
    languages: tuple[str, ...] | None = None
    """None: those that the files tell."""
    columns: tuple[str, ...] = ()
    """Columns of a table, one for each language."""
    name: str | None = None
    """What `datasets.yaml` calls the corpus; None: as the folder is called."""
    split: Mapping[str, float] | None = None
    """Split → share of the rows. None: the source's own splits, if it has some, else DEFAULT_SPLIT. Any names will
    do; `valid` and the like are called `dev` (`fliplens.corpora.splits`)."""
    seed: int = 0
    """Of splits and samples."""
    cleaning: Cleaning = field(default_factory=Cleaning)
    """Bounds of a text."""
    clips: ClipBounds = field(default_factory=ClipBounds)
    """Bounds of a clip."""
    audio: str = "header"
    """One of `fliplens.corpora.clips.AUDIO`."""
    min_up_votes: int = 0
    """Of Common Voice."""
    max_down_votes: int | None = None
    """Of Common Voice."""
    duplicates: str = "row"
    """One of `fliplens.corpora.grouping.DUPLICATES`."""
    limit: int | None = None
    """Rows to keep at most, drawn from those that are fit; None: all."""
    encoders: tuple[str, ...] = ()
    """Specs. The first encoder of text goes with the first of speech, and so on."""
    dtype: str = "float32"
    """Of vectors on disk."""
    min_similarity: float | None = None
    """Rows go whose views are not more alike than this, by the vectors of the first encoder; None: all stay."""

    def __post_init__(self) -> None:
        for name, value, known in (
            ("duplicates", self.duplicates, DUPLICATES),
            ("audio", self.audio, AUDIO),
            ("dtype", self.dtype, FLOAT_TYPES),
        ):
            if value not in known:
                raise InputError(f"expected {name} out of {', '.join(known)}, found {value!r}")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"expected a limit of 1 row or more, found {self.limit}")
        if self.split is not None:
            object.__setattr__(self, "split", checked_shares(self.split))
            targets(1, self.split)
        if self.min_similarity is not None and not -1 <= self.min_similarity <= 1:
            raise InputError(f"expected a cosine, -1 to 1, as min_similarity, found {self.min_similarity:g}")
        if self.min_similarity is not None and not self.encoders:
            raise InputError("expected an encoder to tell how alike views are, found none: name one with --encoder")

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return dataclasses.asdict(self)
