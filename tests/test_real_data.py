"""Lenses on real sentences and real vectors: small, but enough to tell a lens that reads from one that guesses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fliplens.arithmetic.objective import Factors
from fliplens.embeddings import Embeddings, open_embeddings
from fliplens.evaluation.evaluating import evaluate
from fliplens.files import read_lines
from fliplens.lenses.lens import Lens
from fliplens.training.anchoring import log_unigrams
from fliplens.training.fitting import VocabularyConfig, fit
from fliplens.training.recipes import TrainConfig

ROWS = 8000


@pytest.fixture(scope="module")
def corpus(data_dir: Path) -> tuple[list[str], Embeddings, list[str], Embeddings, Embeddings]:
    folder = data_dir / "common-voice"
    texts, dev = read_lines(folder / "en.train.txt")[:ROWS], read_lines(folder / "en.dev.txt")[:1000]
    train = open_embeddings(folder / "en.train.minilm.npy").subset(np.arange(ROWS))
    views = [
        open_embeddings(folder / f"{name}.dev.minilm.npy").subset(np.arange(1000)) for name in ("en", "en-noisy")
    ]
    return texts, train, dev, views[0], views[1]


def test_a_lens_reads_words_of_unseen_sentences(
    corpus: tuple[list[str], Embeddings, list[str], Embeddings, Embeddings],
) -> None:
    texts, train, dev, clean, noisy = corpus
    lens = fit(texts, train, vocabulary=VocabularyConfig(size=4000), config=TrainConfig(passes=3, rank=128))
    result = evaluate(lens, dev, clean, paired=noisy)
    guess = Lens(
        Factors(torch.zeros(4000, 1), torch.zeros(1, 384), log_unigrams(lens.vocabulary.counts(texts))),
        lens.vocabulary,
    )
    baseline = evaluate(guess, dev, clean).accuracy.with_prior
    found = result.accuracy.with_prior
    assert found.ci95[0] > baseline.ci95[1] + 0.12
    # The degraded channel says less.
    assert result.views["paired"].metrics["accuracy"].with_prior.mean < found.mean
    # The prior is what stop words live on.
    assert result.accuracy.without_prior.mean < found.mean
    dull = lens.top(clean.subset(np.arange(50)), 5, prior=1.0)
    sharp = lens.top(clean.subset(np.arange(50)), 5, prior=0.0)
    stop_words = set(lens.vocabulary.words[:20])

    def count(top: object) -> int:
        return sum(word.word in stop_words for words in top for word in words)  # type: ignore[attr-defined]

    assert count(sharp) < count(dull) / 2


def test_vectors_shuffled_against_their_texts_teach_nothing(
    corpus: tuple[list[str], Embeddings, list[str], Embeddings, Embeddings],
) -> None:
    texts, train, dev, clean, _ = corpus
    shuffled = train.subset(np.random.default_rng(0).permutation(ROWS))
    lens = fit(texts, shuffled, vocabulary=VocabularyConfig(size=4000), config=TrainConfig(passes=1, rank=64))
    guess = Lens(
        Factors(torch.zeros(4000, 1), torch.zeros(1, 384), log_unigrams(lens.vocabulary.counts(texts))),
        lens.vocabulary,
    )
    baseline = evaluate(guess, dev, clean).accuracy.with_prior
    assert evaluate(lens, dev, clean).accuracy.with_prior.mean < baseline.mean + 0.02
