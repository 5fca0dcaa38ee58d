"""A lens measured on text and vectors: which of a sentence's words it reads (paper, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from fliplens.arithmetic.decoding import Decoding
from fliplens.arithmetic.metrics import accuracy, entity_recall, entity_scores, hit_sets, hits, precision_recall_f1
from fliplens.arithmetic.objective import softmax_
from fliplens.arithmetic.top import top_n
from fliplens.arithmetic.uncertainty import (
    Difference,
    Estimate,
    Values,
    estimate_perplexity,
    estimates,
    paired_differences,
)
from fliplens.embeddings import Embeddings, EmbeddingsLike
from fliplens.errors import InputError
from fliplens.evaluation.entities import Entities, read_entities
from fliplens.lenses.extractor import Extractor, ViewName
from fliplens.text.opening import read_texts
from fliplens.text.spans import Spans
from fliplens.text.vocabulary import References

__all__ = ["AtPriors", "EntityGain", "EntityRecall", "EvaluationResult", "ViewResult", "evaluate"]

MetricChoice = Literal["accuracy", "pr", "all"]
ENTITY_DEPTH = 50
DEFAULT_TOPN = 20


@dataclass(frozen=True)
class AtPriors:
    """One metric at two or three positions of the prior dial."""

    with_prior: Estimate
    """With the full bias, prior = 1: the published formula."""
    without_prior: Estimate
    """With the prior removed, prior = 0."""
    at_prior: Estimate | None = None
    """At another position, where one was asked for."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        named = {
            "with_prior": self.with_prior,
            "without_prior": self.without_prior,
            "at_prior": self.at_prior,
        }
        return {name: value.to_json() for name, value in named.items() if value is not None}


@dataclass(frozen=True)
class EntityRecall:
    """Recall of named entities among the top 1..n words, at one position of the prior dial."""

    strict: tuple[Estimate, ...]
    """All words of the entity among the top n, for n = 1, 2, ..."""
    partial: tuple[Estimate, ...]
    """Share of the entity's words among the top n."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; the first item of each list is n = 1."""
        return {
            "strict": [one.to_json() for one in self.strict],
            "partial": [one.to_json() for one in self.partial],
        }


@dataclass(frozen=True)
class EntityGain:
    """Recall of named entities with the prior removed minus that with it, sentence by sentence."""

    strict: tuple[Difference, ...]
    """For n = 1, 2, ..."""
    partial: tuple[Difference, ...]
    """Likewise."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; the first item of each list is n = 1."""
        return {
            "strict": [one.to_json() for one in self.strict],
            "partial": [one.to_json() for one in self.partial],
        }


@dataclass(frozen=True)
class ViewResult:
    """All metrics of a lens on one view of the sentences."""

    metrics: dict[str, AtPriors]
    """accuracy, precision, recall, f1, perplexity: those that were asked for."""
    entity_recall: dict[str, EntityRecall] = field(repr=False)
    """with_prior, without_prior and perhaps at_prior; empty without entities."""
    entity_gain: EntityGain | None = field(repr=False)
    """What removing the prior does to the recall; None without entities."""
    values: dict[str, dict[str, NDArray[np.float64]]] = field(repr=False)
    """Per sentence, metric → prior → (n,): NaN where a sentence does not count. Not part of the JSON."""
    n_evaluated: int
    """Sentences with at least one known word."""
    n_skipped: int
    """Sentences without."""
    k_mean: float
    """Mean number of distinct known words of the evaluated sentences: accuracy's k."""
    hits: dict[str, csr_matrix] = field(default_factory=dict, repr=False)
    """Prior → (n, V) bool, True at the words that accuracy counts as right; empty unless asked for by `keep_hits`.
    Not part of the JSON."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        result: dict[str, Any] = {name: value.to_json() for name, value in self.metrics.items()}
        if self.entity_recall:
            result["entity_recall"] = {k: value.to_json() for k, value in self.entity_recall.items()}
        if self.entity_gain is not None:
            result["entity_gain"] = self.entity_gain.to_json()
        return {**result, "n_evaluated": self.n_evaluated, "n_skipped": self.n_skipped, "k_mean": self.k_mean}


@dataclass(frozen=True)
class EvaluationResult:
    """A lens's metrics on one or two views of the same sentences."""

    views: dict[str, ViewResult]
    """"primary", and "paired" where a second view was given."""
    topn: int
    """n of precision, recall and F1."""
    prior: float | None
    """The extra position of the prior dial, if one was asked for."""
    vocabulary_size: int
    """V: accuracies of different vocabularies do not compare."""
    decoding: Decoding = "plain"
    """How words were chosen."""
    spans: Spans = "all"
    """What counts as a word of a sentence: with "longest", accuracy is the paper's span-aware accuracy."""

    @property
    def accuracy(self) -> AtPriors:
        """Accuracy of the primary view."""
        return self.views["primary"].metrics["accuracy"]

    @property
    def n_evaluated(self) -> int:
        """Sentences with at least one known word."""
        return self.views["primary"].n_evaluated

    @property
    def n_skipped(self) -> int:
        """Sentences without one."""
        return self.views["primary"].n_skipped

    def __str__(self) -> str:
        lines = [
            f"{name}: {metric} {at.with_prior} with the prior, {at.without_prior} without"
            for name, view in self.views.items()
            for metric, at in view.metrics.items()
        ]
        return "\n".join([*lines, f"{self.n_evaluated} sentences, {self.n_skipped} left out"])

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: `evaluate --json`."""
        views = {name: view.to_json() for name, view in self.views.items()}
        result = {name: value for name, value in views["primary"].items() if name == "accuracy"}
        return {
            **result,
            "n_evaluated": self.n_evaluated,
            "n_skipped": self.n_skipped,
            "topn": self.topn,
            "prior": self.prior,
            "decoding": self.decoding,
            "spans": self.spans,
            "vocabulary_size": self.vocabulary_size,
            "views": views,
        }


def evaluate(
    lens: Extractor,
    texts: Sequence[str] | str | Path,
    embeddings: EmbeddingsLike,
    *,
    paired: EmbeddingsLike | None = None,
    entities: Entities | str | Path | None = None,
    topn: int | None = None,
    prior: float | None = None,
    metrics: MetricChoice = "all",
    pool: int | None = None,
    block_rows: int | None = None,
    decoding: Decoding = "plain",
    keep_hits: bool = False,
) -> EvaluationResult:
    """Measure a lens on sentences and their vectors.

    The words of a sentence are what the lens's vocabulary finds in it. One with `spans="longest"`, such as
    `ConceptConfig` makes, finds greedy longest matches, and the accuracy is then span-aware accuracy (section 3.3).

    Args:
        lens: the lens, or another method: what it cannot have (perplexity without a softmax) is left out.
        texts: n sentences, or the path of a file with one a line.
        embeddings: their vectors (n, d), in memory or a path.
        paired: vectors of a second view of the same sentences, such as speech.
        entities: named entities of the sentences, for entity recall, or the path of their JSONL.
        topn: n of precision, recall and F1; by default 20, or V where that is less.
        prior: one more position of the prior dial, besides 1 and 0.
        metrics: accuracy, pr (precision, recall, F1) or all (both, and perplexity).
        pool: accuracy looks no deeper than this many top words, as the published script does; no limit by
            default.
        block_rows: rows scored at once, at most; memory is bounded in any case.
        decoding: how words are chosen: plain, the paper's, or explain-away (`Extractor.top`). Perplexity is left
            out of the latter: it measures the softmax of plain scores, which decoding does not change.
        keep_hits: also keep which words were right, for `fliplens.evaluation.comparison` (`ViewResult.hits`, sparse).

    Raises:
        InputError: rows that do not match, no sentence with a known word, topn larger than the vocabulary, or
            explain-away by a lens that never learned it.
    """
    lines = read_texts(texts) if isinstance(texts, str | Path) else list(texts)
    if metrics not in ("accuracy", "pr", "all"):
        raise InputError(f"expected metrics accuracy, pr or all, found {metrics!r}")
    if topn is None:
        topn = min(DEFAULT_TOPN, len(lens.vocabulary))
    if not 1 <= topn <= len(lens.vocabulary):
        raise InputError(f"expected topn from 1 to {len(lens.vocabulary)}, the vocabulary, found {topn}")
    given: dict[ViewName, EmbeddingsLike] = {"primary": embeddings}
    if paired is not None:
        given["paired"] = paired
    views = {name: lens.check(view) for name, view in given.items()}
    for view in views.values():
        view.check_rows(len(lines), other="the text")
    references = lens.vocabulary.references(lines)
    if not references.n_known.any():
        raise InputError(
            f"expected sentences with words of the lens's vocabulary, found none in {len(lines)}: "
            "is it a lens for another language?"
        )
    if isinstance(entities, str | Path):
        entities = read_entities(entities, lines, lens.vocabulary)
    if entities is not None and entities.entity_row.max(initial=-1) >= len(lines):
        raise InputError(
            f"expected entities of {len(lines)} sentences, found some of sentence {entities.entity_row.max() + 1}: "
            "they belong to a longer text"
        )
    if pool is not None and pool < 1:
        raise InputError(f"expected a pool of at least 1 word, found {pool}")
    if keep_hits and metrics == "pr":
        raise InputError("expected metrics accuracy or all to keep hits, found pr: hits are those of accuracy")
    dial = {"with_prior": 1.0, "without_prior": 0.0}
    if prior is not None:
        dial["at_prior"] = prior
    # Perplexity is a property of the plain softmax.
    perplexity = metrics == "all" and decoding == "plain" and lens.softmax
    request = _Request(references, entities, topn, dial, metrics, perplexity, pool, block_rows, decoding, keep_hits)
    # As the lens comes it reads the first view: a caller may have set it to another.
    reads = {name: lens if name == "primary" else lens.for_view(name) for name in views}
    return EvaluationResult(
        views={name: _evaluate_view(reads[name], view, request) for name, view in views.items()},
        topn=topn,
        prior=prior,
        vocabulary_size=len(lens.vocabulary),
        decoding=decoding,
        spans=lens.vocabulary.spans,
    )


@dataclass(frozen=True)
class _Request:
    """What to measure on each view."""

    references: References
    entities: Entities | None
    topn: int
    dial: dict[str, float]
    metrics: MetricChoice
    perplexity: bool
    pool: int | None
    block_rows: int | None
    decoding: Decoding
    keep_hits: bool

    def pooled(self, found: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the hits that accuracy looks at."""
        return found if self.pool is None else found[:, : self.pool]

    def depth(self, n_words: int) -> int:
        """Return how many top words of each sentence the metrics look at."""
        needed = [1]
        if self.metrics != "pr":
            deepest = int(self.references.n_known.max())
            needed.append(deepest if self.pool is None else min(deepest, self.pool))
        if self.metrics != "accuracy":
            needed.append(self.topn)
        if self.entities is not None:
            needed.extend([ENTITY_DEPTH, self.topn])
        return min(max(needed), n_words)


def _losses(scores: torch.Tensor, counts: csr_matrix) -> NDArray[np.float64]:
    """Return the negative log-likelihood (rows,) of each row's known words; `scores` become probabilities."""
    rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    observed = scores[torch.from_numpy(rows), torch.from_numpy(counts.indices.astype(np.int64))]
    normaliser = softmax_(scores).cpu().double().numpy()
    gained = np.bincount(rows, weights=counts.data * observed.cpu().double().numpy(), minlength=counts.shape[0])
    mass = np.bincount(rows, weights=counts.data, minlength=counts.shape[0])
    losses: NDArray[np.float64] = mass * normaliser - gained
    return losses


def _evaluate_view(lens: Extractor, embeddings: Embeddings, request: _Request) -> ViewResult:
    known, n_known = request.references.counts, request.references.n_known
    depth = request.depth(len(lens.vocabulary))
    # Positions of the dial that coincide are read once.
    positions = sorted(set(request.dial.values()))
    biases = {position: lens.decoding_bias(request.decoding, position) for position in positions}
    top = {position: np.empty((len(embeddings), depth), dtype=np.int64) for position in positions}
    losses = {position: np.zeros(len(embeddings)) for position in positions}
    buffer: torch.Tensor | None = None
    for start, scores in lens.decoding_blocks(embeddings, request.decoding, most_rows=request.block_rows):
        stop = start + len(scores)
        # Only the bias differs between positions of the dial: the products with E1 are shared. The first block is
        # the largest, and its memory serves all others.
        buffer = torch.empty_like(scores) if buffer is None else buffer
        biased = buffer[: len(scores)]
        for position, bias in biases.items():
            torch.add(scores, bias, out=biased)
            best, best_scores = top_n(biased, depth)
            best[best_scores <= lens.floor] = len(lens.vocabulary)
            top[position][start:stop] = best.cpu().numpy()
            if request.perplexity:
                losses[position][start:stop] = _losses(biased, known[start:stop])
    values: dict[str, dict[str, NDArray[np.float64]]] = {}
    results: dict[str, dict[str, Estimate]] = {}
    recalls: dict[str, tuple[Values, Values]] = {}
    right: dict[str, csr_matrix] = {}
    mass = np.asarray(known.sum(axis=1), dtype=np.float64).ravel()
    for name, position in request.dial.items():
        found = hits(top[position], known)
        for metric, one in _per_sentence(top[position], found, request).items():
            values.setdefault(metric, {})[name] = one
        if request.keep_hits:
            right[name] = hit_sets(request.pooled(found), top[position], n_known, len(lens.vocabulary))
        if request.entities is not None:
            depths = range(1, min(ENTITY_DEPTH, depth) + 1)
            recalls[name] = entity_recall(top[position], *request.entities.arrays(), depths)
    # Metrics that leave out the same sentences share their bootstrap samples.
    for entity in (False, True):
        keys = [(m, name) for m in values if m.startswith("entity_") == entity for name in request.dial]
        if keys:
            columns = np.stack([values[metric][name] for metric, name in keys], axis=1)
            for (metric, name), estimated in zip(keys, estimates(columns), strict=True):
                results.setdefault(metric, {})[name] = estimated
    if request.perplexity:
        results["perplexity"] = {
            name: estimate_perplexity(losses[position], mass) for name, position in request.dial.items()
        }
    return ViewResult(
        metrics={metric: AtPriors(**by_name) for metric, by_name in results.items()},
        entity_recall={name: EntityRecall(*map(estimates, recall)) for name, recall in recalls.items()},
        entity_gain=_gain(recalls["without_prior"], recalls["with_prior"]) if recalls else None,
        values=values,
        n_evaluated=int((n_known > 0).sum()),
        n_skipped=int((n_known == 0).sum()),
        k_mean=float(n_known[n_known > 0].mean()),
        hits=right,
    )


def _per_sentence(
    top: NDArray[np.int64], found: NDArray[np.bool_], request: _Request
) -> dict[str, NDArray[np.float64]]:
    """Return metric → (n,) values at one position of the dial, from its top words and which of them are right."""
    references = request.references
    values: dict[str, NDArray[np.float64]] = {}
    if request.metrics != "pr":
        values["accuracy"] = accuracy(request.pooled(found), references.n_known)
    if request.metrics != "accuracy":
        values["precision"], values["recall"], values["f1"] = precision_recall_f1(
            found, request.topn, references.n_distinct, references.n_known
        )
    if request.entities is not None:
        values.update(entity_scores(top[:, : request.topn], *request.entities.arrays()))
    return values


def _gain(without: tuple[Values, Values], with_prior: tuple[Values, Values]) -> EntityGain:
    """Return the differences of strict and of partial recall, (n, depths) each."""
    return EntityGain(*(paired_differences(one, other) for one, other in zip(without, with_prior, strict=True)))
