"""The sampled softmax: what is drawn, that its weighted sum is right on average, steps on rows, training with it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import dense_loss_and_gradients
from test_objective import bags_of, problem
from toys import ToyEncoder, toy_corpus, toy_texts

from fliplens.arithmetic.objective import Factors, accumulate
from fliplens.arithmetic.sampling import Sampler, share_for
from fliplens.embeddings import Embeddings
from fliplens.text.vocabulary import Vocabulary
from fliplens.training import train
from fliplens.training.anchoring import Coordinates
from fliplens.training.distributed import Group
from fliplens.training.optimiser import Optimiser
from fliplens.training.recipes import TrainConfig
from fliplens.training.state import TrainState
from fliplens.training.views import Views


@given(
    n=st.integers(1, 60),
    head=st.integers(0, 70),
    share=st.floats(0.01, 1.0),
    seed=st.integers(0, 2**63 - 1),
    step=st.integers(0, 10**6),
)
def test_a_draw_holds_the_head_and_the_batch_and_depends_on_seed_and_step(
    n: int, head: int, share: float, seed: int, step: int
) -> None:
    random = np.random.default_rng(n)
    frequencies = random.integers(0, 50, size=n).astype(np.float64)
    observed = random.integers(0, n, size=5)
    sampler = Sampler(frequencies, head=head, share=share, seed=seed)
    sample = sampler.draw(observed, step)
    assert (np.diff(sample.words) > 0).all()
    # The head: no word outside the sample is more frequent than the least frequent word of the head.
    top = np.sort(frequencies)[::-1][: min(head, n)]
    inside = np.sort(frequencies[sample.words])[::-1]
    np.testing.assert_array_equal(inside[: len(top)], top)
    weights = dict(zip(sample.words.tolist(), sample.log_weights.tolist(), strict=True))
    assert all(weights[word] == 0 for word in observed.tolist())
    assert all(weight >= 0 for weight in weights.values())
    again = Sampler(frequencies, head=head, share=share, seed=seed).draw(observed[::-1], step)
    np.testing.assert_array_equal(again.words, sample.words)
    np.testing.assert_array_equal(again.log_weights, sample.log_weights)


def test_the_weighted_sum_over_samples_is_the_whole_sum_on_average() -> None:
    random = np.random.default_rng(0)
    frequencies = np.floor(1000 / np.arange(1, 301)).astype(np.float64)
    terms = np.exp(random.standard_normal(300))
    sampler = Sampler(frequencies, head=10, share=0.1, seed=3)
    sums = []
    for step in range(4000):
        sample = sampler.draw(np.array([50, 200]), step)
        sums.append((terms[sample.words] * np.exp(sample.log_weights)).sum())
    error = np.std(sums) / np.sqrt(len(sums))
    assert abs(np.mean(sums) - terms.sum()) < 4 * error
    assert error < 0.01 * terms.sum()


def test_frequent_words_are_drawn_more_often_and_the_mean_is_the_share() -> None:
    frequencies = np.floor(10_000 / np.arange(1, 2001)).astype(np.float64)
    sampler = Sampler(frequencies, head=100, share=0.05, seed=0)
    assert (sampler.inclusion[:100] == 1).all()
    assert (np.diff(sampler.inclusion[100:]) <= 0).all()
    assert sampler.inclusion[100:].mean() == pytest.approx(0.05, rel=0.05)
    drawn = np.zeros(2000)
    for step in range(500):
        drawn[sampler.draw(np.zeros(1, dtype=np.int64), step).words] += 1
    assert (drawn[:100] == 500).all()
    # A word's count is binomial; that of a whole band tells a tenth of its π from chance.
    for band in np.split(np.arange(100, 2000), [50, 150, 400, 900]):
        inclusion = sampler.inclusion[band].astype(np.float64)
        expected, variance = 500 * inclusion.sum(), 500 * (inclusion * (1 - inclusion)).sum()
        assert abs(drawn[band].sum() - expected) < 4 * variance**0.5 < 0.1 * expected
    assert sampler.pays
    assert not Sampler(frequencies, head=1500, share=0.05, seed=0).pays


def test_short_trainings_draw_more_words_a_step() -> None:
    assert share_for(1000) == pytest.approx(0.08)
    assert share_for(10**6) == 0.05
    assert share_for(3) == 1.0


def test_a_sampled_step_has_the_gradients_of_the_weighted_softmax() -> None:
    factors, embeddings, counts, weights = problem(12, 40, 5, 6, seed=1)
    assert factors.E2 is not None
    observed = np.flatnonzero(counts.sum(axis=0))[:25]
    counts[:, np.setdiff1d(np.arange(40), observed)] = 0
    sample = Sampler(counts.sum(axis=0), head=3, share=0.3, seed=0).draw(observed, 0)
    assert 0 < len(sample.words) < 40
    part = Factors(
        factors.E1[sample.words], factors.E2, factors.b[sample.words] + torch.from_numpy(sample.log_weights)
    )
    gradients = part.map(torch.zeros_like)
    loss = accumulate(part, gradients, embeddings, bags_of(counts[:, sample.words]), weights)
    # The oracle looks at all words: those outside the sample have a weight of zero, the others exp(log weight).
    inside = np.zeros(40, dtype=bool)
    inside[sample.words] = True
    b = np.where(inside, 0.0, -1e9)
    b[sample.words] = part.b.double().numpy()
    arrays = [tensor.double().numpy() for tensor in (factors.E1, factors.E2, embeddings, weights)]
    expected, E1, E2, bias = dense_loss_and_gradients(arrays[0], arrays[1], b, arrays[2], counts, arrays[3])
    assert gradients.E2 is not None and E2 is not None
    assert loss == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(gradients.E1.numpy(), E1[sample.words], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gradients.E2.numpy(), E2, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gradients.b.numpy(), bias[sample.words], rtol=1e-4, atol=1e-4)


# Steps on rows ----------------------------------------------------------------------------------------------


def start(rank: int | None = 4, seed: int = 0) -> TrainState:
    factors, _, _, _ = problem(2, 20, rank, 6, seed=seed)
    return TrainState.start(factors, Coordinates(np.zeros(6, dtype=np.float32), 1.0), "random")


@pytest.mark.parametrize("rank", [4, None])
def test_rows_of_all_words_are_ordinary_adamw(rank: int | None) -> None:
    config = TrainConfig(rank=4 if rank else "full", weight_decay=0.3 if rank else 0.0)
    whole, rows = start(rank), start(rank)
    dense = Optimiser(whole, config, sampled=False)
    lazy = Optimiser(rows, config, sampled=True)
    every = torch.arange(20)
    generator = torch.Generator().manual_seed(0)
    for step in range(6):
        steps = []
        for optimiser, words in ((dense, None), (lazy, every)):
            optimiser.set_factor(1 - step / 6)
            gradients = optimiser.zeros(words)
            assert all(not tensor.any() for tensor in gradients.tensors())
            steps.append(gradients)
        for one, other in zip(*(found.tensors() for found in steps), strict=True):
            one.copy_(torch.randn(one.shape, generator=generator))
            other.copy_(one)
        dense.step(steps[0], None, Group())
        lazy.step(steps[1], every, Group())
    for one, other in zip(whole.factors.tensors(), rows.factors.tensors(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_rows_are_lazy_adam_and_others_stay() -> None:
    state = start()
    parameter = torch.nn.Parameter(state.factors.E1.clone())
    reference: Any = torch.optim.SparseAdam([parameter], lr=1e-3)
    optimiser = Optimiser(state, TrainConfig(learning_rate=1e-3), sampled=True)
    generator = torch.Generator().manual_seed(1)
    untouched = state.factors.E1[19].clone()
    for _ in range(8):
        words = torch.randperm(19, generator=generator)[:7].sort().values
        gradients = optimiser.zeros(words)
        gradients.E1.copy_(torch.randn(gradients.E1.shape, generator=generator))
        parameter.grad = torch.sparse_coo_tensor(
            words[None], gradients.E1.clone(), parameter.shape, check_invariants=True
        )
        optimiser.step(gradients, words, Group())
        reference.step()
    torch.testing.assert_close(state.factors.E1, parameter.detach(), rtol=1e-4, atol=1e-6)
    assert torch.equal(state.factors.E1[19], untouched)


# Training ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", ["full", 16])
def test_training_on_samples_learns_as_training_on_all_words(rank: int | str) -> None:
    texts, vectors = toy_corpus(600, seed=0)
    vocabulary = Vocabulary.from_texts(toy_texts(400))
    data = Views(vocabulary.counts(texts), Embeddings([vectors]))
    held, others = toy_corpus(200, seed=9)
    dev = Views(vocabulary.counts(held), Embeddings([others]))
    config = TrainConfig(rank=rank, passes=12, batch_size=4, head=3, share=0.1)  # type: ignore[arg-type]
    scores = {}
    for softmax in ("sampled", "full"):
        result = train(
            data,
            dataclasses.replace(config, softmax=softmax),
            dev=dev,
            word_vectors=ToyEncoder().encode(vocabulary.words),
        )
        scores[softmax] = result.history[-1].dev
    assert scores["sampled"] is not None and scores["full"] is not None
    assert scores["sampled"] != scores["full"]
    assert scores["sampled"] > scores["full"] - 0.03 > 0.7
