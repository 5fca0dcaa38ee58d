"""The published training YAML, translated into data, vocabulary and recipe."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fliplens.embeddings import Embeddings
from fliplens.errors import FliplensWarning, InputError
from fliplens.files import read_lines
from fliplens.published.datasets import find_dataset, locate, read_datasets
from fliplens.published.sections import Section
from fliplens.settings import read_yaml
from fliplens.text.choosing import VocabularyConfig
from fliplens.text.tokenisation import Tokeniser
from fliplens.text.vocabulary import Vocabulary, check_size
from fliplens.training.recipes import TrainConfig

__all__ = ["FitJob", "is_training_yaml", "read_training_yaml"]


@dataclass(frozen=True)
class FitJob:
    """A published training YAML, ready for `fit`."""

    texts: list[str]
    embeddings: Embeddings
    paired: Embeddings | None
    dev_texts: list[str] | None
    dev_embeddings: Embeddings | None
    dev_paired: Embeddings | None
    vocabulary: Vocabulary
    train: TrainConfig
    output: Path
    verbose: bool
    """compute.verbose: whether progress is shown."""


SECTIONS = ("experiment", "data", "model", "training")
ROWS = frozenset({"datasets", "embedding_pair", "target_text", "sim_threshold", "normalize"})
SETTINGS = {
    "experiment": frozenset({"name", "output_dir", "seed"}),
    "data": frozenset({"train_datasets_yaml", "datasets_yaml", "dev_datasets_yaml", "vocab_yaml"}),
    "data.train": ROWS,
    "data.validation": ROWS,
    "model": frozenset({"type", "rank", "alpha"}),
    "training": frozenset(
        {
            "batch_size",
            "learning_rate",
            "lr_factor",
            "iterations",
            "num_workers",
            "checkpoint_interval",
            "patience",
            "early_stopping",
            "stop_criteria",
            "half_precision",
        }
    ),
    "evaluation": frozenset({"topk_factor", "use_bias"}),
    "regularization": frozenset({"l1", "l1_method", "weight_decay"}),
    "resume": frozenset({"model_checkpoint", "optimizer_checkpoint"}),
    "compute": frozenset({"copy_to_tmp", "tmp_dir", "verbose"}),
}
"""Section → its settings, as the published code reads them."""
TOKEN_PATTERNS = {"latin": "published", "indic": "published-indic"}


def is_training_yaml(values: Mapping[str, Any]) -> bool:
    """Return whether a YAML mapping is laid out as the published code's training configuration."""
    return any(isinstance(values.get(section), dict) for section in SECTIONS)


def read_training_yaml(
    values: Mapping[str, Any], path: str | Path, overrides: Mapping[str, Any] | None = None
) -> FitJob:
    """Translate a published training YAML into data, vocabulary and recipe.

    Args:
        values: the YAML's content.
        path: where it came from, for messages and relative paths.
        overrides: dotted names and values that replace settings (`training.batch_size`).

    Raises:
        InputError: a section or value is missing, of the wrong kind, or asks for what this code does not do.
    """
    path = Path(path)
    config = Section(dict(values), "", path)
    for name, value in (overrides or {}).items():
        section, _, setting = name.rpartition(".")
        if name not in SETTINGS and setting not in SETTINGS.get(section, ()):
            raise InputError(
                f"expected section.name=value with a setting of the published training YAML "
                f"({', '.join(SETTINGS)}), found {name!r}"
            )
        config.replace(name, value)
    data, training = config.section("data"), config.section("training")
    model, regularization = config.section("model"), config.section("regularization")
    evaluation, compute = config.section("evaluation"), config.section("compute")
    for name in ("model_checkpoint", "optimizer_checkpoint"):
        if config.section("resume").get(name) is not None:
            raise InputError(f"expected resume.{name} to be null in {path}: start a new run instead")
    if regularization.text("l1_method", "proximal") != "proximal":
        raise InputError(
            f"expected regularization.l1_method proximal in {path}, found "
            f"{regularization.get('l1_method')!r}: the subgradient method gives no exact zeros"
        )
    if training.text("stop_criteria", "recall_avg") != "recall_avg":
        raise InputError(
            f"expected training.stop_criteria recall_avg in {path}, found {training.get('stop_criteria')!r}"
        )
    ignored = [
        name
        for name, section in (("num_workers", training), ("copy_to_tmp", compute), ("tmp_dir", compute))
        if section.get(name)
    ]
    if ignored:
        warnings.warn(
            f"{', '.join(ignored)} in {path} have no effect: embeddings are memory-mapped where they lie",
            FliplensWarning,
            stacklevel=2,
        )
    unknown = _unknown(values)
    if unknown:
        warnings.warn(
            f"{', '.join(unknown)} in {path} are no settings of the published training YAML and have no effect: "
            "are they spelt right?",
            FliplensWarning,
            stacklevel=2,
        )
    train_yaml = data.get("train_datasets_yaml") or data.get("datasets_yaml")
    if train_yaml is None:
        raise InputError(f"expected data.train_datasets_yaml (or data.datasets_yaml) in {path}, found neither")
    dev_yaml = data.get("dev_datasets_yaml") or train_yaml
    train_datasets = locate(train_yaml, path)
    texts, primary, paired = _load_rows(data.section("train"), train_datasets)
    dev: tuple[list[str], Embeddings, Embeddings] | tuple[None, None, None] = (None, None, None)
    if "validation" in data:
        dev = _load_rows(data.section("validation"), locate(dev_yaml, path))
    kind = model.text("type", None)
    if kind not in ("LoLM", "FactLoLM"):
        raise InputError(f"expected model.type LoLM or FactLoLM in {path}, found {kind!r}")
    passes = training.whole("iterations", 100)
    experiment = config.section("experiment")
    return FitJob(
        texts=texts,
        embeddings=primary,
        paired=paired,
        dev_texts=dev[0],
        dev_embeddings=dev[1],
        dev_paired=dev[2],
        vocabulary=_vocabulary(locate(data.text("vocab_yaml", None), path), train_datasets),
        train=TrainConfig.from_recipe(
            "paper",
            rank="full" if kind == "LoLM" else model.whole("rank", None),
            alpha=model.number("alpha", 0.5),
            passes=passes,
            batch_size=training.whole("batch_size", None),
            learning_rate=training.number("learning_rate", None),
            learning_rate_projection=training.number("learning_rate", None),
            learning_rate_bias=training.number("learning_rate", None),
            plateau_factor=training.number("lr_factor", 0.5),
            # The published scheduler waits half as long as early stopping.
            plateau_patience=training.whole("patience", 5) // 2,
            patience=training.whole("patience", 5) if training.flag("early_stopping", True) else passes,
            evaluate_every=training.whole("checkpoint_interval", 3),
            stop_topk_factor=evaluation.number("topk_factor", 2.0),
            stop_prior=1.0 if evaluation.flag("use_bias", False) else 0.0,
            l1=regularization.number("l1", 0.0),
            weight_decay=regularization.number("weight_decay", 0.0),
            precision="bfloat16" if training.flag("half_precision", False) else "float32",
            seed=experiment.whole("seed", 0),
        ),
        output=Path(experiment.text("output_dir", None)) / experiment.text("name", None),
        verbose=compute.flag("verbose", True),
    )


def _unknown(values: Mapping[Any, Any], section: str = "") -> list[str]:
    """Return the dotted names in a training YAML that are neither a section nor a setting of theirs."""
    found = []
    for name, value in values.items():
        dotted = f"{section}.{name}" if section else str(name)
        if dotted in SETTINGS:
            found.extend(_unknown(value, dotted) if isinstance(value, dict) else [])
        elif name not in SETTINGS.get(section, ()):
            found.append(dotted)
    return found


def _load_rows(section: Section, yaml_path: Path) -> tuple[list[str], Embeddings, Embeddings]:
    """Return texts, the view of `target_text` and the other view of all datasets of a section, filtered."""
    datasets = read_datasets(yaml_path)
    pair, target = section.names("embedding_pair"), section.text("target_text", None)
    if len(pair) != 2 or target not in pair:
        raise InputError(f"expected target_text to be one of the two of embedding_pair {pair}, found {target!r}")
    other = pair[1] if pair[0] == target else pair[0]
    threshold = section.number("sim_threshold", 0.0)
    norm = section.get("normalize")
    if norm not in (None, "l2"):
        raise InputError(f"expected normalize null or l2, found {norm!r}")
    texts: list[str] = []
    views: tuple[list[Embeddings], list[Embeddings]] = ([], [])
    for name in section.names("datasets"):
        dataset = find_dataset(datasets, name, yaml_path)
        lines = read_lines(dataset.texts[dataset.text_id(target)])
        rows = dataset.similar_rows(pair, len(lines), threshold)
        for kept, identifier in zip(views, (target, other), strict=True):
            view = dataset.view(identifier)
            view.check_rows(len(lines), other=str(dataset.texts[target]))
            view = view if rows is None else view.subset(rows)
            kept.append(view.normalised() if norm == "l2" else view)
        texts.extend(lines if rows is None else [lines[row] for row in rows])
    if not texts:
        raise InputError(f"expected rows above sim_threshold {threshold} in {yaml_path}, found none")
    return texts, Embeddings.concatenate(views[0]), Embeddings.concatenate(views[1])


def _vocabulary(path: Path, datasets_yaml: Path) -> Vocabulary:
    """Return the vocabulary of a published vocabulary folder: its JSON, or built again; never its pickle."""
    section = Section(read_yaml(path), "", path)
    pattern = section.text("token_pattern", "latin")
    if pattern not in TOKEN_PATTERNS:
        raise InputError(f"expected token_pattern latin or indic in {path}, found {pattern!r}")
    accents, lowercase = section.get("strip_accents"), section.get("lowercase")
    tokeniser = Tokeniser.from_json(
        {
            "mode": TOKEN_PATTERNS[pattern],
            "lowercase": True if lowercase is None else lowercase,
            "strip_accents": accents,
        }
    )
    ngrams = section.get("ngram_range") or [1, 1]
    if not (isinstance(ngrams, list) and len(ngrams) == 2 and all(isinstance(n, int) for n in ngrams)):
        raise InputError(f"expected ngram_range as two whole numbers in {path}, found {ngrams!r}")
    ngram_range = (ngrams[0], ngrams[1])
    ready = sorted(path.parent.glob("vocab_*.json"))
    if len(ready) > 1:
        raise InputError(f"expected one vocab_<V>.json in {path.parent}, found {len(ready)}: keep the one to use")
    if ready:
        return Vocabulary.load(ready[0], tokeniser=tokeniser, ngram_range=ngram_range)
    datasets = read_datasets(datasets_yaml)
    threshold = section.number("sim_threshold", 0.0)
    lines: list[str] = []
    for name in section.names("datasets"):
        dataset = find_dataset(datasets, name, datasets_yaml)
        texts = read_lines(dataset.texts[dataset.text_id(section.get("text_id"))])
        # The published code filters by the first scores there are, and only above threshold 0.
        filtered = threshold > 0 and dataset.sim_scores
        rows = dataset.similar_rows(dataset.pairs[0], len(texts), threshold) if filtered else None
        lines.extend(texts if rows is None else [texts[row] for row in rows])
    size = section.whole("max_features", -1)
    if size != -1:
        check_size(f"max_features in {path}", size, all_words="-1")
    min_df, max_df = section.get("min_df"), section.get("max_df")
    return VocabularyConfig(
        size=None if size == -1 else size,
        min_df=1 if min_df is None else min_df,
        max_df=1.0 if max_df is None else max_df,
        ngram_range=ngram_range,
        tokeniser=tokeniser,
    ).build(lines)
