"""Two lenses, or one lens on two views, compared on the same sentences (paper, section 3.3).

Both are measured by `evaluate`; what is compared is which words of each sentence either reads (the Jaccard index of
their hit sets) and by how much their accuracies differ, paired sentence by sentence, so that what makes a sentence
hard for both does not count as uncertainty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from fliplens.arithmetic.decoding import Decoding
from fliplens.arithmetic.metrics import jaccard
from fliplens.arithmetic.uncertainty import Difference, Estimate, estimate, estimates, paired_difference
from fliplens.embeddings import EmbeddingsLike
from fliplens.errors import InputError
from fliplens.evaluation.evaluating import ViewResult, evaluate
from fliplens.lenses.extractor import Extractor
from fliplens.text.opening import read_texts
from fliplens.text.vocabulary import Vocabulary

__all__ = ["ComparedAt", "Comparison", "compare", "compare_views"]


@dataclass(frozen=True)
class ComparedAt:
    """Two readings, a and b, of the same sentences at one position of the prior dial."""

    accuracy_a: Estimate
    """Over the sentences compared, each with a's own k; `evaluate`'s is over all that a knows a word of."""
    accuracy_b: Estimate
    """Likewise of b, from the same bootstrap samples."""
    difference: Difference
    """accuracy_a - accuracy_b, sentence by sentence."""
    jaccard: Estimate
    """Jaccard index of the two hit sets, over the sentences compared where either has a hit."""
    n_empty: int
    """Sentences compared where neither has a hit: left out of the Jaccard index."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "accuracy_a": self.accuracy_a.to_json(),
            "accuracy_b": self.accuracy_b.to_json(),
            "difference": self.difference.to_json(),
            "jaccard": self.jaccard.to_json(),
            "n_empty": self.n_empty,
        }


@dataclass(frozen=True)
class Comparison:
    """What `compare` found."""

    with_prior: ComparedAt
    """With the full bias, prior = 1: the published formula."""
    without_prior: ComparedAt
    """With the prior removed, prior = 0."""
    at_prior: ComparedAt | None
    """At another position, where one was asked for."""
    n_compared: int
    """Sentences of which both know a word: only these count."""
    n_skipped: int
    """Sentences of which a or b knows none."""
    vocabulary_sizes: tuple[int, int]
    """V of a and of b."""
    n_shared_words: int
    """Words in both vocabularies."""
    vocabularies_differ: bool
    """Whether a and b know different words, or cut texts differently. Accuracies of different vocabularies are
    fractions of different words and compare with care; a word that only one knows can be no common hit."""

    def positions(self) -> dict[str, ComparedAt]:
        """Return with_prior, without_prior and, where it was asked for, at_prior."""
        named = {"with_prior": self.with_prior, "without_prior": self.without_prior, "at_prior": self.at_prior}
        return {name: one for name, one in named.items() if one is not None}

    def __str__(self) -> str:
        lines = [
            f"{name}: accuracy {at.accuracy_a} and {at.accuracy_b}, difference {at.difference}, Jaccard {at.jaccard}"
            for name, at in self.positions().items()
        ]
        counted = f"{self.n_compared} sentences, {self.n_skipped} left out"
        if self.vocabularies_differ:
            first, second = self.vocabulary_sizes
            counted += f"; vocabularies differ: {first} and {second} words, {self.n_shared_words} of them shared"
        return "\n".join([*lines, counted])

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: one of `evaluate --against OTHER --json`."""
        return {
            **{name: at.to_json() for name, at in self.positions().items()},
            "n_compared": self.n_compared,
            "n_skipped": self.n_skipped,
            "vocabulary_sizes": list(self.vocabulary_sizes),
            "n_shared_words": self.n_shared_words,
            "vocabularies_differ": self.vocabularies_differ,
        }


def compare(
    lens_a: Extractor,
    lens_b: Extractor,
    texts: Sequence[str] | str | Path,
    embeddings_a: EmbeddingsLike,
    embeddings_b: EmbeddingsLike | None = None,
    *,
    prior: float | None = None,
    block_rows: int | None = None,
    decoding: Decoding = "plain",
) -> Comparison:
    """Compare what two lenses read from vectors of the same sentences.

    `compare(lens, lens, texts, speech, text)` compares two views through one lens.

    Args:
        lens_a: the first lens.
        lens_b: the second; its vocabulary may be another (`Comparison.vocabularies_differ`).
        texts: n sentences, or the path of a file with one a line.
        embeddings_a: their vectors (n, d), which lens_a reads, in memory or a path.
        embeddings_b: what lens_b reads, (n, d'); by default the same vectors.
        prior: one more position of the prior dial, besides 1 and 0.
        block_rows: rows scored at once, at most; memory is bounded in any case.
        decoding: how both choose words (`evaluate`).

    Raises:
        InputError: what `evaluate` refuses, or no sentence of which both know a word.
    """
    lines = read_texts(texts) if isinstance(texts, str | Path) else list(texts)

    def measured(
        lens: Extractor, embeddings: EmbeddingsLike, paired: EmbeddingsLike | None = None
    ) -> list[ViewResult]:
        result = evaluate(
            lens,
            lines,
            embeddings,
            paired=paired,
            prior=prior,
            metrics="accuracy",
            block_rows=block_rows,
            decoding=decoding,
            keep_hits=True,
        )
        return list(result.views.values())

    if lens_a is lens_b:
        # Words are looked for once, and a view that is compared with itself is read once.
        views = measured(lens_a, embeddings_a, embeddings_b)
    else:
        views = measured(lens_a, embeddings_a)
        views += measured(lens_b, embeddings_a if embeddings_b is None else embeddings_b)
    return compare_views(views[0], views[-1], lens_a.vocabulary, lens_b.vocabulary)


def compare_views(a: ViewResult, b: ViewResult, vocabulary_a: Vocabulary, vocabulary_b: Vocabulary) -> Comparison:
    """Compare two evaluations that are there already, as `compare` does.

    Args:
        a: of n sentences, evaluated with `keep_hits=True`.
        b: of the same sentences in the same order, at the same positions of the prior dial.
        vocabulary_a: of the lens that a is of.
        vocabulary_b: of the lens that b is of.

    Raises:
        InputError: evaluations of different sentences or positions, or without hits; or no sentence of which both
            know a word.
    """
    if not a.hits or a.hits.keys() != b.hits.keys():
        raise InputError(
            f"expected evaluations with keep_hits=True at the same positions of the prior dial, found hits at "
            f"{_listed(a.hits)} and at {_listed(b.hits)}: evaluate both alike"
        )
    names = list(a.hits)
    n_a, n_b = (view.hits[names[0]].shape[0] for view in (a, b))
    if n_a != n_b:
        raise InputError(f"expected evaluations of the same sentences, found {n_a} and {n_b}: use one text for both")
    accuracies = np.stack([view.values["accuracy"][name] for name in names for view in (a, b)], axis=1)
    # Whether a sentence has a known word does not depend on the dial.
    compared = ~np.asarray(np.isnan(accuracies).any(axis=1))
    if not compared.any():
        raise InputError(
            f"expected sentences with words of both lenses' vocabularies, found none in {n_a}: "
            "are they lenses for different languages?"
        )
    averages = estimates(accuracies)
    positions = {}
    for number, name in enumerate(names):
        first, second = 2 * number, 2 * number + 1
        theirs = _renumbered(b.hits[name], vocabulary_b, vocabulary_a)
        ours: csr_matrix = csr_matrix(a.hits[name], shape=theirs.shape)
        indices = np.where(compared, jaccard(ours, theirs), np.nan)
        positions[name] = ComparedAt(
            averages[first],
            averages[second],
            paired_difference(accuracies[:, first], accuracies[:, second]),
            estimate(indices),
            n_empty=int(np.isnan(indices[compared]).sum()),
        )
    words_a, words_b = set(vocabulary_a), set(vocabulary_b)
    return Comparison(
        with_prior=positions["with_prior"],
        without_prior=positions["without_prior"],
        at_prior=positions.get("at_prior"),
        n_compared=int(compared.sum()),
        n_skipped=int((~compared).sum()),
        vocabulary_sizes=(len(vocabulary_a), len(vocabulary_b)),
        n_shared_words=len(words_a & words_b),
        # The same words in another order are the same vocabulary here; another tokeniser is not.
        vocabularies_differ=words_a != words_b or vocabulary_a != replace(vocabulary_b, words=vocabulary_a.words),
    )


def _listed(hits: dict[str, csr_matrix]) -> str:
    return ", ".join(hits) or "none"


def _renumbered(hits: csr_matrix, own: Vocabulary, other: Vocabulary) -> csr_matrix:
    """Return hit sets with the columns that another vocabulary gives the words; words it lacks follow behind.

    Args:
        hits: (n, V) of one's own vocabulary.
        own: V words.
        other: V' words.

    Returns:
        (n, V' or more) bool, as many entries as before.
    """
    if own.words == other.words:
        return hits
    used, entries = np.unique(hits.indices, return_inverse=True)
    places: NDArray[np.int64] = np.array([other.index.get(own[word], -1) for word in used], dtype=np.int64)
    lacking = places < 0
    places[lacking] = len(other) + np.arange(lacking.sum())
    shape = (hits.shape[0], len(other) + int(lacking.sum()))
    renumbered: csr_matrix = csr_matrix((hits.data, places[entries], hits.indptr), shape=shape)
    renumbered.sort_indices()
    return renumbered
