"""What a study reads: texts, vectors, entities and encoders, opened once, checked against each other, told apart.

CACHE/vectors/KEY.npy      vectors that had to be encoded, under a hash of texts and encoder
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fliplens.embeddings import Embeddings, manifest_path, open_embeddings
from fliplens.encoders import text_spec
from fliplens.encoding.kept_vectors import KeptEncoder
from fliplens.errors import FliplensError, FliplensWarning, InputError
from fliplens.evaluation.entities import read_entities
from fliplens.files import sha256_of_file, sha256_of_lines
from fliplens.sources.specs import SourceSpec
from fliplens.studies.config import Side, Split, StudyConfig
from fliplens.studies.located import Located
from fliplens.studies.plan import View
from fliplens.text.opening import read_texts
from fliplens.text.tokenisation import Tokeniser
from fliplens.text.vocabulary import Vocabulary

__all__ = ["Loaded", "StudyData", "digest"]


@dataclass(frozen=True)
class Loaded:
    """Vectors, with what tells them from others."""

    embeddings: Embeddings
    key: str


class StudyData:
    """The data that a study's settings name.

    Args:
        config: the study's settings.
        folder: where paths are looked up.
        cache: gets the vectors that have to be encoded.
        device: where encoders run.
        show_progress: bars on stderr.
        stop: asked while texts are encoded; once it is true that ends, and goes on when asked again.
    """

    def __init__(
        self,
        config: StudyConfig,
        *,
        folder: Path,
        cache: Path,
        device: str = "auto",
        show_progress: bool = False,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        self.config, self.folder, self.cache = config, folder, cache
        self.device, self.show, self.stop = device, show_progress, stop
        self._texts: dict[Path | str, list[str]] = {}
        self._vectors: dict[tuple[str, str, str, str], Loaded] = {}
        self._encoders: dict[str, KeptEncoder] = {}
        self._reached: dict[str, KeptEncoder | None] = {}
        self._widths: dict[str, int] = {}
        self._files: dict[str, str] = {}

    # Texts and entities ----------------------------------------------------------------------------------------

    def split(self, name: str, view: View) -> Split:
        """Return train, dev or test of a view's corpus."""
        corpus = self.config.corpora[view.corpus]
        if name not in corpus.splits:
            corpus.place.fail(f"{name} (sides by name)", "none")
        return corpus.splits[name]

    def texts(self, split: str, view: View) -> list[str]:
        """Return the sentences of a side."""
        side = self._side(split, view)
        if side.texts is None:
            side.place.fail("texts, as its words are read", "none")
        path = self._source(side.texts)
        if path not in self._texts:
            self._texts[path] = side.texts.asking(lambda: read_texts(path))
        rows = self.split(split, view).rows
        if rows is None:
            return self._texts[path]
        if rows[1] > len(self._texts[path]):
            side.texts.fail(f"at least {rows[1]} lines, as rows asks for", f"{len(self._texts[path])}")
        return self._texts[path][rows[0] : rows[1]]

    def repeated(self, view: View) -> tuple[int, int]:
        """Return how many test sentences of a side are also among its training sentences, and of how many."""
        known = set(self.texts("train", view))
        test = self.texts("test", view)
        return sum(text in known for text in test), len(test)

    def entities(self, split: str, view: View) -> Path:
        """Return the file of named entities of a side's sentences."""
        place = self.split(split, view)
        if place.entities is None:
            place.place.fail("entities (a JSONL file, see fliplens tag)", "none")
        path = self._path(place.entities)
        if not path.is_file():
            place.entities.fail("a file of entities", f"none at {path}")
        self._files[self._name(path)] = sha256_of_file(path)
        return path

    def check_entities(self, split: str, view: View, tokeniser: Tokeniser) -> None:
        """See that the entities are those of the texts: no words need to be known for that."""
        path, texts = self.entities(split, view), self.texts(split, view)
        place = self.split(split, view).entities
        if place is not None:
            place.asking(lambda: read_entities(path, texts, Vocabulary(("a",), tokeniser=tokeniser)))

    # Vectors ---------------------------------------------------------------------------------------------------

    def vectors(self, split: str, view: View, encoder: str) -> Loaded:
        """Return the vectors of a side by one encoder: from its file, or encoded once."""
        name = (view.corpus, split, view.side, encoder)
        if name not in self._vectors:
            self._vectors[name] = self._load(split, view, encoder)
        return self._vectors[name]

    def width(self, encoder: str) -> int | None:
        """Return d of an encoder's vectors; None before any were looked at."""
        return self._widths.get(encoder)

    def check_split(self, split: str, views: Sequence[View], encoder: str) -> None:
        """See that the files of some sides are there, of one length, and their vectors of one size.

        Args:
            split: train, dev or test.
            views: the side that gives the words, then those whose vectors are read.
            encoder: label of what made the vectors.

        Raises:
            InputError: what is wrong, and where the config asks for it.
        """
        n, first = len(self.texts(split, views[0])), self._side(split, views[0])
        for view in views[1:]:
            side = self._side(split, view)
            file = side.vectors(encoder)
            if file is None:
                self.encoder_needed(encoder, side.place)
                found, what = len(self.texts(split, view)), "lines"
            else:
                vectors = self._open(file)
                found, what = len(vectors), "vectors"
                width = self._widths.setdefault(encoder, vectors.dim)
                if vectors.dim != width:
                    file.fail(f"vectors of {width} dimensions, as others by {encoder}", str(vectors.dim))
                rows = self.split(split, view).rows
                # What is cut to the rows wanted is as long as the text, if it is long enough.
                found = found if rows is None else min(found, rows[1]) - rows[0]
            if found != n:
                side.place.fail(
                    f"as many rows on every side of {split}, line for line parallel",
                    f"{n} lines of text ({first.name}) and {found} {what} ({side.name})",
                )

    def hashes(self) -> dict[str, str]:
        """Return the SHA-256 of every file that was read and of all lines of text, by their names."""
        texts = {f"{self._name(path)}, lines": sha256_of_lines(lines) for path, lines in self._texts.items()}
        return {**texts, **self._files}

    def _load(self, split: str, view: View, encoder: str) -> Loaded:
        side = self._side(split, view)
        file = side.vectors(encoder)
        if file is not None:
            embeddings = self._open(file)
            hashes = self._hashes_of(file, embeddings)
            rows = self.split(split, view).rows
            if rows is None:
                return Loaded(embeddings, digest(hashes))
            return Loaded(embeddings.subset(np.arange(*rows)), digest([*hashes, list(rows)]))
        texts = self.texts(split, view)
        place = self._place(encoder, texts)
        made = self.encoder_needed(encoder, side.place)
        return Loaded(made.vectors(texts, place), place.stem)

    def _open(self, file: Located) -> Embeddings:
        return file.asking(partial(open_embeddings, self._source(file)))

    def _hashes_of(self, file: Located, embeddings: Embeddings) -> list[str]:
        """Return what tells vectors from others: the hashes of their manifest, of their files where it has none."""
        source, manifest = self._source(file), embeddings.manifest
        if manifest is not None and isinstance(source, Path) and _newer(source):
            # Somebody may have put other vectors beside an old manifest, or only copied both: their hashes tell.
            file.asking(partial(open_embeddings, source, verify=True))
        hashes = manifest.sha256 if manifest is not None else [sha256_of_file(one) for one in embeddings.files]
        whole = hashes[0] if len(hashes) == 1 else digest(hashes)
        self._files[self._name(source) + (f", {len(hashes)} parts" if len(hashes) > 1 else "")] = whole
        # Of one file, each column is another set of vectors.
        return hashes if isinstance(source, Path) else [*hashes, source.rpartition("#")[2]]

    # Encoders --------------------------------------------------------------------------------------------------

    def encoder_needed(self, label: str, wanted_by: Located) -> KeptEncoder:
        """Return an encoder without which the study cannot go on; one that cannot be loaded is told at once.

        Raises:
            InputError: it cannot be loaded, or its vectors have another size than those that are there.
        """
        found = self.encoder(label)
        if found is None:
            wanted_by.asking(lambda: self._encoder(label).loaded)
            raise AssertionError("what was not to be had before is there now")
        return found

    def encoder(self, label: str) -> KeptEncoder | None:
        """Return an encoder, loaded; None (and a warning) where only its vectors can be had.

        Raises:
            InputError: its spec is none, or names what is not there, a layer that the model lacks say; its vectors
                have another size than those that are there.
        """
        if label not in self._reached:
            place = self._encoder_place(label)
            try:
                found, width = place.asking(partial(self._loaded, label))
            except InputError:
                # The settings are wrong; a study without the encoder would not be the one that was asked for.
                raise
            except FliplensError as error:
                warnings.warn(
                    f"lenses for {label} start from sentence means, as the encoder cannot be loaded here ({error})",
                    FliplensWarning,
                    stacklevel=2,
                )
                self._reached[label] = None
            else:
                if self._widths.setdefault(label, width) != width:
                    place.fail(
                        f"the encoder that made the vectors of {self._widths[label]} dimensions",
                        f"{label}, whose vectors have {width}",
                    )
                self._reached[label] = found
        return self._reached[label]

    def _loaded(self, label: str) -> tuple[KeptEncoder, int]:
        """Return an encoder that is loaded, and the size of its vectors."""
        if text_spec(self.config.encoders[label]) is None:
            raise FliplensError(f"{self.config.encoders[label]} encodes speech and has no vectors of words")
        found = self._encoder(label)
        return found, found.dim

    def _encoder_place(self, label: str) -> Located:
        """Return where the config names an encoder, or the layers that stand for it."""
        place = self.config.own.need("encoders", "specs")
        if isinstance(place.value, dict):
            found = place.value.get(label)
        else:
            found = next((one for one in place.list() if one.text() == label), None)
        return found or self.config.own.get("layers") or place

    def identity(self, label: str) -> dict[str, Any]:
        """Return what tells an encoder from others: its spec and, where it can be loaded, its weights."""
        found = self.encoder(label)
        return {"spec": self.config.encoders[label], "revision": None if found is None else found.revision}

    def _encoder(self, label: str) -> KeptEncoder:
        if label not in self._encoders:
            self._encoders[label] = KeptEncoder(
                text_spec(self.config.encoders[label]) or self.config.encoders[label],
                partial(self._place, label),
                device=self.device,
                show_progress=self.show,
                stop=self.stop,
            )
        return self._encoders[label]

    def _place(self, encoder: str, texts: Sequence[str]) -> Path:
        """Return the file for the vectors of some texts by one encoder."""
        key = digest({"texts": sha256_of_lines(texts), "encoder": self.identity(encoder)})
        return self.cache / "vectors" / f"{key}.npy"

    # Paths -----------------------------------------------------------------------------------------------------

    def _side(self, split: str, view: View) -> Side:
        found = self.split(split, view)
        return found.side(view.side, found.place)

    def _path(self, place: Located) -> Path:
        """Return a path in the folder of the data; one that is not there may be in the working folder."""
        path = self.folder / place.text()
        here = Path(place.text())
        return here if here.exists() and not path.exists() else path

    def _source(self, place: Located) -> Path | str:
        """Return a source of texts or vectors, its path looked up in the same way."""
        given, path = place.text(), self._path(place)
        if path.exists():
            return path
        source = place.asking(lambda: SourceSpec.parse(given))
        if source.scheme or not source.options:
            return given if source.scheme else path
        inside = self.folder / source.place
        found = source.path if source.path.exists() and not inside.exists() else inside
        return f"{found}{given[len(source.place) :]}"

    def _name(self, source: Path | str) -> str:
        """Return what a page calls a source; of a file that lies elsewhere only the name is told."""
        if isinstance(source, str):
            return source.removeprefix(f"{self.folder}/")
        return str(source.relative_to(self.folder) if source.is_relative_to(self.folder) else source.name)


def _newer(path: Path) -> bool:
    """Return whether vectors were written after the manifest that tells their hashes."""
    parts = sorted(path.glob("*.npy")) if path.is_dir() else [path]
    written = manifest_path(path).stat().st_mtime_ns
    return any(part.stat().st_mtime_ns > written for part in parts)


def digest(content: Any) -> str:
    """Return a short hash of plain values."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]
