"""The settings of a study: one YAML file that names corpora, encoders, vocabulary, recipe, and what is varied.

```yaml
title: Rank and factorisation            # optional
encoders: [minilm]                       # specs, or {label: spec}; the first counts where only one is wanted
corpora:
  english:                               # any name
    train:
      text:  {texts: en.train.txt, embeddings: en.train.npy}
      noisy: {embeddings: en-noisy.train.npy}      # line for line the same sentences
    dev: ...                             # optional; without it a share of the training rows is held out
    test:
      text:  {texts: en.dev.txt, embeddings: en.dev.npy}
      noisy: {embeddings: en-noisy.dev.npy}
      entities: en.dev.entities.jsonl    # optional
vocabulary: {vocab_size: 100000}         # settings of `fliplens fit`
train: {seed: 0}                         # likewise
ranks: [full, 384, 256, 128]             # what this study varies
```

Paths are looked up in the folder of the data, by default that of the file, and then in the working folder. A side
without `embeddings` is encoded; `embeddings` may also be a mapping from the encoders' labels to paths. An encoder
that no spec reaches from here can take part by such files alone: its lenses then start from sentence means.
`rows: [0, 30000]` in a split takes these rows of its files (from 0, the last one left out).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fliplens.settings import DATA, FitSettings
from fliplens.studies.located import Located, read_located

__all__ = ["Corpus", "Side", "Split", "StudyConfig"]

SPLITS = ("train", "dev", "test")
COMMON = ("title", "encoders", "corpora", "vocabulary", "train")


@dataclass(frozen=True)
class Side:
    """One view of the sentences of a split: a language, or a channel such as speech."""

    name: str
    texts: Located | None
    """The file of its sentences; a view of the same sentences, such as speech, has none of its own."""
    embeddings: Mapping[str, Located]
    """Encoder spec → file of vectors; under "" for whatever encoder is asked for."""
    place: Located
    """Where it stands in the file."""

    def vectors(self, encoder: str) -> Located | None:
        """Return the file of one encoder's vectors; None where they have to be made."""
        return self.embeddings.get(encoder, self.embeddings.get(""))


@dataclass(frozen=True)
class Split:
    """The sentences of train, dev or test, line for line parallel over its sides."""

    name: str
    sides: Mapping[str, Side]
    entities: Located | None
    """The file of their named entities."""
    place: Located
    rows: tuple[int, int] | None = None
    """Of all its files: the first row that counts, and the first that does not any more; None: all rows."""

    def side(self, name: str, wanted_by: Located) -> Side:
        """Return a side.

        Raises:
            InputError: there is none of that name.
        """
        if name not in self.sides:
            wanted_by.fail(f"a side out of {', '.join(self.sides)} ({self.place.name})", repr(name))
        return self.sides[name]


@dataclass(frozen=True)
class Corpus:
    """Sentences to train and test on."""

    name: str
    splits: Mapping[str, Split]
    place: Located


@dataclass(frozen=True)
class StudyConfig:
    """The settings that all studies share, and those of one study."""

    title: str | None
    encoders: Mapping[str, str]
    """Label → spec. A label whose spec names no encoder stands for vectors that are there already."""
    corpora: Mapping[str, Corpus]
    settings: Mapping[str, Any]
    """Vocabulary and recipe, by the names that `fliplens fit` has for them; checked."""
    own: Located
    """The whole file, for the settings of one study."""

    @classmethod
    def read(cls, path: str | Path, *names: str) -> StudyConfig:
        """Read a study's file.

        Args:
            path: the YAML file.
            names: settings of this study, beside those that all share.

        Raises:
            InputError: something is missing, unknown or of the wrong kind; the message names file and line.
        """
        own = read_located(path)
        own.only(*COMMON, *names)
        title = own.get("title")
        encoders = _encoders(own.need("encoders", "specs of encoders, such as [minilm]"))
        corpora = own.need("corpora", "corpora by name")
        found = {name: _corpus(name, one) for name, one in corpora.items()}
        if not found or not encoders:
            corpora.fail("at least one corpus and one encoder", "none")
        for corpus in found.values():
            for side in (side for split in corpus.splits.values() for side in split.sides.values()):
                for label, file in side.embeddings.items():
                    if label and label not in encoders:
                        file.fail(f"labels out of {', '.join(encoders)}, the encoders", repr(label))
        return cls(
            title=None if title is None else title.text(),
            encoders=encoders,
            corpora=found,
            settings=_settings(own),
            own=own,
        )

    @property
    def encoder(self) -> str:
        """The label of the first encoder: the study's, where only one is wanted."""
        return next(iter(self.encoders))

    def corpus(self, wanted: Located | None) -> Corpus:
        """Return the corpus that a setting names; without it the only one there is.

        Raises:
            InputError: no such corpus, or several to choose from.
        """
        if wanted is not None:
            if wanted.text() not in self.corpora:
                wanted.fail(f"a corpus out of {', '.join(self.corpora)}")
            return self.corpora[wanted.text()]
        if len(self.corpora) > 1:
            self.own.fail(f"corpus, one of {', '.join(self.corpora)}", "none")
        return next(iter(self.corpora.values()))


def _encoders(place: Located) -> dict[str, str]:
    """Return label → spec, from a mapping or from a list of specs that are their own labels."""
    if isinstance(place.value, dict):
        return {label: one.text() for label, one in place.items()}
    return {one.text(): one.text() for one in place.list()}


def _corpus(name: str, place: Located) -> Corpus:
    place.only(*SPLITS)
    for split in ("train", "test"):
        place.need(split, "sides by name")
    return Corpus(name, {split: _split(split, one) for split, one in place.items()}, place)


def _split(name: str, place: Located) -> Split:
    sides = {}
    for side, one in place.items():
        if side in ("entities", "rows"):
            continue
        one.only("texts", "embeddings")
        texts, embeddings = one.get("texts"), one.get("embeddings")
        if texts is None and embeddings is None:
            one.fail("texts or embeddings of a side", "neither")
        by_encoder: dict[str, Located] = {}
        if embeddings is not None:
            by_encoder = dict(embeddings.items()) if isinstance(embeddings.value, dict) else {"": embeddings}
        for file in (*([texts] if texts else []), *by_encoder.values()):
            file.text()
        sides[side] = Side(side, texts, by_encoder, one)
    if not sides:
        place.fail("at least one side", "none")
    rows, entities = _rows(place.get("rows")), place.get("entities")
    if rows is not None and entities is not None:
        entities.fail("no entities beside rows, as their line numbers count the whole file")
    return Split(name, sides, entities, place, rows)


def _rows(place: Located | None) -> tuple[int, int] | None:
    if place is None:
        return None
    value = place.plain()
    whole = isinstance(value, list) and len(value) == 2 and all(type(one) is int for one in value)
    if not whole or not 0 <= value[0] < value[1]:
        place.fail("rows as two whole numbers, such as [0, 30000]")
    return value[0], value[1]


def _settings(own: Located) -> dict[str, Any]:
    """Return vocabulary and recipe, each checked by what `fliplens fit` checks them with."""
    values: dict[str, Any] = {}
    for part in ("vocabulary", "train"):
        section = own.get(part)
        if section is None:
            continue
        for name, one in section.items():
            if name in (*DATA, "model", "shuffled"):
                one.fail(f"settings of the {part}", repr(name))
            values[name] = one.plain()
        section.checked(lambda _: FitSettings.from_mapping(values))
    return values
