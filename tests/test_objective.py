"""The loss and its gradients against a dense float64 oracle, over awkward shapes and in both precisions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import dense_loss_and_gradients
from scipy.sparse import csr_matrix

from fliplens.arithmetic.objective import Bags, Factors, Precision, Workspace, accumulate, soft_threshold_


def bags_of(counts: np.ndarray) -> Bags:
    sparse = csr_matrix(counts)
    return Bags(
        rows=torch.from_numpy(np.repeat(np.arange(len(counts)), np.diff(sparse.indptr))),
        words=torch.from_numpy(sparse.indices.astype(np.int64)),
        values=torch.from_numpy(sparse.data.astype(np.float32)),
        n_rows=len(counts),
    )


def problem(
    n: int, V: int, r: int | None, d: int, seed: int, scale: float = 1.0
) -> tuple[Factors, torch.Tensor, np.ndarray, torch.Tensor]:
    random = np.random.default_rng(seed)
    counts = random.poisson(0.4, size=(n, V)).astype(np.float64)
    counts[random.random(n) < 0.2] = 0  # rows without a word

    def draw(*shape: int) -> torch.Tensor:
        return torch.from_numpy((scale * random.standard_normal(shape)).astype(np.float32))

    E1 = draw(V, d if r is None else r)
    E2 = None if r is None else draw(r, d)
    weights = torch.from_numpy(random.random(n).astype(np.float32))
    return Factors(E1, E2, draw(V)), draw(n, d), counts, weights


SHAPES = [(1, 1, 1, 1), (1, 7, 2, 3), (5, 3, 2, 4), (17, 31, 5, 8), (64, 129, 16, 24), (33, 257, 7, 7)]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("block_rows", [1, 4, 1000])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("precision", "budget"), [("float32", 2e-5), ("bfloat16", 3e-2)])
def test_loss_and_gradients_equal_the_dense_oracle(
    shape: tuple[int, int, int, int], block_rows: int, full: bool, precision: Precision, budget: float
) -> None:
    n, V, r, d = shape
    factors, embeddings, counts, weights = problem(n, V, None if full else r, d, seed=n + V)
    gradients = factors.map(torch.zeros_like)
    loss = accumulate(
        factors,
        gradients,
        embeddings,
        bags_of(counts),
        weights,
        workspace=Workspace(block_bytes=4 * V * block_rows),
        precision=precision,
    )
    E2 = None if factors.E2 is None else factors.E2.double().numpy()
    wanted = dense_loss_and_gradients(
        factors.E1.double().numpy(),
        E2,
        factors.b.double().numpy(),
        embeddings.double().numpy(),
        counts,
        weights.double().numpy(),
    )
    assert loss == pytest.approx(wanted[0], rel=budget, abs=budget)
    for found, expected in zip((gradients.E1, gradients.E2, gradients.b), wanted[1:], strict=True):
        if found is None or expected is None:
            assert found is None and expected is None
            continue
        size = max(float(np.linalg.norm(expected)), 1e-3)
        assert float(np.linalg.norm(found.double().numpy() - expected)) / size < budget


@given(seed=st.integers(0, 2**16), n=st.integers(1, 6), V=st.integers(2, 9))
@settings(max_examples=40, deadline=None)
def test_gradients_equal_finite_differences_of_the_loss(seed: int, n: int, V: int) -> None:
    factors, embeddings, counts, weights = problem(n, V, 2, 3, seed, scale=0.5)
    gradients = factors.map(torch.zeros_like)
    accumulate(factors, gradients, embeddings, bags_of(counts), weights)
    step = 1e-5
    arrays = [factors.E1.double().numpy(), factors.E2.double().numpy(), factors.b.double().numpy()]  # type: ignore[union-attr]
    for index, gradient in enumerate(gradients.tensors()):
        random = np.random.default_rng(seed)
        place = tuple(int(random.integers(0, size)) for size in gradient.shape)
        values = []
        for sign in (1, -1):
            moved = [array.copy() for array in arrays]
            moved[index][place] += sign * step
            first, second, third = moved
            rows, masses = embeddings.double().numpy(), weights.double().numpy()
            values.append(dense_loss_and_gradients(first, second, third, rows, counts, masses)[0])
        assert float(gradient[place]) == pytest.approx((values[0] - values[1]) / (2 * step), abs=2e-3, rel=2e-3)


def test_stacked_views_weigh_as_equation_4_says() -> None:
    factors, text, counts, _ = problem(9, 20, 4, 6, seed=3)
    speech = torch.randn(9, 6, generator=torch.Generator().manual_seed(1))
    alpha = 0.3
    both = factors.map(torch.zeros_like)
    weights = torch.tensor([alpha] * 9 + [1 - alpha] * 9)
    loss = accumulate(factors, both, torch.cat([text, speech]), bags_of(np.vstack([counts, counts])), weights)
    apart = [factors.map(torch.zeros_like) for _ in range(2)]
    losses = [
        accumulate(factors, gradients, view, bags_of(counts))
        for gradients, view in zip(apart, (text, speech), strict=True)
    ]
    assert loss == pytest.approx(alpha * losses[0] + (1 - alpha) * losses[1], rel=1e-5)
    torch.testing.assert_close(both.E1, alpha * apart[0].E1 + (1 - alpha) * apart[1].E1, rtol=1e-4, atol=1e-4)


def test_a_row_of_extreme_logits_keeps_a_finite_loss() -> None:
    factors = Factors(torch.tensor([[1000.0], [0.0], [-1000.0]]), None, torch.zeros(3))
    gradients = factors.map(torch.zeros_like)
    loss = accumulate(factors, gradients, torch.tensor([[1.0]]), bags_of(np.array([[0.0, 0.0, 1.0]])))
    assert loss == pytest.approx(2000.0)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in gradients.tensors())


def test_gradients_are_added_to_what_is_there() -> None:
    factors, embeddings, counts, weights = problem(5, 6, 2, 3, seed=1)
    once, twice = factors.map(torch.zeros_like), factors.map(torch.zeros_like)
    accumulate(factors, once, embeddings, bags_of(counts), weights)
    for _ in range(2):
        accumulate(factors, twice, embeddings, bags_of(counts), weights)
    torch.testing.assert_close(twice.E1, 2 * once.E1)
    torch.testing.assert_close(twice.b, 2 * once.b)


def test_a_block_never_exceeds_its_bytes() -> None:
    assert Workspace(block_bytes=4 * 1000 * 7).block_rows(1000) == 7
    assert Workspace(block_bytes=1).block_rows(1000) == 1


@given(
    values=st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=20),
    threshold=st.floats(0, 5, width=32),
)
def test_soft_threshold_is_the_proximal_operator_of_l1(values: list[float], threshold: float) -> None:
    weights = torch.tensor(values)
    shrunk = soft_threshold_(weights.clone(), threshold)
    expected = np.sign(values) * np.maximum(np.abs(np.asarray(values, np.float32)) - np.float32(threshold), 0)
    np.testing.assert_allclose(shrunk.numpy(), expected, atol=1e-6)
    assert bool((shrunk[torch.tensor(values).abs() <= threshold] == 0).all())


def test_a_negative_threshold_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        soft_threshold_(torch.ones(2), -0.1)
