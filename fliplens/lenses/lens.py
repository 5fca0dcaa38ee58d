"""The lens: one linear map from an embedding space to words (paper, section 2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fliplens.arithmetic.decoding import Decoding, ExplainingAway, check_decoding
from fliplens.arithmetic.objective import Factors
from fliplens.arithmetic.ordered import Prepared
from fliplens.arithmetic.top import Reader, folding_pays, score_blocks, sweep_precision, top_n
from fliplens.embeddings import Embeddings, EmbeddingsLike
from fliplens.errors import InputError
from fliplens.lenses.extractor import Extractor, check_prior
from fliplens.lenses.fingerprint import Fingerprint
from fliplens.lenses.words import TopWords
from fliplens.text.vocabulary import Vocabulary

__all__ = ["DICTIONARY", "Lens"]

DICTIONARY = "explaining_away.dictionary"
"""The name of explain-away's dictionary among the tensors of a lens."""


class Lens(Extractor):
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
        super().__init__(vocabulary, fingerprint=fingerprint, config=config)
        self.factors = factors.map(lambda tensor: tensor.detach().float().contiguous())
        self.prior = prior
        self.mean = mean
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

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the published tensors, and ours: prior, mean and the dictionary of explain-away."""
        E1, E2, b = self.factors.E1, self.factors.E2, self.factors.b.reshape(-1, 1)
        published = {"E": E1, "b": b} if E2 is None else {"E1": E1, "E2": E2, "b": b}
        ours = {"prior": self.prior, "mean": self.mean}
        if self.away is not None:
            ours[DICTIONARY] = self.away.dictionary.bfloat16()
        return published, {name: tensor for name, tensor in ours.items() if tensor is not None}

    def describe(self) -> dict[str, Any]:
        """Return the published name of its kind, its rank and its size, and the settings of explain-away."""
        model = {
            "type": "LoLM" if self.rank is None else "FactLoLM",
            "rank": "full" if self.rank is None else self.rank,
            "vocabulary_size": len(self.vocabulary),
            "embedding_dim": self.dim,
        }
        return {"model": model, "explaining_away": None if self.away is None else self.away.to_json()}

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
        """Yield (first row, scores without `decoding_bias`) block by block: see `score_blocks`."""
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
