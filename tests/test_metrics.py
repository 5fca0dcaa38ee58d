"""Metrics against brute force over sets, and their uncertainty against known answers."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from oracles import brute_force_entity_recall
from scipy.sparse import csr_matrix

import fliplens.metrics
from fliplens.metrics import accuracy, entity_recall, entity_scores, hit_sets, hits, jaccard, precision_recall_f1
from fliplens.uncertainty import (
    Difference,
    estimate,
    estimate_perplexity,
    estimates,
    paired_difference,
    sign_flip_p_value,
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


# Paired differences ---------------------------------------------------------------------------------------------


def test_a_paired_difference_has_the_mean_error_and_interval_of_the_differences() -> None:
    random = np.random.default_rng(2)
    first, second = random.random(90), random.random(90)
    first[3] = second[8] = np.nan
    one = paired_difference(first, second, seed=5)
    differences = np.array([a - b for a, b in zip(first, second, strict=True) if not math.isnan(a + b)])
    assert one.n == 88
    assert one.mean == pytest.approx(sum(differences) / 88)
    assert one.se == pytest.approx(math.sqrt(sum((differences - differences.mean()) ** 2) / 88) / math.sqrt(88))
    # The same sentences are drawn for both, as `estimate` draws them for either.
    both = ~np.isnan(first + second)
    drawn = np.random.default_rng(5).integers(0, 88, size=(1000, 88), dtype=np.int64)
    means = first[both][drawn].mean(axis=1) - second[both][drawn].mean(axis=1)
    assert one.ci95 == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))
    assert one == paired_difference(first, second, seed=5)


def test_swapping_both_sides_turns_the_difference_round() -> None:
    random = np.random.default_rng(3)
    first, second = random.random(200), random.random(200) + 0.03
    one, other = paired_difference(first, second), paired_difference(second, first)
    assert other.mean == -one.mean and other.se == one.se and other.p_value == one.p_value
    assert other.ci95 == pytest.approx((-one.ci95[1], -one.ci95[0]))


def test_the_order_of_the_sentences_does_not_matter() -> None:
    random = np.random.default_rng(4)
    first, second = random.integers(0, 5, 300) / 4, random.integers(0, 5, 300) / 4
    order = random.permutation(300)
    one, other = paired_difference(first, second), paired_difference(first[order], second[order])
    assert other.p_value == one.p_value
    assert other.mean == pytest.approx(one.mean) and other.se == pytest.approx(one.se)
    # Other sentences are drawn: the interval moves by what 1,000 samples leave open.
    assert other.ci95 == pytest.approx(one.ci95, abs=0.3 * one.se)


def test_differences_read_as_text_and_as_json() -> None:
    one = Difference(0.012, 0.003, (0.006, 0.018), 0.0004, 50)
    assert str(one) == "+0.0120 ± 0.0030 (p = 0.0004)"
    assert one.to_json() == {"mean": 0.012, "se": 0.003, "ci95": [0.006, 0.018], "p_value": 0.0004, "n": 50}
    nothing = paired_difference(np.array([1.0, np.nan]), np.array([np.nan, 1.0]))
    assert nothing.to_json() == {"mean": None, "se": None, "ci95": [None, None], "p_value": None, "n": 0}


accuracies = st.integers(1, 6).flatmap(lambda k: st.integers(0, k).map(lambda right: Fraction(right, k)))


@given(st.lists(st.tuples(accuracies, accuracies), min_size=1, max_size=9))
def test_of_few_differences_the_p_value_is_exact(pairs: list[tuple[Fraction, Fraction]]) -> None:
    exact = [a - b for a, b in pairs]
    patterns = list(itertools.product((-1, 1), repeat=len(exact)))
    sums = [sum((sign * one for sign, one in zip(signs, exact, strict=True)), Fraction(0)) for signs in patterns]
    far = sum(abs(one) >= abs(sum(exact, Fraction(0))) for one in sums)
    first, second = (np.array([float(pair[side]) for pair in pairs]) for side in (0, 1))
    assert sign_flip_p_value(first - second) == far / len(patterns)
    assert sign_flip_p_value(second - first) == far / len(patterns)


def test_exact_p_values_are_scipys() -> None:
    random = np.random.default_rng(6)
    for n in (3, 7, 12):
        differences = random.normal(0.5, 1, n)
        # Every sign pattern: SciPy does so where it is asked for at least as many.
        theirs = scipy.stats.permutation_test(
            (differences,), np.mean, permutation_type="samples", n_resamples=2**n, vectorized=True
        )
        assert sign_flip_p_value(differences) == pytest.approx(theirs.pvalue)
        # Differences of 0 have no sign to flip.
        assert sign_flip_p_value(np.concatenate([np.zeros(40), differences])) == pytest.approx(theirs.pvalue)


@pytest.mark.parametrize("cells", [2**21, 700])
def test_drawn_p_values_are_near_scipys_and_the_exact_one(monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    monkeypatch.setattr(fliplens.metrics, "BLOCK_CELLS", cells)
    random = np.random.default_rng(8)
    differences = random.normal(0.35, 1, 17)
    drawn = sign_flip_p_value(differences)
    exact = sign_flip_p_value(differences, permutations=2**17)
    theirs = scipy.stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=9999,
        vectorized=True,
        random_state=np.random.default_rng(1),
    ).pvalue
    assert 0.05 < exact < 0.5
    error = math.sqrt(exact * (1 - exact) / 9999)
    assert abs(drawn - exact) < 4 * error and abs(theirs - exact) < 8 * error
    assert drawn != exact


def test_a_p_value_is_never_zero_and_one_without_any_difference() -> None:
    assert sign_flip_p_value(np.full(500, 0.25)) == 1 / 10_000
    assert sign_flip_p_value(np.full(500, 0.25), permutations=99) == 1 / 100
    assert sign_flip_p_value(np.array([0.0, 0.0, np.nan])) == 1.0
    assert math.isnan(sign_flip_p_value(np.array([np.nan])))
    # 1/3 - 1/4 is not 0.25 - 1/6 in floating point, and yet a tie.
    tied = np.array([1 / 3 - 1 / 4, -(1 / 4 - 1 / 6)])
    assert tied.sum() != 0
    assert sign_flip_p_value(tied) == 1.0


def test_p_values_are_uniform_where_nothing_differs() -> None:
    random = np.random.default_rng(9)
    k = random.integers(4, 12, size=(400, 60))
    first, second = random.binomial(k, 0.6) / k, random.binomial(k, 0.6) / k
    found = np.sort([sign_flip_p_value(row, permutations=499) for row in first - second])
    # Of 400 uniform values the distribution function is within 0.09 of the diagonal in more than 99 of 100 cases.
    assert np.abs(found - (np.arange(400) + 0.5) / 400).max() < 0.09
    assert 0.02 < (found <= 0.05).mean() < 0.085
    better = [sign_flip_p_value(row + 0.1, permutations=499) for row in first - second]
    assert (np.array(better) <= 0.05).mean() > 0.7
