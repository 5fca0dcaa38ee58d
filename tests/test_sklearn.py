"""The estimator passes scikit-learn's own checks and drops into a pipeline."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from toys import toy_corpus

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fliplens.errors import InputError
from fliplens.sklearn import LensTransformer


@parametrize_with_checks([LensTransformer(passes=2)])  # type: ignore[untyped-decorator]
def test_it_passes_the_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


def test_a_pipeline_reads_words() -> None:
    texts, vectors = toy_corpus(400)
    pipeline = make_pipeline(StandardScaler(), LensTransformer(passes=8, random_state=1))
    scores = pipeline.fit(vectors, texts).transform(vectors)
    words = pipeline[-1].get_feature_names_out()
    assert scores.shape == (400, len(words))
    assert scores.dtype == np.float32
    right = [
        len({words[i] for i in np.argsort(-row)[: len(set(text.split()))]} & set(text.split()))
        / len(set(text.split()))
        for row, text in zip(scores, texts, strict=True)
    ]
    assert np.mean(right) > 0.8
    top = pipeline[-1].top_words(pipeline[0].transform(vectors[:2]), n=3)
    assert [word.word for word in top[0]] == [words[i] for i in np.argsort(-scores[0], kind="stable")[:3]]


def test_words_are_explained_away_where_that_is_asked_for() -> None:
    texts, vectors = toy_corpus(400)
    plain = LensTransformer(passes=2).fit(vectors, texts)
    assert plain.lens_.away is None
    other = clone(plain).set_params(decoding="explain-away").fit(vectors, texts)
    np.testing.assert_array_equal(other.transform(vectors), plain.transform(vectors))
    found = other.top_words(vectors[:20], n=4)
    expected = other.lens_.top(vectors[:20], 4, decoding="explain-away")
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.scores, expected.scores)
    assert (found.scores != plain.top_words(vectors[:20], n=4).scores).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [({"decoding": "magic"}, "expected decoding plain or explain-away"), ({"vocab_size": 0}, "expected vocab_size")],
)
def test_what_cannot_be_is_refused_by_its_name(options: dict[str, Any], message: str) -> None:
    texts, vectors = toy_corpus(50)
    with pytest.raises(InputError, match=message):
        LensTransformer(**options).fit(vectors, texts)


def test_clones_with_the_same_seed_agree() -> None:
    texts, vectors = toy_corpus(200)
    first = LensTransformer(passes=2, rank=4)
    second = clone(first)
    np.testing.assert_array_equal(
        first.fit(vectors, texts).transform(vectors), second.fit(vectors, texts).transform(vectors)
    )
