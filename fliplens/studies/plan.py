"""What a study does, as values: which models are fitted, and which measurements are taken of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from fliplens.studies.config import StudyConfig
from fliplens.studies.located import Located
from fliplens.studies.page import Study

__all__ = ["Comparing", "Evaluating", "Fitting", "Measurement", "ModelKind", "Plan", "StudyKind", "View"]

ModelKind = Literal["flip", "ridge", "frequency", "probe", "splice", "shuffled"]


@dataclass(frozen=True)
class View:
    """Vectors of some sentences."""

    corpus: str
    side: str


@dataclass(frozen=True)
class Fitting:
    """One model to fit."""

    words: View
    """Whose texts give the words."""
    primary: View
    """Vectors to read them from."""
    paired: View | None = None
    """A second view of the same sentences, alpha away."""
    encoder: str = ""
    model: ModelKind = "flip"
    recipe: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the recipe that differ from the study's."""
    place: Located | None = None
    """Where the config asks for them."""


@dataclass(frozen=True)
class Evaluating:
    """One model measured on views of test (or, to choose by, dev) sentences."""

    model: str
    """Name of a fitting."""
    words: View
    views: tuple[View, ...]
    """One or two."""
    entities: bool = False
    split: Literal["dev", "test"] = "test"
    decoding: Literal["plain", "explain-away"] = "plain"

    @property
    def models(self) -> tuple[str, ...]:
        """The one model."""
        return (self.model,)

    @property
    def readings(self) -> tuple[tuple[str, View], ...]:
        """Which model reads which view."""
        return tuple((self.model, view) for view in self.views)


@dataclass(frozen=True)
class Comparing:
    """Two models compared on the same sentences; each reads its view."""

    models: tuple[str, str]
    words: View
    views: tuple[View, View]
    split: ClassVar[Literal["test"]] = "test"

    @property
    def readings(self) -> tuple[tuple[str, View], ...]:
        """Which model reads which view."""
        return tuple(zip(self.models, self.views, strict=True))


Measurement = Evaluating | Comparing


@dataclass(frozen=True)
class Plan:
    """All that a study does before it is written up."""

    fittings: Mapping[str, Fitting]
    measurements: Mapping[str, Measurement]
    then: Callable[[Mapping[str, Any]], Mapping[str, Measurement]] = field(default=lambda _: {})
    """What is measured after all of that, given its results: of what was chosen, say."""


@dataclass(frozen=True)
class StudyKind:
    """One table or figure of the paper."""

    name: str
    """One of `fliplens.studies.names`."""
    settings: tuple[str, ...]
    """Names of its own settings."""
    plan: Callable[[StudyConfig], Plan]
    """From settings to what is done."""
    write_up: Callable[[StudyConfig, Plan, Mapping[str, Any]], Study]
    """From settings and measurements (JSON, by name) to tables, plots and sentences."""
    adapt: Callable[[StudyConfig], StudyConfig] = field(default=lambda config: config)
    """From the settings as they were read to those that the rest goes by."""
