"""Training: anchors, coordinates, recipes, both views, L1, early stopping, seeds."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from toys import ToyEncoder, toy_corpus, toy_texts

from fliplens.arithmetic.objective import Factors
from fliplens.embeddings import Embeddings
from fliplens.errors import FliplensWarning, InputError
from fliplens.evaluation.evaluating import evaluate
from fliplens.text.vocabulary import Vocabulary
from fliplens.training import train
from fliplens.training.anchoring import (
    Coordinates,
    anchored_factors,
    covariance,
    log_unigrams,
    random_factors,
    sentence_means,
)
from fliplens.training.fitting import VocabularyConfig, fit
from fliplens.training.recipes import RECIPES, TrainConfig
from fliplens.training.views import Views


def views(n: int = 400, *, seed: int = 0, paired: bool = False) -> tuple[Views, Vocabulary]:
    texts, vectors = toy_corpus(n, seed=seed)
    vocabulary = Vocabulary.from_texts(toy_texts(400))
    second = Embeddings([ToyEncoder(noise=0.3).encode(texts)]) if paired else None
    return Views(vocabulary.counts(texts), Embeddings([vectors]), second), vocabulary


def word_vectors(vocabulary: Vocabulary) -> np.ndarray:
    return ToyEncoder().encode(vocabulary.words)


# Pieces -----------------------------------------------------------------------------------------------------


@given(n=st.integers(2, 3000), offset=st.sampled_from([0.0, 100.0]))
def test_covariance_equals_numpys(n: int, offset: float) -> None:
    rows = np.random.default_rng(n).standard_normal((n, 3)).astype(np.float32) + np.float32(offset)
    mean, spread = covariance(Embeddings([rows]))
    np.testing.assert_allclose(mean, rows.astype(np.float64).mean(axis=0), rtol=1e-6, atol=1e-7)
    expected = np.cov(rows.astype(np.float64).T, bias=True)
    deviations = np.sqrt(np.diag(expected))
    # Off by a millionth of the standard deviations at most, however far off the mean is.
    assert (np.abs(spread - expected) <= 1e-6 * np.outer(deviations, deviations)).all()


def test_the_first_probabilities_are_the_unigrams() -> None:
    counts = csr_matrix(np.array([[3, 0, 1], [1, 0, 4]], dtype=np.float32))
    found = torch.softmax(log_unigrams(counts), 0)
    np.testing.assert_allclose(found, np.array([4.5, 0.5, 5.5]) / 10.5, rtol=1e-6)
    data, vocabulary = views()
    anchored = anchored_factors(
        torch.from_numpy(word_vectors(vocabulary)), torch.eye(16), log_unigrams(data.counts), rank=16
    )
    at_mean = torch.softmax(anchored.E1 @ (anchored.E2 @ torch.zeros(16)) + anchored.b, 0)  # type: ignore[operator]
    totals = np.asarray(data.counts.sum(axis=0)).ravel()
    np.testing.assert_allclose(at_mean, totals / totals.sum(), atol=2e-3)


def means_of_holders(view: Embeddings, counts: csr_matrix) -> np.ndarray:
    """Return each word's mean vector by a loop over the words, float64."""
    rows, dense = view.to_numpy().astype(np.float64), counts.toarray()
    holders = [rows[column > 0] for column in dense.T]
    return np.stack([(some if len(some) else rows).mean(axis=0) for some in holders])


def test_sentence_means_equal_a_loop_over_words() -> None:
    data, _ = views(50)
    found = sentence_means([(data.primary, 1.0)], data.counts)
    np.testing.assert_allclose(found, means_of_holders(data.primary, data.counts), rtol=1e-4, atol=1e-5)


def test_sentence_means_of_two_views_are_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    data, _ = views(50, paired=True)
    assert data.paired is not None
    both = [(data.primary, 0.3), (data.paired, 0.7)]
    expected = sum(weight * means_of_holders(view, data.counts) for view, weight in both)
    np.testing.assert_allclose(sentence_means(both, data.counts), expected, rtol=1e-4, atol=1e-6)
    # Blocks cut the rows anywhere.
    blocks = Embeddings.blocks
    monkeypatch.setattr(Embeddings, "blocks", lambda self, **kwargs: blocks(self, 7, **kwargs))
    np.testing.assert_allclose(sentence_means(both, data.counts), expected, rtol=1e-4, atol=1e-6)


def test_starting_factors_leave_the_word_vectors_as_they_are() -> None:
    vectors = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
    kept = vectors.clone()
    for rank in (None, 6, 3):
        factors = anchored_factors(vectors, torch.eye(6), torch.zeros(30), rank=rank)
        factors.E1.mul_(0)
        assert torch.equal(vectors, kept)
    coordinates = Coordinates(np.ones(6, np.float32), 2.0)
    assert torch.equal(coordinates.apply(vectors), 2 * (kept - 1))
    assert torch.equal(vectors, kept)
    assert torch.equal(coordinates.apply(vectors, overwrite=True), 2 * (kept - 1))


def test_the_anchor_is_the_linear_discriminant() -> None:
    random = np.random.default_rng(0)
    vectors = random.standard_normal((40, 6)).astype(np.float32)
    mixing = random.standard_normal((6, 6))
    spread = mixing @ mixing.T
    factors = anchored_factors(
        torch.from_numpy(vectors), torch.from_numpy(spread), torch.zeros(40), rank=6, ridge=0.0, scale=60.0
    )
    inverse = np.linalg.inv(spread)
    inverse *= 60.0 / np.diag(inverse).mean()
    assert factors.E2 is not None
    expected = (vectors - vectors.mean(axis=0)) @ inverse
    np.testing.assert_allclose((factors.E1 @ factors.E2).numpy(), expected, rtol=2e-3, atol=1e-3)
    full = anchored_factors(
        torch.from_numpy(vectors), torch.from_numpy(spread), torch.zeros(40), rank=None, ridge=0.0
    )
    np.testing.assert_allclose(full.E1.numpy(), expected, rtol=2e-3, atol=1e-3)


def test_a_lower_rank_anchor_loses_as_little_as_any_of_its_rank() -> None:
    random = np.random.default_rng(1)
    vectors = (random.standard_normal((60, 8)) * np.linspace(2, 0.2, 8)).astype(np.float32)
    mixing = random.standard_normal((8, 8))
    spread = mixing @ mixing.T + 0.5 * np.eye(8)
    sentences = random.multivariate_normal(np.zeros(8), spread, size=20_000)

    def scores(rank: int) -> np.ndarray:
        factors = anchored_factors(
            torch.from_numpy(vectors), torch.from_numpy(spread), torch.zeros(60), rank=rank, ridge=0.0
        )
        assert factors.E2 is not None and factors.E1.shape == (60, rank)
        found: np.ndarray = sentences @ (factors.E1.double() @ factors.E2.double()).numpy().T
        return found

    whole = scores(8)
    singular = np.linalg.svd(whole, compute_uv=False)
    for rank in (2, 5):
        lost = np.linalg.norm(whole - scores(rank))
        least = np.sqrt((singular[rank:] ** 2).sum())  # Eckart and Young: no scores of this rank lose less
        assert lost <= 1.05 * least


@given(whiten=st.booleans(), full=st.booleans(), seed=st.integers(0, 50))
def test_folded_factors_score_raw_vectors_as_training_scored_its_own(whiten: bool, full: bool, seed: int) -> None:
    random = np.random.default_rng(seed)
    rows = random.standard_normal((7, 4)).astype(np.float32)
    transform = random.standard_normal((4, 4)).astype(np.float32) if whiten else 1.7
    coordinates = Coordinates(random.standard_normal(4).astype(np.float32), transform)
    factors = random_factors(
        5, 4, torch.randn(5), rank=None if full else 3, generator=torch.Generator().manual_seed(seed)
    )
    moved = coordinates.apply(rows)
    wanted = factors.project(moved) @ factors.E1.T + factors.b
    folded = coordinates.fold(factors)
    found = folded.project(torch.from_numpy(rows)) @ folded.E1.T + folded.b
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


def test_xavier_factors_have_its_variance() -> None:
    factors = random_factors(900, 100, torch.zeros(900), rank=60, generator=torch.Generator().manual_seed(0))
    assert float(factors.E1.var()) == pytest.approx(2 / 960, rel=0.05)
    assert factors.E2 is not None
    assert float(factors.E2.var()) == pytest.approx(2 / 160, rel=0.05)


# Training ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anchor", ["words", "sentences", "random"])
@pytest.mark.parametrize("rank", ["full", 16, 6])
def test_every_variant_learns(anchor: str, rank: int | str) -> None:
    data, vocabulary = views()
    dev, _ = views(200, seed=9)
    # Random factors have further to go in as few steps.
    rates = {"learning_rate": 0.2 if rank == "full" else 3e-2} if anchor == "random" else {}
    config = TrainConfig(rank=rank, anchor=anchor, passes=12, batch_size=32, **rates)  # type: ignore[arg-type]
    result = train(data, config, dev=dev, word_vectors=word_vectors(vocabulary))
    last = result.history[result.best_pass]
    # Always the most frequent words score some 0.1; 30 words do not fit into 6 dimensions without loss.
    assert last.dev is not None and last.dev > (0.4 if rank == 6 else 0.8)
    losses = [record.loss for record in result.history[1:] if record.loss is not None]
    assert losses[-1] < losses[0]
    assert result.rank == (None if rank == "full" else rank)


def test_seeds_decide_everything() -> None:
    data, vocabulary = views()
    config = TrainConfig(passes=2, batch_size=64, anchor="random", seed=5)
    first, again = (train(data, config) for _ in range(2))
    other = train(data, dataclasses.replace(config, seed=6))
    for a, b, c in zip(first.factors.tensors(), again.factors.tensors(), other.factors.tensors(), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)
    del vocabulary


@pytest.mark.parametrize("rank", ["full", 8])
def test_more_l1_means_more_exact_zeros(rank: int | str) -> None:
    data, _ = views()
    zeros = []
    for l1 in (0.0, 1.0, 10.0):
        config = TrainConfig(rank=rank, l1=l1, passes=4, batch_size=32, anchor="sentences")  # type: ignore[arg-type]
        result = train(data, config)
        zeros.append(float((result.factors.E1 == 0).float().mean()))
        assert result.history[-1].zeros == pytest.approx(zeros[-1])
    assert zeros[0] < 0.01 < zeros[1] < zeros[2]


def test_weight_decay_shrinks_the_projection_alone() -> None:
    data, _ = views()
    norms = {}
    for decay in (0.0, 5.0):
        config = TrainConfig(weight_decay=decay, passes=2, batch_size=32, anchor="random", rank=8)
        factors = train(data, config).factors
        assert factors.E2 is not None
        norms[decay] = float(factors.E1.norm()), float(factors.E2.norm())
    assert norms[5.0][1] < 0.7 * norms[0.0][1]
    full = TrainConfig(passes=1, rank="full", anchor="random")
    with pytest.warns(FliplensWarning, match="no effect with rank=full"):
        decayed = train(data, dataclasses.replace(full, weight_decay=5.0))
    assert torch.equal(decayed.factors.E1, train(data, full).factors.E1)


def test_alpha_chooses_between_the_views() -> None:
    data, _ = views(paired=True)
    assert data.paired is not None
    config = TrainConfig(passes=2, batch_size=64, anchor="sentences", rank=8)
    only_first = train(Views(data.counts, data.primary), config)
    only_second = train(Views(data.counts, data.paired), config)
    for alpha, expected in ((1.0, only_first), (0.0, only_second)):
        found = train(data, dataclasses.replace(config, alpha=alpha))
        assert torch.equal(found.factors.E1, expected.factors.E1)
    between = train(data, dataclasses.replace(config, alpha=0.5))
    assert not torch.equal(between.factors.E1, only_first.factors.E1)


def test_the_best_weights_are_kept_and_patience_ends_training() -> None:
    data, vocabulary = views(120)
    dev, _ = views(100, seed=4)
    config = TrainConfig(
        passes=40, batch_size=16, learning_rate=0.5, patience=2, schedule="plateau", plateau_patience=1
    )
    result = train(data, config, dev=dev, word_vectors=word_vectors(vocabulary))
    scores = [record.dev for record in result.history]
    assert result.best_pass == int(np.argmax([score or -1 for score in scores]))
    assert len(result.history) < 41
    assert result.history[-1].number - result.best_pass == 3
    rates = [record.learning_rate for record in result.history]
    assert rates[0] == 0.5 and rates[-1] in (0.25, 0.125)


def test_the_linear_schedule_ends_near_zero() -> None:
    data, _ = views(100)
    result = train(data, TrainConfig(passes=2, batch_size=10, anchor="random"))
    assert result.history[-1].learning_rate < 0.1 * result.history[0].learning_rate


def test_bfloat16_trains_to_the_same_score() -> None:
    data, vocabulary = views()
    dev, _ = views(200, seed=9)
    scores = []
    for precision in ("float32", "bfloat16"):
        config = TrainConfig(passes=4, batch_size=64, precision=precision)
        result = train(data, config, dev=dev, word_vectors=word_vectors(vocabulary))
        assert result.precision == precision
        scores.append(result.history[-1].dev or 0)
    assert abs(scores[0] - scores[1]) < 0.02


def test_whitening_and_no_centring_are_folded_in() -> None:
    texts, vectors = toy_corpus(400)
    for changes in ({"whiten": True}, {"centre": False}):
        lens = fit(texts, vectors, config=TrainConfig(passes=6, batch_size=32, **changes))  # type: ignore[arg-type]
        assert evaluate(lens, texts, vectors).accuracy.with_prior.mean > 0.8
        if changes == {"centre": False}:
            assert lens.prior is not None
            torch.testing.assert_close(lens.prior, lens.factors.b)


def test_wrong_calls_are_refused() -> None:
    data, vocabulary = views(60, paired=True)
    with pytest.raises(InputError, match="rank of at most 16"):
        train(data, TrainConfig(rank=17))
    with pytest.raises(InputError, match="--encoder"):
        train(data, TrainConfig(anchor="words"))
    with pytest.raises(InputError, match="not the one that made"):
        train(data, TrainConfig(), word_vectors=word_vectors(vocabulary)[:, :8])
    with pytest.raises(InputError, match="none in any row"):
        train(Views(csr_matrix(np.zeros(data.counts.shape, dtype=np.float32)), data.primary), TrainConfig())
    alike = Embeddings([np.ones((60, 16), dtype=np.float32)])
    with pytest.raises(InputError, match="all alike"):
        train(Views(data.counts, alike), TrainConfig())
    narrow = Embeddings([np.ones((60, 8), dtype=np.float32)])
    with pytest.raises(InputError, match="both views in one space"):
        train(Views(data.counts, data.primary, narrow), TrainConfig())


# Recipes ----------------------------------------------------------------------------------------------------


def test_the_paper_recipe_is_section_3_5() -> None:
    paper = RECIPES["paper"]
    rates = {paper.learning_rate, paper.learning_rate_projection, paper.learning_rate_bias}
    assert rates == {5e-3}
    assert (paper.batch_size, paper.passes, paper.schedule, paper.plateau_factor) == (6000, 100, "plateau", 0.5)
    assert (paper.l1, paper.weight_decay, paper.alpha) == (1e-4, 0.0, 0.5)
    assert (paper.centre, paper.whiten, paper.anchor) == (False, False, "random")
    assert RECIPES["default"] == TrainConfig()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"rank": 0}, "rank"),
        ({"rank": "half"}, "rank"),
        ({"rank": 2.0}, "rank"),
        ({"alpha": 1.5}, "alpha"),
        ({"alpha": True}, "alpha"),
        ({"passes": 0}, "passes"),
        ({"batch_size": 1.5}, "batch_size"),
        ({"learning_rate": 0}, "learning_rate"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"l1": -1}, "l1"),
        ({"weight_decay": float("inf")}, "weight_decay"),
        ({"plateau_factor": 1}, "plateau_factor"),
        ({"schedule": "cosine"}, "schedule"),
        ({"centre": "yes"}, "centre"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**70}, "seed"),
        ({"whiten": True, "rank": "full"}, "whiten"),
        ({"recipe": "mine"}, "recipe"),
    ],
)
def test_settings_out_of_range_are_named(changes: dict[str, object], name: str) -> None:
    with pytest.raises(InputError, match=f"expected {name} to be"):
        TrainConfig(**changes)  # type: ignore[arg-type]


def test_recipes_take_overrides_and_refuse_unknown_ones() -> None:
    assert TrainConfig.from_recipe("paper", passes=3).passes == 3
    with pytest.raises(InputError, match="momentum"):
        TrainConfig.from_recipe("paper", momentum=0.9)
    with pytest.raises(InputError, match="expected a recipe"):
        TrainConfig.from_recipe("best")


def test_factors_without_a_projection_have_two_tensors() -> None:
    assert len(Factors(torch.ones(2, 3), None, torch.ones(2)).tensors()) == 2
    assert VocabularyConfig(size=3).build(["a b c d", "a b c"]).words == ("a", "b", "c")
