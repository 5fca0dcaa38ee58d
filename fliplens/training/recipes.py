"""How a lens is trained, as one small frozen value, and the two recipes that come ready."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from fliplens.errors import InputError

__all__ = ["RECIPES", "TrainConfig"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Settings of one training run. The defaults are the `default` recipe."""

    recipe: str = "default"
    """Name of the recipe the other settings started from; recorded with the lens."""
    rank: int | Literal["full"] | None = None
    """r of the factors; "full" is one matrix (LiP); None takes 512, or d where that is smaller."""
    alpha: float = 0.5
    """Weight of the primary view against the paired one, 0..1 (equation 4). Without a paired view it is 1."""
    passes: int = 6
    """Passes over the training rows, at most."""
    batch_size: int = 256
    """Rows a step."""
    learning_rate: float | None = None
    """AdamW's rate for the word factors E1, or for the one matrix of LiP; None takes what suits each: 1e-3 for E1,
    0.1 for LiP, which has no projection to make its steps longer."""
    learning_rate_projection: float = 5e-2
    """AdamW's rate for the projection E2."""
    learning_rate_bias: float = 3e-3
    """AdamW's rate for the bias."""
    softmax: Literal["sampled", "full"] = "sampled"
    """sampled: each step looks at the words of its batch, the `head` and a weighted draw of the others
    (`fliplens.arithmetic.sampling`), unless that is most of the vocabulary; full: at all words."""
    head: int = 500
    """How many of the most frequent words every step of the sampled softmax looks at."""
    share: float | None = None
    """Mean probability with which a step of the sampled softmax looks at any other word; None lets the whole training
    look at each some 80 times, at a probability of at least 0.05."""
    schedule: Literal["linear", "plateau"] = "linear"
    """linear: all rates fall to zero over the passes; plateau: multiplied by `plateau_factor` when the dev
    score has not risen for more than `plateau_patience` evaluations."""
    plateau_factor: float = 0.5
    """What the plateau schedule multiplies the rates by."""
    plateau_patience: int = 2
    """Evaluations without a better dev score that the plateau schedule lets pass; it acts at the next."""
    evaluate_every: int = 1
    """Passes between two evaluations on dev."""
    patience: int = 5
    """Evaluations without a better dev score that are let pass; training stops at the next. The best weights are
    kept."""
    stop_topk_factor: float = 1.0
    """The dev score is the share of a row's k distinct words among its top `stop_topk_factor` · k."""
    stop_prior: float = 1.0
    """The prior dial at which the dev score is taken, 0..1."""
    l1: float = 0.0
    """λ1 on E1 (on E for LiP), applied by soft thresholding at learning rate · λ1 after each step."""
    weight_decay: float = 0.0
    """λ2, AdamW's decoupled weight decay, on E2 only."""
    centre: bool = True
    """Train on s - m, scaled to mean squared length 1; folded into the finished lens. Random factors start with
    the log unigrams as their bias where this is true, and near zero, as the published code does, where it is
    false."""
    whiten: bool = False
    """Train on whitened embeddings; folded into E2. Not for LiP, whose exact zeros it would fill."""
    anchor: Literal["auto", "words", "sentences", "random"] = "auto"
    """Starting factors: the encoder's vectors of the vocabulary words, the mean vectors of the sentences that
    hold each word, or random ones. auto takes words where an encoder is at hand, sentences elsewhere."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the large matrix products. auto takes bfloat16 where the processor multiplies it natively."""
    seed: int = 0
    """Seeds the random factors, the order of the rows and the held-out rows."""

    def __post_init__(self) -> None:
        """Check every value.

        Raises:
            InputError: a value out of its range, named.
        """
        if self.recipe not in RECIPE_NAMES:
            self._refuse("recipe", f"one of {', '.join(RECIPE_NAMES)}")
        if not (self.rank is None or self.rank == "full" or (_whole(self.rank) and self.rank >= 1)):
            self._refuse("rank", 'a whole number of at least 1, or "full"')
        for name in ("passes", "batch_size", "evaluate_every", "patience"):
            if not (_whole(getattr(self, name)) and getattr(self, name) >= 1):
                self._refuse(name, "a whole number of at least 1")
        for name in ("head", "plateau_patience", "seed"):
            if not (_whole(getattr(self, name)) and 0 <= getattr(self, name) < 2**63):
                self._refuse(name, "a whole number from 0 to 2^63 - 1")
        for name in ("alpha", "stop_prior"):
            if not (_real(getattr(self, name)) and 0 <= getattr(self, name) <= 1):
                self._refuse(name, "a number from 0 to 1")
        for name in ("l1", "weight_decay"):
            if not (_real(getattr(self, name)) and 0 <= getattr(self, name) < float("inf")):
                self._refuse(name, "a number of at least 0")
        rates = () if self.learning_rate is None else ("learning_rate",)
        for name in (*rates, "learning_rate_projection", "learning_rate_bias", "stop_topk_factor"):
            if not (_real(getattr(self, name)) and 0 < getattr(self, name) < float("inf")):
                self._refuse(name, "a number above 0")
        if self.share is not None and not (_real(self.share) and 0 < self.share <= 1):
            self._refuse("share", "a number above 0, at most 1")
        if not (_real(self.plateau_factor) and 0 < self.plateau_factor < 1):
            self._refuse("plateau_factor", "a number between 0 and 1")
        for name, field in (
            ("softmax", ("sampled", "full")),
            ("schedule", ("linear", "plateau")),
            ("anchor", ("auto", "words", "sentences", "random")),
            ("precision", ("auto", "float32", "bfloat16")),
        ):
            if getattr(self, name) not in field:
                self._refuse(name, f"one of {', '.join(field)}")
        for name in ("centre", "whiten"):
            if not isinstance(getattr(self, name), bool):
                self._refuse(name, "true or false")
        if self.whiten and self.rank == "full":
            self._refuse("whiten", "false with rank=full, whose exact zeros whitening would fill")

    def _refuse(self, name: str, expected: str) -> None:
        raise InputError(f"expected {name} to be {expected}, found {getattr(self, name)!r}")

    def first_rate(self, *, full: bool) -> float:
        """Return the learning rate of E1, or of LiP's one matrix."""
        if self.learning_rate is not None:
            return self.learning_rate
        return 1e-1 if full else 1e-3

    @classmethod
    def from_recipe(cls, recipe: str = "default", **overrides: Any) -> TrainConfig:
        """Return a recipe's settings with some of them replaced.

        Raises:
            InputError: an unknown recipe or setting, or a value out of its range.
        """
        if not isinstance(recipe, str) or recipe not in RECIPES:
            raise InputError(f"expected a recipe ({', '.join(RECIPES)}), found {recipe!r}")
        unknown = sorted(set(overrides) - set(cls.__dataclass_fields__))
        if unknown:
            raise InputError(
                f"expected training settings ({', '.join(cls.__dataclass_fields__)}), found {', '.join(unknown)}"
            )
        return dataclasses.replace(RECIPES[recipe], **overrides)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as plain JSON values."""
        return dataclasses.asdict(self)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


RECIPE_NAMES = ("default", "paper")

RECIPES: dict[str, TrainConfig] = {
    "default": TrainConfig(),
    # Section 3.5 and the published configuration: AdamW at 5e-3 for everything, halved on a plateau of the dev
    # recall (top 2k, without bias, every third pass), large batches, Xavier factors, nothing centred.
    "paper": TrainConfig(
        recipe="paper",
        passes=100,
        batch_size=6000,
        learning_rate=5e-3,
        learning_rate_projection=5e-3,
        learning_rate_bias=5e-3,
        softmax="full",
        schedule="plateau",
        evaluate_every=3,
        stop_topk_factor=2.0,
        stop_prior=0.0,
        l1=1e-4,
        centre=False,
        anchor="random",
    ),
}
"""The recipes that come ready, by name."""
