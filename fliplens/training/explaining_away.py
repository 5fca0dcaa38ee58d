"""What explaining away needs of a finished lens, learned from its training rows: dictionary and shares.

The dictionary is a ridge regression from words to vectors, solved by conjugate gradients; the shares, seven numbers,
are found by the cross-entropy of beliefs with the words that are there. What both are for:
`fliplens.arithmetic.decoding`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags
from torch import Tensor

from fliplens.arithmetic.decoding import POOL, ROUNDS, ExplainingAway, Shares, believe, first_logits, interactions
from fliplens.arithmetic.metrics import hits
from fliplens.arithmetic.objective import Factors
from fliplens.arithmetic.top import score_blocks, top_n
from fliplens.embeddings import Embeddings
from fliplens.errors import InterruptedRunError
from fliplens.training.views import Views

__all__ = ["learn", "learn_shares", "ridge_dictionary"]

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
