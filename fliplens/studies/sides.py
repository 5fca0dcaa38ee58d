"""Which sides of a corpus a study trains and tests on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from fliplens.studies.config import Corpus, StudyConfig
from fliplens.studies.plan import View

__all__ = ["Sides", "side_names", "two_sides"]


@dataclass(frozen=True)
class Sides:
    """One corpus, trained and tested on one or two of its sides."""

    SETTINGS: ClassVar[tuple[str, ...]] = ("corpus", "words", "primary", "paired")

    words: View
    """Whose texts give the words."""
    primary: View
    paired: View | None

    @classmethod
    def of(cls, config: StudyConfig) -> Sides:
        """Read `corpus`, `words`, `primary` and `paired`: by default the first sides there are."""
        corpus = config.corpus(config.own.get("corpus"))
        train = corpus.splits["train"]
        chosen = {}
        for name in ("words", "primary", "paired"):
            place = config.own.get(name)
            if place is not None:
                train.side(place.text(), place)
                chosen[name] = place.text()
        names = list(train.sides)
        primary = chosen.get("primary", names[0])
        if chosen.get("paired") == primary:
            config.own.need("paired", "a side").fail("another side than the primary one")
        others = [name for name in names if name != primary]
        paired = chosen.get("paired", others[0] if len(names) == 2 else None)
        words = chosen.get("words", _with_texts(corpus, primary))
        return cls(
            View(corpus.name, words),
            View(corpus.name, primary),
            None if paired is None else View(corpus.name, paired),
        )

    @property
    def views(self) -> tuple[View, ...]:
        """One view or two."""
        return (self.primary,) if self.paired is None else (self.primary, self.paired)

    @property
    def names(self) -> tuple[str, ...]:
        """What evaluations call them."""
        return ("primary", "paired")[: len(self.views)]

    def name(self, view: View) -> str:
        """Return what evaluations call a view."""
        return self.names[self.views.index(view)]

    def told(self) -> str:
        """Return them in words."""
        return " and ".join(f"{view.corpus} {view.side}" for view in self.views)


def _with_texts(corpus: Corpus, primary: str) -> str:
    """Return the side whose texts give the words: the primary one, or the first that has some."""
    sides = corpus.splits["train"].sides
    if sides[primary].texts is not None:
        return primary
    for name, side in sides.items():
        if side.texts is not None:
            return name
    return corpus.splits["train"].place.fail("a side with texts", "none")


def two_sides(corpus: Corpus, config: StudyConfig) -> tuple[View, View]:
    """Return the two sides of a corpus, those that the setting `sides` names or the only ones there are."""
    train = corpus.splits["train"]
    place = config.own.get("sides")
    if place is None:
        names = list(train.sides)
        if len(names) != 2:
            train.place.fail("two sides (or the setting sides)", f"{len(names)}")
    else:
        items = place.list()
        if len(items) != 2:
            place.fail("two sides", f"{len(items)}")
        for one in items:
            train.side(one.text(), one)
        names = [one.text() for one in items]
        if names[0] == names[1]:
            place.fail("two different sides", f"{names[0]} twice")
    return View(corpus.name, names[0]), View(corpus.name, names[1])


def side_names(pairs: Sequence[tuple[View, View]]) -> tuple[str, str]:
    """Return what a table calls the two sides of several corpora: by their names where all have the same."""
    first, second = ({views[number].side for views in pairs} for number in (0, 1))
    return first.pop() if len(first) == 1 else "first side", second.pop() if len(second) == 1 else "other"
