"""Encoding by an engine: texts, or recordings, to a folder of Parquet files, one a piece, each whole or absent."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from fliplens.embeddings import FLOAT_TYPES
from fliplens.encoders import Encoder, SpeechEncoder
from fliplens.encoding.jobs import Part, list_bad
from fliplens.encoding.parts import check_vectors
from fliplens.encoding.recordings import audio_files, encode_files, state_of_files
from fliplens.encoding.texts import encode_lines
from fliplens.engines.folders import Job, PieceWork, fill, finished
from fliplens.engines.protocol import Engine, Outcome, Piece
from fliplens.errors import FliplensError, FliplensWarning, InputError
from fliplens.files import FolderKind, atomic_file
from fliplens.sources.columns import arrow_library
from fliplens.text.long_texts import hash_of_texts

__all__ = ["EncodePiece", "Encoded", "encode_on"]

ROWS_PER_PART = {"text": 16384, "speech": 512}
"""Rows a file, of each modality."""
RECORD = "_encoding.json"
BAD_LIST = "_bad.jsonl"
"""As other libraries take names that start so for no data."""
FOLDER = FolderKind(RECORD, r"_encoding\.json|_bad\.jsonl|part-\d+\.parquet|\..+\.tmp")
_ENCODER = ("encoder", "revision", "dim", "normalised", "precision")


@dataclass(frozen=True)
class Encoded:
    """What is in the folder."""

    out: Path
    """The folder."""
    record: dict[str, Any]
    """What `_encoding.json` holds: encoder, revision, dim, dtype, normalised, precision, source, and of each file
    rows, bytes and sha256."""

    @property
    def rows(self) -> int:
        """All rows."""
        return sum(self.record["rows"])

    @property
    def bad(self) -> int:
        """Rows of NaN, whose input could not be read."""
        return int(self.record.get("bad", 0))

    @property
    def bad_list(self) -> Path:
        """Where these are listed; no such file where there are none."""
        return self.out / BAD_LIST


@dataclass
class EncodePiece(PieceWork):
    """The work: the inputs of a piece to a file of `row`, int64, and `vector`, a list of fixed size."""

    inputs: Sequence[str]
    """All rows of the job, texts or paths of recordings; of `LongTexts` only the places travel."""
    load: Callable[[], Encoder]
    """Loads the encoder, where the work is done."""
    dtype: str
    """Of the vectors."""
    source: Mapping[str, Any]
    """What tells the job from another, kept in every file."""
    modality: str
    """Of the inputs."""
    base: Path
    """Where paths of recordings that are relative start."""
    skip_bad: bool
    """See `encode_on`."""
    _encoder: Encoder | None = field(default=None, init=False)

    @property
    def encoder(self) -> Encoder:
        """The encoder, loaded once a process.

        Raises:
            InputError: it is of another modality.
        """
        if self._encoder is None:
            self._encoder = _loaded(self.load, self.modality)
        return self._encoder

    def found(self, path: Path, piece: Piece) -> Outcome | None:
        """Return what the file of a piece says; None where it is damaged, or its recordings have changed.

        Raises:
            InputError: it is another encoder's.
        """
        pa, parquet = arrow_library(), arrow_library("pyarrow.parquet")
        try:
            found = json.loads((parquet.read_schema(path).metadata or {}).get(b"fliplens", b"null"))
        except (pa.ArrowException, OSError, ValueError):
            return None
        facts = self._facts(piece)
        if not isinstance(found, dict):
            return None
        for name in (*_ENCODER, "source", "dtype", "first"):
            if found.get(name) != facts[name]:
                raise InputError(
                    f"expected {path} to be of this job, with {name} {facts[name]}, found {found.get(name)}: go "
                    "on with what began it, or pass --overwrite"
                )
        return self._outcome(piece, found) if found.get("files") == facts.get("files") else None

    def make(self, path: Path, piece: Piece) -> Outcome:
        """Encode a piece.

        Raises:
            InputError: an input cannot be read.
            FliplensError: see `fliplens.encoding.texts.encode_texts`.
            InterruptedRunError: all is to stop.
        """
        facts = self._facts(piece)  # before the files are read: what changes meanwhile is then found to have changed
        name, rows = self.source["name"], piece.stop - piece.first
        part = self._encode(piece, name)
        check_vectors(part.vectors, rows, piece.first, self.encoder, name, part.bad)
        if part.cut:
            facts["cut"] = part.cut
        if part.bad:
            facts["bad"] = [
                {"row": piece.first + row, "input": self.inputs[piece.first + row], "error": why}
                for row, why in sorted(part.bad.items())
            ]
        self._write(path, piece.first, part.vectors, facts)
        return self._outcome(piece, facts)

    def _encode(self, piece: Piece, name: str) -> Part:
        left = piece.stop - piece.first

        def moved(rows: int) -> None:
            nonlocal left
            left -= rows
            if left:  # what is encoded to its end is worth writing
                self.heed()

        if self.modality == "text":
            return encode_lines(self.encoder, self.inputs[piece.first : piece.stop], moved=moved)
        encoder = cast("SpeechEncoder", self.encoder)
        files = self._files(piece)
        return encode_files(encoder, files, start=piece.first, name=name, skip_bad=self.skip_bad, moved=moved)

    def _files(self, piece: Piece) -> list[Path]:
        return audio_files(self.inputs, piece.first, piece.stop, folder=self.base)

    def _facts(self, piece: Piece) -> dict[str, Any]:
        files = {} if self.modality == "text" else {"files": state_of_files(self._files(piece))}
        return {
            **_facts(self.encoder),
            "source": dict(self.source),
            "dtype": self.dtype,
            "first": piece.first,
            **files,
        }

    def _outcome(self, piece: Piece, facts: Mapping[str, Any]) -> Outcome:
        told = {name: facts[name] for name in (*_ENCODER, "files", "cut", "bad") if name in facts}
        return Outcome(piece.number, rows=piece.stop - piece.first, facts=json.dumps(told))

    def _write(self, path: Path, first: int, vectors: np.ndarray[Any, Any], facts: Mapping[str, Any]) -> None:
        pa, parquet = arrow_library(), arrow_library("pyarrow.parquet")
        flat = pa.array(np.ascontiguousarray(vectors, dtype=self.dtype).reshape(-1))
        columns = [
            pa.array(np.arange(first, first + len(vectors), dtype=np.int64)),
            pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]),
        ]
        table = pa.table(columns, names=["row", "vector"], metadata={"fliplens": json.dumps(facts, sort_keys=True)})
        with atomic_file(path) as stream:
            # Numbers of all values do not get shorter by a dictionary, nor much by compression.
            parquet.write_table(table, stream, use_dictionary=False, compression="none")


@dataclass
class CheckEncoder:
    """The work of a job that is done: is the encoder the one that did it?"""

    load: Callable[[], Encoder]
    """Loads the encoder."""
    modality: str
    """Of the inputs."""

    def __call__(self, piece: Piece) -> Outcome:
        """Tell what the encoder is."""
        return Outcome(piece.number, facts=json.dumps(_facts(_loaded(self.load, self.modality))))


def encode_on(
    engine: Engine,
    inputs: Sequence[str],
    load: Callable[[], Encoder],
    out: str | Path,
    *,
    spec: str,
    modality: str = "text",
    name: str = "texts",
    dtype: str = "float32",
    rows_per_part: int | None = None,
    overwrite: bool = False,
    show_progress: bool = False,
    stop: Callable[[], bool] | None = None,
    folder: str | Path = ".",
    skip_bad: bool = False,
) -> Encoded:
    """Encode texts or recordings by an engine to a folder of Parquet files, going on from what an earlier run left.

    Until all of them are there the files lie in `OUT.parts`.

    Args:
        engine: what runs it.
        inputs: one row each, texts or paths of files of audio; those of `fliplens.text.long_texts.open_texts` are
            read where they are encoded.
        load: loads the encoder, where it is used; what is loaded must be picklable, the encoder need not be.
        out: the folder, whose name ends in `.parquet`. The files' names are in the order of the rows.
        spec: the encoder's name, for the record.
        modality: of the encoder, "text" or "speech".
        name: what the record calls the inputs.
        dtype: float16, float32 or float64, on disk.
        rows_per_part: rows a file; by default `ROWS_PER_PART`.
        overwrite: replace what another job left at `out`.
        show_progress: a bar on stderr.
        stop: asked all the time, from another thread; once it is true pieces under way are dropped and the work ends.
        folder: where paths of recordings that are relative start, wherever the engine works.
        skip_bad: give a recording that cannot be read a row of NaN and list it in `_bad.jsonl`, rather than stop.

    Raises:
        InputError: no inputs, or `out` holds something else, perhaps of another version of the encoder; or as
            `fliplens.encoding.texts.encode_texts` and `fliplens.encoding.recordings.encode_audio`.
        FliplensError: the encoder or the engine failed; files that are whole are kept, the same call goes on.
        InterruptedRunError: `stop` was true.
        MissingExtraError: there is no pyarrow.

    Warns:
        FliplensWarning: the model read only the start of some inputs. Or the job was done before, in another
            precision than the encoder has now.
    """
    out = Path(out).absolute()
    if out.suffix != ".parquet":
        raise InputError(f"expected a folder that ends in .parquet to write, found {out}: rename it")
    if dtype not in FLOAT_TYPES:
        raise InputError(f"expected dtype {', '.join(FLOAT_TYPES)}, found {dtype!r}")
    if not inputs:
        raise InputError(f"expected {_UNITS[modality]} to encode in {name}, found none")
    if skip_bad and modality == "text":
        raise InputError("expected skip_bad for recordings, found texts: every text has a vector")
    arrow_library()
    step = rows_per_part or ROWS_PER_PART[modality]
    heard = {} if modality == "text" else {"modality": modality}
    source = {"name": name, "rows": len(inputs), **heard, "sha256": hash_of_texts(inputs), "rows_per_part": step}
    pieces = [
        Piece(number, first, min(first + step, len(inputs)))
        for number, first in enumerate(range(0, len(inputs), step))
    ]
    what = {"format_version": 1, "asked_for": spec, "dtype": dtype, "source": source}
    job = Job(out, FOLDER, what, pieces, "encode", _UNITS[modality])
    base = Path(folder).absolute()

    def work(place: Path, known: Mapping[int, str], halt: Path) -> EncodePiece:
        return EncodePiece(place, known, halt, inputs, load, dtype, source, modality, base, skip_bad)

    if (found := finished(job, overwrite=overwrite)) is not None:
        _check_done(engine, found, CheckEncoder(load, modality), out)
        if modality != "text":
            states = (state_of_files(audio_files(inputs, piece.first, piece.stop, folder=base)) for piece in pieces)
            if found.get("files") != list(states):
                raise InputError(
                    f"expected the files of {name} as they were when {out} was encoded, found some that have changed "
                    "since: name another place, or pass --overwrite"
                )
        return Encoded(out, found)
    record = fill(engine, job, work, _told, overwrite=overwrite, show_progress=show_progress, stop=stop)
    if cut := record.get("cut", 0):
        warnings.warn(
            f"{cut} of {len(inputs)} {_UNITS[modality]} are longer than the model reads: only their start was "
            "encoded; cut them into sentences",
            FliplensWarning,
            stacklevel=2,
        )
    return Encoded(out, record)


_UNITS = {"text": "texts", "speech": "recordings"}


def _told(folder: Path, outcomes: list[Outcome]) -> dict[str, Any]:
    """Return what the files of all pieces say, and list their bad rows."""
    facts = [json.loads(outcome.facts) for outcome in outcomes]
    made = [{name: one.get(name) for name in _ENCODER} for one in facts]
    for one in made[1:]:
        if one != made[0]:
            raise InputError(f"expected one encoder on all machines, found {made[0]} and {one}: use one version")
    bad = [json.dumps(row) for one in facts for row in one.get("bad", [])]
    list_bad(folder / BAD_LIST, bad)
    told = dict(made[0])
    if "files" in facts[0]:
        told["files"] = [one["files"] for one in facts]
    for name, count in (("bad", len(bad)), ("cut", sum(one.get("cut", 0) for one in facts))):
        if count:
            told[name] = count
    return told


def _check_done(engine: Engine, found: Mapping[str, Any], work: CheckEncoder, out: Path) -> None:
    """Refuse a finished job whose encoder has changed since; warn of another precision, as for a folder of shards."""
    for outcome in engine.run(work, [Piece(0, 0, 0)]):
        if outcome.error:
            kind = InputError if outcome.exit_status == InputError.exit_status else FliplensError
            raise kind(outcome.error)
        now = json.loads(outcome.facts)
        for name in _ENCODER[:-1]:
            if found.get(name) != now[name]:
                raise InputError(
                    f"expected {out} to hold this job, with {name} {now[name]}, found {found.get(name)}: name "
                    "another place, or pass --overwrite"
                )
        if None not in (found.get("precision"), now["precision"]) and found["precision"] != now["precision"]:
            warnings.warn(
                f"{out} was encoded before, in {found['precision']}, and is left as it is: for vectors in "
                f"{now['precision']} pass --overwrite",
                FliplensWarning,
                stacklevel=3,
            )


def _loaded(load: Callable[[], Encoder], modality: str) -> Encoder:
    encoder = load()
    if encoder.modality != modality or (modality == "speech" and not isinstance(encoder, SpeechEncoder)):
        raise InputError(f"expected an encoder of {modality}, found {encoder.spec}, of {encoder.modality}")
    return encoder


def _facts(encoder: Encoder) -> dict[str, Any]:
    values = (
        encoder.spec,
        encoder.revision,
        encoder.dim,
        encoder.normalised,
        getattr(encoder, "precision", None),
    )
    return dict(zip(_ENCODER, values, strict=True))
