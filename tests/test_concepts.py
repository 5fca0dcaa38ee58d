"""Spans by greedy longest match, and the concept vocabulary, against loops that follow their definitions."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from oracles import brute_force_accuracy
from toys import ToyEncoder, toy_texts

from fliplens.arithmetic.metrics import entity_recall, entity_scores
from fliplens.cli import main
from fliplens.errors import InputError
from fliplens.evaluation.entities import Entities
from fliplens.evaluation.evaluating import evaluate
from fliplens.files import read_lines, write_lines
from fliplens.lenses.lens import Lens
from fliplens.text import spans
from fliplens.text.concepts import ConceptConfig
from fliplens.text.tokenisation import Tokeniser
from fliplens.text.vocabulary import Vocabulary
from fliplens.training import Checkpoint
from fliplens.training.fitting import fit
from fliplens.training.recipes import TrainConfig

words = st.sampled_from("abcd")
texts_of_words = st.lists(st.lists(words, max_size=9).map(" ".join), max_size=7)
vocabularies = st.lists(st.lists(words, min_size=1, max_size=4).map(" ".join), min_size=1, max_size=9, unique=True)
ranges = st.sampled_from([(1, 1), (1, 2), (2, 2), (1, 3), (2, 3), (3, 3)])


def greedy(text: str, known: set[str], ngram_range: tuple[int, int]) -> tuple[list[str], set[str]]:
    """Terms of a text from left to right, longest first, and the words that start none."""
    tokens, found, skipped, place = text.split(), [], set(), 0
    while place < len(tokens):
        for n in range(ngram_range[1], ngram_range[0] - 1, -1):
            term = " ".join(tokens[place : place + n])
            if place + n <= len(tokens) and term in known:
                found.append(term)
                place += n
                break
        else:
            skipped.add(tokens[place])
            place += 1
    return found, skipped


# Spans ------------------------------------------------------------------------------------------------------------


@given(texts_of_words, vocabularies, ranges, st.integers(1, 12))
def test_spans_against_a_greedy_loop(
    texts: list[str], terms: list[str], ngram_range: tuple[int, int], block: int
) -> None:
    vocabulary = Vocabulary(tuple(terms), ngram_range=ngram_range, spans="longest")
    expected = [greedy(text, set(terms), ngram_range) for text in texts]
    counts = [[Counter(found)[term] for term in terms] for found, _ in expected]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, "BLOCK_WORDS", block)
        found = vocabulary.counts(texts)
        references = vocabulary.references(texts)
    np.testing.assert_array_equal(found.toarray(), np.array(counts, dtype=np.float32).reshape(len(texts), len(terms)))
    assert found.dtype == np.float32 and found.has_canonical_format and (found.data > 0).all()
    np.testing.assert_array_equal(references.counts.toarray(), found.toarray())
    np.testing.assert_array_equal(references.n_known, [len(set(known)) for known, _ in expected])
    np.testing.assert_array_equal(references.n_distinct, [len(set(known)) + len(miss) for known, miss in expected])
    assert references.n_distinct.dtype == np.int64


def test_spans_by_hand() -> None:
    vocabulary = Vocabulary(("new", "new york", "york city", "city"), ngram_range=(1, 2), spans="longest")
    references = vocabulary.references(["A new York City, a NEW york!", "york", "", "new"])
    np.testing.assert_array_equal(
        references.counts.toarray(), [[0, 2, 0, 1], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]
    )
    # "new york", "city" and the unknown word "a"; then the unknown word "york".
    np.testing.assert_array_equal(references.n_distinct, [3, 1, 0, 1])
    # What ends one text and starts the next is no pair.
    assert vocabulary.counts(["new", "york city"]).toarray().tolist() == [[1, 0, 0, 0], [0, 0, 1, 0]]
    assert vocabulary.counts([]).shape == (0, 4)
    assert "spans='longest'" in repr(vocabulary)


def test_matches_that_overlap_for_long_are_followed_to_their_end() -> None:
    # Every place starts a match, and each reaches over the next place.
    vocabulary = Vocabulary(("a a", "a"), ngram_range=(1, 2), spans="longest")
    counts = vocabulary.counts(["a " * 1001, "a " * 1000])
    assert counts.toarray().tolist() == [[500, 1], [500, 0]]


def test_the_longest_match_may_be_reached_through_ngrams_that_are_no_terms() -> None:
    vocabulary = Vocabulary(("a", "a b c", "c"), ngram_range=(1, 3), spans="longest")
    assert vocabulary.counts(["a b c", "a b d", "a b"]).toarray().tolist() == [[0, 1, 0], [1, 0, 0], [1, 0, 0]]


def test_references_are_cut_by_the_evaluation_half_of_the_tokeniser() -> None:
    vocabulary = Vocabulary(("don", "dont know"), Tokeniser(mode="published"), (1, 2), "longest")
    assert vocabulary.counts(["I don't know"]).toarray().tolist() == [[1, 0]]
    references = vocabulary.references(["I don't know"])
    assert references.counts.toarray().tolist() == [[0, 1]] and references.n_distinct.tolist() == [2]


def test_unknown_words_are_told_apart_from_terms_at_any_position() -> None:
    # Most terms are outside the range, so that positions are far beyond the number of words that terms are made of.
    vocabulary = Vocabulary((*(f"w{i}" for i in range(50)), "a b"), ngram_range=(2, 2), spans="longest")
    text = "a b " + " ".join(f"w{i}" for i in range(50))
    assert vocabulary.references([text]).n_distinct.tolist() == [51]


def test_a_wrong_kind_of_spans_is_refused() -> None:
    with pytest.raises(InputError, match="spans to be all or longest, found 'short'"):
        Vocabulary(("a",), spans="short")  # type: ignore[arg-type]


# The concept vocabulary -------------------------------------------------------------------------------------------


@given(
    st.lists(st.lists(words, max_size=9).map(" ".join), min_size=1, max_size=7),
    st.integers(1, 3),
    st.sampled_from([-1.0, 0.1, 0.7, 1.5]),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_concepts_against_their_definition(
    texts: list[str], min_frequency: int, min_pmi: float, unigrams: int, bigrams: int
) -> None:
    assume(unigrams + bigrams)
    tokens = [text.split() for text in texts]
    one = Counter(word for row in tokens for word in row)
    two = Counter(pair for row in tokens for pair in pairwise(row))

    def pmi(a: str, b: str) -> float:
        return math.log((two[a, b] / two.total()) / ((one[a] / one.total()) * (one[b] / one.total())))

    def top(counted: dict[str, int], size: int) -> dict[str, int]:
        kept = {term: n for term, n in counted.items() if n >= min_frequency}
        return dict(sorted(kept.items(), key=lambda item: (-item[1], item[0]))[:size])

    # On the threshold itself rounding decides.
    assume(all(abs(pmi(*pair) - min_pmi) > 1e-9 for pair in two))
    associated = {f"{a} {b}": n for (a, b), n in two.items() if pmi(a, b) >= min_pmi}
    chosen = {**top(dict(one), unigrams), **top(associated, bigrams)}
    config = ConceptConfig(min_frequency=min_frequency, min_pmi=min_pmi, unigrams=unigrams, bigrams=bigrams)
    if not chosen:
        with pytest.raises(InputError, match="found none"):
            config.build(texts)
        return
    vocabulary = config.build(iter(texts))
    assert vocabulary.words == tuple(sorted(chosen, key=lambda term: (-chosen[term], term)))
    assert (vocabulary.spans, vocabulary.ngram_range) == ("longest", (1, 2))


def test_concepts_by_hand() -> None:
    texts = ["new york is big", "new york is old", "is it new"]
    # 11 words, 8 pairs: p(new york) = 2/8, p(new) = 3/11, p(york) = 2/11, PMI = log 5.04 = 1.62;
    # p(york is) = 2/8, p(is) = 3/11: the same.
    config = ConceptConfig(min_frequency=2, min_pmi=1.6, unigrams=2)
    assert config.build(texts).words == ("is", "new", "new york", "york is")
    assert dataclasses.replace(config, bigrams=1).build(texts).words == ("is", "new", "new york")
    assert dataclasses.replace(config, min_pmi=1.63).build(texts).words == ("is", "new")
    assert ConceptConfig() == ConceptConfig(min_frequency=20, min_pmi=1.5, unigrams=6500, bigrams=3500)
    cased = ConceptConfig(min_frequency=1, min_pmi=0, tokeniser=Tokeniser(lowercase=False))
    assert cased.build(["New York"]).words == ("New", "New York", "York")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"min_frequency": 0}, "min_frequency to be a whole number from 1, found 0"),
        ({"min_frequency": 2.0}, "min_frequency"),
        ({"min_frequency": True}, "min_frequency"),
        ({"min_pmi": math.nan}, "min_pmi"),
        ({"min_pmi": "1.5"}, "min_pmi"),
        ({"unigrams": -1}, "unigrams"),
        ({"bigrams": None}, "bigrams"),
        ({"unigrams": 0, "bigrams": 0}, "both 0"),
    ],
)
def test_bad_settings_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        ConceptConfig(**options)


def test_an_empty_concept_vocabulary_says_what_emptied_it() -> None:
    with pytest.raises(InputError, match="expected texts"):
        ConceptConfig().build([])
    with pytest.raises(InputError, match="found none in 2 texts"):
        ConceptConfig().build(["", "?!"])
    with pytest.raises(InputError, match=r"of 3 words and 2 pairs in 2 texts, min_frequency=20 removed 3 and 2"):
        ConceptConfig().build(["a b", "a c"])
    with pytest.raises(InputError, match=r"removed 0 and 0, min_pmi=9.5 the other 2 pairs, and unigrams=0"):
        ConceptConfig(min_frequency=1, min_pmi=9.5, unigrams=0).build(["a b", "a c"])
    with pytest.raises(InputError, match="one string"):
        ConceptConfig().build("a b")


# Lenses trained on concepts ---------------------------------------------------------------------------------------

# Without the pairs that stand together by chance.
CONCEPTS = ConceptConfig(min_frequency=3, min_pmi=1.0, bigrams=1)
FAST = TrainConfig(passes=6, batch_size=32)


def city_texts(n: int, *, seed: int = 0) -> list[str]:
    """Sentences in which "harbour lantern" often stands together, behind other words."""
    random = np.random.default_rng(seed)
    return [text + " harbour lantern" * int(random.random() < 0.4) for text in toy_texts(n, seed=seed)]


@pytest.fixture(scope="module")
def lens() -> Lens:
    texts = city_texts(600)
    return fit(texts, ToyEncoder().encode(texts), vocabulary=CONCEPTS, config=FAST)


def test_accuracy_of_a_concept_lens_is_span_aware(lens: Lens) -> None:
    assert [word for word in lens.vocabulary if " " in word] == ["harbour lantern"]
    texts = ["", "nothing known", *city_texts(60, seed=5)]
    vectors = ToyEncoder().encode(texts)
    result = evaluate(lens, texts, vectors)
    expected = []
    for text, row in zip(texts, lens.scores(vectors).astype(np.float64), strict=True):
        found, _ = greedy(text, set(lens.vocabulary), (1, 2))
        one = brute_force_accuracy(row, {lens.vocabulary.index[term] for term in found})
        expected.extend([] if one is None else [one])
    assert result.accuracy.with_prior.mean == pytest.approx(np.mean(expected))
    assert result.n_evaluated == len(expected) == 60
    assert result.accuracy.with_prior.mean > 0.5
    value = json.loads(json.dumps(result.to_json()))
    assert value["spans"] == "longest"
    assert lens.config["metrics"]["dev"]["spans"] == "longest"


def test_a_concept_lens_reads_a_pair_as_one_word(lens: Lens) -> None:
    vector = ToyEncoder(noise=0.0).encode(["harbour lantern"])[0]
    assert lens.words(vector, n=1)[0].word == "harbour lantern"


def test_training_starts_from_the_encoders_vectors_of_the_pairs_as_text() -> None:
    class Recording(ToyEncoder):
        heard: tuple[str, ...] = ()

        def encode(self, inputs: Sequence[str], *, show_progress: bool = False) -> NDArray[np.float32]:
            self.heard += tuple(inputs)
            return super().encode(inputs, show_progress=show_progress)

    texts, encoder = city_texts(200), Recording()
    made = fit(texts, ToyEncoder().encode(texts), vocabulary=CONCEPTS, config=TrainConfig(passes=1), encoder=encoder)
    assert made.config["training"]["anchor"] == "words"
    assert "harbour lantern" in encoder.heard and encoder.heard == made.vocabulary.words


def test_spans_are_kept_in_the_folder(lens: Lens, tmp_path: Path) -> None:
    lens.save(tmp_path / "lens")
    config = json.loads((tmp_path / "lens" / "config.json").read_text())
    # A reader of format 1 would count all n-grams.
    assert (config["spans"], config["format_version"], lens.config["format_version"]) == ("longest", 2, 2)
    again = Lens.load(tmp_path / "lens")
    assert again.vocabulary == lens.vocabulary
    texts = city_texts(40, seed=7)
    vectors = ToyEncoder().encode(texts)
    assert evaluate(again, texts, vectors).to_json() == evaluate(lens, texts, vectors).to_json()
    plain = Lens(lens.factors, dataclasses.replace(lens.vocabulary, spans="all"), prior=lens.prior, mean=lens.mean)
    plain.save(tmp_path / "plain")
    written = json.loads((tmp_path / "plain" / "config.json").read_text())
    assert (written["spans"], written["format_version"]) == ("all", 1)
    # As an older version wrote it.
    del written["spans"]
    (tmp_path / "plain" / "config.json").write_text(json.dumps(written))
    loaded = Lens.load(tmp_path / "plain")
    assert loaded.vocabulary.spans == "all"
    assert evaluate(loaded, texts, vectors).to_json()["spans"] == "all"


def test_fit_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = city_texts(200)
    write_lines(tmp_path / "t.txt", texts)
    np.save(tmp_path / "v.npy", ToyEncoder().encode(texts))
    call = ["fit", "--texts", str(tmp_path / "t.txt"), "--embeddings", str(tmp_path / "v.npy"), "--concepts"]
    call += ["--quiet", "--passes", "1", "--rank", "8", "-o", str(tmp_path / "lens"), "--json"]
    assert main([*call, "min_frequency=8", "min_pmi=1", "unigrams=20"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert (described["spans"], described["ngram_range"]) == ("longest", [1, 2])
    held = Lens.load(tmp_path / "lens").vocabulary
    assert sum(" " not in word for word in held) == 20 and "harbour lantern" in held
    assert main(["info", str(tmp_path / "lens")]) == 0
    assert "1 to 2 words, longest" in capsys.readouterr().out
    for wrong in (["vocab_size=5"], ["ngram_range=[1, 2]"], ["concepts=false", "unigrams=5"]):
        assert main([*call, "--overwrite", *wrong]) == 2
        assert "concepts=" in capsys.readouterr().err


def test_other_concepts_are_another_job(tmp_path: Path) -> None:
    texts = city_texts(200)
    vectors = ToyEncoder().encode(texts)
    config = TrainConfig(passes=1, batch_size=16)
    fit(texts, vectors, vocabulary=CONCEPTS, config=config, checkpoint=Checkpoint(tmp_path / "c", every_seconds=0))
    others: list[Vocabulary | ConceptConfig | None] = [
        dataclasses.replace(CONCEPTS, unigrams=9),
        dataclasses.replace(CONCEPTS.build(texts), spans="all"),
        None,
    ]
    for other in others:
        with pytest.raises(InputError, match=r"differs in vocabulary\)"):
            fit(texts, vectors, vocabulary=other, config=config, checkpoint=tmp_path / "c")
    # The same settings, written otherwise.
    same = dataclasses.replace(CONCEPTS, min_pmi=1)
    fit(texts, vectors, vocabulary=same, config=config, checkpoint=tmp_path / "c")


# Entities ---------------------------------------------------------------------------------------------------------


def test_a_pair_reads_both_words_of_an_entity() -> None:
    vocabulary = Vocabulary(("new", "york", "new york", "city", "york city"), ngram_range=(1, 2), spans="longest")
    entities = Entities.of([["New York City"], ["Boston", "york"]], vocabulary)
    assert entities.words.tolist() == [[0, 2, -1], [1, 2, 4], [3, 4, -1], [-1, -1, -1], [1, -1, -1]]
    top = np.array([[2, 0, 4, 1, 3], [2, 4, 3, 0, 1]])
    strict, partial = entity_recall(top, *entities.arrays(), range(1, 6))
    # "new york" reads two of three words, "york city" the third. In the second text only "york" itself reads it.
    np.testing.assert_allclose(strict, np.array([[0, 0, 1, 1, 1], [0, 0, 0, 0, 0.5]]))
    np.testing.assert_allclose(partial, np.array([[2 / 3, 2 / 3, 1, 1, 1], [0, 0, 0, 0, 0.5]]))
    scores = entity_scores(top[:, :2], *entities.arrays())
    # Both of the first two terms belong to the entity; each counts once.
    np.testing.assert_allclose(scores["entity_precision"], [1.0, 0.0])
    assert entities.subset(np.array([1])).words.tolist() == [[-1, -1, -1], [1, -1, -1]]
    all_ngrams = dataclasses.replace(vocabulary, spans="all")
    assert Entities.of([["New York City"]], all_ngrams).words.tolist() == [0, 1, 3]
    assert Entities.of([[]], vocabulary).words.shape == (0, 1)


def test_entity_recall_of_a_concept_lens(lens: Lens) -> None:
    texts = ["harbour lantern river", "river stone"]
    vectors = ToyEncoder(noise=0.0).encode(texts)
    entities = Entities.of([["Harbour Lantern"], []], lens.vocabulary)
    found = evaluate(lens, texts, vectors, entities=entities).views["primary"].entity_recall["with_prior"]
    ranked = [word.word for word in lens.words(vectors[0], n=len(lens.vocabulary))]
    both = max(ranked.index("harbour"), ranked.index("lantern"))
    needed = min(ranked.index("harbour lantern"), both) + 1
    for n in range(1, len(found.strict) + 1):
        assert found.strict[n - 1].mean == float(n >= needed)


# Real text --------------------------------------------------------------------------------------------------------


def test_real_corpus(data_dir: Path) -> None:
    path = data_dir / "common-voice" / "en.train.txt"
    if not path.is_file():
        pytest.skip(f"real text is absent: no {path}")
    texts = read_lines(path)
    paper = ConceptConfig().build(texts)
    pairs = sum(" " in word for word in paper)
    assert 1300 < len(paper) - pairs < 1700 and 700 < pairs < 1100
    filled = ConceptConfig(min_frequency=3).build(texts)
    assert len(filled) == 10_000 and sum(" " in word for word in filled) == 3500
    counts = filled.counts(texts)
    known = set(filled)
    for row in range(0, len(texts), 97):
        found, _ = greedy(" ".join(Tokeniser().terms(texts[row])), known, (1, 2))
        assert Counter(found) == {
            filled[int(column)]: int(n) for column, n in zip(counts[row].indices, counts[row].data, strict=True)
        }
