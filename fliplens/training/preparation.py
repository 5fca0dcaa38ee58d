"""From what a caller hands in to rows that can be trained on: checks, encoder, held-out rows, vocabulary, counts.

The same for a lens and for what it is compared with.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import fliplens
from fliplens.embeddings import EmbeddingsLike
from fliplens.errors import FliplensWarning, InputError
from fliplens.evaluation.evaluating import evaluate
from fliplens.files import sha256_of_lines
from fliplens.lenses.files import format_version
from fliplens.text.choosing import VocabularyChoice
from fliplens.text.vocabulary import Vocabulary
from fliplens.training.checkpoint import identity_of
from fliplens.training.views import Rows, Views
from fliplens.training.word_encoder import word_encoder

if TYPE_CHECKING:
    from fliplens.encoders import Encoder
    from fliplens.lenses.extractor import Extractor

__all__ = ["HELD_OUT_SHARE", "Prepared", "Source", "check_hold_out"]

HELD_OUT_SHARE = 0.05
HELD_OUT_MOST = 4000
HELD_OUT_LEAST = 20


def check_hold_out(share: float) -> None:
    """Refuse a share of the rows to hold out that is not within 0..0.5."""
    if not 0 <= share <= 0.5:
        raise InputError(f"expected hold_out from 0 to 0.5, found {share}")


@dataclass(frozen=True)
class Source:
    """What a model is made from, checked: sentences with their vectors, and the encoder that made these."""

    rows: Rows
    dev: Rows | None
    """Rows to stop on and to choose by; None where a share of the others is held out for it."""
    n_given: int
    """Rows that were handed in."""
    n_dropped: int
    """Those of them left out because they were not finite."""
    encoder: Encoder | None
    """Makes the vectors of the vocabulary's words; None where nothing needs them, or it cannot be had."""
    spec: str | None
    """Of the encoder that made the vectors, for the record."""

    @classmethod
    def gather(
        cls,
        texts: Sequence[str] | str | Path,
        embeddings: EmbeddingsLike,
        *,
        paired: EmbeddingsLike | None = None,
        dev_texts: Sequence[str] | str | Path | None = None,
        dev_embeddings: EmbeddingsLike | None = None,
        dev_paired: EmbeddingsLike | None = None,
        encoder: Encoder | str | None = None,
        words: str = "auto",
        drop_bad_rows: bool = False,
        device: str = "auto",
        show_progress: bool = False,
        load_encoder: bool = True,
    ) -> Source:
        """Check what was handed in; see `fliplens.fit` for what all of it is.

        Args:
            texts: see `fliplens.fit`.
            embeddings: likewise.
            paired: likewise.
            dev_texts: likewise.
            dev_embeddings: likewise.
            dev_paired: likewise.
            encoder: likewise.
            words: where the vectors of words come from: "words", from the encoder, which must be at hand; "auto",
                from the encoder if it can be had; anything else, not from the encoder, which is not loaded.
            drop_bad_rows: likewise.
            device: where the encoder runs.
            show_progress: likewise.
            load_encoder: False only where another process asks the encoder.

        Raises:
            InputError: parts that do not fit together.
        """
        rows, n_dropped = Rows.of(texts, embeddings, paired, "training").finite(
            drop=drop_bad_rows, show_progress=show_progress
        )
        dev = _dev_rows(dev_texts, dev_embeddings, dev_paired, paired is not None)
        if dev is not None:
            dev.primary.check_dim(rows.primary.dim, made_for="the training embeddings'")
            dev, _ = dev.finite(drop=drop_bad_rows)
        # An encoder that cannot be had is found out before the vocabulary is counted, not after.
        maker, spec = word_encoder(encoder, rows.primary, words, device) if load_encoder else (None, None)
        return cls(rows, dev, len(rows.texts), n_dropped, maker, spec)

    def shuffled(self, seed: int) -> Source:
        """Return the same with vectors that belong to other sentences, and without the encoder's word vectors.

        What is learned from it can be nothing but how frequent words are: a control for leaks. Both views of a row
        stay together; dev rows are shuffled among themselves.
        """
        random = np.random.default_rng([seed, 0x5AFF1E])

        def mixed(rows: Rows) -> Rows:
            order = random.permutation(len(rows.texts))
            return replace(rows.subset(order), texts=rows.texts)

        dev = None if self.dev is None else mixed(self.dev)
        return replace(self, rows=mixed(self.rows), dev=dev, encoder=None)

    def job(self, choice: VocabularyChoice, recipe: dict[str, Any], hold_out: float) -> dict[str, Any]:
        """Return what tells a training run from others, as plain JSON values; known before words are counted."""

        def identity(some: Rows | None) -> dict[str, Any] | None:
            if some is None:
                return None
            return {
                "texts": sha256_of_lines(some.texts),
                "primary": identity_of(some.primary),
                "paired": identity_of(some.paired),
            }

        return {
            "recipe": recipe,
            "training data": identity(self.rows),
            "dev data": identity(self.dev) or {"hold_out": hold_out},
            "vocabulary": choice.to_json(),
            "encoder": {"spec": self.spec, "revision": None if self.encoder is None else self.encoder.revision},
        }

    def prepare(
        self, choice: VocabularyChoice, *, seed: int, hold_out: float, show_progress: bool = False
    ) -> Prepared:
        """Hold rows out where no dev rows were given, choose the vocabulary and count its words.

        Args:
            choice: of the vocabulary.
            seed: of the draw.
            hold_out: share of the rows to hold out, 0..0.5: identical texts together, at most 4,000 rows, and none
                where it is fewer than 20.
            show_progress: bars on stderr.

        Raises:
            InputError: no row has a known word.
        """
        rows, dev = (self.rows, self.dev) if self.dev is not None else _hold_out(self.rows, seed, hold_out)
        vocabulary = choice.build(rows.texts, show_progress=show_progress)
        counts = vocabulary.counts(rows.texts, show_progress=show_progress)
        useful = np.flatnonzero(np.diff(counts.indptr))
        if not len(useful):
            raise InputError(
                f"expected training text with words of the vocabulary, found none in {len(rows.texts)} rows: "
                "is the vocabulary of another language?"
            )
        trained = rows
        if len(useful) < len(rows.texts):
            trained, counts = rows.subset(useful), counts[useful]
        return Prepared(
            source=self,
            rows=rows,
            dev=dev,
            vocabulary=vocabulary,
            views=Views(counts, trained.primary, trained.paired),
            dev_views=None if dev is None else _dev_views(dev, vocabulary),
        )


@dataclass(frozen=True)
class Prepared:
    """Rows to train and to stop on, with their words."""

    source: Source
    rows: Rows
    """Training rows, held-out ones no longer among them."""
    dev: Rows | None
    vocabulary: Vocabulary
    views: Views
    """The training rows that have a known word."""
    dev_views: Views | None
    """None without dev rows, or where none of them has a known word."""

    def dev_metrics(self, model: Extractor) -> dict[str, Any]:
        """Return a model's accuracy on the dev rows as `config.json` records it; nothing without rows to score."""
        dev = self.dev
        if dev is None or self.dev_views is None:
            return {}
        found = evaluate(model, dev.texts, dev.primary, paired=dev.paired, metrics="accuracy")
        return {"metrics": {"dev": found.to_json()}}

    def description(self) -> dict[str, Any]:
        """Return the part of `config.json` that says what the model was made from."""
        source, rows, dev = self.source, self.rows, self.dev
        manifest = rows.primary.manifest
        maker = source.encoder
        revision = maker.revision if maker is not None else manifest.revision if manifest else None
        n_trained = len(self.views.primary)
        return {
            "format_version": format_version(self.vocabulary),
            "fliplens_version": fliplens.__version__,
            "encoder": {"spec": source.spec, "name": maker.name if maker else source.spec, "revision": revision},
            "data": {
                "rows": source.n_given,
                "rows_trained": n_trained,
                "rows_without_known_words": len(rows.texts) - n_trained,
                "rows_dropped_not_finite": source.n_dropped,
                "views": 1 if rows.paired is None else 2,
                "sha256": sha256_of_lines(rows.texts),
                "dev_rows": 0 if dev is None else len(dev.texts),
                "dev_sha256": None if dev is None else sha256_of_lines(dev.texts),
                "embeddings_sha256": manifest.sha256 if manifest else None,
            },
        }


def _dev_rows(
    texts: Sequence[str] | str | Path | None,
    primary: EmbeddingsLike | None,
    paired: EmbeddingsLike | None,
    wants_pair: bool,
) -> Rows | None:
    if texts is None and primary is None and paired is None:
        return None
    if texts is None or primary is None:
        raise InputError("expected dev texts and dev embeddings together, found one without the other")
    if wants_pair != (paired is not None):
        raise InputError(
            "expected a paired view in both training and dev data, or in neither, found it in one: "
            "give --paired and --dev-paired together"
        )
    return Rows.of(texts, primary, paired, "dev")


def _hold_out(rows: Rows, seed: int, share: float = HELD_OUT_SHARE) -> tuple[Rows, Rows | None]:
    """Split off a seeded share of the rows to stop on; rows of identical text stay on one side.

    Too few rows to learn anything from a held-out share are all trained on.
    """
    n = len(rows.texts)
    wanted = min(HELD_OUT_MOST, int(n * share))
    if wanted < HELD_OUT_LEAST:
        return rows, None
    numbers: dict[str, int] = {}
    group = np.fromiter((numbers.setdefault(text, len(numbers)) for text in rows.texts), np.int64, n)
    order = np.random.default_rng(seed).permutation(group.max() + 1)
    sizes = np.bincount(group)
    # Whole groups, in random order, until the share is reached; a text that fills it alone is never held out.
    order = order[sizes[order] <= wanted]
    taken = order[: int(np.searchsorted(np.cumsum(sizes[order]), wanted, side="right"))]
    if not len(taken):
        return rows, None
    held = np.isin(group, taken)
    return rows.subset(np.flatnonzero(~held)), rows.subset(np.flatnonzero(held))


def _dev_views(dev: Rows, vocabulary: Vocabulary) -> Views | None:
    """Return the dev rows with their reference words; None (and a warning) where no row has a known word."""
    counts = vocabulary.references(dev.texts).counts
    if not counts.nnz:
        warnings.warn(
            f"none of the {len(dev.texts)} dev sentences has a word of the vocabulary: "
            "training runs to its last pass, and the last weights are kept",
            FliplensWarning,
            stacklevel=4,
        )
        return None
    return Views(counts, dev.primary, dev.paired)
