"""The metrics of the paper (section 3.3), vectorised over sentences and pure.

Functions take the top words of each sentence as indices, best first, and the reference words as a sparse
matrix; they return one value per sentence, NaN where the metric is undefined for it.
`fliplens.arithmetic.uncertainty` turns such values into a mean and how sure it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from fliplens.arithmetic.uncertainty import Values

__all__ = [
    "accuracy",
    "entity_recall",
    "entity_scores",
    "hit_sets",
    "hits",
    "jaccard",
    "precision_recall_f1",
]

BLOCK_CELLS = 2**21


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
