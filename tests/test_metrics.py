"""Metrics against brute force over sets, and their uncertainty against known answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import brute_force_entity_recall
from scipy.sparse import csr_matrix

from fliplens.metrics import (
    accuracy,
    entity_recall,
    entity_scores,
    estimate,
    estimate_perplexity,
    estimates,
    hits,
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


def test_estimate_gives_mean_standard_error_and_a_calibrated_interval() -> None:
    values = np.array([0.0, 1.0, 1.0, 0.0, np.nan])
    one = estimate(values)
    assert (one.mean, one.n) == (0.5, 4)
    assert one.se == pytest.approx(0.5 / 2)  # ddof 0, as the published code
    # The interval must cover the true mean about 95 times in 100.
    random = np.random.default_rng(7)
    covered = 0
    for trial in range(200):
        low, high = estimate(random.exponential(size=60), seed=trial).ci95
        covered += low <= 1.0 <= high
    assert 174 <= covered <= 199


def test_columns_share_their_bootstrap_samples_and_change_nothing() -> None:
    values = np.random.default_rng(1).random((70, 3))
    values[5] = np.nan
    together = estimates(values, seed=4)
    for column, one in zip(values.T, together, strict=True):
        alone = estimate(column, seed=4)
        assert one.mean == pytest.approx(alone.mean) and one.se == pytest.approx(alone.se)
        assert one.ci95 == pytest.approx(alone.ci95)
        assert one.n == 69
    # The samples themselves, redone one by one.
    kept = values[~np.isnan(values[:, 0]), 0]
    drawn = np.random.default_rng(4).integers(0, 69, size=(1000, 69), dtype=np.int64)
    expected = np.percentile(kept[drawn].mean(axis=1), [2.5, 97.5])
    assert together[0].ci95 == pytest.approx(tuple(expected))


def test_estimates_repeat_and_empty_ones_say_so() -> None:
    values = np.random.default_rng(0).random(50)
    assert estimate(values, seed=3) == estimate(values, seed=3)
    nothing = estimate(np.array([np.nan]))
    assert nothing.n == 0 and math.isnan(nothing.mean)
    assert nothing.to_json() == {"mean": None, "se": None, "ci95": [None, None], "n": 0}


def test_perplexity_of_a_uniform_guess_is_the_size_of_the_vocabulary() -> None:
    counts = np.array([3.0, 0.0, 5.0])
    one = estimate_perplexity(counts * math.log(40), counts)
    assert one.mean == pytest.approx(40)
    assert one.ci95 == pytest.approx((40, 40))
    assert one.n == 2
