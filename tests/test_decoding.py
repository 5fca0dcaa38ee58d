"""Explaining away against a float64 loop over words, and what it must and must not change."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import assert_one_line, call
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from oracles import brute_force_top
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_matrix
from toys import ToyEncoder, toy_corpus, toy_texts

from fliplens.arithmetic.decoding import ExplainingAway, Shares, check_decoding
from fliplens.arithmetic.objective import Factors
from fliplens.embeddings import Embeddings, open_embeddings
from fliplens.errors import InputError
from fliplens.evaluation.evaluating import evaluate
from fliplens.files import read_lines, write_lines
from fliplens.lenses.lens import Lens
from fliplens.settings import FitSettings
from fliplens.text.vocabulary import Vocabulary
from fliplens.training.explaining_away import learn, learn_shares, ridge_dictionary
from fliplens.training.fitting import VocabularyConfig, fit
from fliplens.training.recipes import TrainConfig
from fliplens.training.views import Views

SHARES = Shares(score=1.3, total=1.1, offset=0.7, prior=-0.3, share=0.8, length=-0.6, own=-0.2)
NOTHING = Shares(score=1.0, total=0.0, offset=0.0, prior=0.0, share=0.0, length=0.0, own=0.0)


def random_lens(
    V: int = 14,
    d: int = 6,
    r: int | None = 4,
    *,
    seed: int = 0,
    shares: Shares = SHARES,
    pool: int = 99,
    rounds: int = 3,
) -> Lens:
    random = np.random.default_rng(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.from_numpy((0.7 * random.standard_normal(shape)).astype(np.float32))

    E1, E2 = draw(V, d if r is None else r), None if r is None else draw(r, d)
    return Lens(
        Factors(E1, E2, draw(V)),
        Vocabulary(tuple(f"w{i}" for i in range(V))),
        prior=draw(V),
        mean=draw(d),
        away=ExplainingAway(draw(*E1.shape), shares, pool=pool, rounds=rounds),
    )


def oracle(
    lens: Lens, vector: NDArray[np.float32], dial: float = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logits at the dial and probabilities of one vector, (V,), word by word in float64."""
    assert lens.away is not None and lens.prior is not None
    E1, b, F = (t.double().numpy() for t in (lens.factors.E1, lens.factors.b, lens.away.dictionary))
    prior, shares = lens.prior.double().numpy(), lens.away.shares
    z = vector.astype(np.float64)
    if lens.factors.E2 is not None:
        z = lens.factors.E2.double().numpy() @ z
    plain = [float(E1[w] @ z + b[w]) for w in range(len(b))]
    pool = brute_force_top(np.array(plain), min(lens.away.pool, len(b)))
    total = math.log(sum(math.exp(plain[w]) for w in pool))
    believed = dict.fromkeys(pool, 0.0)
    logits: list[float] = []
    for number in range(lens.away.rounds + 1):
        scale = (max(1.0, sum(believed.values())) / 8) ** shares.length
        logits = []
        for w in range(len(b)):
            taken = sum(p * float(E1[w] @ F[u]) for u, p in believed.items() if u != w)
            logits.append(
                shares.score * plain[w]
                + shares.prior * prior[w]
                + shares.own * float(E1[w] @ F[w])
                - shares.total * total
                + shares.offset
                - shares.share * scale * taken
            )
        if number < lens.away.rounds:
            believed = {w: 1 / (1 + math.exp(-logits[w])) for w in pool}
    full = np.array(logits)
    return full + (dial - 1) * (shares.score + shares.prior) * prior, 1 / (1 + np.exp(-full))


@settings(max_examples=60)
@given(
    V=st.integers(1, 20),
    r=st.one_of(st.none(), st.integers(1, 6)),
    pool=st.integers(1, 25),
    rounds=st.integers(0, 4),
    dial=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 999),
)
def test_it_equals_a_loop_over_words(V: int, r: int | None, pool: int, rounds: int, dial: float, seed: int) -> None:
    lens = random_lens(V, 6, r, seed=seed, pool=pool, rounds=rounds)
    vectors = np.random.default_rng(seed + 1).standard_normal((5, 6)).astype(np.float32)
    for n in {1, V}:
        top = lens.top(vectors, n, prior=dial, decoding="explain-away")
        for row, vector in enumerate(vectors):
            logits, probabilities = oracle(lens, vector, dial)
            found = top.indices[row]
            assert len(set(found.tolist())) == n
            np.testing.assert_allclose(top.scores[row], logits[found], rtol=1e-3, atol=1e-3)
            np.testing.assert_allclose(top.probabilities[row], probabilities[found], rtol=1e-3, atol=1e-3)
            # Best first, up to what float32 can tell apart.
            np.testing.assert_allclose(logits[found], np.sort(logits)[::-1][:n], rtol=1e-3, atol=1e-3)


def test_rows_do_not_depend_on_the_block_they_are_read_in() -> None:
    lens = random_lens(30, pool=8)
    assert lens.away is not None and lens.prior is not None
    vectors = np.random.default_rng(2).standard_normal((23, 6)).astype(np.float32)
    whole = lens.top(vectors, 30, decoding="explain-away")
    for rows in (1, 7):
        parts = list(lens.away.blocks(Embeddings([vectors]), lens.factors, lens.prior, most_rows=rows))
        # The last block's memory is used again: only its shape may be looked at here.
        assert [start for start, _ in parts] == list(range(0, 23, rows))
        seen = np.empty((23, 30), dtype=np.float32)
        for start, block in lens.away.blocks(Embeddings([vectors]), lens.factors, lens.prior, most_rows=rows):
            seen[start : start + len(block)] = (block + lens.decoding_bias("explain-away")).numpy()
        np.testing.assert_allclose(
            np.take_along_axis(seen, whole.indices, axis=1), whole.scores, rtol=1e-4, atol=1e-4
        )
    small = list(lens.away.blocks(Embeddings([vectors]), lens.factors, lens.prior, block_bytes=4 * 30 * 3))
    assert max(len(block) for _, block in small) <= 3
    again = lens.top(vectors, 30, decoding="explain-away")
    assert again.scores.tobytes() == whole.scores.tobytes() and again.indices.tobytes() == whole.indices.tobytes()


@pytest.mark.parametrize("dial", [0.0, 0.4, 1.0])
def test_shares_of_zero_are_plain(dial: float) -> None:
    lens = random_lens(40, shares=NOTHING, pool=5)
    vectors = np.random.default_rng(4).standard_normal((20, 6)).astype(np.float32)
    plain = lens.top(vectors, 40, prior=dial)
    away = lens.top(vectors, 40, prior=dial, decoding="explain-away")
    np.testing.assert_array_equal(plain.indices, away.indices)
    np.testing.assert_allclose(plain.scores, away.scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pool", [1, 3, 50])
def test_ties_go_to_the_lower_index(pool: int) -> None:
    one = random_lens(6, pool=pool)
    assert one.away is not None and one.prior is not None
    twice = torch.arange(6).repeat(2)
    lens = Lens(
        one.factors.map(lambda tensor: tensor if tensor is one.factors.E2 else tensor[twice]),
        Vocabulary(tuple(f"w{i}" for i in range(12))),
        prior=one.prior[twice],
        mean=one.mean,
        away=ExplainingAway(one.away.dictionary[twice], SHARES, pool=pool),
    )
    vectors = np.random.default_rng(5).standard_normal((9, 6)).astype(np.float32)
    for plain, away in zip(
        lens.top(vectors, 12).indices, lens.top(vectors, 12, decoding="explain-away").indices, strict=True
    ):
        assert len(set(away.tolist())) == 12
        if pool != 1 and pool != 3:
            # All in the pool: twins are alike, and stand side by side.
            assert [(i, i + 6) for i in away[::2]] == list(zip(away[::2], away[1::2], strict=True))
        assert [(i, i + 6) for i in plain[::2]] == list(zip(plain[::2], plain[1::2], strict=True))


@given(n=st.integers(2, 15), V=st.integers(1, 8), ridge=st.floats(0.05, 5), seed=st.integers(0, 99))
def test_the_dictionary_is_the_ridge_solution(n: int, V: int, ridge: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    X = (random.random((n, V)) < 0.4).astype(np.float32)
    Y = random.standard_normal((n, 3)).astype(np.float32)
    expected = np.linalg.solve(X.T.astype(float) @ X + ridge * np.eye(V), X.T.astype(float) @ Y)
    targets = X.T @ Y
    found = ridge_dictionary(csr_matrix(X), targets, ridge=ridge)
    # Gradients end at a residual of a thousandth; no eigenvalue of the system, so none of what divides it, is below
    # the ridge.
    allowed = 1e-3 * np.linalg.norm(targets, axis=0) / ridge
    assert (np.linalg.norm(found - expected, axis=0) <= 1.01 * allowed + 1e-5).all()


def test_the_dictionary_of_random_data_is_scikit_learns() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    random = np.random.default_rng(0)
    X = (random.random((400, 60)) < 0.1).astype(np.float32)
    Y = random.standard_normal((400, 150)).astype(np.float32)
    expected = linear_model.Ridge(alpha=1.0, fit_intercept=False).fit(X, Y).coef_.T
    found = ridge_dictionary(csr_matrix(X), X.T @ Y)
    np.testing.assert_allclose(found, expected, atol=5e-3)
    assert np.abs(expected).max() > 0.3


class Inflections:
    """An encoder for which the three forms of a word are nearly alike, as `walk`, `walks` and `walking` are."""

    spec = name = "inflections"
    revision = "1"
    modality, language = "text", "en"
    normalised = False
    dim = 24
    stems = ("walk", "jump", "talk", "open", "paint", "count", "lift", "turn", "call", "wait", "cook", "mark")
    words = tuple(stem + ending for stem in stems for ending in ("", "s", "ing"))

    def __init__(self) -> None:
        random = np.random.default_rng(7)
        stems = np.repeat(random.standard_normal((len(self.stems), self.dim)), 3, axis=0)
        forms = stems + 0.45 * random.standard_normal(stems.shape)
        self.vector = dict(zip(self.words, forms / self.dim**0.5, strict=True))

    def encode(self, inputs: Sequence[str], *, show_progress: bool = False) -> NDArray[np.float32]:
        random = np.random.default_rng(len(inputs))
        means = np.stack([np.mean([self.vector[word] for word in text.split()], axis=0) for text in inputs])
        noisy: NDArray[np.float32] = (means + 0.02 * random.standard_normal(means.shape)).astype(np.float32)
        return noisy

    def texts(self, n: int, seed: int) -> list[str]:
        """Return sentences of one form each of two to five words."""
        random = np.random.default_rng(seed)
        return [
            " ".join(
                self.stems[stem] + random.choice(["", "s", "ing"])
                for stem in random.choice(len(self.stems), size=random.integers(2, 6), replace=False)
            )
            for _ in range(n)
        ]


@pytest.fixture(scope="module")
def inflected() -> tuple[Lens, list[str], NDArray[np.float32]]:
    encoder = Inflections()
    texts, unseen = encoder.texts(3000, 0), encoder.texts(500, 1)
    config = TrainConfig(passes=3, batch_size=64, rank=24)
    lens = fit(texts, encoder.encode(texts), encoder=encoder, config=config, hold_out=0)
    return lens, unseen, encoder.encode(unseen)


def test_near_duplicates_are_explained_away(inflected: tuple[Lens, list[str], NDArray[np.float32]]) -> None:
    lens, texts, vectors = inflected
    plain = evaluate(lens, texts, vectors, metrics="accuracy").accuracy.with_prior
    away = evaluate(lens, texts, vectors, metrics="accuracy", decoding="explain-away").accuracy.with_prior
    assert away.ci95[0] > plain.ci95[1]

    def stems(decoding: Any) -> float:
        top = lens.top(vectors, 3, decoding=decoding).indices // 3
        positions = np.array([lens.vocabulary.index[word] for word in Inflections.words])
        family = np.empty(len(positions), dtype=np.int64)
        family[positions] = np.arange(len(positions)) // 3
        top = family[lens.top(vectors, 3, decoding=decoding).indices]
        return float(np.mean([len(set(row.tolist())) for row in top]))

    # Places are not wasted on two forms of one word.
    assert stems("explain-away") > stems("plain")


def test_probabilities_are_those_of_being_in_the_sentence(
    inflected: tuple[Lens, list[str], NDArray[np.float32]],
) -> None:
    lens, texts, vectors = inflected
    top = lens.top(vectors, len(lens.vocabulary), decoding="explain-away")
    known = lens.vocabulary.references(texts).known.toarray()
    present = np.take_along_axis(known, top.indices, axis=1)
    for low, high in ((0.1, 0.5), (0.5, 0.9), (0.9, 1.0)):
        here = (top.probabilities > low) & (top.probabilities <= high)
        assert here.sum() > 50
        assert abs(present[here].mean() - top.probabilities[here].mean()) < 0.1
    # The dial moves the order, not what is believed.
    other = lens.top(vectors, len(lens.vocabulary), decoding="explain-away", prior=0.0)
    np.testing.assert_allclose(
        np.take_along_axis(other.probabilities, other.indices.argsort(axis=1), axis=1),
        np.take_along_axis(top.probabilities, top.indices.argsort(axis=1), axis=1),
        atol=1e-5,
    )


def test_learning_lowers_the_loss_and_repeats_itself() -> None:
    texts, vectors = toy_corpus(400)
    vocabulary = Vocabulary.from_texts(texts)
    counts = vocabulary.counts(texts)
    lens = fit(texts, vectors, vocabulary=vocabulary, config=TrainConfig(passes=2, rank=8), explain_away=False)
    assert lens.away is None and lens.prior is not None
    views = Views(counts, Embeddings([vectors]))
    first, second = (learn(views, lens.factors, lens.prior) for _ in range(2))
    assert first.shares == second.shares and torch.equal(first.dictionary, second.dictionary)
    assert first.dictionary.shape == lens.factors.E1.shape

    def loss(shares: Shares) -> float:
        lens.away = ExplainingAway(first.dictionary, shares)
        top = lens.top(vectors, len(vocabulary), decoding="explain-away")
        present = np.take_along_axis(counts.toarray() > 0, top.indices, axis=1)
        p = np.clip(top.probabilities.astype(np.float64), 1e-7, 1 - 1e-7)
        return float(-np.where(present, np.log(p), np.log(1 - p)).mean())

    assert loss(first.shares) < 0.8 * loss(Shares())
    # Too few rows to learn from leave the shares as they are.
    few = learn_shares(first, lens.factors, lens.prior, Embeddings([vectors[:49]]), counts[:49])
    assert few == first.shares


def test_two_views_count_by_alpha() -> None:
    texts, vectors = toy_corpus(200)
    vocabulary = Vocabulary.from_texts(texts)
    counts = vocabulary.counts(texts)
    lens = fit(texts, vectors, vocabulary=vocabulary, config=TrainConfig(passes=1, rank=8), explain_away=False)
    assert lens.prior is not None
    other = np.random.default_rng(0).standard_normal(vectors.shape).astype(np.float32)
    given_ = (lens.factors, lens.prior)
    one = learn(Views(counts, Embeddings([vectors])), *given_).dictionary
    both = Views(counts, Embeddings([vectors]), Embeddings([other]))
    assert torch.equal(learn(both, *given_, alpha=1.0).dictionary, one)
    swapped = learn(Views(counts, Embeddings([other])), *given_).dictionary
    mixed = learn(both, *given_, alpha=0.25).dictionary
    # The dictionary is linear in the vectors, up to its storage in 8 bits.
    torch.testing.assert_close(mixed, 0.25 * one + 0.75 * swapped, rtol=0.02, atol=0.02 * float(mixed.abs().max()))


@pytest.mark.parametrize("rank", [None, 4])
def test_it_is_saved_with_the_lens(tmp_path: Path, rank: int | None) -> None:
    lens = random_lens(9, r=rank, pool=5, rounds=2)
    lens.save(tmp_path / "lens")
    back = Lens.load(tmp_path / "lens")
    assert back.away is not None and lens.away is not None
    assert torch.equal(back.away.dictionary, lens.away.dictionary)
    assert back.away.to_json() == lens.away.to_json()
    vectors = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    for one in (back, lens.to("cpu")):
        np.testing.assert_array_equal(
            one.top(vectors, 9, decoding="explain-away").scores, lens.top(vectors, 9, decoding="explain-away").scores
        )


def test_a_lens_that_never_learned_it_says_so(tmp_path: Path) -> None:
    whole = random_lens(9)
    lens = Lens(whole.factors, whole.vocabulary, prior=whole.prior, mean=whole.mean)
    lens.save(tmp_path / "lens")
    vector = np.ones(6, dtype=np.float32)
    for one in (lens, Lens.load(tmp_path / "lens")):
        assert one.away is None
        assert len(one.words(vector, 3)) == 3
        with pytest.raises(InputError, match=r"learned to explain away, found none.*explain_away=true"):
            one.words(vector, 3, decoding="explain-away")
        with pytest.raises(InputError, match="learned to explain away"):
            evaluate(one, ["w1 w2"], vector[None], decoding="explain-away")
    # A folder of an earlier version knows nothing of it.
    config = json.loads((tmp_path / "lens/config.json").read_text())
    del config["explaining_away"]
    (tmp_path / "lens/config.json").write_text(json.dumps(config))
    assert Lens.load(tmp_path / "lens").away is None


def test_bad_files_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "lens"
    random_lens(9).save(folder)
    config = json.loads((folder / "config.json").read_text())
    good = config["explaining_away"]
    for bad, fragment in (
        ({"pool": 3}, "explaining_away in .* to hold pool, rounds, shares"),
        ({**good, "pool": 0}, "pool as a whole number from 1"),
        ({**good, "rounds": True}, "rounds as a whole number from 0"),
        ({**good, "shares": {"score": 1.0}}, "shares as length, offset"),
        ({**good, "shares": {**good["shares"], "own": "much"}}, "own to be a finite number"),
    ):
        (folder / "config.json").write_text(json.dumps({**config, "explaining_away": bad}))
        with pytest.raises(InputError, match=fragment):
            Lens.load(folder)
    (folder / "config.json").write_text(json.dumps(config))
    tensors = load_file(folder / "lens.safetensors")
    name = "explaining_away.dictionary"
    for dictionary, fragment in (
        (tensors[name][:5], "dictionary of shape"),
        (tensors[name] * float("nan"), "dictionary .V, r. of finite numbers"),
        (tensors[name][0], "dictionary .V, r."),
    ):
        save_file({**tensors, name: dictionary.contiguous()}, folder / "lens.safetensors")
        with pytest.raises(InputError, match=fragment):
            Lens.load(folder)


def test_bad_calls_are_refused() -> None:
    lens = random_lens()
    vector = np.ones(6, dtype=np.float32)
    for decoding in ("greedy", ""):
        with pytest.raises(InputError, match="decoding plain or explain-away"):
            lens.words(vector, decoding=decoding)  # type: ignore[arg-type]
        with pytest.raises(InputError, match="decoding plain or explain-away"):
            check_decoding(decoding)
    for bad in (-0.1, 1.5, math.nan):
        with pytest.raises(InputError, match="prior from 0 to 1"):
            lens.words(vector, decoding="explain-away", prior=bad)
    with pytest.raises(InputError, match="share to be a finite number"):
        Shares(share=math.inf)
    with pytest.raises(InputError, match="explain_away to be true or false, found 'perhaps'"):
        FitSettings.from_mapping({"explain_away": "perhaps"})
    assert (
        FitSettings.from_mapping({}).explain_away
        and not FitSettings.from_mapping({"explain_away": False}).explain_away
    )


def test_evaluation_and_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    texts, vectors = toy_corpus(300)
    write_lines(Path("texts.txt"), texts)
    np.save("vectors.npy", vectors)
    data = ("--texts", "texts.txt", "--embeddings", "vectors.npy")
    for name, switch in (("with", "true"), ("without", "false")):
        settings_ = ("passes=1", "rank=8", f"explain_away={switch}")
        assert call("fit", *data, "-o", name, "--quiet", *settings_).status == 0
    lens = Lens.load("with")
    assert lens.config["training"]["decoding_seconds"] > 0
    run = call("evaluate", "with", *data, "--decoding", "explain-away", "--prior", "0.5", "--json")
    expected = evaluate(lens, texts, vectors, prior=0.5, decoding="explain-away")
    assert run.json == json.loads(json.dumps(expected.to_json()))
    assert run.json["decoding"] == "explain-away" and "perplexity" not in run.json["views"]["primary"]
    assert "perplexity" in call("evaluate", "with", *data, "--json").json["views"]["primary"]
    explained = call(
        "explain", "with", "--embeddings", "vectors.npy", "-n", 3, "--decoding", "explain-away", "--json"
    )
    assert explained.json[2]["words"] == lens.top(vectors, 3, decoding="explain-away")[2].to_json()
    for command in (("evaluate", "without", *data), ("explain", "without", "--embeddings", "vectors.npy")):
        assert_one_line(call(*command, "--decoding", "explain-away"), 2, "explain_away=true")
    # The published script's call knows no decodings.
    published = ("--sdict", "with", "--data_yaml", "d.yaml", "--dataset", "d", "--decoding", "explain-away")
    assert_one_line(call("evaluate", *published), 2, "expected no --decoding")


def test_every_metric_goes_through_the_decoding() -> None:
    lens = random_lens(30, seed=3)
    encoder, texts = ToyEncoder(), toy_texts(5)
    assert encoder.dim != lens.dim and texts
    random = np.random.default_rng(1)
    sentences = [" ".join(f"w{i}" for i in random.choice(30, size=4, replace=False)) for _ in range(40)]
    vectors = random.standard_normal((40, 6)).astype(np.float32)
    result = evaluate(lens, sentences, vectors, topn=6, decoding="explain-away").views["primary"]
    for name, dial in (("with_prior", 1.0), ("without_prior", 0.0)):
        for row, sentence in enumerate(sentences):
            logits, _ = oracle(lens, vectors[row], dial)
            known = {int(word[1:]) for word in sentence.split()}
            assert result.values["accuracy"][name][row] == len(known & set(brute_force_top(logits, 4))) / 4
            assert result.values["recall"][name][row] == len(known & set(brute_force_top(logits, 6))) / 4


def test_real_sentences_are_read_better(data_dir: Path) -> None:
    """On training rows alone: en.dev is not looked at."""
    folder = data_dir / "common-voice"
    texts = read_lines(folder / "en.train.txt")[:9000]
    vectors = open_embeddings(folder / "en.train.minilm.npy")
    config = TrainConfig(passes=3, rank=128)
    lens = fit(
        texts[:8000],
        vectors.subset(np.arange(8000)),
        vocabulary=VocabularyConfig(size=4000),
        config=config,
        hold_out=0,
    )
    unseen = vectors.subset(np.arange(8000, 9000))
    plain = evaluate(lens, texts[8000:], unseen, metrics="accuracy").accuracy
    away = evaluate(lens, texts[8000:], unseen, metrics="accuracy", decoding="explain-away").accuracy
    assert away.with_prior.mean > plain.with_prior.mean + 0.02
