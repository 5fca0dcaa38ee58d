"""How sure means over sentences are, against known answers, scipy and all patterns counted out."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

import fliplens.arithmetic.uncertainty
from fliplens.arithmetic.uncertainty import (
    Difference,
    estimate,
    estimate_perplexity,
    estimates,
    paired_difference,
    paired_differences,
    sign_flip_p_value,
    sign_flip_p_values,
)


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
    monkeypatch.setattr(fliplens.arithmetic.uncertainty, "BLOCK_CELLS", cells)
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


def test_columns_share_sign_patterns_and_each_is_tested_as_if_alone() -> None:
    random = np.random.default_rng(3)
    one = random.normal(size=(300, 4)) * [1.0, 1.0, 0.0, 1.0] + [0.0, 0.15, 0.0, 0.05]
    other = np.zeros_like(one)
    one[7] = np.nan
    both = paired_differences(one, other)
    for column, found in enumerate(both):
        alone = paired_difference(one[:, column], other[:, column])
        assert (found.mean, found.se, found.n) == pytest.approx((alone.mean, alone.se, alone.n), rel=1e-9)
        assert found.ci95 == pytest.approx(alone.ci95, rel=1e-9)
        # Drawn with other patterns: the standard error of a share of 9,999 is 0.005 at most.
        assert found.p_value == pytest.approx(alone.p_value, abs=0.02)
    assert both[2].p_value == 1.0 and both[1].p_value < 0.05
    # Neither the order of the sentences nor which side was taken from which matters to any column.
    order = random.permutation(len(one))
    assert [d.p_value for d in paired_differences(other[order], one[order])] == [d.p_value for d in both]


def test_few_rows_of_columns_are_counted_out() -> None:
    rows = np.array([[0.5, -1.0], [0.25, 0.0], [-0.125, 0.5], [0.0, 0.25]])
    patterns = [np.array(signs) @ rows for signs in itertools.product([-1, 1], repeat=len(rows))]
    expected = np.mean([np.abs(one) >= np.abs(rows.sum(axis=0)) - 1e-12 for one in patterns], axis=0)
    np.testing.assert_allclose(sign_flip_p_values(rows), expected)
