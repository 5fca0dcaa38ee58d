"""The published code's own files and calls: `datasets.yaml`, training YAML, evaluation flags, result files.

Everything here translates to the types of the library and back; nothing is computed that the library does not.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fliplens.embeddings import Embeddings, open_embeddings
from fliplens.entities import read_entities
from fliplens.errors import FliplensWarning, InputError
from fliplens.evaluation import EvaluationResult, MetricChoice, ViewResult, evaluate
from fliplens.files import read_lines, write_json
from fliplens.fitting import VocabularyConfig
from fliplens.lens import Lens
from fliplens.recipes import TrainConfig
from fliplens.settings import read_yaml
from fliplens.tokenisation import Tokeniser
from fliplens.vocabulary import Vocabulary

__all__ = [
    "Dataset",
    "FitJob",
    "evaluate_dataset",
    "is_training_yaml",
    "read_datasets",
    "read_training_yaml",
    "write_results",
]


@dataclass(frozen=True)
class Dataset:
    """One entry of a `datasets.yaml`, its paths resolved."""

    name: str
    embeddings: dict[str, Path]
    """id → `.npy` (n × d)."""
    texts: dict[str, Path]
    """id → text file of n lines."""
    sim_scores: dict[frozenset[str], Path]
    """the two embedding ids → `.npy` (n,)."""
    pairs: tuple[tuple[str, str], ...]
    """The pairs of `sim_scores` in the order given; the first two embeddings where there are none."""

    def text_id(self, wanted: str | None) -> str:
        """Return the id of the text to use: the one asked for, or the only one there is."""
        if wanted is None:
            if len(self.texts) != 1:
                raise InputError(
                    f"expected --text_id, as dataset {self.name} has {len(self.texts)} texts: {', '.join(self.texts)}"
                )
            return next(iter(self.texts))
        if wanted not in self.texts:
            raise InputError(f"expected a text of dataset {self.name} ({', '.join(self.texts)}), found {wanted!r}")
        return wanted

    def view(self, identifier: str) -> Embeddings:
        """Open the embeddings of one id."""
        if identifier not in self.embeddings:
            raise InputError(
                f"expected embeddings of dataset {self.name} ({', '.join(self.embeddings)}), found {identifier!r}"
            )
        return open_embeddings(self.embeddings[identifier])

    def similar_rows(self, pair: Sequence[str], n: int, threshold: float) -> NDArray[np.int64] | None:
        """Return the rows whose two views are more alike than `threshold`; None (all) without scores."""
        path = self.sim_scores.get(frozenset(pair))
        if path is None:
            return None
        try:
            scores = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"expected similarity scores (n,) in {path}, could not read them") from error
        if not isinstance(scores, np.ndarray) or scores.dtype.kind != "f" or scores.size != n:
            raise InputError(f"expected {n} similarity scores in {path}, one a line of the text, found others")
        return np.flatnonzero(scores.reshape(-1) > threshold)


def read_datasets(path: str | Path) -> dict[str, Dataset]:
    """Read a `datasets.yaml`.

    Paths in it are looked up from the working folder, as the published code does, and else beside the file.

    Raises:
        InputError: no such file, or an entry that is not laid out as expected.
    """
    path = Path(path)
    found = {}
    for name, entry in read_yaml(path).items():
        try:
            scores = entry.get("sim_scores") or []
            pairs = tuple((str(item["pair"][0]), str(item["pair"][1])) for item in scores)
            embeddings = {str(item["id"]): _locate(item["file"], path) for item in entry.get("embeddings") or []}
            found[name] = Dataset(
                name=name,
                embeddings=embeddings,
                texts={str(item["id"]): _locate(item["file"], path) for item in entry.get("texts") or []},
                sim_scores={
                    frozenset(pair): _locate(item["file"], path) for pair, item in zip(pairs, scores, strict=True)
                },
                pairs=pairs or _first_pair(tuple(embeddings)),
            )
        except (AttributeError, KeyError, TypeError, IndexError) as error:
            raise InputError(
                f"expected embeddings, texts and sim_scores as lists of id and file in {name} of {path}, "
                f"found something else ({type(error).__name__}: {error})"
            ) from error
    return found


def _first_pair(ids: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return ((ids[0], ids[1]),) if len(ids) > 1 else tuple((one, one) for one in ids)


def _locate(file: object, beside: Path) -> Path:
    path = Path(str(file))
    return (
        path
        if path.is_absolute() or path.exists()
        else next((other for other in (beside.parent / path,) if other.exists()), path)
    )


def _dataset(datasets: Mapping[str, Dataset], name: str, path: str | Path) -> Dataset:
    if name not in datasets:
        raise InputError(f"expected a dataset of {path} ({', '.join(datasets)}), found {name!r}")
    return datasets[name]


# Training ---------------------------------------------------------------------------------------------------


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
    config = _Section(dict(values), "", path)
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
    train_datasets = _locate(train_yaml, path)
    texts, primary, paired = _load_rows(data.section("train"), train_datasets)
    dev: tuple[list[str], Embeddings, Embeddings] | tuple[None, None, None] = (None, None, None)
    if "validation" in data:
        dev = _load_rows(data.section("validation"), _locate(dev_yaml, path))
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
        vocabulary=_vocabulary(_locate(data.text("vocab_yaml", None), path), train_datasets),
        train=TrainConfig.from_recipe(
            "paper",
            rank="full" if kind == "LoLM" else model.whole("rank", None),
            alpha=model.number("alpha", 0.5),
            passes=passes,
            batch_size=training.whole("batch_size", None),
            **{
                name: training.number("learning_rate", None)
                for name in (
                    "learning_rate",
                    "learning_rate_full",
                    "learning_rate_projection",
                    "learning_rate_bias",
                )
            },
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


class _Section:
    """One mapping of a YAML whose values are read with their kind checked; messages name file and setting."""

    def __init__(self, values: dict[str, Any], name: str, path: Path) -> None:
        self._values, self._name, self._path = values, name, path

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def get(self, name: str) -> Any:
        return self._values.get(name)

    def section(self, name: str) -> _Section:
        value = self._values.get(name) or {}
        if not isinstance(value, dict):
            raise InputError(f"expected settings under {self._name}{name} in {self._path}, found {value!r}")
        return _Section(value, f"{self._name}{name}.", self._path)

    def replace(self, dotted: str, value: Any) -> None:
        first, _, rest = dotted.partition(".")
        if not rest:
            self._values[first] = value
            return
        inner = self._values.get(first)
        self._values[first] = dict(inner) if isinstance(inner, dict) else {}
        _Section(self._values[first], f"{self._name}{first}.", self._path).replace(rest, value)

    def _read(self, name: str, kind: type, expected: str, default: Any) -> Any:
        value = self._values.get(name)
        if value is None:
            value = default
        if value is None:
            raise InputError(f"expected {self._name}{name} ({expected}) in {self._path}, found none")
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise InputError(f"expected {self._name}{name} to be {expected} in {self._path}, found {value!r}")
        try:
            # YAML reads 1e-4 as a string, and batch sizes may be written 6e3.
            number = str(value) if kind is str else kind(float(value))
            if kind is int and number != float(value):
                raise ValueError(value)
            return number
        except (ValueError, OverflowError) as error:
            raise InputError(
                f"expected {self._name}{name} to be {expected} in {self._path}, found {value!r}"
            ) from error

    def whole(self, name: str, default: int | None) -> int:
        return int(self._read(name, int, "a whole number", default))

    def number(self, name: str, default: float | None) -> float:
        return float(self._read(name, float, "a number", default))

    def flag(self, name: str, default: bool) -> bool:
        value = self._values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise InputError(f"expected {self._name}{name} to be true or false in {self._path}, found {value!r}")
        return value

    def text(self, name: str, default: str | None) -> str:
        return str(self._read(name, str, "a name", default))

    def names(self, name: str) -> list[str]:
        value = self._values.get(name)
        if not isinstance(value, list) or not value:
            raise InputError(f"expected {self._name}{name} as a list in {self._path}, found {value!r}")
        return [str(item) for item in value]


def _load_rows(section: _Section, yaml_path: Path) -> tuple[list[str], Embeddings, Embeddings]:
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
        dataset = _dataset(datasets, name, yaml_path)
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
    section = _Section(read_yaml(path), "", path)
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
        dataset = _dataset(datasets, name, datasets_yaml)
        texts = read_lines(dataset.texts[dataset.text_id(section.get("text_id"))])
        # The published code filters by the first scores there are, and only above threshold 0.
        filtered = threshold > 0 and dataset.sim_scores
        rows = dataset.similar_rows(dataset.pairs[0], len(texts), threshold) if filtered else None
        lines.extend(texts if rows is None else [texts[row] for row in rows])
    size = section.whole("max_features", -1)
    min_df, max_df = section.get("min_df"), section.get("max_df")
    return VocabularyConfig(
        size=None if size == -1 else size,
        min_df=1 if min_df is None else min_df,
        max_df=1.0 if max_df is None else max_df,
        ngram_range=ngram_range,
        tokeniser=tokeniser,
    ).build(lines)


# Evaluation -------------------------------------------------------------------------------------------------


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
        shortest: leave out sentences of fewer tokens; the published default of 1 leaves out none.
        longest: leave out sentences of more tokens.
        prior: position of the prior dial for the result files; 0 is the published default.
        unit_length: scale vectors to length 1 first.
        block_rows: rows scored at once, at most; memory is bounded in any case.
    """
    dataset = _dataset(read_datasets(data_yaml), name, data_yaml)
    chosen = dataset.text_id(text_id)
    texts = read_lines(dataset.texts[chosen])
    if not dataset.pairs:
        raise InputError(f"expected embeddings in dataset {name} of {data_yaml}, found none")
    if pool < 1:
        raise InputError(f"expected a pool of at least 1 word, found {pool}")
    lengths = np.array([len(lens.vocabulary.tokeniser.reference_terms(line)) for line in texts])
    # A sentence without any word counts, with zeros, until lengths are asked for.
    kept = ((lengths >= shortest) | (shortest <= 1)) & (lengths <= longest)
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
            path = _inside(Path(folder), kind, f"{stem}_{name}.json")
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


def _inside(folder: Path, *pieces: str) -> Path:
    """Return folder/pieces, refusing names from a file or flag that would lead out of the folder."""
    path = folder.joinpath(*pieces)
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError(f"expected result names inside {folder}, found {'/'.join(pieces)!r}")
    return path
