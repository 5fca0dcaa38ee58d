"""Carries out a study's plan: fits and measures what is not there yet, and keeps all of it by content.

    CACHE/lenses/KEY/          every fitted model, under a hash of all that went into it
    CACHE/measured/KEY.json    every measurement, likewise

A study that is killed, or run again with other settings, does only what no earlier run has done.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fliplens
from fliplens.embeddings import Embeddings
from fliplens.errors import InputError, InterruptedRunError
from fliplens.evaluation.comparison import compare
from fliplens.evaluation.evaluating import evaluate
from fliplens.files import atomic_folder, link_or_copy, read_json, sha256_of_file, sha256_of_lines, write_json
from fliplens.lenses.extractor import Extractor, ViewName
from fliplens.lenses.files import LENS_FOLDER
from fliplens.models import fit_model
from fliplens.progress import Progress
from fliplens.settings import EXPLAIN_AWAY, UNTRAINED, FitSettings
from fliplens.studies.config import StudyConfig
from fliplens.studies.data import Loaded, StudyData, digest
from fliplens.studies.located import Located
from fliplens.studies.page import short_names
from fliplens.studies.plan import Comparing, Evaluating, Fitting, Plan, View
from fliplens.text.tokenisation import Tokeniser
from fliplens.training import Checkpoint
from fliplens.training.recipes import TrainConfig

if TYPE_CHECKING:
    from fliplens.encoders import Encoder

__all__ = ["Runner"]

KEY_VERSION = 2
"""Part of what every result is kept under: to be raised when the same settings come to mean something else."""
RECIPE = TrainConfig.__dataclass_fields__


class Runner:
    """Fits and measures what a plan names.

    Args:
        config: the study's settings.
        plan: what to do.
        data: the study's data.
        cache: the folder that keeps all of it; several studies may share one.
        device: auto, cpu, cuda or mps.
        show_progress: one bar over the whole study on stderr, and the bars of what takes long in it.
        stop: asked in long work; once it is true the work ends, and the same call goes on with it.
    """

    def __init__(
        self,
        config: StudyConfig,
        plan: Plan,
        data: StudyData,
        *,
        cache: Path,
        device: str = "auto",
        show_progress: bool = False,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        self.config, self.plan, self.data, self.cache = config, plan, data, cache
        self.device, self.show, self.stop = device, show_progress, stop
        self._keys: dict[str, str] = {}
        self._models: dict[str, Extractor] = {}

    def check(self) -> None:
        """Open every file that the plan reads and every encoder that it needs, before anything long is done.

        Raises:
            InputError: a file is missing, or not what it should be; sides of a split differ in length; an encoder
                that texts have to be encoded by cannot be loaded; a rank that vectors of this size cannot have.
        """
        for fitting in self.plan.fittings.values():
            settings = self._place(fitting).asking(partial(self._settings, fitting))
            # Of every corpus test is read as well, by what is chosen if by nothing else.
            for split in ("train", "dev", "test"):
                views = [fitting.words, fitting.primary, *([fitting.paired] if fitting.paired else [])]
                if split in self.config.corpora[fitting.words.corpus].splits:
                    self.data.check_split(split, views, fitting.encoder)
            if settings.wants_encoder:
                self.data.encoder(fitting.encoder)
            self._check_rank(fitting, settings)
        for one in self.plan.measurements.values():
            for model, view in one.readings:
                self.data.check_split(one.split, [one.words, view], self.plan.fittings[model].encoder)
            if isinstance(one, Evaluating) and one.entities:
                choice = self._settings(self.plan.fittings[one.model]).vocabulary
                self.data.check_entities(one.split, one.words, Tokeniser.from_json(choice.to_json()["tokeniser"]))

    def _check_rank(self, fitting: Fitting, settings: FitSettings) -> None:
        if fitting.model not in ("flip", "shuffled", "probe"):
            return
        rank, width = settings.train.rank, self.data.width(fitting.encoder)
        if isinstance(rank, int) and width is not None and rank > width:
            self._place(fitting).fail(f"ranks up to {width}, the size of the vectors", str(rank))

    def _place(self, fitting: Fitting) -> Located:
        """Return where the config asks for a model's recipe."""
        return fitting.place or self.config.own.get("train") or self.config.own

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

    # Models ----------------------------------------------------------------------------------------------------

    def _rows(self, split: str, fitting: Fitting) -> dict[str, Any] | None:
        """Return texts and vectors of train or dev; None where there is no dev."""
        if split not in self.config.corpora[fitting.words.corpus].splits:
            return None
        rows: dict[str, Any] = {
            "texts": self.data.texts(split, fitting.words),
            "primary": self.data.vectors(split, fitting.primary, fitting.encoder),
        }
        if fitting.paired is not None:
            rows["paired"] = self.data.vectors(split, fitting.paired, fitting.encoder)
        return rows

    def _key(self, name: str) -> str:
        """Return a hash of all that goes into a model."""
        if name not in self._keys:
            fitting = self.plan.fittings[name]
            settings = self._settings(fitting)
            baseline = settings.baseline
            content: dict[str, Any] = {
                "version": [KEY_VERSION, fliplens.__version__],
                # Where the encoder cannot be had, words start from elsewhere, and its spec alone is known.
                "encoder": self.data.identity(fitting.encoder)
                if settings.wants_encoder
                else self.config.encoders[fitting.encoder],
                "vocabulary": settings.vocabulary.to_json(),
                "model": [settings.model, settings.shuffled],
                "baseline": None if baseline is None else [repr(baseline), baseline.grids()],
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
            self._keys[name] = digest(content)
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
            encoder=self._encoder(fitting),
            device=self.device,
            show_progress=self.show,
            checkpoint=checkpoint,
            stop=self.stop,
        )
        model.save(folder)
        checkpoint.remove()

    def _encoder(self, fitting: Fitting) -> Encoder | str | None:
        """Return the encoder for the vectors of words, if it is to be had; where none is wanted, its name."""
        if self._settings(fitting).wants_encoder:
            return self.data.encoder(fitting.encoder)
        return self.config.encoders[fitting.encoder]

    # Measurements ----------------------------------------------------------------------------------------------

    def _measure(self, one: Evaluating | Comparing) -> Any:
        texts = self.data.texts(one.split, one.words)
        readings = [(model, view, self._loaded(one.split, model, view)) for model, view in one.readings]
        content: dict[str, Any] = {
            "kind": type(one).__name__,
            "version": [KEY_VERSION, fliplens.__version__],
            "models": [self._key(model) for model in one.models],
            "texts": sha256_of_lines(texts),
            "views": [[self._view(model, view), loaded.key] for model, view, loaded in readings],
        }
        entities = None
        if isinstance(one, Evaluating):
            content["decoding"] = one.decoding
            if one.entities:
                entities = self.data.entities(one.split, one.words)
                content["entities"] = sha256_of_file(entities)
        path = self.cache / "measured" / f"{digest(content)}.json"
        if path.is_file():
            # What cannot be read any more is measured again, like what is not there.
            with contextlib.suppress(InputError):
                return read_json(path)
        found: Any
        vectors = [loaded.embeddings for _, _, loaded in readings]
        if isinstance(one, Evaluating):
            found = evaluate(
                self.model(one.model),
                texts,
                vectors[0],
                paired=vectors[1] if len(vectors) > 1 else None,
                entities=entities,
                decoding=one.decoding,
            ).to_json()
        else:
            first, second = (self.model(model).for_view(self._view(model, view)) for model, view, _ in readings)
            found = compare(first, second, texts, *vectors).to_json()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, found)
        return found

    def _loaded(self, split: str, model: str, view: View) -> Loaded:
        return self.data.vectors(split, view, self.plan.fittings[model].encoder)

    def _view(self, model: str, view: View) -> ViewName:
        """Return which of the views that a model was made from this one is; a view it never saw is a primary one."""
        return "paired" if view == self.plan.fittings[model].paired else "primary"

    # Records ---------------------------------------------------------------------------------------------------

    def publish(self, folder: Path) -> dict[str, Path]:
        """Put every fitted model into a folder under its name; return name → folder.

        Files are linked where the disk can do that, and copied elsewhere. Models of the study's earlier run that it
        has no longer are taken away.
        """
        names = short_names(self.plan.fittings)
        for name, short in names.items():
            place = folder / short
            config = read_json(self._folder(name) / "config.json")
            if (place / "config.json").is_file() and read_json(place / "config.json") == config:
                continue
            with atomic_folder(place, kind=LENS_FOLDER, overwrite=True) as target:
                for file in sorted(self._folder(name).iterdir()):
                    link_or_copy(file, target / file.name)
        return {name: folder / short for name, short in names.items()}

    def records(self) -> dict[str, dict[str, Any]]:
        """Return for every model what it was made from, and what was chosen for it on held-out rows."""
        found = {}
        for name in self.plan.fittings:
            config = self.model(name).config
            data = config.get("data", {})
            chosen = config.get("training", {}).get("chosen", {})
            found[name] = {
                "vocabulary": len(self.model(name).vocabulary),
                "rows_trained": data.get("rows_trained"),
                "rows_without_known_words": data.get("rows_without_known_words"),
                "dev_rows": data.get("dev_rows"),
                "anchor": config.get("training", {}).get("anchor"),
                "chosen": chosen,
            }
        return found
