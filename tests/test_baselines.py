"""The yardsticks: ridge against scikit-learn, frequency against counting, the probe against a plain network."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_matrix
from scipy.special import logsumexp
from sklearn.linear_model import Ridge as SklearnRidge

from fliplens.baselines.linear import Ridge, frequency_factors
from fliplens.baselines.probe import Probe, train_probe
from fliplens.embeddings import Embeddings
from fliplens.errors import InputError, InterruptedRunError
from fliplens.lenses.lens import Lens
from fliplens.text.vocabulary import Vocabulary
from fliplens.training.recipes import TrainConfig
from fliplens.training.views import Views


def data_of(n: int, d: int, V: int, *, seed: int = 0, paired: bool = False) -> Views:
    """Draw rows whose words depend on their vectors, linearly and not."""
    random = np.random.default_rng(seed)
    S = random.standard_normal((n, d)).astype(np.float32) + 0.5
    W = random.standard_normal((V, d)) / np.sqrt(d)
    logits = 1.5 * S @ W.T + 1.5 * np.abs(S @ random.standard_normal((d, V)) / np.sqrt(d))
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    counts = np.stack([random.multinomial(6, p) for p in shares]).astype(np.float32)
    other = Embeddings([S + 0.1 * random.standard_normal(S.shape).astype(np.float32)]) if paired else None
    return Views(csr_matrix(counts), Embeddings([S]), other)


def vocabulary_of(V: int) -> Vocabulary:
    return Vocabulary(tuple(f"w{i}" for i in range(V)))


def test_frequency_ranks_words_by_how_often_they_occur() -> None:
    data = data_of(200, 4, 9)
    lens = Lens(frequency_factors(data.counts, 4), vocabulary_of(9))
    top = lens.top(np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32), 9)
    frequency = np.asarray(data.counts.sum(axis=0)).ravel()
    assert (np.diff(frequency[top.indices], axis=1) <= 0).all()
    np.testing.assert_allclose(top.probabilities.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(
        top.probabilities[0], (frequency + 0.5)[top.indices[0]] / (frequency + 0.5).sum(), rtol=1e-4
    )


@pytest.mark.parametrize("n, d, V", [(300, 7, 5), (50, 20, 30), (9, 3, 40)])
@pytest.mark.parametrize("strength", [0.01, 1.0])
def test_ridge_is_scikit_learns(n: int, d: int, V: int, strength: float) -> None:
    data = data_of(n, d, V)
    found = Ridge(data).solve(strength, 0.0)
    X, Y = data.primary.to_numpy().astype(np.float64), data.counts.toarray().astype(np.float64)
    oracle = SklearnRidge(alpha=n * strength * X.var(axis=0).mean(), solver="cholesky").fit(X, Y)
    np.testing.assert_allclose(found.factors.E1, oracle.coef_, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.factors.b, oracle.intercept_, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.prior, Y.mean(axis=0), rtol=1e-5)


def test_two_views_count_by_their_weights() -> None:
    data = data_of(80, 5, 6, paired=True)
    assert data.paired is not None
    found = Ridge(data, alpha=0.25).solve(0.1, 0.0)
    X = np.concatenate([data.primary.to_numpy(), data.paired.to_numpy()]).astype(np.float64)
    Y = np.concatenate([data.counts.toarray()] * 2).astype(np.float64)
    weights = np.repeat([0.25, 0.75], 80)
    mean = (weights @ X) / weights.sum()
    variance = (weights @ (X - mean) ** 2 / weights.sum()).mean()
    oracle = SklearnRidge(alpha=80 * 0.1 * variance, solver="cholesky").fit(X, Y, sample_weight=weights)
    np.testing.assert_allclose(found.factors.E1, oracle.coef_, rtol=1e-3, atol=1e-4)


def test_scores_are_divided_by_a_power_of_the_frequency() -> None:
    ridge = Ridge(data_of(100, 5, 6))
    plain, divided = ridge.solve(0.1, 0.0), ridge.solve(0.1, 0.25)
    root = torch.from_numpy((np.maximum(ridge.frequency, 1) ** 0.25).astype(np.float32))
    np.testing.assert_allclose(divided.factors.E1 * root[:, None], plain.factors.E1, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(divided.factors.b * root, plain.factors.b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("paired", [False, True])
def test_calibration_finds_the_likeliest_scale(paired: bool) -> None:
    data = data_of(300, 6, 11, paired=paired)
    ridge = Ridge(data, alpha=0.3)
    found = ridge.solve(0.1, 0.25)
    scaled = ridge.calibrated(found)
    E, b = found.factors.E1.double().numpy(), found.factors.b.double().numpy()
    Y = data.counts.toarray().astype(np.float64)
    views = [(data.primary, 0.3), (data.paired, 0.7)] if data.paired is not None else [(data.primary, 1.0)]

    def loss(scale: float) -> float:
        total = 0.0
        for view, weight in views:
            logits = scale * (view.to_numpy().astype(np.float64) @ E.T + b)
            logits -= logsumexp(logits, axis=1, keepdims=True)
            total -= weight * (Y * logits).sum()
        return total

    best = minimize_scalar(loss, bounds=(1e-3, 1e3), method="bounded", options={"xatol": 1e-6}).x
    ours = float((scaled.factors.E1 / found.factors.E1).median())
    assert ours == pytest.approx(best, rel=1e-3)
    torch.testing.assert_close(scaled.factors.b, found.factors.b * ours, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(scaled.prior, found.prior * ours, rtol=1e-4, atol=1e-6)


PROBE = TrainConfig(rank=4, passes=40, batch_size=32, anchor="sentences")


def test_a_probe_reads_what_is_there_but_not_linearly() -> None:
    # Words depend on |s| too, which no linear map of s sees.
    data = data_of(2000, 6, 8)
    trained = train_probe(data, PROBE, hidden=64)
    probe = Probe(trained.tensors, vocabulary_of(8))
    linear = train_probe(data, PROBE, hidden=1)
    assert trained.loss < linear.loss - 0.02
    S = data.primary.to_numpy()[:40].astype(np.float64)
    t = {name: tensor.double().numpy() for name, tensor in trained.tensors.items()}
    x = (S - t["mean"]) * t["scale"]
    a = x @ t["H"].T + t["c"]
    hidden = np.array([[v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in row] for row in a])
    scores = (x @ t["E2"].T + hidden @ t["U"].T) @ t["E1"].T
    for prior in (0.0, 0.5, 1.0):
        top = probe.top(data.primary.to_numpy()[:40], 8, prior=prior)
        expected = scores + prior * t["b"]
        np.testing.assert_allclose(top.scores, -np.sort(-expected, axis=1), rtol=1e-4, atol=1e-4)
        shares = np.exp(expected) / np.exp(expected).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(top.probabilities, -np.sort(-shares, axis=1), rtol=1e-3, atol=1e-5)


def test_a_probes_gradients_are_those_of_its_loss() -> None:
    from fliplens.arithmetic.objective import Bags, Factors
    from fliplens.baselines import probe as module

    random = torch.Generator().manual_seed(0)
    V, r, d, h, n = 7, 3, 4, 5, 6

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    factors = Factors(draw(V, r), draw(r, d), draw(V))
    network = {"H": draw(h, d), "c": draw(h), "U": draw(r, h)}
    for tensor in network.values():
        tensor.requires_grad_()
    x, counts = draw(n, d), torch.randint(0, 3, (n, V), generator=random).float()
    rows, words = counts.nonzero(as_tuple=True)
    weights = torch.rand(n, generator=random)
    gradients = factors.map(torch.zeros_like)
    loss, mass = module._accumulate(
        factors, network, gradients, x, Bags(rows, words, counts[rows, words], n), weights
    )

    def value(E1: torch.Tensor, E2: torch.Tensor, b: torch.Tensor, H: torch.Tensor, c: torch.Tensor, U: torch.Tensor):  # type: ignore[no-untyped-def]
        a = x.double() @ H.T + c
        hidden = a * 0.5 * (1 + torch.erf(a / 2**0.5))
        logits = (x.double() @ E2.T + hidden @ U.T) @ E1.T + b
        return -(weights.double()[:, None] * counts.double() * logits.log_softmax(dim=1)).sum()

    assert factors.E2 is not None and gradients.E2 is not None
    given = [factors.E1, factors.E2, factors.b, *network.values()]
    expected = torch.func.grad(value, argnums=tuple(range(6)))(*(t.detach().double() for t in given))
    found = [gradients.E1, gradients.E2, gradients.b, *(t.grad for t in network.values())]
    assert loss == pytest.approx(float(value(*(t.detach().double() for t in given))), rel=1e-5)
    assert mass == pytest.approx(float((weights[:, None] * counts).sum()), rel=1e-5)
    for ours, oracle in zip(found, expected, strict=True):
        assert ours is not None
        torch.testing.assert_close(ours.double(), oracle, rtol=1e-3, atol=1e-4)


def test_training_a_probe_is_deterministic_and_can_be_stopped() -> None:
    data = data_of(100, 5, 6, paired=True)
    config = TrainConfig(rank=3, passes=2, batch_size=16, anchor="sentences", seed=5)
    one, two = (train_probe(data, config, hidden=8).tensors for _ in range(2))
    for name, tensor in one.items():
        assert torch.equal(tensor, two[name])
    with pytest.raises(InterruptedRunError):
        train_probe(data, config, hidden=8, stop=lambda: True)


@pytest.mark.parametrize("change", [{"rank": "full"}, {"whiten": True}, {"schedule": "plateau"}])
def test_a_probe_refuses_recipes_that_it_cannot_follow(change: dict[str, object]) -> None:
    with pytest.raises(InputError, match="factorised recipe"):
        train_probe(data_of(40, 4, 5), TrainConfig(**change), hidden=3)  # type: ignore[arg-type]


def test_a_probe_of_parts_that_do_not_fit_is_refused() -> None:
    tensors = train_probe(data_of(60, 4, 5), TrainConfig(passes=1, anchor="sentences"), hidden=3).tensors
    with pytest.raises(InputError, match="E1 of shape"):
        Probe(tensors, vocabulary_of(6))
    with pytest.raises(InputError, match="finite numbers in U"):
        Probe({**tensors, "U": tensors["U"] * math.nan}, vocabulary_of(5))
    probe = Probe(tensors, vocabulary_of(5))
    with pytest.raises(InputError, match="only a lens explains away"):
        probe.top(np.ones((1, 4), np.float32), 2, decoding="explain-away")
    assert "hidden 3" in repr(probe)
