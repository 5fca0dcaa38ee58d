"""Metrics against brute force over sets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import brute_force_entity_recall
from scipy.sparse import csr_matrix

from fliplens.arithmetic.metrics import (
    accuracy,
    entity_recall,
    entity_scores,
    hit_sets,
    hits,
    jaccard,
    precision_recall_f1,
)


@st.composite
def ranked_and_known(draw: st.DrawFn) -> tuple[np.ndarray, list[set[int]], int]:
    V = draw(st.integers(1, 12))
    n = draw(st.integers(1, 6))
    top = np.array([draw(st.permutations(range(V))) for _ in range(n)], dtype=np.int64)
    known = [set(draw(st.lists(st.integers(0, V - 1), max_size=V))) for _ in range(n)]
    return top, known, V


def pattern(known: list[set[int]], V: int) -> csr_matrix:
    dense = np.zeros((len(known), V), dtype=np.float32)
    for row, words in enumerate(known):
        dense[row, list(words)] = 1
    return csr_matrix(dense)


@given(ranked_and_known())
def test_hits_and_accuracy_equal_sets(case: tuple[np.ndarray, list[set[int]], int]) -> None:
    top, known, V = case
    found = hits(top, pattern(known, V))
    for row, words in enumerate(known):
        assert found[row].tolist() == [index in words for index in top[row]]
    values = accuracy(found, np.array([len(words) for words in known]))
    for row, words in enumerate(known):
        if not words:
            assert math.isnan(values[row])
        else:
            right = len(words & set(top[row][: len(words)].tolist()))
            assert values[row] == pytest.approx(right / len(words))


@given(ranked_and_known(), st.integers(1, 12), st.integers(0, 3))
def test_precision_recall_f1_equal_sets(case: tuple[np.ndarray, list[set[int]], int], n: int, unknown: int) -> None:
    top, known, V = case
    n = min(n, V)
    sizes = np.array([len(words) for words in known])
    values = precision_recall_f1(hits(top, pattern(known, V)), n, sizes + unknown, sizes)
    for row, words in enumerate(known):
        if not words:
            assert all(math.isnan(metric[row]) for metric in values)
            continue
        right = len(words & set(top[row][:n].tolist()))
        p, r = right / n, right / (len(words) + unknown)
        f = 2 * p * r / (p + r) if right else 0.0
        assert [metric[row] for metric in values] == pytest.approx([p, r, f])


def test_the_topk_factor_looks_deeper() -> None:
    top = np.array([[0, 1, 2, 3]])
    found = hits(top, pattern([{2, 3}], 4))
    assert accuracy(found, np.array([2]))[0] == 0.0
    assert accuracy(found, np.array([2]), topk_factor=1.5)[0] == 0.5
    assert accuracy(found, np.array([2]), topk_factor=2.0)[0] == 1.0


@given(
    words=st.lists(st.sampled_from("abcdef"), min_size=6, max_size=6, unique=True),
    entities=st.lists(st.lists(st.sampled_from("abcxyz"), min_size=1, max_size=3), min_size=1, max_size=4),
)
def test_entity_recall_equals_sets(words: list[str], entities: list[list[str]]) -> None:
    vocabulary = {word: index for index, word in enumerate("abcdef")}
    top = np.array([[vocabulary[word] for word in words]])
    flat = [vocabulary.get(word, -1) for entity in entities for word in entity]
    owner = [number for number, entity in enumerate(entities) for _ in entity]
    arrays = (np.array(flat), np.array(owner), np.zeros(len(entities), dtype=np.int64))
    depths = range(1, 7)
    strict, partial = entity_recall(top, *arrays, depths)
    for column, depth in enumerate(depths):
        expected = brute_force_entity_recall(words, entities, depth)
        assert (strict[0, column], partial[0, column]) == pytest.approx(expected)
    assert (np.diff(strict[0]) >= 0).all() and (np.diff(partial[0]) >= 0).all()
    scores = entity_scores(top[:, :3], *arrays)
    mentioned = {word for entity in entities for word in entity}
    assert scores["entity_precision"][0] == pytest.approx(len(mentioned & set(words[:3])) / 3)
    assert scores["entity_recall_strict"][0] == pytest.approx(brute_force_entity_recall(words, entities, 3)[0])


def test_rows_without_entities_do_not_count() -> None:
    top = np.array([[0, 1], [1, 0], [0, 1]])
    strict, partial = entity_recall(top, np.array([0]), np.array([0]), np.array([1]), [1, 2])
    assert np.isnan(strict[[0, 2]]).all() and np.isnan(partial[[0, 2]]).all()
    assert strict[1].tolist() == [0.0, 1.0]


# Hit sets and the Jaccard index ---------------------------------------------------------------------------------


@given(ranked_and_known())
def test_hit_sets_hold_the_known_words_among_the_top_k(case: tuple[np.ndarray, list[set[int]], int]) -> None:
    top, known, V = case
    sizes = np.array([len(words) for words in known])
    sets = hit_sets(hits(top, pattern(known, V)), top, sizes, V)
    assert sets.shape == (len(known), V) and sets.dtype == bool and sets.has_sorted_indices
    for row, words in enumerate(known):
        right = words & set(top[row][: len(words)].tolist())
        assert sets.indices[sets.indptr[row] : sets.indptr[row + 1]].tolist() == sorted(right)


@given(st.data())
def test_jaccard_equals_sets(data: st.DataObject) -> None:
    V = data.draw(st.integers(1, 9))
    some_sets = st.lists(st.sets(st.integers(0, V - 1)), min_size=6, max_size=6)
    first, second = data.draw(some_sets), data.draw(some_sets)
    sparse = [pattern(sets, V).astype(bool) for sets in (first, second)]
    values = jaccard(*sparse)
    assert jaccard(sparse[1], sparse[0]).tolist() == pytest.approx(values.tolist(), nan_ok=True)
    for value, a, b in zip(values, first, second, strict=True):
        if a | b:
            assert value == pytest.approx(len(a & b) / len(a | b))
        else:
            assert math.isnan(value)
    itself = jaccard(sparse[0], sparse[0])
    assert [value for value in itself if not math.isnan(value)] == [1.0] * sum(map(bool, first))
