"""Carries out a study's plan: fits and measures what is not there yet, and keeps all of it by content.

    CACHE/lenses/KEY/          every fitted model, under a hash of all that went into it
    CACHE/measured/KEY.json    every measurement, likewise
    CACHE/vectors/KEY.npy      vectors that had to be encoded

A study that is killed, or run again with other settings, does only what no earlier run has done.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fliplens.comparison import compare
from fliplens.embeddings import Embeddings, open_embeddings
from fliplens.entities import read_entities
from fliplens.errors import FliplensError, FliplensWarning, InputError, InterruptedRunError
from fliplens.evaluation import evaluate
from fliplens.extractor import Extractor
from fliplens.files import read_json, sha256_of_file, sha256_of_lines, write_json
from fliplens.kept_vectors import KeptEncoder
from fliplens.models import fit_model
from fliplens.progress import Progress
from fliplens.recipes import TrainConfig
from fliplens.settings import EXPLAIN_AWAY, UNTRAINED, FitSettings
from fliplens.sources.specs import Source
from fliplens.studies.config import Side, Split, StudyConfig
from fliplens.studies.located import Located
from fliplens.studies.plan import Comparing, Evaluating, Fitting, Plan, View
from fliplens.texts import read_texts
from fliplens.tokenisation import Tokeniser
from fliplens.training import Checkpoint
from fliplens.vocabulary import Vocabulary

__all__ = ["Runner"]

KEY_VERSION = 1
"""Part of what every result is kept under: to be raised when the same settings come to mean something else."""
RECIPE = TrainConfig.__dataclass_fields__


@dataclass(frozen=True)
class _Loaded:
    """Vectors, with what tells them from others."""

    embeddings: Embeddings
    key: str


class Runner:
    """Fits and measures what a plan names.

    Args:
        config: the study's settings.
        plan: what to do.
        data: the folder that paths are looked up in.
        cache: the folder that keeps all of it; several studies may share one.
        device: auto, cpu, cuda or mps.
        show_progress: one bar over the whole study on stderr, and the bars of what takes long in it.
        stop: asked in long work; once it is true the work ends, and the same call goes on with it.
    """

    def __init__(
        self,
        config: StudyConfig,
        plan: Plan,
        *,
        data: Path,
        cache: Path,
        device: str = "auto",
        show_progress: bool = False,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        self.config, self.plan, self.data, self.cache = config, plan, data, cache
        self.device, self.show, self.stop = device, show_progress, stop
        self._texts: dict[Path | str, list[str]] = {}
        self._vectors: dict[tuple[str, str, str, str], _Loaded] = {}
        self._encoders: dict[str, KeptEncoder] = {}
        self._widths: dict[str, int] = {}
        self._reached: dict[str, KeptEncoder | None] = {}
        self._keys: dict[str, str] = {}
        self._models: dict[str, Extractor] = {}

    def check(self) -> None:
        """Open every file that the plan reads, before anything long is done.

        Raises:
            InputError: a file is missing, or not what it should be; sides of a split differ in length.
        """
        for name, fitting in self.plan.fittings.items():
            try:
                rank = self._settings(fitting).train.rank
            except InputError as error:
                raise InputError(f"{error} ({name}, {self.config.own.file})") from error
            # Of every corpus test is read as well, by what is chosen if by nothing else.
            for split in ("train", "dev", "test"):
                views = [fitting.words, fitting.primary, *([fitting.paired] if fitting.paired else [])]
                if split in self.config.corpora[fitting.words.corpus].splits:
                    self._check_split(split, views, fitting.encoder)
            width = self._widths.get(fitting.encoder)
            if fitting.model in ("flip", "shuffled") and isinstance(rank, int) and width is not None and rank > width:
                raise InputError(
                    f"expected ranks up to {width}, the vectors' size, found {rank} ({name}, {self.config.own.file})"
                )
        for one in self.plan.measurements.values():
            for model, view in one.readings:
                self._check_split(one.split, [one.words, view], self.plan.fittings[model].encoder)
            if isinstance(one, Evaluating) and one.entities:
                self._check_entities(one)

    def run(self) -> dict[str, Any]:
        """Do all that is not done yet; return every measurement as JSON, by name.

        Raises:
            InputError: see `check`, and whatever the work refuses.
            InterruptedRunError: `stop` was true.
        """
        self.check()
        steps = len(self.plan.fittings) + len(self.plan.measurements)
        found = {}
        with Progress("study", total=steps, unit="steps", show=self.show) as bar:
            for name in self.plan.fittings:
                bar.note(name)
                self._fit(name)
                bar.update()
                self._heed()
            for name, one in self.plan.measurements.items():
                bar.note(name)
                found[name] = self._measure(one)
                bar.update()
                self._heed()
            for name, one in self.plan.then(found).items():
                bar.note(name)
                found[name] = self._measure(one)
        return found

    def _heed(self) -> None:
        """End the work where that was asked for: what fits in one go, and what is measured, does not ask itself."""
        if self.stop is not None and self.stop():
            raise InterruptedRunError(
                f"interrupted; all that is done is kept in {self.cache}: run the same command again to go on"
            )

    def model(self, name: str) -> Extractor:
        """Return a fitted model."""
        if name not in self._models:
            self._models[name] = Extractor.load(self._folder(name))
        return self._models[name]

    def hashes(self) -> dict[str, str]:
        """Return a hash of every text and every set of vectors that were read, by their names."""
        texts = {
            # The config may name a file that lies elsewhere, of which only the name is told.
            self._shown(path): sha256_of_lines(lines)
            for path, lines in self._texts.items()
        }
        vectors = {
            f"{corpus}.{split}.{side}, {encoder}": one.key
            for (corpus, split, side, encoder), one in self._vectors.items()
        }
        return {**texts, **vectors}

    # Data ------------------------------------------------------------------------------------------------------

    def _split(self, name: str, view: View) -> Split:
        corpus = self.config.corpora[view.corpus]
        if name not in corpus.splits:
            corpus.place.fail(f"{name} (sides by name)", "none")
        return corpus.splits[name]

    def _side(self, split: str, view: View) -> Side:
        found = self._split(split, view)
        return found.side(view.side, found.place)

    def _path(self, place: Located) -> Path:
        """Return a path in the folder of the data; one that is not there may be in the working folder."""
        path = self.data / place.text()
        here = Path(place.text())
        return here if here.exists() and not path.exists() else path

    def _shown(self, source: Path | str) -> str:
        """Return what a record calls a source: by its place in the folder of the data, or by its last name."""
        if isinstance(source, str):
            return source.removeprefix(f"{self.data}/")
        return str(source.relative_to(self.data) if source.is_relative_to(self.data) else source.name)

    def _source(self, place: Located) -> Path | str:
        """Return a source of texts or vectors, its path looked up in the same way."""
        given, path = place.text(), self._path(place)
        if path.exists():
            return path
        source = place.asking(lambda: Source.parse(given))
        if source.scheme or not source.options:
            return given if source.scheme else path
        inside = self.data / source.place
        found = source.path if source.path.exists() and not inside.exists() else inside
        return f"{found}{given[len(source.place) :]}"

    def texts(self, split: str, view: View) -> list[str]:
        """Return the sentences of a side."""
        side = self._side(split, view)
        if side.texts is None:
            side.place.fail("texts, as its words are read", "none")
        path = self._source(side.texts)
        if path not in self._texts:
            self._texts[path] = side.texts.asking(lambda: read_texts(path))
        rows = self._split(split, view).rows
        if rows is None:
            return self._texts[path]
        if rows[1] > len(self._texts[path]):
            side.texts.fail(f"at least {rows[1]} lines, as rows asks for", f"{len(self._texts[path])}")
        return self._texts[path][rows[0] : rows[1]]

    def _check_split(self, split: str, views: list[View], encoder: str) -> None:
        """See that the files of some sides are there, of one length, and their vectors of one size."""
        n, first = len(self.texts(split, views[0])), self._side(split, views[0])
        for view in views[1:]:
            side = self._side(split, view)
            file = side.vectors(encoder)
            if file is not None:
                path = self._source(file)
                vectors = file.asking(partial(open_embeddings, path))
                found, width = len(vectors), self._widths.setdefault(encoder, vectors.dim)
                if vectors.dim != width:
                    file.fail(
                        f"vectors of {width} dimensions, as those of other sides by {encoder}", str(vectors.dim)
                    )
                rows = self._split(split, view).rows
                # What is cut to the rows wanted is as long as the text, if it is long enough.
                found = found if rows is None else min(found, rows[1]) - rows[0]
            else:
                found = len(self.texts(split, view))
            if found != n:
                side.place.fail(
                    f"as many rows on every side of {split}, line for line parallel",
                    f"{n} on side {first.name} and {found} on side {side.name}",
                )

    def vectors(self, split: str, view: View, encoder: str) -> _Loaded:
        """Return the vectors of a side by one encoder: from its file, or encoded once."""
        name = (view.corpus, split, view.side, encoder)
        if name not in self._vectors:
            self._vectors[name] = self._load(split, view, encoder)
        return self._vectors[name]

    def _load(self, split: str, view: View, encoder: str) -> _Loaded:
        side = self._side(split, view)
        file = side.vectors(encoder)
        if file is not None:
            path = self._source(file)
            embeddings = file.asking(lambda: open_embeddings(path))
            manifest = embeddings.manifest
            hashes = manifest.sha256 if manifest is not None else _hashes(embeddings, path)
            rows = self._split(split, view).rows
            if rows is None:
                return _Loaded(embeddings, _digest(hashes))
            return _Loaded(embeddings.subset(np.arange(*rows)), _digest([*hashes, list(rows)]))
        texts = self.texts(split, view)
        place = self._place(encoder, texts)
        made = side.place.asking(lambda: self._encoder(encoder))
        return _Loaded(made.vectors(texts, place), place.stem)

    def _anchor(self, label: str) -> KeptEncoder | None:
        """Return the encoder for the vectors of words; None (and a warning) where only its vectors can be had."""
        if label not in self._reached:
            try:
                found = self._encoder(label)
                found.loaded  # noqa: B018 - whether it can be loaded is what is asked
            except FliplensError as error:
                warnings.warn(
                    f"lenses for {label} start from sentence means, as the encoder cannot be loaded here ({error})",
                    FliplensWarning,
                    stacklevel=2,
                )
                self._reached[label] = None
            else:
                self._reached[label] = found
        return self._reached[label]

    def _place(self, encoder: str, texts: Sequence[str]) -> Path:
        """Return the file for the vectors of some texts by one encoder."""
        key = _digest({"texts": sha256_of_lines(texts), "encoder": self.config.encoders[encoder]})
        return self.cache / "vectors" / f"{key}.npy"

    def _encoder(self, label: str) -> KeptEncoder:
        if label not in self._encoders:
            self._encoders[label] = KeptEncoder(
                self.config.encoders[label],
                partial(self._place, label),
                device=self.device,
                show_progress=self.show,
            )
        return self._encoders[label]

    # Models ----------------------------------------------------------------------------------------------------

    def _rows(self, split: str, fitting: Fitting) -> dict[str, Any] | None:
        """Return texts and vectors of train or dev; None where there is no dev."""
        if split not in self.config.corpora[fitting.words.corpus].splits:
            return None
        rows: dict[str, Any] = {
            "texts": self.texts(split, fitting.words),
            "primary": self.vectors(split, fitting.primary, fitting.encoder),
        }
        if fitting.paired is not None:
            rows["paired"] = self.vectors(split, fitting.paired, fitting.encoder)
        return rows

    def _key(self, name: str) -> str:
        """Return a hash of all that goes into a model."""
        if name not in self._keys:
            fitting = self.plan.fittings[name]
            settings = self._settings(fitting)
            content: dict[str, Any] = {
                "version": KEY_VERSION,
                "encoder": self.config.encoders[fitting.encoder],
                "vocabulary": settings.vocabulary.to_json(),
                "model": [settings.model, settings.shuffled, repr(settings.baseline)],
                "recipe": settings.train.to_json(),
                "hold_out": settings.hold_out,
                "explain_away": settings.explain_away,
            }
            for split in ("train", "dev"):
                rows = self._rows(split, fitting)
                content[split] = rows and {
                    "texts": sha256_of_lines(rows["texts"]),
                    **{view: rows[view].key for view in ("primary", "paired") if view in rows},
                }
            self._keys[name] = _digest(content)
        return self._keys[name]

    def _settings(self, fitting: Fitting) -> FitSettings:
        """Return the study's settings as one of its models has them."""
        values = {**self.config.settings, **fitting.recipe}
        if fitting.model == "shuffled":
            values["shuffled"] = True
        elif fitting.model != "flip":
            values["model"] = fitting.model
            # Only lenses explain away; what only a trained recipe heeds is nothing to those that none trains.
            values.pop(EXPLAIN_AWAY, None)
            if fitting.model != "probe":
                values = {name: one for name, one in values.items() if name not in RECIPE or name in UNTRAINED}
        return FitSettings.from_mapping(values)

    def _folder(self, name: str) -> Path:
        return self.cache / "lenses" / self._key(name)

    def _fit(self, name: str) -> None:
        folder = self._folder(name)
        # Its name says what it is of: whatever else lies in it is of no use to anybody.
        checkpoint = Checkpoint(folder.with_name(folder.name + ".checkpoint"), overwrite=True)
        if (folder / "config.json").is_file():
            # A kill may have come between the two.
            checkpoint.remove()
            return
        fitting = self.plan.fittings[name]
        train, dev = self._rows("train", fitting), self._rows("dev", fitting)
        if train is None:
            raise AssertionError("every corpus has training rows")
        folder.parent.mkdir(parents=True, exist_ok=True)

        def vectors(rows: Mapping[str, Any] | None, view: str) -> Embeddings | None:
            return rows[view].embeddings if rows and view in rows else None

        model = fit_model(
            self._settings(fitting),
            train["texts"],
            train["primary"].embeddings,
            paired=vectors(train, "paired"),
            dev_texts=None if dev is None else dev["texts"],
            dev_embeddings=vectors(dev, "primary"),
            dev_paired=vectors(dev, "paired"),
            encoder=self._anchor(fitting.encoder),
            device=self.device,
            show_progress=self.show,
            checkpoint=checkpoint,
            stop=self.stop,
        )
        model.save(folder)
        checkpoint.remove()

    # Measurements ----------------------------------------------------------------------------------------------

    def _entities_of(self, one: Evaluating) -> Path:
        """Return the file of named entities."""
        split = self._split(one.split, one.words)
        if split.entities is None:
            split.place.fail("entities (a JSONL file, see fliplens tag)", "none")
        path = self._path(split.entities)
        if not path.is_file():
            split.entities.fail("a file of entities", f"none at {path}")
        return path

    def _check_entities(self, one: Evaluating) -> None:
        """See that the entities are those of the texts: no words need to be known for that."""
        path, texts = self._entities_of(one), self.texts(one.split, one.words)
        choice = self._settings(self.plan.fittings[one.model]).vocabulary
        tokeniser = Tokeniser.from_json(choice.to_json()["tokeniser"])
        place = self._split(one.split, one.words).entities
        if place is not None:
            place.asking(lambda: read_entities(path, texts, Vocabulary(("a",), tokeniser=tokeniser)))

    def _measure(self, one: Evaluating | Comparing) -> Any:
        texts = self.texts(one.split, one.words)
        loaded = [self.vectors(one.split, view, self.plan.fittings[model].encoder) for model, view in one.readings]
        content: dict[str, Any] = {
            "kind": type(one).__name__,
            "models": [self._key(model) for model in one.models],
            "texts": sha256_of_lines(texts),
            "views": [view.key for view in loaded],
        }
        entities = None
        if isinstance(one, Evaluating):
            content["decoding"] = one.decoding
            if one.entities:
                entities = self._entities_of(one)
                content["entities"] = sha256_of_file(entities)
        path = self.cache / "measured" / f"{_digest(content)}.json"
        if path.is_file():
            # What cannot be read any more is measured again, like what is not there.
            with contextlib.suppress(InputError):
                return read_json(path)
        found: Any
        if isinstance(one, Evaluating):
            model = self.model(one.model)
            found = evaluate(
                model,
                texts,
                loaded[0].embeddings,
                paired=loaded[1].embeddings if len(loaded) > 1 else None,
                entities=entities,
                decoding=one.decoding,
            ).to_json()
            found["seconds_of_training"] = model.config.get("training", {}).get("seconds")
        else:
            first, second = (self.model(name) for name in one.models)
            found = compare(first, second, texts, loaded[0].embeddings, loaded[1].embeddings).to_json()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, found)
        return found


def _hashes(embeddings: Embeddings, source: Path | str) -> list[str]:
    """Return what tells vectors without a manifest: the hashes of their files, and which column of them it is."""
    hashes = [sha256_of_file(file) for file in embeddings.files]
    return hashes if isinstance(source, Path) else [*hashes, source.rpartition("#")[2]]


def _digest(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]
