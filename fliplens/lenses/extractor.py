"""What reads words from vectors: the interface that a lens shares with the methods it is compared with."""

from __future__ import annotations

import math
import operator
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fliplens.arithmetic.decoding import Decoding
from fliplens.arithmetic.top import top_n
from fliplens.embeddings import Embeddings, EmbeddingsLike, as_embeddings
from fliplens.errors import EmbeddingSpaceWarning, InputError
from fliplens.lenses.fingerprint import Fingerprint
from fliplens.lenses.words import TopWords, Words
from fliplens.text.vocabulary import Vocabulary

__all__ = ["Extractor", "ViewName", "check_prior"]

ViewName = Literal["primary", "paired"]
"""The two views of a sentence that training knows."""

DEFAULT_N = 10
# Rows read from a file and handed on at a time: their vectors and words are what reading a file holds in memory.
BLOCK_ROWS = 4096


class Extractor(ABC):
    """Extracts keywords from vectors of one embedding space: it scores every word of a vocabulary for a vector.

    A subclass says how words are scored; reading, checking, files and evaluation are the same for all.

    Args:
        vocabulary: the V words.
        fingerprint: of the embedding space, to notice vectors of another encoder.
        config: what is known of how it was made; the `config.json` of its folder.
    """

    kind: ClassVar[str] = "lens"
    """What messages call it."""
    softmax: ClassVar[bool] = True
    """Whether the softmax of its scores means probabilities."""
    floor: ClassVar[float] = -math.inf
    """A word whose score is no higher is not named at all, however few words that leaves."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        fingerprint: Fingerprint | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        self.vocabulary = vocabulary
        self.fingerprint = fingerprint
        self.config: dict[str, Any] = config or {}

    @property
    @abstractmethod
    def dim(self) -> int:
        """d, the length of the vectors it reads."""

    @abstractmethod
    def to(self, device: torch.device | str) -> Self:
        """Return the same on another device."""

    def for_view(self, view: ViewName) -> Self:
        """Return what reads vectors of a view, such as text or speech: of a lens, itself, as it reads all alike."""
        del view
        return self

    @abstractmethod
    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return what its files hold: the parameters, and what belongs to them beside the vocabulary."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what its `config.json` says of itself, `model` above all, as plain JSON values."""

    @abstractmethod
    def decoding_bias(self, decoding: Decoding, prior: float = 1.0) -> Tensor:
        """Return what is added to each word of `decoding_blocks`, (V,), at a position of the prior dial.

        Raises:
            InputError: a decoding that this cannot do, or no position of the dial.
        """

    @abstractmethod
    def decoding_blocks(
        self, embeddings: Embeddings, decoding: Decoding, *, most_rows: int | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield (first row, scores (rows, V) without `decoding_bias`) in blocks of bounded memory.

        A block may be changed; the next one may take its memory.
        """

    @property
    def encoder(self) -> str | None:
        """Spec of the encoder whose vectors it reads, if it is known."""
        encoder = self.config.get("encoder")
        spec = encoder.get("spec") if isinstance(encoder, dict) else None
        return spec if isinstance(spec, str) else None

    def check(self, embeddings: EmbeddingsLike, *, finite: bool = True) -> Embeddings:
        """Return the vectors as `Embeddings` once they are known to fit.

        Args:
            embeddings: (n, d).
            finite: whether to read all of them to see that they are finite; False leaves that to the caller.

        Raises:
            EmbeddingSpaceError: vectors of another size.
            InputError: vectors that are not finite, or not an (n, d) matrix of floats.

        Warns:
            EmbeddingSpaceWarning: they look like vectors of another encoder.
        """
        vectors = as_embeddings(embeddings)
        vectors.check_dim(self.dim, made_for=f"the {self.kind}'s")
        if finite:
            vectors.check_finite()
        made_by = vectors.manifest.encoder if vectors.manifest is not None else None
        difference = self.fingerprint.difference(vectors) if self.fingerprint is not None else None
        if made_by is not None and self.encoder is not None and made_by != self.encoder:
            difference = f"they were made by {made_by}, the {self.kind} is for {self.encoder}"
        if difference is not None:
            warnings.warn(
                f"{vectors.name} may come from another encoder than the {self.kind}: {difference}; "
                "its words mean nothing on them if so",
                EmbeddingSpaceWarning,
                stacklevel=2,
            )
        return vectors

    def top(
        self,
        embeddings: EmbeddingsLike,
        n: int | None = None,
        *,
        prior: float = 1.0,
        probabilities: bool = True,
        decoding: Decoding = "plain",
    ) -> TopWords:
        """Return the n best words of every vector.

        In plain decoding, a lens's words, order and scores are those of `fliplens.arithmetic.ordered`, whatever else
        is read with a vector and on whatever machine; probabilities are to float32's rounding, as is all that
        explain-away gives, and all that other methods do.

        Args:
            embeddings: (rows, d).
            n: how many words, 1..V; by default 10, or V where that is less.
            prior: position of the prior dial, 0..1.
            probabilities: also the words' shares of the softmax; without them plain reading is faster.
            decoding: plain scores every word on its own (equation 5); explain-away reads them together
                (`fliplens.arithmetic.decoding`): scores are then logits, and probabilities those of being in the
                sentence.

        Raises:
            InputError: n out of range, or vectors that do not fit (see `check`).
        """
        n = self._checked_n(n)
        vectors = self.check(embeddings)
        read = self._reading(len(vectors), n, prior, probabilities, decoding)
        out = TopWords(
            np.empty((len(vectors), n), dtype=np.int64),
            np.empty((len(vectors), n), dtype=np.float32),
            np.empty((len(vectors), n), dtype=np.float32),
            self.vocabulary,
        )
        for start, rows in vectors.blocks(BLOCK_ROWS):
            top = read(rows)
            here = slice(start, start + len(rows))
            out.indices[here], out.scores[here] = top.indices, top.scores
            out.probabilities[here] = top.probabilities
        return out

    def top_blocks(
        self,
        embeddings: EmbeddingsLike,
        n: int | None = None,
        *,
        prior: float = 1.0,
        probabilities: bool = True,
        decoding: Decoding = "plain",
        drop_bad_rows: bool = False,
    ) -> Iterator[tuple[NDArray[np.int64], TopWords]]:
        """Yield the n best words of vectors block by block, in constant memory, reading a file once.

        Args:
            embeddings: (rows, d).
            n: how many words, 1..V; by default 10, or V where that is less.
            prior: position of the prior dial, 0..1.
            probabilities: see `top`.
            decoding: see `top`.
            drop_bad_rows: leave rows of NaN or infinite values out; otherwise the first block with one raises.

        Yields:
            the numbers (from 0) of some thousand rows, ascending, and their words.

        Raises:
            InputError: see `top`.
        """
        n = self._checked_n(n)
        vectors = self.check(embeddings, finite=False)
        read = self._reading(len(vectors), n, prior, probabilities, decoding)

        def blocks() -> Iterator[tuple[NDArray[np.int64], TopWords]]:
            for start, rows in vectors.blocks(BLOCK_ROWS):
                good = np.isfinite(rows).all(axis=1)
                if not good.all() and not drop_bad_rows:
                    raise vectors.not_finite(start + np.flatnonzero(~good))
                if good.any():
                    kept = rows if good.all() else rows[good]
                    yield start + np.flatnonzero(good), read(kept)

        return blocks()

    def _checked_n(self, n: int | None) -> int:
        if n is None:
            n = min(DEFAULT_N, len(self.vocabulary))
        try:
            # NumPy's whole numbers are as good as Python's; what is computed from n wants the latter.
            whole = -1 if isinstance(n, bool | np.bool_) else operator.index(n)
        except TypeError:
            whole = -1
        if not 1 <= whole <= len(self.vocabulary):
            raise InputError(
                f"expected n from 1 to {len(self.vocabulary)}, the size of the vocabulary, found {n!r}: "
                "give a whole number of words"
            )
        return whole

    def _reading(
        self, n_rows: int, n: int, prior: float, probabilities: bool, decoding: Decoding
    ) -> Callable[[NDArray[np.float32]], TopWords]:
        """Return what gives the n best words of a block of vectors, for a job of so many rows."""
        del n_rows
        bias = self.decoding_bias(decoding, prior)

        def read(rows: NDArray[np.float32]) -> TopWords:
            found = []
            for _, scores in self.decoding_blocks(Embeddings([rows]), decoding):
                scores.add_(bias)
                best, values = top_n(scores, n)
                shares = torch.full_like(values, math.nan)
                if probabilities and self.softmax:
                    shares = (values - scores.logsumexp(dim=1, keepdim=True)).exp_()
                best[values <= self.floor] = len(self.vocabulary)
                found.append((best, values, shares))
            return self._as_words(*(torch.cat(parts) for parts in zip(*found, strict=True)))

        return read

    def _as_words(self, indices: Tensor, scores: Tensor, probabilities: Tensor) -> TopWords:
        return TopWords(indices.cpu().numpy(), scores.cpu().numpy(), probabilities.cpu().numpy(), self.vocabulary)

    def words(
        self,
        embedding: NDArray[np.floating[Any]] | Tensor | Sequence[float],
        n: int | None = None,
        *,
        prior: float = 1.0,
        decoding: Decoding = "plain",
    ) -> Words:
        """Return the n best words of one vector.

        Args:
            embedding: (d,) or (1, d); to read a text, encode it first.
            n: how many words, 1..V; by default 10, or V where that is less.
            prior: position of the prior dial: 1 is the published formula, 0 removes the prior.
            decoding: plain, or explain-away; see `top`.

        Raises:
            InputError: more than one vector (use `top`), a text, or see `top`.
        """
        vector = embedding if isinstance(embedding, Tensor) else np.asarray(embedding)
        if isinstance(vector, np.ndarray) and vector.dtype.kind == "U":
            raise InputError(
                "expected a vector, found a text: encode it first, load_encoder(lens.encoder).encode([text])[0]"
            )
        matrix = vector[None, :] if vector.ndim == 1 else vector
        if matrix.ndim != 2 or matrix.shape[0] != 1:
            raise InputError(f"expected one vector (d,), found shape {tuple(vector.shape)}: use top() for many")
        return self.top(matrix, n, prior=prior, decoding=decoding)[0]

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write a folder, whole or not at all; a lens's has the published layout.

        Args:
            folder: a new or empty folder.
            overwrite: replace what `folder` holds.
        """
        from fliplens.lenses.files import save_lens

        save_lens(self, folder, overwrite=overwrite)

    @classmethod
    def load(cls, source: str | Path, *, vocabulary: str | Path | None = None) -> Self:
        """Load a model of this kind; `Extractor.load` takes any.

        Args:
            source: its folder; `hub:OWNER/REPO[/SUBFOLDER][@REVISION]`; or a bare state dict
                (`.safetensors`, or a `.pt` of tensors alone).
            vocabulary: the `vocab.json` of a bare state dict; by default the one in its folder, then in its
                parent's.

        Raises:
            InputError: missing, truncated or foreign files, a newer format, parts that do not fit together, or a
                model of another kind.
        """
        from fliplens.lenses.files import load_lens

        found = load_lens(source, vocabulary=vocabulary)
        if not isinstance(found, cls):
            raise InputError(f"expected a {cls.kind} at {source}, found a {found.kind}")
        return found


def check_prior(prior: object) -> None:
    """Refuse a position of the prior dial that is no number, or outside 0..1."""
    if isinstance(prior, bool) or not isinstance(prior, Real) or not 0.0 <= float(prior) <= 1.0:
        raise InputError(f"expected prior from 0 to 1, as a number, found {prior!r}")
