"""The lens: one linear map from an embedding space to words (paper, section 2)."""

from __future__ import annotations

import math
import operator
import warnings
from collections.abc import Callable, Iterator, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fliplens.decoding import Decoding, ExplainingAway, check_decoding
from fliplens.embeddings import Embeddings, EmbeddingsLike, as_embeddings
from fliplens.errors import EmbeddingSpaceWarning, InputError
from fliplens.fingerprint import Fingerprint
from fliplens.objective import Factors
from fliplens.ordered import Prepared
from fliplens.reading import Reader, folding_pays, score_blocks, sweep_precision, top_n
from fliplens.vocabulary import Vocabulary
from fliplens.words import TopWords, Words

__all__ = ["Lens"]

DEFAULT_N = 10
# Rows read from a file and handed on at a time: their vectors and words are what reading a file holds in memory.
BLOCK_ROWS = 4096


class Lens:
    """A linear map that turns a vector of one embedding space into scored words.

    `score(s, P) = W · s - W · m + P · prior`, with W = E1 · E2, and b = prior - W · m. At P = 1 this is the
    published formula E1 · (E2 · s) + b; P = 0 removes the prior over words, and with it most stop words.

    Args:
        factors: E1 (V, r), E2 (r, d), b (V,); for the full-rank baseline E1 is the one matrix (V, d).
        vocabulary: the V words, in the order of the rows of E1.
        prior: the log-unigram part of b, (V,); without it the whole b counts as the prior.
        mean: m (d,), the mean that training centred on.
        fingerprint: of the embedding space, to notice vectors of another encoder.
        config: what is known of how the lens was made; the `config.json` of its folder.
        away: what decoding by explain-away needs, if it was learned.

    Raises:
        InputError: shapes that do not fit together, or values that are not finite.
    """

    def __init__(
        self,
        factors: Factors,
        vocabulary: Vocabulary,
        *,
        prior: Tensor | None = None,
        mean: Tensor | None = None,
        fingerprint: Fingerprint | None = None,
        config: dict[str, Any] | None = None,
        away: ExplainingAway | None = None,
    ) -> None:
        _check_shapes(factors, len(vocabulary), prior, mean)
        if away is not None and away.dictionary.shape != factors.E1.shape:
            raise InputError(
                f"expected a dictionary of shape {tuple(factors.E1.shape)}, E1's, found "
                f"{tuple(away.dictionary.shape)}: these files belong to different lenses"
            )
        self.factors = factors.map(lambda tensor: tensor.detach().float().contiguous())
        self.vocabulary = vocabulary
        self.prior = prior
        self.mean = mean
        self.fingerprint = fingerprint
        self.config: dict[str, Any] = config or {}
        self.away = away
        self._prepared: tuple[list[int], Prepared] | None = None

    @property
    def dim(self) -> int:
        """d, the length of the vectors it reads."""
        return int((self.factors.E1 if self.factors.E2 is None else self.factors.E2).shape[1])

    @property
    def rank(self) -> int | None:
        """r; None for the full-rank baseline (LiP)."""
        return None if self.factors.E2 is None else int(self.factors.E2.shape[0])

    @property
    def encoder(self) -> str | None:
        """Spec of the encoder whose vectors it reads, if it is known."""
        encoder = self.config.get("encoder")
        spec = encoder.get("spec") if isinstance(encoder, dict) else None
        return spec if isinstance(spec, str) else None

    def __repr__(self) -> str:
        rank = "full" if self.rank is None else self.rank
        return f"Lens({len(self.vocabulary)} words, {self.dim} dimensions, rank {rank}, {self.encoder})"

    def to(self, device: torch.device | str) -> Lens:
        """Return the same lens on another device."""
        return Lens(
            self.factors.map(lambda tensor: tensor.to(device)),
            self.vocabulary,
            prior=self.prior,
            mean=self.mean,
            fingerprint=self.fingerprint,
            config=self.config,
            away=None if self.away is None else self.away.to(device),
        )

    def bias(self, prior: float = 1.0) -> Tensor:
        """Return the bias (V,) at a position of the prior dial: b + (P - 1) · prior.

        Args:
            prior: P from 0 (prior removed) to 1 (the published formula).
        """
        check_prior(prior)
        b = self.factors.b
        if prior == 1.0:
            return b
        part = b if self.prior is None else self.prior.to(b.device)
        return b + (prior - 1.0) * part

    def decoding_bias(self, decoding: Decoding, prior: float = 1.0) -> Tensor:
        """Return what is added to each word of `decoding_blocks`, (V,), at a position of the prior dial.

        Raises:
            InputError: an unknown decoding, or explain-away by a lens that never learned it.
        """
        check_decoding(decoding)
        if decoding == "plain":
            return self.bias(prior)
        check_prior(prior)
        return self._away().bias(self.factors, self._prior_words(), prior)

    def decoding_blocks(
        self, embeddings: Embeddings, decoding: Decoding, *, most_rows: int | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield (first row, scores without `decoding_bias`) block by block: see `fliplens.reading.score_blocks`."""
        if decoding == "plain":
            return score_blocks(embeddings, self.factors, most_rows=most_rows)
        return self._away().blocks(embeddings, self.factors, self._prior_words(), most_rows=most_rows)

    def _prior_words(self) -> Tensor:
        return self.factors.b if self.prior is None else self.prior.to(self.factors.b.device)

    def _away(self) -> ExplainingAway:
        if self.away is None:
            raise InputError(
                "expected a lens that learned to explain away, found none in it: fit it again (explain_away=true), "
                "or use decoding plain"
            )
        return self.away

    def check(self, embeddings: EmbeddingsLike, *, finite: bool = True) -> Embeddings:
        """Return the vectors as `Embeddings` once they are known to fit this lens.

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
        vectors.check_dim(self.dim, made_for="the lens's")
        if finite:
            vectors.check_finite()
        made_by = vectors.manifest.encoder if vectors.manifest is not None else None
        difference = self.fingerprint.difference(vectors) if self.fingerprint is not None else None
        if made_by is not None and self.encoder is not None and made_by != self.encoder:
            difference = f"they were made by {made_by}, the lens is for {self.encoder}"
        if difference is not None:
            warnings.warn(
                f"{vectors.name} may come from another encoder than the lens: {difference}; "
                "its words mean nothing on them if so",
                EmbeddingSpaceWarning,
                stacklevel=2,
            )
        return vectors

    def scores(self, embeddings: EmbeddingsLike, *, prior: float = 1.0) -> NDArray[np.float32]:
        """Return the scores of all words, (n, V): large, so meant for a few vectors.

        Args:
            embeddings: (n, d).
            prior: position of the prior dial, 0..1.
        """
        vectors, bias = self.check(embeddings), self.bias(prior)
        out = np.empty((len(vectors), len(self.vocabulary)), dtype=np.float32)
        for start, block in score_blocks(vectors, self.factors):
            out[start : start + len(block)] = block.add_(bias).cpu().numpy()
        return out

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

        In plain decoding, words, order and scores are those of `fliplens.ordered`, whatever else is read with a
        vector and on whatever machine; probabilities are to float32's rounding, as is all that explain-away gives.

        Args:
            embeddings: (rows, d).
            n: how many words, 1..V; by default 10, or V where that is less.
            prior: position of the prior dial, 0..1.
            probabilities: also the words' shares of the softmax; without them plain reading is faster.
            decoding: plain scores every word on its own (equation 5); explain-away reads them together
                (`fliplens.decoding`): scores are then logits, and probabilities those of being in the sentence.

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

    def _reader(self, rows: int, probabilities: bool) -> Reader:
        """Return what reads so many rows fastest; its result is the same as any other's."""
        factors = self.factors
        # The stated order needs float64, which Apple's GPUs lack.
        if factors.E1.device.type == "mps":
            factors = factors.map(lambda tensor: tensor.cpu())
        # Whoever changes factors in place gets them prepared anew.
        state = [tensor._version for tensor in self.factors.tensors() if not tensor.is_inference()]
        if self._prepared is None or self._prepared[0] != state or len(state) < len(factors.tensors()):
            self._prepared = (state, Prepared(factors))
        return Reader(
            factors,
            precision="float32" if probabilities else sweep_precision(factors.E1.device.type, rows),
            folded=folding_pays(rows, len(self.vocabulary), self.dim, self.rank),
            prepared=self._prepared[1],
        )

    def _reading(
        self, n_rows: int, n: int, prior: float, probabilities: bool, decoding: Decoding
    ) -> Callable[[NDArray[np.float32]], TopWords]:
        """Return what gives the n best words of a block of vectors, for a job of so many rows."""
        check_decoding(decoding)
        if decoding == "explain-away":
            return self._explaining_away(n, prior)
        reader = self._reader(n_rows, probabilities)
        device = reader.factors.E1.device
        bias = self.bias(prior).to(device)

        def read(rows: NDArray[np.float32]) -> TopWords:
            best = reader.top(torch.from_numpy(rows).to(device), bias, n, normalise=probabilities)
            shares = torch.full_like(best.scores, math.nan)
            if best.normalisers is not None:
                shares = (best.scores - best.normalisers[:, None]).exp_()
            return self._as_words(best.indices, best.scores, shares)

        return read

    def _explaining_away(self, n: int, prior: float) -> Callable[[NDArray[np.float32]], TopWords]:
        bias = self.decoding_bias("explain-away", prior)
        # What the dial has added to a word's logit, which its probability does not heed.
        dialled = bias - self.decoding_bias("explain-away")

        def read(rows: NDArray[np.float32]) -> TopWords:
            found = []
            for _, block in self.decoding_blocks(Embeddings([rows]), "explain-away"):
                best, values = top_n(block.add_(bias), n)
                found.append((best, values, (values - dialled[best]).sigmoid()))
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
        """Write the lens as a folder in the published layout, whole or not at all.

        Args:
            folder: a new or empty folder.
            overwrite: replace what `folder` holds.
        """
        from fliplens.lens_files import save_lens

        save_lens(self, folder, overwrite=overwrite)

    @classmethod
    def load(cls, source: str | Path, *, vocabulary: str | Path | None = None) -> Lens:
        """Load a lens.

        Args:
            source: a lens folder; `hub:OWNER/REPO[/SUBFOLDER][@REVISION]`; or a bare state dict
                (`.safetensors`, or a `.pt` of tensors alone).
            vocabulary: the `vocab.json` of a bare state dict; by default the one in its folder, then in its
                parent's.

        Raises:
            InputError: missing, truncated or foreign files, a newer format, or parts that do not fit together.
        """
        from fliplens.lens_files import load_lens

        return load_lens(source, vocabulary=vocabulary)


def check_prior(prior: object) -> None:
    """Refuse a position of the prior dial that is no number, or outside 0..1."""
    if isinstance(prior, bool) or not isinstance(prior, Real) or not 0.0 <= float(prior) <= 1.0:
        raise InputError(f"expected prior from 0 to 1, as a number, found {prior!r}")


def _check_shapes(factors: Factors, n_words: int, prior: Tensor | None, mean: Tensor | None) -> None:
    E1, E2, b = factors.E1, factors.E2, factors.b
    for name, tensor in (("E1 (or E)", E1), ("E2", E2), ("b", b), ("prior", prior), ("mean", mean)):
        if tensor is not None and not bool(torch.isfinite(tensor).all()):
            raise InputError(f"expected finite numbers in {name}, found NaN or infinite ones: the file is bad")
    if E1.ndim != 2 or (E2 is not None and E2.ndim != 2):
        raise InputError("expected matrices E1 and E2 (or E), found other shapes")
    dim = E1.shape[1] if E2 is None else E2.shape[1]
    expected = {
        "rows of E1 (or E)": (E1.shape[0], n_words),
        "columns of E1": (E1.shape[1], E1.shape[1] if E2 is None else E2.shape[0]),
        "entries of b": (b.numel() if b.ndim == 1 else -1, n_words),
        "entries of prior": (n_words if prior is None else prior.numel() if prior.ndim == 1 else -1, n_words),
        "entries of mean": (dim if mean is None else mean.numel() if mean.ndim == 1 else -1, dim),
    }
    for what, (found, wanted) in expected.items():
        if found != wanted:
            raise InputError(
                f"expected {wanted} {what} to match the vocabulary and E2, found {found}: "
                "these files belong to different lenses"
            )
