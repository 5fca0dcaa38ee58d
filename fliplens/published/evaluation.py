"""The published evaluation script: its call on a dataset, and its result files."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fliplens.embeddings import Embeddings
from fliplens.errors import FliplensWarning, InputError
from fliplens.evaluation.entities import read_entities
from fliplens.evaluation.evaluating import EvaluationResult, MetricChoice, ViewResult, evaluate
from fliplens.files import read_lines, write_json
from fliplens.lenses.lens import Lens
from fliplens.published.datasets import Dataset, find_dataset, read_datasets

__all__ = ["DatasetEvaluation", "evaluate_dataset", "inside", "write_results"]


@dataclass(frozen=True, kw_only=True)
class DatasetEvaluation:
    """One pair of views of a dataset, evaluated as the published script does."""

    dataset: Dataset
    ids: dict[str, str]
    """primary and paired → embedding id."""
    texts: list[str]
    views: dict[str, Embeddings]
    result: EvaluationResult
    n_entity_documents: int


def evaluate_dataset(
    lens: Lens,
    data_yaml: str | Path,
    name: str,
    *,
    text_id: str | None = None,
    entities_jsonl: str | Path | None = None,
    metrics: MetricChoice = "all",
    topn: int = 20,
    pool: int = 200,
    shortest: int = 1,
    longest: int = 1000,
    prior: float = 0.0,
    unit_length: bool = False,
    block_rows: int | None = None,
) -> list[DatasetEvaluation]:
    """Evaluate a lens on every pair of views of one dataset of a `datasets.yaml`.

    Args:
        lens: the lens.
        data_yaml: the `datasets.yaml`.
        name: of the dataset.
        text_id: which text is the reference; inferred where there is one.
        entities_jsonl: named entities of that text.
        metrics: accuracy, pr or all.
        topn: n of precision, recall, F1.
        pool: accuracy looks no deeper than this many words, or than topn where that is more.
        shortest: leave out sentences of fewer tokens, where this is above 1 or `longest` below 1000.
        longest: leave out sentences of more tokens.
        prior: position of the prior dial for the result files; 0 is the published default.
        unit_length: scale vectors to length 1 first.
        block_rows: rows scored at once, at most; memory is bounded in any case.
    """
    dataset = find_dataset(read_datasets(data_yaml), name, data_yaml)
    chosen = dataset.text_id(text_id)
    texts = read_lines(dataset.texts[chosen])
    if not dataset.pairs:
        raise InputError(f"expected embeddings in dataset {name} of {data_yaml}, found none")
    if pool < 1:
        raise InputError(f"expected a pool of at least 1 word, found {pool}")
    lengths = np.array([len(lens.vocabulary.tokeniser.reference_terms(line)) for line in texts])
    # A sentence without any word counts, with zeros, until lengths are asked for.
    asked = shortest > 1 or longest < 1000
    kept = (lengths >= shortest) & (lengths <= longest) | (not asked)
    done = []
    for first, second in dataset.pairs:
        rows = np.flatnonzero(kept)
        # Published evaluation always drops rows whose views are not alike at all.
        similar = dataset.similar_rows((first, second), len(texts), 0.0)
        if similar is not None:
            rows = np.intersect1d(rows, similar)
        if not len(rows):
            raise InputError(f"expected sentences of {shortest} to {longest} words in {name}, found none")
        ids = {"primary": first, "paired": second} if first != second else {"primary": first}
        views = {}
        for key, identifier in ids.items():
            view = dataset.view(identifier)
            view.check_rows(len(texts), other=str(dataset.texts[chosen]))
            view = view.subset(rows)
            views[key] = view.normalised() if unit_length else view
        lines = [texts[row] for row in rows]
        entities = None
        if entities_jsonl is not None:
            entities = read_entities(entities_jsonl, texts, lens.vocabulary).subset(rows)
            if not entities.n_rows:
                warnings.warn(
                    f"none of the {len(rows)} sentences of {name} that count has an entity in {entities_jsonl}: "
                    "no entity metrics",
                    FliplensWarning,
                    stacklevel=2,
                )
                entities = None
        done.append(
            DatasetEvaluation(
                dataset=dataset,
                ids=ids,
                texts=lines,
                views=views,
                result=evaluate(
                    lens,
                    lines,
                    views["primary"],
                    paired=views.get("paired"),
                    entities=entities,
                    topn=topn,
                    prior=prior,
                    metrics=metrics,
                    pool=max(pool, topn),
                    block_rows=block_rows,
                ),
                n_entity_documents=0 if entities is None else entities.n_rows,
            )
        )
    return done


def write_results(
    lens: Lens,
    done: DatasetEvaluation,
    folder: str | Path,
    *,
    config: Mapping[str, Any],
    base: str = "",
    details: bool = False,
) -> list[Path]:
    """Write the published script's result files, a set for each view, and return their paths.

    Args:
        lens: the lens.
        done: what was evaluated.
        folder: gets `accuracy/` and `precision_recall/`.
        config: the call's options, stored with the figures.
        base: start of the file names; by default `<dataset>/<embedding file>`. The view's id, and that of its
            partner, are added where two views or pairs would share a name, so that none overwrites another.
        details: also write every sentence with its words.
    """
    written = []
    for key, view in done.result.views.items():
        stem = _result_name(done, key, base)
        for kind, name, value in _result_files(lens, done, key, view, config, details):
            path = inside(Path(folder), kind, f"{stem}_{name}.json")
            write_json(path, value)
            written.append(path)
    return written


def _result_name(done: DatasetEvaluation, key: str, base: str) -> str:
    """Return how a view's result files are called: as published, and longer where two would share a name."""
    dataset, identifier = done.dataset, done.ids[key]
    used = {one for pair in dataset.pairs for one in pair}
    stem = dataset.embeddings[identifier].stem
    name = base or f"{dataset.name}/{stem}"
    if len([one for one in used if base or dataset.embeddings[one].stem == stem]) > 1:
        name += f"_{identifier}"
    if sum(identifier in pair for pair in dataset.pairs) > 1:
        other = next(one for one in done.ids.values() if one != identifier)
        name += f"_with_{other}"
    return name


def _result_files(
    lens: Lens, done: DatasetEvaluation, key: str, view: ViewResult, config: Mapping[str, Any], details: bool
) -> list[tuple[str, str, Any]]:
    topn = done.result.topn
    files: list[tuple[str, str, Any]] = []
    options = dict(config)
    keywords: list[list[str]] = []
    if details:
        n = min(max(topn, 1), len(lens.vocabulary))
        top = lens.top(done.views[key], n, prior=done.result.prior or 0.0)
        keywords = [[word.word for word in words] for words in top]
    if "accuracy" in view.values:
        values = view.values["accuracy"]["at_prior"]
        kept = values[~np.isnan(values)]
        summary = {
            "n_evaluated": view.n_evaluated,
            "n_skipped": view.n_skipped,
            "k_mean": round(view.k_mean, 2),
            "accuracy": {**_summary(kept), "median": round(float(np.median(kept)), 4)},
        }
        files.append(("accuracy", "accuracy_summary", {"config": options, "metrics": summary}))
        if details:
            rows = [
                {"doc": text, "accuracy": float(value)}
                for text, value in zip(done.texts, values, strict=True)
                if not np.isnan(value)
            ]
            files.append(("accuracy", "accuracy_results", rows))
    if "precision" in view.values:
        # Published averages count sentences without a known word as zeros.
        per_sentence = {
            metric: np.nan_to_num(view.values[metric]["at_prior"]) for metric in ("precision", "recall", "f1")
        }
        metrics: dict[str, Any] = {
            "evaluation_mode": "standard",
            "n_documents": len(done.texts),
            "topn": topn,
            **{metric: _summary(values) for metric, values in per_sentence.items()},
        }
        files.append(("precision_recall", f"topn{topn}_summary", {"config": options, "metrics": metrics}))
        if details:
            rows = [
                {
                    "doc": text,
                    "keywords": words[:topn],
                    "metrics": {metric: float(values[row]) for metric, values in per_sentence.items()},
                }
                for row, (text, words) in enumerate(zip(done.texts, keywords, strict=True))
            ]
            files.append(("precision_recall", f"topn{topn}_results", rows))
    if "entity_recall_strict" in view.values and "precision" in view.values:
        entity: dict[str, Any] = {
            "evaluation_mode": "entity",
            "n_documents": done.n_entity_documents,
            "topn": topn,
        }
        # Of the sentences with entities alone, all metrics.
        some = ~np.isnan(view.values["entity_recall_strict"]["at_prior"])
        names = ("precision", "recall_strict", "recall_partial", "f1_strict", "f1_partial")
        for metric in ("precision", "recall", "f1", *(f"entity_{one}" for one in names)):
            entity[metric] = _summary(np.nan_to_num(view.values[metric]["at_prior"][some]))
        files.append(
            (
                "precision_recall",
                f"topn{topn}_entity_summary",
                {"config": options, "metrics": entity, "n_entity_docs": done.n_entity_documents},
            )
        )
    return files


def _summary(values: NDArray[np.float64]) -> dict[str, float]:
    return {
        "mean": round(float(values.mean()), 4),
        "std": round(float(values.std()), 4),
        "se": round(float(values.std() / np.sqrt(len(values))), 4),
        "min": round(float(values.min()), 4),
        "max": round(float(values.max()), 4),
    }


def inside(folder: Path, *pieces: str) -> Path:
    """Return folder/pieces, refusing names from a file or flag that would lead out of the folder."""
    path = folder.joinpath(*pieces)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"expected result names inside {folder}, found {'/'.join(pieces)!r}")
    return path
