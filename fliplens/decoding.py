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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags
from torch import Tensor

from fliplens.embeddings import Embeddings
from fliplens.errors import InputError, InterruptedRunError
from fliplens.metrics import hits
from fliplens.objective import Factors
from fliplens.reading import BLOCK_BYTES, score_blocks, top_n
from fliplens.views import Views

__all__ = ["Decoding", "ExplainingAway", "Shares", "check_decoding", "learn", "ridge_dictionary"]

Decoding = Literal["plain", "explain-away"]
"""How words are chosen: each by its own score, or all together."""

POOL = 32
"""Words of a vector that can be believed in: the best by plain score."""
ROUNDS = 5
TYPICAL_WORDS = 8.0
"""Makes `share` independent of `length`, for sentences of this many words."""
RIDGE = 1.0
"""Added to every word's number of sentences in the ridge regression: one sentence that says nothing."""
CONJUGATE_STEPS = 25
CONJUGATE_COLUMNS = 64
"""Columns that are solved for at a time: what a step holds of them stays small."""
TOLERANCE = 1e-3
MOST_ROWS = 100_000
"""Rows that the dictionary is learned from, at most."""
SHARES_ROWS = 2000
"""Rows that the shares are learned from, at most: seven numbers need no more."""
SHARES_LEAST = 50
SHARES_STEPS = 40


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

        The counterpart of `fliplens.reading.score_blocks`; a block's memory is used again for the next.

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


def ridge_dictionary(
    counts: csr_matrix,
    targets: NDArray[np.float32],
    *,
    ridge: float = RIDGE,
    steps: int = CONJUGATE_STEPS,
    stop: Callable[[], bool] | None = None,
) -> NDArray[np.float32]:
    """Return what each word brings to a vector: the D (V, d) that minimises |X·D - Y|² + ridge·|D|².

    By conjugate gradients on some columns at once, with the diagonal as preconditioner: XᵀX is sparse, its inverse
    is not.

    Args:
        counts: X (n, V), a value for every word of a sentence.
        targets: XᵀY (V, d), the sums of the vectors of the sentences that hold each word.
        ridge: above 0.
        steps: at most; it stops earlier once the residual is a thousandth of the target's length in every column.
        stop: asked before every step.

    Raises:
        InterruptedRunError: `stop` was true.
    """
    gram = (counts.T @ counts + diags(np.full(counts.shape[1], ridge, dtype=np.float32))).tocsr().astype(np.float32)
    solution = np.empty_like(targets)
    parts = [slice(start, start + CONJUGATE_COLUMNS) for start in range(0, targets.shape[1], CONJUGATE_COLUMNS)]

    def solve(part: slice) -> None:
        solution[:, part] = _conjugate_gradients(gram, np.ascontiguousarray(targets[:, part]), steps, stop)

    # A product of SciPy's runs on one processor and lets others go on.
    with ThreadPoolExecutor(max_workers=torch.get_num_threads()) as pool:
        list(pool.map(solve, parts))
    return solution


def _conjugate_gradients(
    gram: csr_matrix, targets: NDArray[np.float32], steps: int, stop: Callable[[], bool] | None
) -> NDArray[np.float32]:
    """Return the solution (V, c) of gram · solution = targets."""
    inverse = (1.0 / gram.diagonal())[:, None].astype(np.float32)
    solution: NDArray[np.float32] = inverse * targets
    residual = targets - gram @ solution
    goal = TOLERANCE * np.linalg.norm(targets, axis=0)
    preconditioned = inverse * residual
    direction = preconditioned.copy()
    product = np.einsum("vd,vd->d", residual, preconditioned)
    for _ in range(steps):
        _heed(stop)
        if (np.linalg.norm(residual, axis=0) <= goal).all():
            break
        image = gram @ direction
        length = product / np.maximum(np.einsum("vd,vd->d", direction, image), np.finfo(np.float32).tiny)
        solution += length * direction
        residual -= length * image
        np.multiply(inverse, residual, out=preconditioned)
        new = np.einsum("vd,vd->d", residual, preconditioned)
        direction *= new / np.maximum(product, np.finfo(np.float32).tiny)
        direction += preconditioned
        product = new
    return solution


def learn(
    data: Views,
    factors: Factors,
    prior_words: Tensor,
    *,
    alpha: float = 1.0,
    pool: int = POOL,
    rounds: int = ROUNDS,
    stop: Callable[[], bool] | None = None,
) -> ExplainingAway:
    """Learn the dictionary and the shares of a finished lens from its training rows.

    The rows are those the lens was trained on: it scores their words better than those of unseen sentences, and the
    shares learned on either read unseen sentences alike (docs/tuning.md).

    Args:
        data: rows with at least one word each; at most MOST_ROWS of them are used, evenly spaced.
        factors: the lens's, for raw embeddings.
        prior_words: the log-unigram part of b, (V,).
        alpha: weight of the primary view against a paired one.
        pool: how many words of a vector can be believed in.
        rounds: rounds of belief.
        stop: asked before every step of either search, a moment of work each.

    Raises:
        InterruptedRunError: `stop` was true.
    """
    views = data.weighted(alpha)
    rows = _spaced(len(data.primary), MOST_ROWS)
    present = data.counts[rows]
    present.data = np.ones_like(present.data)
    targets = np.zeros((data.counts.shape[1], data.primary.dim), dtype=np.float32)
    for view, weight in views:
        kept = view.subset(rows)
        # Of these rows, whether training centred or not: a word is not to answer for what all sentences share.
        total = np.zeros(view.dim)
        for _, block in kept.blocks():
            total += block.sum(axis=0, dtype=np.float64)
        mean = (total / len(kept)).astype(np.float32)
        for start, block in kept.blocks():
            targets += present[start : start + len(block)].T @ ((block - mean) * np.float32(weight))
    # The regression is linear in the vectors: seen through the lens first, they are fewer numbers.
    seen = factors.map(lambda tensor: tensor.cpu()).project(torch.from_numpy(targets)).numpy()
    del targets
    dictionary = torch.from_numpy(ridge_dictionary(present, seen, stop=stop)).to(factors.E1.device)
    away = ExplainingAway(dictionary, pool=pool, rounds=rounds)
    heaviest = max(views, key=lambda pair: pair[1])[0]
    chosen = _spaced(len(data.primary), SHARES_ROWS)
    shares = learn_shares(away, factors, prior_words, heaviest.subset(chosen), data.counts[chosen], stop=stop)
    return ExplainingAway(away.dictionary, shares, pool=pool, rounds=rounds)


def learn_shares(
    away: ExplainingAway,
    factors: Factors,
    prior_words: Tensor,
    embeddings: Embeddings,
    counts: csr_matrix,
    *,
    stop: Callable[[], bool] | None = None,
) -> Shares:
    """Learn the seven numbers: the least cross-entropy of the pool's beliefs with the words that are there.

    Args:
        away: dictionary, pool and rounds; its shares are where the search starts.
        factors: the lens's.
        prior_words: the log-unigram part of b, (V,).
        embeddings: n rows.
        counts: their words (n, V).
        stop: asked before every look at the loss.

    Returns:
        The best shares found; those of `away` where there are fewer than 50 rows, or none better.

    Raises:
        InterruptedRunError: `stop` was true.
    """
    if len(embeddings) < SHARES_LEAST:
        return away.shares
    pool = min(away.pool, factors.E1.shape[0])
    parts = []
    for _, block in score_blocks(embeddings, factors):
        parts.append(top_n(block.add_(factors.b), pool))
    words, scores = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    present = torch.from_numpy(hits(words.cpu().numpy(), counts)).float().to(scores.device)
    interaction, own = interactions(factors.E1, away.dictionary, words)
    names = tuple(Shares.__dataclass_fields__)
    start = away.shares.to_json()
    values = [torch.tensor(start[name], device=scores.device, requires_grad=True) for name in names]
    shares = _Learnable(*values)

    def loss() -> Tensor:
        logits = first_logits(shares, scores, prior_words[words], own)
        beliefs, scale = believe(shares, logits, interaction, away.rounds)
        taken = torch.bmm(interaction, beliefs[:, :, None])[:, :, 0]
        logits = logits - shares.share * scale * taken
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, present)

    optimiser = torch.optim.LBFGS(values, max_iter=SHARES_STEPS, line_search_fn="strong_wolfe")

    def closure() -> float:
        _heed(stop)
        optimiser.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return float(value.detach())

    with torch.enable_grad():
        before = float(loss().detach())
        optimiser.step(closure)  # type: ignore[no-untyped-call]
        after = float(loss().detach())
    found = {name: float(value.detach()) for name, value in zip(names, values, strict=True)}
    if not (after < before and all(map(math.isfinite, found.values()))):
        return away.shares
    return Shares(**found)


def _heed(stop: Callable[[], bool] | None) -> None:
    """Leave if the caller asks for it."""
    if stop is not None and stop():
        raise InterruptedRunError("interrupted while explaining away was learned; nothing was kept, start again")


@dataclass(frozen=True)
class _Learnable:
    """The numbers of `Shares` as tensors, in its order."""

    score: Tensor
    total: Tensor
    offset: Tensor
    prior: Tensor
    share: Tensor
    length: Tensor
    own: Tensor


def _spaced(n: int, most: int) -> NDArray[np.int64]:
    """Return at most `most` row numbers out of n, evenly spaced."""
    return np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))
