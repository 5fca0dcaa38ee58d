"""The metrics of the paper (section 3.3), vectorised over sentences and pure.

Functions take the top words of each sentence as indices, best first, and the reference words as a sparse
matrix; they return one value per sentence, NaN where the metric is undefined for it. `estimate` turns such
values into a mean with its uncertainty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

__all__ = [
    "Difference",
    "Estimate",
    "accuracy",
    "entity_recall",
    "entity_scores",
    "estimate",
    "estimate_perplexity",
    "estimates",
    "hit_sets",
    "hits",
    "jaccard",
    "paired_difference",
    "precision_recall_f1",
    "sign_flip_p_value",
]

Values = NDArray[np.float64]

RESAMPLES = 1000
PERMUTATIONS = 9999
"""Of the sign-flip test: the least p-value is then 0.0001, and 0.05 is known to 0.002."""
TIE = 1e-10
"""Sums of differences that are apart by less than this share of the summed sizes are one value, rounded twice."""
BLOCK_CELLS = 2**21


@dataclass(frozen=True)
class Estimate:
    """A mean over sentences and how sure it is."""

    mean: float
    """Mean over the sentences that count."""
    se: float
    """Standard error: standard deviation (ddof 0) over the root of n."""
    ci95: tuple[float, float]
    """Bootstrap 95% interval (percentiles, over sentences)."""
    n: int
    """Sentences that count."""

    def __str__(self) -> str:
        return f"{self.mean:.4f} ± {self.se:.4f}"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; a NaN (nothing to average) becomes null."""
        return {name: _finite_or_none(value) for name, value in asdict(self).items()}


@dataclass(frozen=True)
class Difference:
    """A mean difference between two values of the same sentences, and how sure it is."""

    mean: float
    """Mean of first - second over the sentences that have both."""
    se: float
    """Standard error: standard deviation of the differences (ddof 0) over the root of n."""
    ci95: tuple[float, float]
    """Bootstrap 95% interval (percentiles); both values are taken of the same drawn sentences."""
    p_value: float
    """Two-sided, by flipping the signs of differences (`sign_flip_p_value`); never 0."""
    n: int
    """Sentences that have both."""

    def __str__(self) -> str:
        return f"{self.mean:+.4f} ± {self.se:.4f} (p = {self.p_value:.2g})"

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; a NaN (nothing to compare) becomes null."""
        return {name: _finite_or_none(value) for name, value in asdict(self).items()}


def _finite_or_none(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_finite_or_none(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def estimate(values: Values, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Return the mean of the values that are not NaN, its standard error and bootstrap interval.

    Args:
        values: one per sentence, (n,).
        resamples: bootstrap samples of the sentences, drawn with replacement.
        seed: of the bootstrap; the same values and seed give the same interval.
    """
    return estimates(np.asarray(values)[:, None], resamples=resamples, seed=seed)[0]


def estimates(values: Values, *, resamples: int = RESAMPLES, seed: int = 0) -> tuple[Estimate, ...]:
    """Return the estimate of each column, all from the same bootstrap samples of the sentences.

    Args:
        values: (n, columns); a row that is NaN in one column is left out of all.
        resamples: bootstrap samples.
        seed: of the bootstrap.
    """
    kept = np.asarray(values, dtype=np.float64)
    kept = kept[~np.isnan(kept).any(axis=1)]
    n = len(kept)
    if not n:
        nothing = Estimate(float("nan"), float("nan"), (float("nan"), float("nan")), 0)
        return tuple([nothing] * kept.shape[1])
    means = np.concatenate([(drawn @ kept) / n for drawn in _bootstrap(n, resamples, seed)])
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    error = kept.std(axis=0) / np.sqrt(n)
    return tuple(
        Estimate(float(mean), float(se), (float(bottom), float(top)), n)
        for mean, se, bottom, top in zip(kept.mean(axis=0), error, low, high, strict=True)
    )


def estimate_perplexity(losses: Values, counts: Values, *, resamples: int = RESAMPLES, seed: int = 0) -> Estimate:
    """Return exp(Σ losses / Σ counts): how many words the lens wavers between, on average over words.

    The standard error is the bootstrap's standard deviation, as a ratio of sums has no simpler one.

    Args:
        losses: (n,), negative log-likelihood of each sentence's known words, natural logarithm.
        counts: (n,), how many known words each sentence has; sentences with none do not count.
        resamples: bootstrap samples of the sentences.
        seed: of the bootstrap.
    """
    kept = counts > 0
    if not kept.any():
        return Estimate(float("nan"), float("nan"), (float("nan"), float("nan")), 0)
    loss, count = losses[kept].astype(np.float64), counts[kept].astype(np.float64)
    samples = np.concatenate(
        [np.exp((drawn @ loss) / (drawn @ count)) for drawn in _bootstrap(len(loss), resamples, seed)]
    )
    low, high = np.percentile(samples, [2.5, 97.5])
    return Estimate(
        float(np.exp(loss.sum() / count.sum())), float(samples.std()), (float(low), float(high)), len(loss)
    )


def paired_difference(
    first: Values,
    second: Values,
    *,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> Difference:
    """Return by how much two values of the same sentences differ on average, and whether that may be chance.

    Args:
        first: (n,), one value a sentence, NaN where there is none.
        second: (n,), of the same sentences in the same order; a sentence that is NaN in either is left out.
        resamples: bootstrap samples of the sentences; those of `estimate` with the same seed.
        permutations: see `sign_flip_p_value`.
        seed: of both.
    """
    differences = np.asarray(first, dtype=np.float64) - np.asarray(second, dtype=np.float64)
    one = estimate(differences, resamples=resamples, seed=seed)
    p_value = sign_flip_p_value(differences, permutations=permutations, seed=seed)
    return Difference(one.mean, one.se, one.ci95, p_value, one.n)


def sign_flip_p_value(differences: Values, *, permutations: int = PERMUTATIONS, seed: int = 0) -> float:
    """Return how likely so large a mean difference is by chance: two-sided, by a paired permutation test.

    Where first and second come from the same distribution, each difference is as likely to have the other sign: the
    p-value is the share of sign patterns whose sum is at least as far from 0. Up to log2(permutations) differences
    that are not 0 all patterns are looked at. Of more, as many are drawn as `permutations` says and p = (1 + those
    as far) / (1 + drawn), which is never 0 and never too sure (Phipson and Smyth, 2010). Neither the order of the
    differences nor which side was taken from which changes the result.

    The same as `scipy.stats.permutation_test` with `permutation_type="samples"`, more than a hundred times as fast.

    Args:
        differences: (n,); NaN is left out.
        permutations: how many sign patterns to draw, at most.
        seed: of the draw.

    Returns:
        From 1 / (1 + permutations) to 1; 1 where all differences are 0, NaN without any.
    """
    sizes = np.abs(np.asarray(differences, dtype=np.float64))
    if np.isnan(sizes).all():
        return float("nan")
    sizes = np.sort(sizes[sizes > 0])
    whole, n = float(sizes.sum()), len(sizes)
    # Counting the sum of the positive ones alone: the sum of all is twice that, less the whole.
    far = abs(float(np.nansum(differences))) - TIE * whole
    exact = n < permutations.bit_length()
    drawn, extreme = 2**n if exact else permutations, 0
    random = np.random.default_rng(seed)
    step = max(1, BLOCK_CELLS // max(1, n))
    for start in range(0, drawn, step):
        k = min(step, drawn - start)
        if exact:
            positive = (np.arange(start, start + k)[:, None] >> np.arange(n) & 1).astype(np.float64)
        else:
            # One random bit a sign: eight of them are drawn at once.
            octets = np.frombuffer(random.bytes(k * -(-n // 8)), dtype=np.uint8)
            positive = np.unpackbits(octets.reshape(k, -1), axis=1, count=n).astype(np.float64)
        sums = 2 * (positive @ sizes) - whole
        extreme += int((np.abs(sums) >= far).sum())
    return extreme / drawn if exact else (1 + extreme) / (1 + drawn)


def _bootstrap(n: int, resamples: int, seed: int) -> Iterator[Values]:
    """Yield blocks (k, n) of bootstrap samples: how often each of n sentences was drawn, n draws a sample.

    As counts, a statistic over many columns is one matrix product; blocks bound the memory.
    """
    random = np.random.default_rng(seed)
    size = max(1, BLOCK_CELLS // n)
    for start in range(0, resamples, size):
        k = min(size, resamples - start)
        drawn = random.integers(0, n, size=(k, n), dtype=np.int64)
        drawn += np.arange(k)[:, None] * n
        yield np.bincount(drawn.ravel(), minlength=k * n).reshape(k, n).astype(np.float64)


def hits(top: NDArray[np.integer[Any]], known: csr_matrix) -> NDArray[np.bool_]:
    """Return which of the top words are in the reference.

    Args:
        top: (n, m) word indices, best first; V where a row names fewer words.
        known: (n, V) reference words, any nonzero value, indices sorted.

    Returns:
        (n, m), True where the word in that place is one of the row's reference words.
    """
    n, n_words = known.shape
    rows = np.repeat(np.arange(n, dtype=np.int64), np.diff(known.indptr))
    # One sorted list of (row, word) keys serves all rows at once; V, no word, is no key of any row.
    keys = rows * (n_words + 1) + known.indices
    wanted = np.arange(n, dtype=np.int64)[:, None] * (n_words + 1) + top
    if not len(keys):
        return np.zeros(top.shape, dtype=bool)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    found: NDArray[np.bool_] = keys[place] == wanted
    return found


def hit_sets(
    found: NDArray[np.bool_], top: NDArray[np.int64], n_known: NDArray[np.int64], n_words: int
) -> csr_matrix:
    """Return the words that accuracy counts as right, sentence by sentence (the hit sets of section 3.3).

    Args:
        found: (n, m) hits, m as for `accuracy`.
        top: (n, m) or wider, the words they are of, best first.
        n_known: (n,) k, distinct known words.
        n_words: V.

    Returns:
        (n, V) bool, True at the known words among a row's top k; indices sorted, nothing else stored.
    """
    right = found & (np.arange(found.shape[1]) < n_known[:, None])
    ends = np.concatenate([[0], np.cumsum(right.sum(axis=1))])
    words = top[:, : found.shape[1]][right]
    sets: csr_matrix = csr_matrix((np.ones(len(words), dtype=np.bool_), words, ends), shape=(len(top), n_words))
    sets.sort_indices()
    return sets


def jaccard(first: csr_matrix, second: csr_matrix) -> Values:
    """Return the Jaccard index |A ∩ B| / |A ∪ B| of two sets a sentence (section 3.3).

    Args:
        first: (n, V) bool, True at a row's members; no entry twice.
        second: likewise, the same V items in the same columns.

    Returns:
        (n,) from 0 to 1, NaN where both sets are empty.
    """
    both = _sizes(first.multiply(second))
    either = _sizes(first) + _sizes(second) - both
    return np.where(either > 0, both / np.maximum(either, 1), np.nan)


def _sizes(sets: csr_matrix) -> NDArray[np.int64]:
    return np.asarray(sets.sum(axis=1), dtype=np.int64).ravel()


def accuracy(found: NDArray[np.bool_], n_known: NDArray[np.int64], *, topk_factor: float = 1.0) -> Values:
    """Return the share of each sentence's k known words that are among its top k (section 3.3).

    Args:
        found: (n, m) hits; m must reach the largest int(k · topk_factor), or the vocabulary's size.
        n_known: (n,) k, distinct known words.
        topk_factor: looks at the top k · factor instead, as the published early stopping does.

    Returns:
        (n,), NaN where k = 0.
    """
    depth = (n_known * topk_factor).astype(np.int64)
    right = (found & (np.arange(found.shape[1]) < depth[:, None])).sum(axis=1)
    return np.where(n_known > 0, right / np.maximum(n_known, 1), np.nan)


def precision_recall_f1(
    found: NDArray[np.bool_], n: int, n_distinct: NDArray[np.int64], n_known: NDArray[np.int64]
) -> tuple[Values, Values, Values]:
    """Return precision, recall and F1 of the top n words over distinct words.

    Args:
        found: (rows, m) hits, m >= n.
        n: how many top words to look at.
        n_distinct: (rows,) distinct reference words, unknown ones counted: recall's denominator.
        n_known: (rows,) distinct known words; rows with none are NaN.
    """
    right = found[:, :n].sum(axis=1)
    precision = right / n
    recall = right / np.maximum(n_distinct, 1)
    both = precision + recall
    f1 = np.where(both > 0, 2 * precision * recall / np.where(both > 0, both, 1), 0.0)
    undefined = n_known == 0
    first, second, third = (np.where(undefined, np.nan, values) for values in (precision, recall, f1))
    return first, second, third


def ranks_of(wanted: NDArray[np.int64], rows: NDArray[np.int64], top: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the place (from 0) of each wanted word among its row's top words; top's width where it is not.

    Args:
        wanted: (m,) word indices, -1 for a word that the vocabulary lacks.
        rows: (m,) the row of `top` that each belongs to.
        top: (n, width) word indices, best first.
    """
    places = np.full(len(wanted), top.shape[1], dtype=np.int64)
    for start in range(0, len(wanted), BLOCK_CELLS // max(1, top.shape[1]) + 1):
        here = slice(start, start + BLOCK_CELLS // max(1, top.shape[1]) + 1)
        match = top[rows[here]] == wanted[here, None]
        found = match.any(axis=1)
        places[here][found] = match[found].argmax(axis=1)
    return places


def _entity_places(words: NDArray[np.int64], rows: NDArray[np.int64], top: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return `ranks_of` all terms that read an entity word, (m, c), of words (m,) or (m, c) in rows (m,)."""
    columns = words[:, None] if words.ndim == 1 else words
    return np.stack([ranks_of(column, rows, top) for column in columns.T], axis=1)


def entity_recall(
    top: NDArray[np.int64],
    words: NDArray[np.int64],
    word_entity: NDArray[np.int64],
    entity_row: NDArray[np.int64],
    depths: Sequence[int],
) -> tuple[Values, Values]:
    """Return strict and partial recall of named entities among the top n words (section 3.3, figure 1).

    Strict counts an entity whose words are all among the top n; partial counts the share of its words. Both are
    means over a sentence's entities.

    Args:
        top: (rows, width) word indices, best first; width must reach the largest depth.
        words: (m,) word indices of all entities, one after the other; -1 for unknown words, which are misses. Or
            (m, c), c terms that each read the word, any of which will do (`Entities.words`).
        word_entity: (m,) the entity each word belongs to; every entity has at least one word.
        entity_row: (entities,) the row of each entity.
        depths: the n to evaluate.

    Returns:
        Two arrays (rows, len(depths)), NaN in rows without an entity.
    """
    n_rows, n_entities = len(top), len(entity_row)
    places = _entity_places(words, entity_row[word_entity], top).min(axis=1)
    lengths = np.bincount(word_entity, minlength=n_entities)
    per_row = np.bincount(entity_row, minlength=n_rows)
    strict = np.full((n_rows, len(depths)), np.nan)
    partial = np.full((n_rows, len(depths)), np.nan)
    some = per_row > 0
    for column, depth in enumerate(depths):
        right = np.bincount(word_entity, weights=places < depth, minlength=n_entities)
        whole = np.bincount(entity_row, weights=right == lengths, minlength=n_rows)
        share = np.bincount(entity_row, weights=right / np.maximum(lengths, 1), minlength=n_rows)
        strict[some, column] = whole[some] / per_row[some]
        partial[some, column] = share[some] / per_row[some]
    return strict, partial


def entity_scores(
    top: NDArray[np.int64],
    words: NDArray[np.int64],
    word_entity: NDArray[np.int64],
    entity_row: NDArray[np.int64],
) -> dict[str, Values]:
    """Return the published script's entity metrics over all of `top`, each (rows,), NaN in rows without an entity.

    entity_precision is the share of the top words that belong to an entity; entity_recall_strict and
    entity_recall_partial are those of `entity_recall`; entity_f1_strict and entity_f1_partial combine them.

    Args:
        top: (rows, n) word indices.
        words: see `entity_recall`.
        word_entity: likewise.
        entity_row: likewise.
    """
    n_rows, n = top.shape
    strict, partial = (values[:, 0] for values in entity_recall(top, words, word_entity, entity_row, [n]))
    rows = entity_row[word_entity]
    places = _entity_places(words, rows, top)
    # A word that several entities share is one keyword, and so is a term that reads several words.
    matched = np.unique(np.stack([np.broadcast_to(rows[:, None], places.shape), places])[:, places < n], axis=1)
    precision = np.bincount(matched[0], minlength=n_rows) / n
    precision = np.where(np.isnan(strict), np.nan, precision)
    scores = {
        "entity_precision": precision,
        "entity_recall_strict": strict,
        "entity_recall_partial": partial,
    }
    for name, recall in (("strict", strict), ("partial", partial)):
        both = precision + recall
        scores[f"entity_f1_{name}"] = np.where(both > 0, 2 * precision * recall / np.where(both > 0, both, 1), both)
    return scores
