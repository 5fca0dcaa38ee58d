"""From sentences and their vectors to a yardstick: the same rows, words and held-out rows as `fliplens.fit` takes."""

from __future__ import annotations

import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fliplens.baselines.decomposition import Dictionary, mean_of
from fliplens.baselines.linear import Ridge, RidgeFactors, frequency_factors
from fliplens.baselines.probe import Probe, check_recipe, train_probe
from fliplens.baselines.splice import Splice
from fliplens.embeddings import EmbeddingsLike
from fliplens.errors import InputError
from fliplens.evaluation.evaluating import evaluate
from fliplens.lenses.extractor import Extractor
from fliplens.lenses.fingerprint import Fingerprint
from fliplens.lenses.lens import Lens
from fliplens.text.choosing import VocabularyChoice, choice_of
from fliplens.text.vocabulary import Vocabulary
from fliplens.training.anchoring import sentence_means
from fliplens.training.preparation import HELD_OUT_SHARE, Prepared, Source, check_hold_out
from fliplens.training.recipes import TrainConfig

if TYPE_CHECKING:
    from fliplens.encoders import Encoder

__all__ = ["BaselineConfig", "FrequencyConfig", "ProbeConfig", "RidgeConfig", "SpliceConfig", "fit_baseline"]


@dataclass(frozen=True)
class Work:
    """What a yardstick is made from."""

    prepared: Prepared
    word_vectors: NDArray[np.float32] | None
    """The encoder's vectors of the words (V, d), where the yardstick wants them and the encoder can be had."""
    alpha: float
    show_progress: bool
    stop: Callable[[], bool] | None

    @property
    def fingerprint(self) -> Fingerprint:
        """Of the training rows' primary view."""
        return Fingerprint.of(self.prepared.rows.primary, show_progress=self.show_progress)

    def dev_accuracy(self, model: Extractor, *, most_rows: int | None = None) -> float:
        """Return the mean accuracy over the dev rows' views: what settings are chosen by."""
        dev = self.prepared.dev
        if dev is None:
            raise AssertionError("asked for without dev rows")
        if most_rows is not None and len(dev.texts) > most_rows:
            dev = dev.subset(np.linspace(0, len(dev.texts) - 1, most_rows).astype(np.int64))
        found = evaluate(model, dev.texts, dev.primary, paired=dev.paired, metrics="accuracy")
        return float(np.mean([view.metrics["accuracy"].with_prior.mean for view in found.views.values()]))


class BaselineConfig(ABC):
    """Settings of one kind of yardstick."""

    @property
    def wants_word_vectors(self) -> bool:
        """Whether it starts from the encoder's vectors of the words, where they can be had."""
        return False

    @abstractmethod
    def build(self, work: Work) -> tuple[Extractor, dict[str, Any]]:
        """Return the model, and what is to be recorded of its making beside these settings."""

    @classmethod
    def grids(cls) -> dict[str, Any]:
        """Return what settings that are left open are chosen from, by name."""
        return {name: value for name, value in vars(cls).items() if name.isupper()}


@dataclass(frozen=True, kw_only=True)
class FrequencyConfig(BaselineConfig):
    """The most frequent words, whatever the vector: what a lens has to beat."""

    def build(self, work: Work) -> tuple[Extractor, dict[str, Any]]:
        """Count the words."""
        prepared = work.prepared
        factors = frequency_factors(prepared.views.counts, prepared.views.primary.dim)
        return Lens(factors, prepared.vocabulary, fingerprint=work.fingerprint), {}


@dataclass(frozen=True, kw_only=True)
class RidgeConfig(BaselineConfig):
    """Ridge regression from vectors to word counts, in closed form."""

    RIDGES: ClassVar[tuple[float, ...]] = (0.001, 0.01, 0.1, 1.0)
    """What `ridge` is chosen from."""
    POWERS: ClassVar[tuple[float, ...]] = (0.0, 0.25, 0.5)
    """What `power` is chosen from."""

    ridge: float | None = None
    """Regularisation, in mean variances of a dimension; None is chosen on the dev rows."""
    power: float | None = None
    """Scores are divided by a word's frequency to this power; None is chosen on the dev rows."""

    def __post_init__(self) -> None:
        """Check both.

        Raises:
            InputError: a negative number, or none.
        """
        for name in ("ridge", "power"):
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and 0 <= value < float("inf")):
                raise InputError(f"expected {name} to be a number from 0, found {value!r}")

    def build(self, work: Work) -> tuple[Extractor, dict[str, Any]]:
        """Solve for every choice that is left open, and keep the best on dev."""
        prepared = work.prepared
        solver = Ridge(prepared.views, alpha=work.alpha, show_progress=work.show_progress)

        def lens(found: RidgeFactors, **more: Any) -> Lens:
            return Lens(found.factors, prepared.vocabulary, prior=found.prior, mean=found.mean, **more)

        choices = list(
            itertools.product(
                self.RIDGES if self.ridge is None else (self.ridge,),
                self.POWERS if self.power is None else (self.power,),
            )
        )
        scores: list[float] = []
        if prepared.dev_views is None:
            # What was best on every text that was tried.
            choices = [(0.01 if self.ridge is None else self.ridge, 0.25 if self.power is None else self.power)]
        elif len(choices) > 1:
            scores = [work.dev_accuracy(lens(solver.solve(*choice))) for choice in choices]
        best = choices[int(np.argmax(scores))] if scores else choices[0]
        chosen = {"ridge": best[0], "power": best[1]}
        made = lens(solver.calibrated(solver.solve(*best)), fingerprint=work.fingerprint)
        tried = [{"ridge": r, "power": p, "dev": s} for (r, p), s in zip(choices, scores, strict=False)]
        return made, {"chosen": chosen, "tried": tried}


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(BaselineConfig):
    """The lens with a hidden layer beside it: how much is in the vectors, but not linearly."""

    hidden: int = 1024
    """Size of the hidden layer."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The recipe of the lens that it is compared with."""

    def __post_init__(self) -> None:
        """Check size and recipe.

        Raises:
            InputError: no whole number from 1, or a recipe that a probe cannot follow.
        """
        if isinstance(self.hidden, bool) or not isinstance(self.hidden, int) or self.hidden < 1:
            raise InputError(f"expected hidden to be a whole number from 1, found {self.hidden!r}")
        check_recipe(self.train)

    @property
    def wants_word_vectors(self) -> bool:
        """As the lens that it is compared with does."""
        return self.train.anchor in ("auto", "words")

    def build(self, work: Work) -> tuple[Extractor, dict[str, Any]]:
        """Train it to the last pass."""
        prepared = work.prepared
        result = train_probe(
            prepared.views,
            self.train,
            hidden=self.hidden,
            word_vectors=work.word_vectors,
            show_progress=work.show_progress,
            stop=work.stop,
        )
        return Probe(result.tensors, prepared.vocabulary, fingerprint=work.fingerprint), {"loss": result.loss}


@dataclass(frozen=True, kw_only=True)
class SpliceConfig(BaselineConfig):
    """SpLiCE: every vector as a sparse, non-negative sum of the concepts' own vectors."""

    PENALTIES: ClassVar[tuple[float, ...]] = (0.5, 0.4, 0.3, 0.25, 0.2, 0.15, 0.1)
    """What `penalty` is chosen from, times 2 d: what the authors' code calls `l1_penalty`."""
    MOST_ROWS: ClassVar[int] = 1000
    """Dev rows that it is chosen on, at most."""

    penalty: float | None = None
    """Of the weights, scikit-learn's alpha; None is chosen on the dev rows."""
    dictionary: Literal["auto", "words", "sentences"] = "auto"
    """The concepts' vectors: the encoder's, the mean vectors of the sentences that hold them, or what can be had."""

    def __post_init__(self) -> None:
        """Check both.

        Raises:
            InputError: no penalty above 0, or an unknown dictionary.
        """
        if self.penalty is not None and not (_is_number(self.penalty) and 0 < self.penalty < float("inf")):
            raise InputError(f"expected penalty to be a number above 0, found {self.penalty!r}")
        if self.dictionary not in ("auto", "words", "sentences"):
            raise InputError(f"expected dictionary to be auto, words or sentences, found {self.dictionary!r}")

    @property
    def wants_word_vectors(self) -> bool:
        """Unless the dictionary is made of sentences."""
        return self.dictionary != "sentences"

    def build(self, work: Work) -> tuple[Extractor, dict[str, Any]]:
        """Make the dictionary; choose the penalty."""
        prepared = work.prepared
        views = prepared.views.weighted(work.alpha)
        vectors, source = work.word_vectors, "words"
        if self.dictionary == "sentences" or (vectors is None and self.dictionary == "auto"):
            vectors, source = (
                sentence_means(views, prepared.views.counts, show_progress=work.show_progress),
                "sentences",
            )
        if vectors is None:
            raise InputError(
                "expected an encoder for dictionary=words, found none: name it with --encoder, or use "
                "dictionary=sentences"
            )
        rows = Dictionary.from_vectors(vectors).rows
        # Each kind of input has a mean of its own, as the authors take one off images and another off captions.
        mean, *paired = (
            mean_of(view) for view in (prepared.views.primary, prepared.views.paired) if view is not None
        )

        def model(penalty: float, **more: Any) -> Splice:
            return Splice(rows, mean, penalty, prepared.vocabulary, paired_mean=paired[0] if paired else None, **more)

        dim = rows.shape[1]
        penalties = [one / (2 * dim) for one in self.PENALTIES] if self.penalty is None else [self.penalty]
        tried: list[dict[str, float]] = []
        if prepared.dev_views is None:
            # The authors' own choice.
            penalties = [self.penalty or 0.2 / (2 * dim)]
        elif len(penalties) > 1:
            tried = [
                {"penalty": one, "dev": work.dev_accuracy(model(one), most_rows=self.MOST_ROWS)} for one in penalties
            ]
        chosen = max(tried, key=lambda one: one["dev"])["penalty"] if tried else penalties[0]
        found = {"chosen": {"penalty": chosen, "dictionary": source}, "tried": tried}
        return model(chosen, fingerprint=work.fingerprint), found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def fit_baseline(
    config: BaselineConfig,
    texts: Sequence[str] | str | Path,
    embeddings: EmbeddingsLike,
    *,
    paired: EmbeddingsLike | None = None,
    dev_texts: Sequence[str] | str | Path | None = None,
    dev_embeddings: EmbeddingsLike | None = None,
    dev_paired: EmbeddingsLike | None = None,
    vocabulary: Vocabulary | VocabularyChoice | None = None,
    encoder: Encoder | str | None = None,
    alpha: float = 0.5,
    seed: int = 0,
    hold_out: float = HELD_OUT_SHARE,
    drop_bad_rows: bool = False,
    device: str = "auto",
    show_progress: bool = False,
    stop: Callable[[], bool] | None = None,
) -> Extractor:
    """Make a yardstick from the rows, words and held-out rows that `fliplens.fit` would make a lens from.

    Args:
        config: which one, and its settings.
        texts: see `fliplens.fit`, as for all that follow.
        embeddings: likewise.
        paired: likewise.
        dev_texts: likewise; settings that are left open are chosen on dev rows.
        dev_embeddings: likewise.
        dev_paired: likewise.
        vocabulary: likewise.
        encoder: likewise.
        alpha: weight of the primary view, where there is a paired one.
        seed: of the held-out rows.
        hold_out: likewise.
        drop_bad_rows: likewise.
        device: where the encoder runs.
        show_progress: likewise.
        stop: likewise.

    Raises:
        InputError: what was handed in does not fit together.
        InterruptedRunError: `stop` was true.
    """
    check_hold_out(hold_out)
    if not 0 <= alpha <= 1:
        raise InputError(f"expected alpha from 0 to 1, found {alpha}")
    source = Source.gather(
        texts,
        embeddings,
        paired=paired,
        dev_texts=dev_texts,
        dev_embeddings=dev_embeddings,
        dev_paired=dev_paired,
        encoder=encoder,
        words="auto" if config.wants_word_vectors else "sentences",
        drop_bad_rows=drop_bad_rows,
        device=device,
        show_progress=show_progress,
    )
    prepared = source.prepare(choice_of(vocabulary), seed=seed, hold_out=hold_out, show_progress=show_progress)
    vectors = None
    if source.encoder is not None:
        vectors = source.encoder.encode(prepared.vocabulary.words, show_progress=show_progress)
    started = time.perf_counter()
    model, found = config.build(Work(prepared, vectors, alpha, show_progress, stop))
    seconds = round(time.perf_counter() - started, 3)
    settings = {"model": type(config).__name__.removesuffix("Config").lower(), **asdict(config)}  # type: ignore[call-overload]
    model.config.update({**prepared.description(), "recipe": settings, "training": {**found, "seconds": seconds}})
    model.config.update(prepared.dev_metrics(model))
    return model
