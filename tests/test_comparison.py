"""Comparison of two lenses and of two views, against loops over Python sets of words."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from oracles import brute_force_top
from toys import ToyEncoder, toy_corpus, toy_texts

import fliplens.evaluation.comparison
from fliplens.arithmetic.objective import Factors
from fliplens.arithmetic.uncertainty import sign_flip_p_value
from fliplens.errors import EmbeddingSpaceError, InputError
from fliplens.evaluation.comparison import compare, compare_views
from fliplens.evaluation.evaluating import EvaluationResult, evaluate
from fliplens.files import write_lines
from fliplens.lenses.lens import Lens
from fliplens.text.tokenisation import Tokeniser
from fliplens.text.vocabulary import Vocabulary
from fliplens.training.fitting import fit
from fliplens.training.recipes import TrainConfig

DIAL = {"with_prior": 1.0, "without_prior": 0.0, "at_prior": 0.4}


@pytest.fixture(scope="module")
def lens() -> Lens:
    texts, vectors = toy_corpus(300)
    return fit(texts, vectors, config=TrainConfig(passes=2, batch_size=32, rank=8))


def changed(lens: Lens, words: list[str], *, noise: float, seed: int = 0) -> Lens:
    """Return a lens of these words, whose factors are those of a lens and noise; of new words, noise alone."""
    random = torch.Generator().manual_seed(seed)
    E1 = noise * torch.randn(len(words), lens.factors.E1.shape[1], generator=random)
    b = torch.zeros(len(words))
    for row, word in enumerate(words):
        if word in lens.vocabulary:
            E1[row] += lens.factors.E1[lens.vocabulary.index[word]]
            b[row] = lens.factors.b[lens.vocabulary.index[word]]
    return Lens(Factors(E1, lens.factors.E2, b), Vocabulary(tuple(words)))


@pytest.fixture(scope="module")
def rough(lens: Lens) -> Lens:
    """The same words and worse factors."""
    return changed(lens, list(lens.vocabulary), noise=1.0)


@pytest.fixture(scope="module")
def other(lens: Lens) -> Lens:
    """Some of the words in another order, and some that the first lens lacks."""
    words = [word for word in lens.vocabulary if word not in ("river", "stone", "cloud", "garden")]
    return changed(lens, ["unknown", *reversed(words), "yonder"], noise=0.3, seed=1)


def cases() -> tuple[list[str], np.ndarray, np.ndarray]:
    texts = ["", "river stone", "unknown yonder", "unknown River", *toy_texts(60, seed=4)]
    return texts, ToyEncoder(noise=0.2).encode(texts), ToyEncoder(noise=0.25).encode(texts)


def right_words(lens: Lens, text: str, scores: np.ndarray) -> set[str] | None:
    """The known words of a text among the lens's k best; None if it knows none."""
    known = {word for word in text.lower().split() if word in lens.vocabulary}
    best = {lens.vocabulary[index] for index in brute_force_top(scores.astype(np.float64), len(known))}
    return known & best if known else None


def known_words(lens: Lens, text: str) -> int:
    return len({word for word in text.lower().split() if word in lens.vocabulary})


@pytest.mark.parametrize("second", ["rough", "other", "lens"])
@pytest.mark.parametrize("two_views", [False, True])
def test_every_figure_equals_loops_over_sets(
    lens: Lens, second: str, two_views: bool, request: pytest.FixtureRequest
) -> None:
    texts, vectors, noisy = cases()
    lens_b: Lens = request.getfixturevalue(second)
    view_b = noisy if two_views else vectors
    found = compare(lens, lens_b, texts, vectors, noisy if two_views else None, prior=DIAL["at_prior"])
    assert set(found.positions()) == set(DIAL)
    for name, prior in DIAL.items():
        at = found.positions()[name]
        scores = zip(lens.scores(vectors, prior=prior), lens_b.scores(view_b, prior=prior), strict=True)
        accuracies, jaccards, n_empty, n_skipped = [], [], 0, 0
        for text, (one, two) in zip(texts, scores, strict=True):
            a, b = right_words(lens, text, one), right_words(lens_b, text, two)
            if a is None or b is None:
                n_skipped += 1
                continue
            accuracies.append((len(a) / known_words(lens, text), len(b) / known_words(lens_b, text)))
            if a | b:
                jaccards.append(len(a & b) / len(a | b))
            else:
                n_empty += 1
        first, other = np.array(accuracies).T
        n = len(accuracies)
        assert (found.n_compared, found.n_skipped) == (n, n_skipped)
        for estimate, values in ((at.accuracy_a, first), (at.accuracy_b, other), (at.difference, first - other)):
            assert estimate.n == n
            assert estimate.mean == pytest.approx(values.mean(), abs=1e-12)
            assert estimate.se == pytest.approx(values.std() / math.sqrt(n), abs=1e-12)
            assert estimate.ci95[0] - 1e-12 <= estimate.mean <= estimate.ci95[1] + 1e-12
        assert at.difference.p_value == sign_flip_p_value(first - other)
        assert (at.jaccard.n, at.n_empty) == (len(jaccards), n_empty)
        assert at.jaccard.mean == pytest.approx(np.mean(jaccards))
        assert at.jaccard.se == pytest.approx(np.std(jaccards) / math.sqrt(len(jaccards)))
    assert found.n_skipped == (3 if second == "other" else 2)
    if second != "lens" or two_views:
        assert 0 < found.with_prior.jaccard.mean < 1
        assert found.with_prior.difference.mean > 0


def test_a_lens_against_itself_agrees_everywhere(lens: Lens) -> None:
    texts, vectors, _ = cases()
    for found in (compare(lens, lens, texts, vectors), compare(lens, lens.to("cpu"), texts, vectors, vectors)):
        for at in (found.with_prior, found.without_prior):
            assert at.jaccard.mean == 1.0 and at.jaccard.ci95 == (1.0, 1.0)
            assert at.difference.mean == 0.0 and at.difference.p_value == 1.0
            assert at.accuracy_a == at.accuracy_b
        assert not found.vocabularies_differ


def test_a_view_that_both_sides_share_is_read_once(lens: Lens, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, vectors, noisy = cases()
    views: list[int] = []

    def counted(*args: object, **options: object) -> EvaluationResult:
        result: EvaluationResult = evaluate(*args, **options)  # type: ignore[arg-type]
        views.append(len(result.views))
        return result

    monkeypatch.setattr(fliplens.evaluation.comparison, "evaluate", counted)
    compare(lens, lens, texts, vectors)
    assert views == [1]
    compare(lens, lens, texts, vectors, noisy)
    assert views == [1, 2]


def test_swapping_the_sides_swaps_the_figures(lens: Lens, other: Lens) -> None:
    texts, vectors, noisy = cases()
    one, two = compare(lens, other, texts, vectors, noisy), compare(other, lens, texts, noisy, vectors)
    for first, second in ((one.with_prior, two.with_prior), (one.without_prior, two.without_prior)):
        assert (first.accuracy_a, first.accuracy_b) == (second.accuracy_b, second.accuracy_a)
        assert first.jaccard == second.jaccard and first.n_empty == second.n_empty
        assert first.difference.p_value == second.difference.p_value
        assert first.difference.mean == -second.difference.mean
    assert one.vocabulary_sizes == two.vocabulary_sizes[::-1]
    assert (one.n_compared, one.n_shared_words) == (two.n_compared, two.n_shared_words)


def test_the_order_of_the_rows_and_their_blocks_do_not_matter(lens: Lens, other: Lens) -> None:
    texts, vectors, noisy = cases()
    order = np.random.default_rng(0).permutation(len(texts))
    one = compare(lens, other, texts, vectors, noisy)
    two = compare(lens, other, [texts[row] for row in order], vectors[order], noisy[order], block_rows=7)
    assert (one.n_compared, one.n_skipped) == (two.n_compared, two.n_skipped)
    for first, second in ((one.with_prior, two.with_prior), (one.without_prior, two.without_prior)):
        assert second.difference.p_value == first.difference.p_value
        assert second.n_empty == first.n_empty
        for name in ("accuracy_a", "accuracy_b", "difference", "jaccard"):
            assert getattr(second, name).mean == pytest.approx(getattr(first, name).mean)
            assert getattr(second, name).se == pytest.approx(getattr(first, name).se)


def test_vocabularies_that_differ_are_said_to(lens: Lens, other: Lens) -> None:
    texts, vectors, _ = cases()
    found = compare(lens, other, texts, vectors)
    assert found.vocabularies_differ
    assert (found.vocabulary_sizes, found.n_shared_words) == ((30, 28), 26)
    assert "vocabularies differ: 30 and 28 words, 26 of them shared" in str(found)
    turned = changed(lens, list(reversed(lens.vocabulary.words)), noise=0.0)
    turned.prior = None if lens.prior is None else lens.prior.flip(0)
    same = compare(lens, turned, texts, vectors)
    assert not same.vocabularies_differ and "differ:" not in str(same)
    assert same.with_prior.jaccard.mean == 1.0
    otherwise_cut = Lens(lens.factors, Vocabulary(lens.vocabulary.words, Tokeniser(lowercase=False)))
    assert compare(lens, otherwise_cut, texts, vectors).vocabularies_differ


def test_a_hit_that_only_one_vocabulary_has_is_no_common_one(lens: Lens) -> None:
    # Both read their one word of the sentence, which is another one for each.
    texts = ["river yonder"] * 3
    vectors = ToyEncoder().encode(texts)
    one = changed(lens, ["river"], noise=0.0)
    two = changed(lens, ["yonder"], noise=0.0)
    found = compare(one, two, texts, vectors).with_prior
    assert found.accuracy_a.mean == found.accuracy_b.mean == 1.0
    assert found.jaccard.mean == 0.0 and found.n_empty == 0


def test_lenses_of_different_spaces_compare_by_their_words(lens: Lens) -> None:
    texts, vectors, _ = cases()
    narrow = Lens(
        Factors(
            lens.factors.E1[:, :4], torch.randn(4, 6, generator=torch.Generator().manual_seed(1)), lens.factors.b
        ),
        lens.vocabulary,
    )
    short = np.random.default_rng(0).standard_normal((len(texts), 6)).astype(np.float32)
    found = compare(lens, narrow, texts, vectors, short)
    alone = evaluate(narrow, texts, short)
    assert found.with_prior.accuracy_b.mean == pytest.approx(alone.accuracy.with_prior.mean)
    with pytest.raises(EmbeddingSpaceError):
        compare(lens, narrow, texts, vectors)


def test_files_and_decoding_are_those_of_evaluate(lens: Lens, tmp_path: Path) -> None:
    texts, vectors, noisy = cases()
    write_lines(tmp_path / "t.txt", texts)
    np.save(tmp_path / "a.npy", vectors)
    np.save(tmp_path / "b.npy", noisy)
    found = compare(lens, lens, tmp_path / "t.txt", tmp_path / "a.npy", tmp_path / "b.npy", decoding="explain-away")
    assert found == compare(lens, lens, texts, vectors, noisy, decoding="explain-away")
    read = evaluate(lens, texts, vectors, decoding="explain-away")
    assert found.with_prior.accuracy_a.mean == pytest.approx(read.accuracy.with_prior.mean)


def test_the_json_is_plain(lens: Lens, other: Lens) -> None:
    texts, vectors, _ = cases()
    value = json.loads(json.dumps(compare(lens, other, texts, vectors, prior=0.5).to_json(), allow_nan=False))
    assert set(value) == {
        *("with_prior", "without_prior", "at_prior", "n_compared", "n_skipped"),
        *("vocabulary_sizes", "n_shared_words", "vocabularies_differ"),
    }
    assert set(value["at_prior"]) == {"accuracy_a", "accuracy_b", "difference", "jaccard", "n_empty"}
    assert set(value["at_prior"]["difference"]) == {"mean", "se", "ci95", "p_value", "n"}
    assert "at_prior" not in compare(lens, other, texts, vectors).to_json()


def test_kept_hits_are_what_accuracy_counts(lens: Lens) -> None:
    texts, vectors, _ = cases()
    for pool in (None, 1, 2):
        view = evaluate(lens, texts, vectors, prior=0.4, pool=pool, keep_hits=True).views["primary"]
        known = np.array([known_words(lens, text) for text in texts])
        assert set(view.hits) == set(DIAL)
        for name, sets in view.hits.items():
            counted = np.diff(sets.indptr) / np.where(known > 0, known, np.nan)
            assert counted.tolist() == pytest.approx(view.values["accuracy"][name].tolist(), nan_ok=True)
    assert "hits" not in view.to_json()
    assert evaluate(lens, texts, vectors).views["primary"].hits == {}


def test_wrong_calls_are_refused(lens: Lens, other: Lens) -> None:
    texts, vectors, _ = cases()
    with pytest.raises(InputError, match="both lenses' vocabularies"):
        compare(other, changed(lens, ["river"], noise=0.0), ["river", "unknown"], vectors[:2])
    with pytest.raises(InputError, match="64 vectors"):
        compare(lens, lens, texts[:-1], vectors)
    with pytest.raises(InputError, match="64 vectors"):
        compare(lens, other, texts[:-1], vectors[:-1], vectors)
    with pytest.raises(InputError, match="metrics accuracy or all to keep hits"):
        evaluate(lens, texts, vectors, metrics="pr", keep_hits=True)
    kept = evaluate(lens, texts, vectors, keep_hits=True).views["primary"]
    words = lens.vocabulary
    with pytest.raises(InputError, match="hits at with_prior, without_prior and at none"):
        compare_views(kept, evaluate(lens, texts, vectors).views["primary"], words, words)
    dialled = evaluate(lens, texts, vectors, prior=0.5, keep_hits=True).views["primary"]
    with pytest.raises(InputError, match="same positions of the prior dial"):
        compare_views(kept, dialled, words, words)
    short = evaluate(lens, texts[:-1], vectors[:-1], keep_hits=True).views["primary"]
    with pytest.raises(InputError, match="found 64 and 63"):
        compare_views(kept, short, words, words)
