from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections import Counter
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fliplens.errors import InputError
from fliplens.files import read_lines
from fliplens.text.tokenisation import Tokeniser
from fliplens.text.vocabulary import Vocabulary

CORPUS = [
    "The cat sat on the mat.",
    "The dog didn’t sit; the cat did!",
    "",
    "A cat, a dog, a mat",
    "Der Käse — ÜBER alles",
]

sentences = st.lists(st.sampled_from(["a", "b", "B", "c,", "don't", "é", "e\u0301", "हिन्दी", "-"]), max_size=8)
corpora = st.lists(sentences.map(" ".join), min_size=1, max_size=8)
ranges = st.sampled_from([(1, 1), (1, 2), (2, 2), (1, 3), (2, 4)])


def brute_ngrams(terms: list[str], ngram_range: tuple[int, int]) -> list[str]:
    """n-grams from their definition: every slice whose length is in the range."""
    slices = (terms[i:j] for i in range(len(terms)) for j in range(i + 1, len(terms) + 1))
    return [" ".join(part) for part in slices if ngram_range[0] <= len(part) <= ngram_range[1]]


def test_order_is_by_frequency_and_then_by_code_point() -> None:
    vocabulary = Vocabulary.from_texts(CORPUS)
    assert vocabulary.words[:5] == ("the", "a", "cat", "dog", "mat")
    assert vocabulary.words[5:] == tuple(sorted(vocabulary.words[5:]))
    assert Vocabulary.from_texts(iter(CORPUS[::-1])) == vocabulary
    assert vocabulary.words[-1] == "über"


def test_it_is_a_container_of_words() -> None:
    vocabulary = Vocabulary(("b", "a"))
    assert len(vocabulary) == 2
    assert "a" in vocabulary
    assert "c" not in vocabulary
    assert 0 not in vocabulary
    assert vocabulary[1] == "a"
    assert list(vocabulary) == ["b", "a"]
    assert vocabulary.index == {"b": 0, "a": 1}
    assert repr(vocabulary).startswith("Vocabulary(2 words: 'b', 'a'; ")
    assert pickle.loads(pickle.dumps(vocabulary)) == vocabulary  # noqa: S301 - our own bytes
    with pytest.raises(IndexError):
        vocabulary[2]


@given(corpora, ranges)
def test_counts_and_references_against_counter(corpus: list[str], ngram_range: tuple[int, int]) -> None:
    tokeniser = Tokeniser()
    bags = [Counter(brute_ngrams(tokeniser.terms(text), ngram_range)) for text in corpus]
    total: Counter[str] = sum(bags, Counter())
    if not total:
        with pytest.raises(InputError, match="found none"):
            Vocabulary.from_texts(corpus, ngram_range=ngram_range)
        return
    everything = Vocabulary.from_texts(corpus, ngram_range=ngram_range, max_size=None)
    assert everything.words == tuple(sorted(total, key=lambda term: (-total[term], term)))

    vocabulary = Vocabulary.from_texts(corpus, ngram_range=ngram_range, max_size=2)
    assert vocabulary.words == everything.words[:2]
    expected = np.array([[bag[word] for word in vocabulary.words] for bag in bags], dtype=np.float32)
    counts = vocabulary.counts(corpus)
    np.testing.assert_array_equal(counts.toarray(), expected)
    assert counts.dtype == np.float32
    assert counts.shape == (len(corpus), len(vocabulary))
    assert counts.has_canonical_format
    assert (counts.data > 0).all()

    references = vocabulary.references(corpus)
    np.testing.assert_array_equal(references.counts.toarray(), expected)
    np.testing.assert_array_equal(references.n_known, (expected > 0).sum(1))
    np.testing.assert_array_equal(references.n_distinct, [len(bag) for bag in bags])
    np.testing.assert_array_equal(references.known.toarray(), expected > 0)
    assert references.n_distinct.dtype == references.n_known.dtype == np.int64
    assert references.known.dtype == np.bool_


@given(
    corpora,
    ranges,
    st.integers(1, 3) | st.floats(0, 1),
    st.integers(1, 8) | st.floats(0, 1),
)
def test_against_count_vectorizer(
    corpus: list[str], ngram_range: tuple[int, int], min_df: int | float, max_df: int | float
) -> None:
    sklearn = pytest.importorskip("sklearn.feature_extraction.text")
    theirs = sklearn.CountVectorizer(min_df=min_df, max_df=max_df, ngram_range=ngram_range)

    def ours() -> Vocabulary:
        return Vocabulary.from_texts(
            corpus,
            tokeniser=Tokeniser(mode="published"),
            min_df=min_df,
            max_df=max_df,
            ngram_range=ngram_range,
        )

    try:
        expected = theirs.fit_transform(corpus)
    except ValueError:
        with pytest.raises(InputError):
            ours()
        return
    vocabulary = ours()
    assert sorted(vocabulary.words) == list(theirs.get_feature_names_out())
    columns = [theirs.vocabulary_[word] for word in vocabulary.words]
    np.testing.assert_array_equal(vocabulary.counts(corpus).toarray(), expected.toarray()[:, columns])


def test_min_df_and_max_df_by_hand() -> None:
    texts = ["x x x", "x y", "x y z"]
    assert Vocabulary.from_texts(texts, min_df=2).words == ("x", "y")
    assert Vocabulary.from_texts(texts, min_df=0.5).words == ("x", "y")
    assert Vocabulary.from_texts(texts, max_df=2).words == ("y", "z")
    assert Vocabulary.from_texts(texts, max_df=0.7).words == ("y", "z")
    assert Vocabulary.from_texts(texts, max_df=1).words == ("z",)
    assert Vocabulary.from_texts(texts, max_df=1.0).words == ("x", "y", "z")
    # The limits come first, then the size: max_size=1 does not spend its place on x.
    assert Vocabulary.from_texts(texts, max_df=2, max_size=1).words == ("y",)


def test_references_of_the_published_mode_are_those_of_its_evaluation() -> None:
    vocabulary = Vocabulary(("don", "dont", "know"), Tokeniser(mode="published"))
    np.testing.assert_array_equal(vocabulary.counts(["I don't know"]).toarray(), [[1, 0, 1]])
    references = vocabulary.references(["I don't know", "", "?!"])
    np.testing.assert_array_equal(references.counts.toarray(), [[0, 1, 1], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(references.n_distinct, [3, 0, 0])
    np.testing.assert_array_equal(references.n_known, [2, 0, 0])


def test_references_count_unknown_terms_once() -> None:
    vocabulary = Vocabulary(("new", "new york"), ngram_range=(1, 2))
    references = vocabulary.references(["New York, new york"])
    # new, york, "new york", "york new"
    np.testing.assert_array_equal(references.n_distinct, [4])
    np.testing.assert_array_equal(references.counts.toarray(), [[2, 2]])


def test_no_texts_give_no_rows() -> None:
    vocabulary = Vocabulary(("a", "b"))
    assert vocabulary.counts([]).shape == (0, 2)
    references = vocabulary.references([])
    assert references.known.shape == (0, 2)
    assert references.n_distinct.shape == references.n_known.shape == (0,)
    assert vocabulary.counts(["", "zzz"]).nnz == 0


def test_progress_goes_to_stderr_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    vocabulary = Vocabulary.from_texts(CORPUS)
    vocabulary.counts(CORPUS)
    assert capsys.readouterr() == ("", "")
    vocabulary = Vocabulary.from_texts(CORPUS, show_progress=True)
    vocabulary.counts(CORPUS, show_progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "vocabulary" in err
    assert "counting words" in err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"max_size": 0}, "max_size"),
        ({"max_size": -1}, "max_size"),
        ({"max_size": 2.5}, "max_size"),
        ({"max_size": True}, "max_size"),
        ({"min_df": 0}, "min_df"),
        ({"min_df": -0.1}, "min_df"),
        ({"min_df": 1.5}, "min_df"),
        ({"min_df": float("nan")}, "min_df"),
        ({"min_df": True}, "min_df"),
        ({"min_df": "2"}, "min_df"),
        ({"max_df": 0}, "max_df"),
        ({"max_df": float("inf")}, "max_df"),
        ({"max_df": None}, "max_df"),
        ({"min_df": 3, "max_df": 2}, "min_df=3"),
        ({"min_df": 0.9, "max_df": 0.1}, "max_df=0.1"),
        ({"ngram_range": (0, 1)}, "ngram_range"),
        ({"ngram_range": (2, 1)}, "ngram_range"),
        ({"ngram_range": (1,)}, "ngram_range"),
        ({"ngram_range": (1, 2.0)}, "ngram_range"),
        ({"ngram_range": 2}, "ngram_range"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        Vocabulary.from_texts(CORPUS, **options)


def test_an_empty_vocabulary_says_what_emptied_it() -> None:
    with pytest.raises(InputError, match="texts"):
        Vocabulary.from_texts([])
    with pytest.raises(InputError, match="found none in 2 texts"):
        Vocabulary.from_texts(["", "?!"])
    with pytest.raises(InputError, match=r"of 3 terms in 3 texts, min_df=2 removed 2 and max_df=2 removed 1"):
        Vocabulary.from_texts(["a b", "a c", "a"], min_df=2, max_df=2)
    with pytest.raises(InputError, match="at least one word"):
        Vocabulary(())


def test_other_wrong_calls() -> None:
    with pytest.raises(InputError, match="'a' twice"):
        Vocabulary(("a", "b", "a"))
    with pytest.raises(InputError, match="one string"):
        Vocabulary.from_texts("a sentence")
    with pytest.raises(InputError, match="one string"):
        Vocabulary(("a",)).counts("a sentence")
    bad: Any = ["a", None]
    with pytest.raises(InputError, match="NoneType in row 1"):
        Vocabulary(("a",)).references(bad)


@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1, unique=True))
def test_save_and_load_round_trip(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.json"
    vocabulary = Vocabulary(tuple(words), Tokeniser(strip_accents="ascii"), (1, 2))
    vocabulary.save(path)
    assert Vocabulary.load(path, tokeniser=vocabulary.tokeniser, ngram_range=(1, 2)) == vocabulary
    assert json.loads(path.read_text(encoding="utf-8")) == vocabulary.index


def test_vocab_json_is_the_published_format(tmp_path: Path) -> None:
    Vocabulary(("हिन्दी", "é")).save(tmp_path / "vocab.json")
    written = (tmp_path / "vocab.json").read_text(encoding="utf-8")
    assert "हिन्दी" in written
    assert "é" in written
    (tmp_path / "other.json").write_text('{"second": 1, "first": 0}', encoding="utf-8")
    assert Vocabulary.load(tmp_path / "other.json").words == ("first", "second")


def test_half_a_surrogate_pair_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    vocabulary = Vocabulary.from_texts(["ok \ud800x"], tokeniser=Tokeniser(mode="published-indic"))
    with pytest.raises(InputError, match="ud800"):
        vocabulary.save(tmp_path / "vocab.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ('["a"]', "list"),
        ("{}", "no words"),
        ('{"a": "0"}', "'0' as the index of 'a'"),
        ('{"a": 0.0}', "0.0 as the index"),
        ('{"a": true}', "True as the index"),
        ('{"a": -1}', "-1 for 'a'"),
        ('{"a": 0, "b": 2}', "0 to 1 for its 2 words, found 2 for 'b'"),
        ('{"a": 0, "b": 0}', "0 for 'a' and for 'b'"),
        ('{"a": 0', "expected JSON"),
    ],
)
def test_bad_vocab_json_is_refused(tmp_path: Path, content: str, named: str) -> None:
    (tmp_path / "vocab.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=named):
        Vocabulary.load(tmp_path / "vocab.json")


def test_missing_vocab_json_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found none"):
        Vocabulary.load(tmp_path / "vocab.json")


def test_needs_no_torch_and_no_scikit_learn() -> None:
    code = (
        "import sys, fliplens.text.vocabulary as v; v.Vocabulary.from_texts(['a b']).counts(['a']); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'sklearn')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_real_corpus(data_dir: Path) -> None:
    path = data_dir / "common-voice" / "en.train.txt"
    if not path.is_file():
        pytest.skip(f"real text is absent: no {path}")
    texts = read_lines(path)
    vocabulary = Vocabulary.from_texts(texts)
    assert 20_000 < len(vocabulary) < 22_000
    assert vocabulary[0] == "the"
    assert {"don't", "i'm", "a", "i"} <= set(vocabulary.words)
    counts = vocabulary.counts(texts)
    total = Counter(chain.from_iterable(map(Tokeniser().terms, texts)))
    np.testing.assert_array_equal(np.asarray(counts.sum(axis=0)).ravel(), [total[word] for word in vocabulary.words])
    assert counts.sum() == sum(total.values())
