"""SpLiCE against scikit-learn's Lasso, a search over all supports, and the optimality conditions in float64."""

from __future__ import annotations

import dataclasses
import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import linprog, nnls

from fliplens.arithmetic import lasso
from fliplens.baselines.decomposition import Dictionary, centred, decompose, decompose_blocks, mean_of
from fliplens.embeddings import open_embeddings
from fliplens.errors import EmbeddingSpaceError, InputError

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]


def unit(rows: NDArray[Any]) -> F64:
    rows = np.asarray(rows, dtype=np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)


def concepts(C: int, d: int, *, clusters: int | None = None, seed: int = 0) -> F32:
    """Unit rows in clusters, so that many are close to each other, as words are."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((clusters or max(1, C // 5), d))
    rows = centres[random.integers(0, len(centres), C)] + 0.7 * random.standard_normal((C, d))
    return unit(rows).astype(np.float32)


def vectors(n: int, D: F32, *, held: int = 4, seed: int = 1) -> F32:
    """Unit rows: sums of a few concepts and noise."""
    random = np.random.default_rng(seed)
    sums = np.stack([D[random.choice(len(D), min(held, len(D)), replace=False)].sum(axis=0) for _ in range(n)])
    return unit(sums + 0.15 * random.standard_normal(sums.shape)).astype(np.float32)


def objectives(W: F64, Y: NDArray[Any], D: NDArray[Any], penalty: float) -> F64:
    """What is minimised, as in the module's first formula, row by row."""
    values: F64 = np.square(Y.astype(np.float64) - W @ D.astype(np.float64)).sum(axis=1) / (2 * D.shape[1])
    values += penalty * W.sum(axis=1)
    return values


def violations(W: F64, Y: NDArray[Any], D: NDArray[Any], penalty: float) -> F64:
    """How far each row is from optimal, as a share of λ: correlations above it, or off it where there is a weight."""
    level = penalty * D.shape[1]
    correlations = (Y.astype(np.float64) - W @ D.astype(np.float64)) @ D.T.astype(np.float64)
    off = np.where(W > 0, np.abs(correlations - level), np.maximum(correlations - level, 0))
    worst: F64 = off.max(axis=1) / level
    return worst


def true_gaps(W: F64, Y: NDArray[Any], D: NDArray[Any], penalty: float) -> F64:
    """The relative duality gap, in float64 and by another formula than the library's: θ·y - |θ|²/2 for the dual."""
    level = penalty * D.shape[1]
    Y, D = Y.astype(np.float64), D.astype(np.float64)
    R = Y - W @ D
    primal = 0.5 * np.square(R).sum(axis=1) + level * W.sum(axis=1)
    theta = R * np.minimum(1, level / np.maximum((R @ D.T).max(axis=1), 1e-300))[:, None]
    gaps: F64 = (primal - (theta * Y).sum(axis=1) + 0.5 * np.square(theta).sum(axis=1)) / np.maximum(primal, 1e-300)
    return gaps


def sklearn_weights(Y: F32, D: F32, penalty: float) -> F64:
    linear_model = pytest.importorskip("sklearn.linear_model")
    X = np.asfortranarray(D.T.astype(np.float64))
    model = linear_model.Lasso(alpha=penalty, positive=True, fit_intercept=False, tol=1e-10, max_iter=200_000)
    with warnings.catch_warnings():
        # It asks for no regression without a penalty, and for no target of zeros.
        warnings.simplefilter("ignore")
        found: F64 = np.stack([model.fit(X, y.astype(np.float64)).coef_.copy() for y in Y])
    return found


def searched(y: F64, D: F64, penalty: float) -> float:
    """The least objective of one vector over all supports, for a handful of concepts."""
    d = D.shape[1]
    best: float = float(y @ y) / (2 * d)
    for size in range(1, len(D) + 1):
        for support in itertools.combinations(range(len(D)), size):
            A = D[list(support)]
            w = np.linalg.pinv(A @ A.T) @ (A @ y - penalty * d)
            if (w >= 0).all():
                best = min(best, float(np.square(y - w @ A).sum() / (2 * d) + penalty * w.sum()))
    return best


# Against others ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("C, d", [(1500, 48), (300, 48), (20, 48)])
@pytest.mark.parametrize("level", [0.6, 0.25, 0.1, 0.03])
def test_weights_are_scikit_learns(C: int, d: int, level: float) -> None:
    D = concepts(C, d)
    Y = vectors(30, D)
    penalty = level / d
    expected = sklearn_weights(Y, D, penalty)
    result = decompose(Y, Dictionary(D), penalty)
    W = result.weights.toarray().astype(np.float64)
    least = objectives(expected, Y, D, penalty)
    assert (objectives(W, Y, D, penalty) <= least * (1 + 1e-5)).all()
    assert result.objective == pytest.approx(least, rel=1e-5)
    assert result.reached.all() and (true_gaps(W, Y, D, penalty) < 1.3e-5).all()
    # The same concepts, but for weights that are next to nothing.
    assert not ((W > 0) ^ (expected > 0))[np.maximum(W, expected) > 2e-3].any()
    assert np.abs(W - expected).max() < 5e-3
    assert (W > 0).any(axis=1).all() or level == 0.6


def test_a_tight_tolerance_gives_scikit_learns_weights_to_six_digits() -> None:
    D = concepts(1200, 40)
    Y = vectors(20, D)
    for level in (0.3, 0.05):
        result = decompose(Y, Dictionary(D), level / 40, tolerance=1e-11)
        W = result.weights.toarray()
        assert result.reached.all()
        assert np.allclose(W, sklearn_weights(Y, D, level / 40), atol=2e-6)
        assert violations(W.astype(np.float64), Y, D, level / 40).max() < 1e-5


@st.composite
def problems(draw: st.DrawFn) -> tuple[F32, F32, float]:
    """A handful of concepts, equal and opposite and zero ones among them, a few vectors, a penalty."""
    d = draw(st.integers(1, 4))
    numbers = st.integers(-3, 3)
    rows = draw(st.lists(st.lists(numbers, min_size=d, max_size=d), min_size=1, max_size=6))
    targets = draw(st.lists(st.lists(numbers, min_size=d, max_size=d), min_size=1, max_size=5))
    level = draw(st.sampled_from([1e-3, 0.03, 0.3, 1.0, 2.5, 20.0]))
    return unit(np.array(rows)).astype(np.float32), np.array(targets, dtype=np.float32), level / d


@settings(max_examples=300)
@given(problems())
def test_nothing_beats_it_among_all_supports(problem: tuple[F32, F32, float]) -> None:
    D, Y, penalty = problem
    result = decompose(Y, Dictionary(D), penalty)
    W = result.weights.toarray().astype(np.float64)
    assert result.reached.all()
    assert (W >= 0).all() and (result.weights.data > 0).all()
    best = np.array([searched(y, D.astype(np.float64), penalty) for y in Y.astype(np.float64)])
    assert (objectives(W, Y, D, penalty) <= best * (1 + 2e-5) + 1e-12).all()
    assert result.objective == pytest.approx(best, rel=2e-5, abs=1e-12)
    rounding = 1e-6 * np.linalg.norm(Y, axis=1) / (penalty * D.shape[1])
    assert (true_gaps(W, Y, D, penalty) <= 2e-5 + rounding).all()
    assert not W[:, ~D.any(axis=1)].any()


@settings(max_examples=60)
@given(st.integers(1, 90), st.integers(1, 24), st.sampled_from([0.02, 0.1, 0.4]), st.integers(0, 2**20))
def test_the_optimality_conditions_hold(C: int, d: int, level: float, seed: int) -> None:
    D = concepts(C, d, seed=seed)
    Y = vectors(7, D, seed=seed + 1)
    result = decompose(Y, Dictionary(D), level / d)
    W = result.weights.toarray().astype(np.float64)
    assert result.reached.all()
    assert (true_gaps(W, Y, D, level / d) <= 1.5e-5).all()
    tight = decompose(Y, Dictionary(D), level / d, tolerance=1e-12)
    assert violations(tight.weights.toarray().astype(np.float64), Y, D, level / d).max() < 2e-4


# What must hold -----------------------------------------------------------------------------------------------------


def test_a_larger_penalty_leaves_a_smaller_sum_of_weights_and_a_larger_objective() -> None:
    D = concepts(1100, 32)
    Y = vectors(25, D)
    results = [decompose(Y, Dictionary(D), level / 32) for level in (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.1)]
    sums = np.stack([np.asarray(result.weights.sum(axis=1))[:, 0] for result in results])
    assert (np.diff(sums, axis=0) <= 1e-4).all() and (sums[0] > 0).all() and not sums[-1].any()
    assert (np.diff(np.stack([result.objective for result in results]), axis=0) >= -1e-8).all()


@pytest.mark.parametrize("factor", [1e-6, 0.3, 7.0, 1e6])
def test_weights_scale_with_the_vector_and_the_penalty(factor: float) -> None:
    D = concepts(200, 16)
    Y = vectors(12, D)
    plain = decompose(Y, Dictionary(D), 0.1 / 16, tolerance=1e-10)
    scaled = decompose(Y * np.float32(factor), Dictionary(D), factor * 0.1 / 16, tolerance=1e-10)
    assert np.allclose(scaled.weights.toarray() / factor, plain.weights.toarray(), atol=1e-5)
    assert scaled.objective == pytest.approx(plain.objective * factor**2, rel=1e-5)


def test_the_same_call_gives_the_same_bits() -> None:
    D = concepts(1100, 32)
    Y = vectors(150, D)
    first, second = (decompose(Y, Dictionary(D), 0.08 / 32) for _ in range(2))
    for name in ("data", "indices", "indptr"):
        assert np.array_equal(getattr(first.weights, name), getattr(second.weights, name))
    assert np.array_equal(first.gap, second.gap) and np.array_equal(first.rounds, second.rounds)


@pytest.mark.parametrize("block_rows", [1, 7, 64, 1000])
def test_blocks_of_any_size_give_the_same(block_rows: int) -> None:
    D = concepts(1100, 32)
    Y = vectors(150, D)
    Y[17] = 0
    whole = decompose(Y, Dictionary(D), 0.1 / 32, tolerance=1e-7)
    parts = decompose(Y, Dictionary(D), 0.1 / 32, tolerance=1e-7, block_rows=block_rows)
    assert parts.weights.shape == (150, 1100) and len(parts.gap) == len(parts.rounds) == 150
    assert np.allclose(parts.weights.toarray(), whole.weights.toarray(), atol=1e-5)
    assert parts.objective == pytest.approx(whole.objective, rel=1e-6)


def test_blocks_come_in_order_from_a_file(tmp_path: Path) -> None:
    D = concepts(60, 8)
    Y = vectors(25, D).astype(np.float16)
    np.save(tmp_path / "y.npy", Y)
    blocks = list(decompose_blocks(open_embeddings(tmp_path / "y.npy"), Dictionary(D), 0.02, block_rows=10))
    assert [(start, part.weights.shape, len(part.gap)) for start, part in blocks] == [
        (0, (10, 60), 10), (10, (10, 60), 10), (20, (5, 60), 5)
    ]  # fmt: skip
    whole = decompose(Y, Dictionary(D), 0.02)
    together = np.concatenate([part.weights.toarray() for _, part in blocks])
    assert np.allclose(together, whole.weights.toarray(), atol=1e-5)


def test_weights_are_plain_sorted_csr_in_float32() -> None:
    D = concepts(1100, 32)
    weights = decompose(vectors(40, D), Dictionary(D), 0.05 / 32).weights
    assert weights.dtype == np.float32 and weights.has_canonical_format and (weights.data > 0).all()


# The corners --------------------------------------------------------------------------------------------------------


def test_a_zero_vector_has_no_concepts() -> None:
    D = concepts(30, 6)
    result = decompose(np.zeros((3, 6), dtype=np.float32), Dictionary(D), 1e-3)
    assert result.weights.nnz == 0 and not result.gap.any() and not result.objective.any() and result.reached.all()


def test_at_the_highest_correlation_nothing_is_left_and_just_below_something() -> None:
    D = concepts(1200, 24)
    Y = vectors(10, D)
    for y in Y:
        most = float((D.astype(np.float64) @ y.astype(np.float64)).max()) / 24
        assert decompose(y[None], Dictionary(D), most * (1 + 1e-6)).weights.nnz == 0
        assert decompose(y[None], Dictionary(D), 1e9).weights.nnz == 0
        assert decompose(y[None], Dictionary(D), most * 0.99).weights.nnz > 0


def test_equal_concepts_share_one_weight() -> None:
    D = concepts(150, 20)
    Y = vectors(15, D)
    single = decompose(Y, Dictionary(D), 0.1 / 20, tolerance=1e-7)
    triple = decompose(Y, Dictionary(np.tile(D, (3, 1))), 0.1 / 20, tolerance=1e-7)
    shared = triple.weights.toarray().reshape(15, 3, 150).sum(axis=1)
    assert triple.reached.all() and np.allclose(shared, single.weights.toarray(), atol=1e-4)
    assert triple.objective == pytest.approx(single.objective, rel=1e-6)


def test_a_thousand_equal_concepts_of_one_dimension() -> None:
    D = np.ones((1500, 1), dtype=np.float32)
    D[::3], D[1::3] = -1, 0
    result = decompose(np.array([[2.0], [-0.5], [0.05]], dtype=np.float32), Dictionary(D), 0.1)
    W = result.weights.toarray()
    assert result.reached.all() and not W[:, 1::3].any()
    assert W[:, 2::3].sum(axis=1) == pytest.approx([1.9, 0, 0], abs=1e-5)
    assert W[:, ::3].sum(axis=1) == pytest.approx([0, 0.4, 0], abs=1e-5)


def test_orthogonal_concepts_have_soft_thresholds_for_weights() -> None:
    Y = np.array([[0.9, -0.4, 0.2, 0.05]], dtype=np.float32)
    W = decompose(Y, Dictionary(np.eye(4, dtype=np.float32)), 0.1 / 4).weights.toarray()
    assert np.allclose(W, [[0.8, 0, 0.1, 0]], atol=1e-6)


@pytest.mark.parametrize("level", [1e-2, 1e-4, 1e-6])
def test_a_tiny_penalty_with_more_concepts_than_dimensions(level: float) -> None:
    D = concepts(400, 12)
    Y = vectors(10, D)
    result = decompose(Y, Dictionary(D), level / 12, tolerance=1e-5)
    W = result.weights.toarray().astype(np.float64)
    assert result.reached.all() and (result.rounds < 30).all()
    # The least sum of weights that gives the vector itself, nearly: a linear programme.
    sums = [linprog(np.ones(400), A_eq=D.T.astype(np.float64), b_eq=y.astype(np.float64)).fun for y in Y]
    assert W.sum(axis=1) == pytest.approx(sums, rel=20 * level + 1e-5)
    assert np.abs(Y - W @ D).max() < 20 * level + 1e-6


# The solver's own ways out ------------------------------------------------------------------------------------------


def test_what_float32_cannot_solve_is_solved_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    D = np.tile(concepts(40, 10), (2, 1))
    Y = vectors(20, D)
    expected = decompose(Y, Dictionary(D), 0.02 / 10)
    solved: list[torch.dtype] = []
    inner = lasso._pivot

    def seen(gram: torch.Tensor, *others: Any) -> Any:
        found, ok = inner(gram, *others)
        solved.append(gram.dtype)
        return found, ok & (gram.dtype == torch.float64)

    monkeypatch.setattr(lasso, "_pivot", seen)
    result = decompose(Y, Dictionary(D), 0.02 / 10)
    assert set(solved) == {torch.float32, torch.float64}
    assert result.reached.all() and result.objective == pytest.approx(expected.objective, rel=2e-5)


def test_without_a_ridge_equal_concepts_are_singular_and_are_told_so() -> None:
    gram = torch.ones(3, 2, 2)
    gram[1:] = torch.tensor([[1.0, 0.5], [0.5, 1.0]])
    linear = torch.tensor([[0.5, 0.5], [0.5, 0.5], [0.5, -0.1]])
    found, solved = lasso._pivot(gram, linear, torch.zeros(3, 2), lasso._Precision(0.0, 1e-6, 1e-7))
    assert solved.tolist() == [False, True, True]
    assert torch.allclose(found, torch.tensor([[0, 0], [1 / 3, 1 / 3], [0.5, 0]]))


def test_swapping_one_sign_at_a_time_ends_at_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    D = concepts(300, 24, clusters=10)
    Y = vectors(20, D)
    expected = decompose(Y, Dictionary(D), 0.05 / 24, tolerance=1e-7)
    monkeypatch.setattr(lasso, "CHANCES", 0)
    monkeypatch.setattr(lasso, "MOST_PIVOTS", 10_000)
    result = decompose(Y, Dictionary(D), 0.05 / 24, tolerance=1e-7)
    assert result.reached.all() and np.allclose(result.weights.toarray(), expected.weights.toarray(), atol=1e-4)


@settings(max_examples=100)
@given(st.integers(1, 12), st.integers(1, 6), st.integers(0, 2**20), st.booleans())
def test_one_weight_at_a_time_ends_at_the_minimum_too(k: int, d: int, seed: int, started: bool) -> None:
    random = np.random.default_rng(seed)
    A, y = unit(random.standard_normal((k, d))), random.standard_normal(d)
    A[random.integers(k)] = A[0]
    start = random.random(k) * (random.random(k) < 0.5) if started else np.zeros(k)
    limits = lasso._PRECISIONS[torch.float64]
    gram = torch.from_numpy(A @ A.T + limits.ridge * np.eye(k))
    w, done = lasso._descend(gram, torch.from_numpy(A @ y - 0.05), torch.from_numpy(start), limits)
    # Non-negative least squares with one row more is the same: |y - Aᵀw|² + (c - s Σw)², with s → 0 and c·s = 0.05.
    s = 1e-5
    expected, _ = nnls(np.vstack([A.T, np.full((1, k), s)]), np.append(y, -0.05 / s))

    def objective(w: F64) -> float:
        return float(np.square(y - w @ A).sum() / 2 + 0.05 * w.sum())

    assert done and (w >= 0).all()
    assert objective(w.numpy()) <= objective(expected) + 1e-7
    assert objective(w.numpy()) <= objective(start) + 1e-12


def test_what_is_cut_short_says_how_far_it_got(monkeypatch: pytest.MonkeyPatch) -> None:
    D = concepts(1500, 48)
    Y = vectors(20, D)
    monkeypatch.setattr(lasso, "MOST_ROUNDS", 1)
    monkeypatch.setattr(lasso, "FIRST", 2)
    result = decompose(Y, Dictionary(D), 0.05 / 48)
    W = result.weights.toarray().astype(np.float64)
    assert not result.reached.any()
    assert result.gap == pytest.approx(true_gaps(W, Y, D, 0.05 / 48), rel=1e-4)
    assert result.objective == pytest.approx(objectives(W, Y, D, 0.05 / 48), rel=1e-5)


def test_the_gap_told_is_the_true_one_to_float32s_error() -> None:
    D = concepts(1500, 48)
    Y = vectors(60, D)
    for level in (0.3, 0.1, 0.03):
        result = decompose(Y, Dictionary(D), level / 48, tolerance=1e-3)
        W = result.weights.toarray().astype(np.float64)
        assert np.abs(result.gap - true_gaps(W, Y, D, level / 48)).max() < 3e-6


@pytest.mark.parametrize("width", [64 * 16, 100 * 16])
def test_the_best_of_all_is_always_picked(width: int) -> None:
    random = np.random.default_rng(0)
    correlations = torch.from_numpy(random.standard_normal((9, width)).astype(np.float32))
    for group in (1, 16):
        picked, values = lasso._pick(correlations, group, 5)
        assert torch.equal(values, correlations.gather(1, picked))
        assert torch.equal(values.amax(dim=1), correlations.amax(dim=1))
        assert all(len(set(row.tolist())) == 5 for row in picked)


# Dictionaries and centring ------------------------------------------------------------------------------------------


def test_centring_is_that_of_the_paper() -> None:
    random = np.random.default_rng(0)
    C, Y = random.standard_normal((20, 6)) + 1, random.standard_normal((9, 6)) - 0.5
    concepts_unit = unit(C)
    D = Dictionary.from_vectors(C.astype(np.float32))
    assert (len(D), D.dim) == (20, 6) and repr(D) == "Dictionary(20 concepts, dim=6)"
    assert np.allclose(D.rows, unit(concepts_unit - concepts_unit.mean(axis=0)), atol=1e-6)
    mean = mean_of(Y)
    assert np.allclose(mean, unit(Y).mean(axis=0), atol=1e-7)
    targets = unit(unit(Y) - unit(Y).mean(axis=0))
    assert np.allclose(centred(Y, mean), targets, atol=1e-6)
    plain, centring = decompose(targets, D, 0.02), decompose(Y, D, 0.02, mean=mean)
    assert np.allclose(plain.weights.toarray(), centring.weights.toarray(), atol=1e-5)


def test_vectors_that_are_zero_or_the_mean_have_zero_rows() -> None:
    same = np.tile(np.array([[0.3, -0.2, 0.7]], dtype=np.float32), (5, 1))
    assert not Dictionary.from_vectors(same).rows.any()
    some = np.array([[1, 0], [0, 0], [0, 1]], dtype=np.float32)
    rows = Dictionary.from_vectors(some).rows
    assert not rows[1].any() and np.allclose(np.linalg.norm(rows[[0, 2]], axis=1), 1)


def test_vectors_of_any_floating_type_are_taken() -> None:
    D = concepts(40, 8)
    Y = vectors(5, D)
    plain = decompose(Y, Dictionary(D), 0.02).weights.toarray()
    for other in (torch.from_numpy(Y), Y.astype(np.float64), torch.from_numpy(Y).double()):
        assert np.allclose(
            decompose(other, Dictionary(torch.from_numpy(D)), 0.02).weights.toarray(), plain, atol=1e-6
        )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"penalty": 0.0}, "expected a penalty above 0, found 0.0"),
        ({"penalty": float("nan")}, "expected a penalty above 0"),
        ({"penalty": float("inf")}, "expected a penalty above 0"),
        ({"penalty": True}, "expected a penalty above 0"),
        ({"tolerance": 0.0}, "expected a tolerance between 0 and 1"),
        ({"tolerance": 1.5}, "expected a tolerance between 0 and 1"),
        ({"block_rows": 0}, "expected block_rows as a whole number from 1"),
        ({"block_rows": 2.0}, "expected block_rows as a whole number from 1"),
        ({"mean": np.zeros(3)}, "expected a mean of 4 finite numbers, found shape"),
        ({"mean": np.full(4, np.nan)}, "expected a mean of 4 finite numbers"),
    ],
)
def test_what_cannot_be_is_refused_at_once(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "vectors": np.eye(4, dtype=np.float32),
        "dictionary": Dictionary(np.eye(4)),
        "penalty": 0.1,
    } | change
    with pytest.raises(InputError, match=message) as caught:
        decompose_blocks(**arguments)
    assert "\n" not in str(caught.value)


def test_vectors_and_dictionaries_that_cannot_be_are_refused() -> None:
    D = Dictionary(np.eye(4))
    with pytest.raises(EmbeddingSpaceError, match="expected vectors of 4 dimensions"):
        decompose(np.eye(3), D, 0.1)
    bad = np.eye(4, dtype=np.float32)
    bad[2, 1] = np.nan
    for call in (lambda: decompose(bad, D, 0.1, block_rows=1), lambda: mean_of(bad), lambda: Dictionary(bad)):
        with pytest.raises(InputError, match=r"NaN or infinite values in 1 of 4 rows \(counted from 0: 2\)"):
            call()
    with pytest.raises(
        InputError, match=r"expected rows of length 1 or 0 in the dictionary, found length 2 in row 0"
    ):
        Dictionary(2 * np.eye(4))


def test_results_are_frozen() -> None:
    result = decompose(np.eye(4), Dictionary(np.eye(4)), 0.1)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.tolerance = 1.0  # type: ignore[misc]
