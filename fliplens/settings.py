"""The settings of `fliplens fit`: one flat set of names for YAML files, `key=value` and flags."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from fliplens.baselines.fitting import BaselineConfig, FrequencyConfig, ProbeConfig, RidgeConfig, SpliceConfig
from fliplens.errors import InputError, reason_of
from fliplens.text.choosing import VocabularyChoice, VocabularyConfig
from fliplens.text.concepts import ConceptConfig
from fliplens.text.tokenisation import Tokeniser
from fliplens.text.vocabulary import check_size
from fliplens.training.preparation import HELD_OUT_SHARE
from fliplens.training.recipes import TrainConfig

__all__ = ["EXPLAIN_AWAY", "FitSettings", "is_override", "parse_override", "read_yaml", "switch"]

DATA = ("texts", "embeddings", "paired", "dev_texts", "dev_embeddings", "dev_paired", "encoder", "output")
HOLD_OUT = "hold_out"
EXPLAIN_AWAY = "explain_away"
TOKENISER = ("tokeniser", "lowercase", "strip_accents", "min_length")
CONCEPTS = "concepts"
# What chooses the vocabulary without and with `concepts`, and its fields by the names of their settings.
CHOICES: dict[bool, tuple[type[VocabularyConfig | ConceptConfig], dict[str, str]]] = {
    False: (
        VocabularyConfig,
        {"vocab_size": "size", "min_df": "min_df", "max_df": "max_df", "ngram_range": "ngram_range"},
    ),
    True: (
        ConceptConfig,
        {name: name for name in ("min_frequency", "min_pmi", "unigrams", "bigrams")},
    ),
}
VOCABULARY = [name for _, fields in CHOICES.values() for name in fields]
MODEL, SHUFFLED = "model", "shuffled"
# What is made, and the settings that only it has. flip and lip are lenses: rank "full" is the latter.
MODELS: dict[str, tuple[type[BaselineConfig] | None, tuple[str, ...]]] = {
    "flip": (None, ()),
    "lip": (None, ()),
    "frequency": (FrequencyConfig, ()),
    "ridge": (RidgeConfig, ("ridge", "power")),
    "probe": (ProbeConfig, ("hidden",)),
    "splice": (SpliceConfig, ("penalty", "dictionary")),
}
OWN = [name for _, names in MODELS.values() for name in names]
# Settings of the recipe that mean something to models that no recipe trains.
UNTRAINED = ("alpha", "seed")
SETTINGS = (*DATA, HOLD_OUT, EXPLAIN_AWAY, *TOKENISER, CONCEPTS, *VOCABULARY, MODEL, SHUFFLED, *OWN)
"""All names but those of the recipe."""


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """What to fit on, the vocabulary, the recipe, and where the lens goes."""

    data: dict[str, str]
    """texts, embeddings, paired, dev_texts, dev_embeddings, dev_paired, encoder, output: those given."""
    vocabulary: VocabularyChoice
    """How the vocabulary is chosen."""
    train: TrainConfig
    """The recipe."""
    hold_out: float
    """Share of the rows to stop on where no dev data is given."""
    explain_away: bool
    """Whether to learn what explain-away decoding needs."""
    model: str
    """One of MODELS."""
    baseline: BaselineConfig | None
    """Settings of a model that is no lens."""
    shuffled: bool
    """Whether the lens is the control on shuffled vectors."""

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> FitSettings:
        """Check and sort flat settings. Numbers may arrive as strings (`1e-4` is one in YAML).

        Raises:
            InputError: an unknown name, or a value of the wrong type or out of range.
        """
        names = {*SETTINGS, *TrainConfig.__dataclass_fields__}
        unknown = sorted(set(values) - names)
        if unknown:
            raise InputError(
                f"expected settings out of {', '.join(sorted(names))}; found {', '.join(map(str, unknown))}"
            )
        given = {name: value for name, value in values.items() if value is not None or name == "vocab_size"}
        data = {name: str(given[name]) for name in DATA if name in given}
        cut: dict[str, Any] = {}
        for name, field in zip(TOKENISER, ("mode", "lowercase", "strip_accents", "min_length"), strict=True):
            if name in given:
                cut[field] = _convert(name, given[name], get_type_hints(Tokeniser)[field])
        hints = get_type_hints(TrainConfig)
        train = {
            name: _convert(name, value, hints[name])
            for name, value in given.items()
            if name in TrainConfig.__dataclass_fields__
        }
        model = _model(given, list(train))
        if model == "lip":
            train["rank"] = "full"
        config = TrainConfig.from_recipe(train.pop("recipe", "default"), **train)
        return cls(
            data=data,
            vocabulary=_choice(given, Tokeniser.from_json(cut)),
            train=config,
            model=model,
            baseline=_baseline(model, given, config),
            shuffled=switch(SHUFFLED, given.get(SHUFFLED, False)),
            hold_out=_share(given.get(HOLD_OUT, HELD_OUT_SHARE)),
            explain_away=switch(EXPLAIN_AWAY, given.get(EXPLAIN_AWAY, True)),
        )

    @property
    def wants_encoder(self) -> bool:
        """Whether the encoder's vectors of the vocabulary's words go into the model, where they can be had."""
        if self.baseline is not None:
            return self.baseline.wants_word_vectors
        return not self.shuffled and self.train.anchor in ("auto", "words")


def _model(given: Mapping[str, Any], recipe: list[str]) -> str:
    """Return which model is made; refuse settings that mean nothing to it."""
    model = given.get(MODEL, "flip")
    if not isinstance(model, str) or model not in MODELS:
        raise InputError(f"expected {MODEL} to be one of {', '.join(MODELS)}, found {model!r}")
    kind, own = MODELS[model]
    foreign = [name for name in OWN if name in given and name not in own]
    if kind is not None:
        foreign += [name for name in (EXPLAIN_AWAY, SHUFFLED) if given.get(name)]
        if kind is not ProbeConfig:
            foreign += [name for name in recipe if name not in UNTRAINED]
    if model == "lip" and given.get("rank", "full") != "full":
        foreign.append("rank")
    if foreign:
        raise InputError(f"expected settings that mean something to {MODEL}={model}, found {', '.join(foreign)}")
    return str(model)


def _baseline(model: str, given: Mapping[str, Any], train: TrainConfig) -> BaselineConfig | None:
    kind, own = MODELS[model]
    if kind is None:
        return None
    hints = get_type_hints(kind)
    values = {name: _convert(name, given[name], hints[name]) for name in own if name in given}
    return ProbeConfig(**values, train=train) if kind is ProbeConfig else kind(**values)


def _choice(given: Mapping[str, Any], tokeniser: Tokeniser) -> VocabularyChoice:
    """Return how the vocabulary is chosen; refuse settings of the other way to choose it."""
    concepts = switch(CONCEPTS, given.get(CONCEPTS, False))
    kind, fields = CHOICES[concepts]
    foreign = [name for name in VOCABULARY if name in given and name not in fields]
    if foreign:
        raise InputError(
            f"expected {', '.join(fields)} to choose the vocabulary with {CONCEPTS}={str(concepts).lower()}, found "
            f"{', '.join(foreign)}: {'leave them out' if concepts else f'set {CONCEPTS}=true, or leave them out'}"
        )
    hints = get_type_hints(kind)
    chosen = {field: _convert(name, given[name], hints[field]) for name, field in fields.items() if name in given}
    check_size("vocab_size", chosen.get("size"), all_words="`all`")
    return kind(**chosen, tokeniser=tokeniser)


def _share(value: Any) -> float:
    try:
        share = -1.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        share = -1.0
    if not 0 <= share <= 0.5:
        raise InputError(f"expected {HOLD_OUT} to be a share from 0 to 0.5, found {value!r}")
    return share


def switch(name: str, value: Any) -> bool:
    """Return a value that is true or false.

    Raises:
        InputError: it is something else.
    """
    if not isinstance(value, bool):
        raise InputError(f"expected {name} to be true or false, found {value!r}")
    return value


def _convert(name: str, value: Any, hint: Any) -> Any:
    """Return `value` as the type that `hint` names, if a string or a whole number can be read as one."""
    options = get_args(hint) or (hint,)
    kinds = {option for option in options if isinstance(option, type)}
    if hint == tuple[int, int]:
        if isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(n, int) for n in value):
            return tuple(value)
        raise InputError(f"expected {name} as two whole numbers such as [1, 2], found {value!r}")
    if isinstance(value, str):
        for kind in (int, float):
            if kind in kinds:
                try:
                    return kind(value)
                except ValueError:
                    continue
        if value.lower() in ("none", "null", "all") and type(None) in kinds:
            return None
        return value
    if isinstance(value, int) and not isinstance(value, bool) and float in kinds and int not in kinds:
        return float(value)
    return value


def parse_override(text: str) -> tuple[str, Any]:
    """Return name and value of one `key=value` of the command line; the value is read as YAML.

    Raises:
        InputError: no `=`, no name, or no YAML.
    """
    import yaml

    name, separator, value = text.partition("=")
    name = name.strip().replace("-", "_")
    if not separator or not name:
        raise InputError(f"expected key=value, found {text!r}")
    if name in DATA:
        # Paths and names are what they look like: 007 is a folder, not a number.
        return name, value
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"expected a YAML value for {name}, found {value!r}") from error


def is_override(argument: str) -> bool:
    """Return whether a free argument of the command line is `key=value` rather than the path of a file."""
    name, separator, _ = argument.partition("=")
    return bool(separator) and re.fullmatch(r"[\w.-]*", name) is not None and not Path(argument).is_file()


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping; no tags that would build objects.

    Raises:
        InputError: the file is missing, no YAML, or no mapping.
    """
    import yaml

    path = Path(path)
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"expected a YAML file at {path}, found none: check the path") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        reason = reason_of(error)
        raise InputError(f"expected YAML in {path}, found something else ({reason})") from error
    if not isinstance(value, dict):
        raise InputError(f"expected a mapping of settings in {path}, found {type(value).__name__}")
    return {str(key): item for key, item in value.items()}
