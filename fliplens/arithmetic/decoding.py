"""Reading all words of a vector together: explaining away.

Plain reading scores every word on its own (paper, equation 5), so that `walk`, `walks` and `walking` all rank high
where the vector holds one of them. Here every word is a *belief*, the probability that the sentence holds it, and
what the other words are believed to bring is taken off the vector before a word is scored.

A **dictionary** D (V, d) is the lens turned round: the row of a word is what the word brings to the vector,
by ridge regression from words to vectors. Through the lens that is F = D · E2ᵀ, and

    K = max(1, Σ_u p_u) / 8                      how many words the sentence is believed to hold, over a typical 8
    remainder of w = E2·(s - m) - (share / score) · K^length · Σ_{u≠w} p_u F_u
    logit_w = score · (E1_w · remainder of w + prior_w) + prior · prior_w + own · E1_w·F_w - total · N + offset
    p_w = 1 / (1 + exp(-logit_w))

with N the log of the summed exp of the scores, so that the logits do not depend on the sentence's scale. The
equations hold each other up; they are solved by a few rounds from the plain scores (a mean-field approximation, all
words at once; each round takes the remainder afresh from the whole vector). Only the best words by plain score, the
pool, can be believed in, which makes a round cheap; the last one scores the whole vocabulary.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from fliplens.arithmetic.objective import Factors
from fliplens.arithmetic.top import BLOCK_BYTES, score_blocks, top_n
from fliplens.embeddings import Embeddings
from fliplens.errors import InputError

__all__ = [
    "POOL",
    "ROUNDS",
    "Decoding",
    "ExplainingAway",
    "Shares",
    "believe",
    "check_decoding",
    "first_logits",
    "interactions",
]

Decoding = Literal["plain", "explain-away"]
"""How words are chosen: each by its own score, or all together."""

POOL = 32
"""Words of a vector that can be believed in: the best by plain score."""
ROUNDS = 5
TYPICAL_WORDS = 8.0
"""Makes `share` independent of `length`, for sentences of this many words."""


def check_decoding(decoding: str) -> None:
    """Refuse an unknown decoding.

    Raises:
        InputError: neither plain nor explain-away.
    """
    if decoding not in get_args(Decoding):
        raise InputError(f"expected decoding {' or '.join(get_args(Decoding))}, found {decoding!r}")


@dataclass(frozen=True, kw_only=True)
class Shares:
    """The seven learned numbers of the formula above.

    The defaults were learned on 2,000 sentences of Common Voice English and MiniLM's vectors; all work on scores,
    whose unit (nats) is the same for every encoder.
    """

    score: float = 2.47
    """Weight of the plain score."""
    total: float = 1.47
    """Weight of N, the log of the summed exp of the scores."""
    offset: float = 4.1
    """What is added to every logit."""
    prior: float = -1.08
    """Weight of the prior besides that in the score: explained away, a frequent word needs less of it."""
    share: float = 1.13
    """What the believed words take off where they are eight."""
    length: float = -1.18
    """Exponent of K: -1 where vectors are means of what their words bring, 0 where they are sums."""
    own: float = -0.4
    """Weight of what a word itself would bring, E1_w · F_w."""

    def __post_init__(self) -> None:
        """Check that all are finite.

        Raises:
            InputError: one is not a finite number.
        """
        for name, value in dataclasses.asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise InputError(f"expected the decoding's {name} to be a finite number, found {value!r}")

    def to_json(self) -> dict[str, float]:
        """Return plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Shares:
        """Return the shares that `to_json` described.

        Raises:
            InputError: other names, or values that are no finite numbers.
        """
        names = set(cls.__dataclass_fields__)
        if not isinstance(values, dict) or set(values) != names:
            raise InputError(f"expected the decoding's shares as {', '.join(sorted(names))}, found {values!r}")
        return cls(**values)


class ExplainingAway:
    """Everything that decoding needs besides the lens itself.

    Args:
        dictionary: F (V, r), what each word brings to a vector as the lens sees it, D · E2ᵀ (D itself (V, d) at full
            rank). It is kept to the 8 bits of bfloat16, which is what a lens folder stores.
        shares: the learned numbers.
        pool: how many words of a vector can be believed in.
        rounds: rounds of belief before the last scoring.
    """

    def __init__(
        self, dictionary: Tensor, shares: Shares | None = None, *, pool: int = POOL, rounds: int = ROUNDS
    ) -> None:
        if dictionary.ndim != 2 or not bool(torch.isfinite(dictionary).all()):
            raise InputError("expected a dictionary (V, r) of finite numbers, found another shape, NaN or infinity")
        for name, value, least in (("pool", pool, 1), ("rounds", rounds, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(f"expected the decoding's {name} as a whole number from {least}, found {value!r}")
        self.dictionary = dictionary.detach().bfloat16().float().contiguous()
        self.shares = shares or Shares()
        self.pool = pool
        self.rounds = rounds
        self._own: tuple[Tensor, Tensor] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.shares}, pool={self.pool}, rounds={self.rounds})"

    def to(self, device: torch.device | str) -> ExplainingAway:
        """Return the same on another device."""
        return ExplainingAway(self.dictionary.to(device), self.shares, pool=self.pool, rounds=self.rounds)

    def to_json(self) -> dict[str, Any]:
        """Return all but the dictionary as plain JSON values."""
        return {"pool": self.pool, "rounds": self.rounds, "shares": self.shares.to_json()}

    def own(self, factors: Factors) -> Tensor:
        """Return E1_w · F_w, (V,): how far a word's own contribution raises its score."""
        # Kept from call to call: for one vector it would cost more than all the rest.
        if self._own is None or self._own[0] is not factors.E1:
            self._own = factors.E1, torch.einsum("vr,vr->v", factors.E1, self.dictionary)
        return self._own[1]

    def bias(self, factors: Factors, prior_words: Tensor, prior: float = 1.0) -> Tensor:
        """Return what is added to each word's part of `blocks`, (V,), at a position of the prior dial.

        Args:
            factors: the lens's.
            prior_words: the log-unigram part of b, (V,).
            prior: P from 0 (no word is preferred for being frequent) to 1. Beliefs are always those of the full
                prior, as they say what the vector holds; the dial changes the order alone.
        """
        shares = self.shares
        weight = shares.score * (prior - 1.0) + shares.prior * prior
        return shares.score * factors.b + weight * prior_words + shares.own * self.own(factors)

    def blocks(
        self,
        embeddings: Embeddings,
        factors: Factors,
        prior_words: Tensor,
        *,
        most_rows: int | None = None,
        block_bytes: int = BLOCK_BYTES,
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield (first row, logits without `bias`) over all rows, a bounded block (rows, V) at a time.

        The counterpart of `fliplens.arithmetic.top.score_blocks`; a block's memory is used again for the next.

        Args:
            embeddings: n rows.
            factors: the lens's.
            prior_words: the log-unigram part of b, (V,).
            most_rows: rows of a block, at most.
            block_bytes: upper bound on a block, and on the pool's factors of its rows.
        """
        shares, rank = self.shares, factors.E1.shape[1]
        pool = min(self.pool, factors.E1.shape[0])
        gathered = max(1, block_bytes // (4 * pool * (rank + pool)))
        most_rows = gathered if most_rows is None else min(most_rows, gathered)
        for start, block in score_blocks(embeddings, factors, most_rows=most_rows, block_bytes=block_bytes):
            words, scores = top_n(block.add_(factors.b), pool)
            latent = factors.project(torch.from_numpy(embeddings.block(start, start + len(block))).to(block.device))
            interaction, diagonal = interactions(factors.E1, self.dictionary, words)
            logits = first_logits(shares, scores, prior_words[words], diagonal)
            beliefs, scale = believe(shares, logits, interaction, self.rounds)
            taken = beliefs * (shares.share * scale)
            # What the believed words bring, taken off the vector once for all words; a word does not explain itself
            # away, so its own part is given back.
            brought = torch.bmm(taken[:, None, :], self.dictionary[words])[:, 0]
            remainder = latent * shares.score - brought
            torch.mm(remainder, factors.E1.T, out=block)
            block.add_((shares.offset - shares.total * scores.logsumexp(dim=1))[:, None])
            block.scatter_add_(1, words, taken * diagonal)
            yield start, block


def interactions(E1: Tensor, dictionary: Tensor, words: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far each pool word raises each other's score, and its own.

    Args:
        E1: (V, r).
        dictionary: F (V, r).
        words: (rows, pool).

    Returns:
        (rows, pool, pool), E1_w · F_u at w, u with a zero diagonal; and the diagonal, (rows, pool).
    """
    products = torch.bmm(E1[words], dictionary[words].transpose(1, 2))
    diagonal = products.diagonal(dim1=1, dim2=2)
    own = diagonal.clone()
    diagonal.zero_()
    return products, own


def first_logits(shares: Any, scores: Tensor, prior_words: Tensor, own: Tensor) -> Tensor:
    """Return the pool's logits (rows, pool) before anything is explained away.

    Args:
        shares: the seven numbers, as floats or as tensors to learn.
        scores: plain scores with the full bias, (rows, pool).
        prior_words: the prior of the words, (rows, pool).
        own: E1_w · F_w, (rows, pool).
    """
    row = shares.offset - shares.total * scores.logsumexp(dim=1, keepdim=True)
    logits: Tensor = shares.score * scores + shares.prior * prior_words + shares.own * own + row
    return logits


def believe(shares: Any, logits: Tensor, interaction: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
    """Return the beliefs (rows, pool) that the last scoring takes off, and K^length, (rows, 1).

    Args:
        shares: the seven numbers, as floats or as tensors to learn.
        logits: `first_logits`.
        interaction: (rows, pool, pool).
        rounds: how often beliefs are taken anew; the last scoring is one more use of them.
    """
    current = logits
    for number in range(rounds):
        beliefs = torch.sigmoid(current)
        scale = _scale(shares, beliefs)
        if number == rounds - 1:
            return beliefs, scale
        taken = torch.bmm(interaction, beliefs[:, :, None])[:, :, 0]
        current = logits - shares.share * scale * taken
    return torch.zeros_like(logits), _scale(shares, torch.zeros_like(logits))


def _scale(shares: Any, beliefs: Tensor) -> Tensor:
    words = beliefs.sum(dim=1, keepdim=True).clamp_min(1.0) / TYPICAL_WORDS
    scale: Tensor = words**shares.length
    return scale
