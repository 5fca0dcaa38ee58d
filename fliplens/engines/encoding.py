"""Encoding by an engine: texts to a folder of Parquet files, one a piece, each whole or absent."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fliplens.embeddings import FLOAT_TYPES
from fliplens.encoders import Encoder
from fliplens.engines.protocol import Engine, Outcome, Piece, succeeded
from fliplens.errors import InputError
from fliplens.files import FolderKind, atomic_file, check_free, is_empty, read_json, remove_leftovers, write_json
from fliplens.long_texts import hash_of_texts
from fliplens.progress import Progress
from fliplens.sources.columns import arrow_library

__all__ = ["EncodePiece", "Encoded", "encode_on"]

ROWS_PER_PART = 16384
RECORD = "_encoding.json"
FOLDER = FolderKind(RECORD, r"_encoding\.json|part-\d+\.parquet|\..+\.tmp")
_ENCODER = ("encoder", "revision", "dim", "normalised", "precision")


@dataclass(frozen=True)
class Encoded:
    """What is in the folder."""

    out: Path
    """The folder."""
    record: dict[str, Any]
    """What `_encoding.json` holds: encoder, revision, dim, dtype, normalised, precision, source, rows a file."""

    @property
    def rows(self) -> int:
        """All rows."""
        return sum(self.record["rows"])


@dataclass
class EncodePiece:
    """The work: the texts of a piece to `part-00000.parquet`, `row` int64 and `vector`, a list of fixed size."""

    texts: Sequence[str]
    """All rows of the job; of `LongTexts` only the places travel."""
    load: Callable[[], Encoder]
    """Loads the encoder, where the work is done."""
    out: Path
    """The folder."""
    dtype: str
    """Of the vectors."""
    source: dict[str, Any]
    """What tells the job from another, kept in every file."""
    _encoder: Encoder | None = field(default=None, init=False)

    def __call__(self, piece: Piece) -> Outcome:
        """Encode a piece, unless its file is there.

        Raises:
            InputError: its file is there, and another encoder's; or the encoder is not of text.
            FliplensError: see `Encoder.encode`.
        """
        if self._encoder is None:
            self._encoder = self.load()
            if self._encoder.modality != "text":
                raise InputError(
                    f"expected an encoder of text for an engine, found {self._encoder.spec}, of "
                    f"{self._encoder.modality}: encode recordings without --engine"
                )
        made = _facts(self._encoder)
        facts = {**made, "source": self.source, "dtype": self.dtype, "first": piece.first}
        path = self.out / f"part-{piece.number:05d}.parquet"
        if path.is_file():
            _check_same(path, facts)
        else:
            vectors = self._encoder.encode(self.texts[piece.first : piece.stop])
            self._write(path, piece.first, vectors, facts)
        return Outcome(piece.number, rows=piece.stop - piece.first, facts=json.dumps(made))

    def _write(self, path: Path, first: int, vectors: np.ndarray[Any, Any], facts: dict[str, Any]) -> None:
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


def encode_on(
    engine: Engine,
    texts: Sequence[str],
    load: Callable[[], Encoder],
    out: str | Path,
    *,
    spec: str,
    name: str = "texts",
    dtype: str = "float32",
    rows_per_part: int = ROWS_PER_PART,
    overwrite: bool = False,
    show_progress: bool = False,
) -> Encoded:
    """Encode texts by an engine to a folder of Parquet files, going on from what an earlier run left there.

    Args:
        engine: what runs it.
        texts: one row each; those of `fliplens.long_texts.open_texts` are read where they are encoded.
        load: loads the encoder, where it is used; what is loaded must be picklable, the encoder need not be.
        out: the folder, whose name ends in `.parquet`. The files' names are in the order of the rows.
        spec: the encoder's name, for the record.
        name: what the record calls the texts.
        dtype: float16, float32 or float64, on disk.
        rows_per_part: rows a file.
        overwrite: replace what another job left at `out`.
        show_progress: a bar on stderr.

    Raises:
        InputError: no texts, or `out` holds something else.
        FliplensError: the encoder or the engine failed; files that are whole are kept, the same call goes on.
        MissingExtraError: there is no pyarrow.
    """
    out = Path(out).absolute()
    if out.suffix != ".parquet":
        raise InputError(f"expected a folder that ends in .parquet to write, found {out}: rename it")
    if dtype not in FLOAT_TYPES:
        raise InputError(f"expected dtype {', '.join(FLOAT_TYPES)}, found {dtype!r}")
    if not texts:
        raise InputError(f"expected texts to encode in {name}, found none")
    arrow_library()
    source = {"name": name, "rows": len(texts), "sha256": hash_of_texts(texts), "rows_per_part": rows_per_part}
    job = {"format_version": 1, "asked_for": spec, "dtype": dtype, "source": source}
    found = _begun(out, job, overwrite=overwrite)
    if found.get("complete"):
        return Encoded(out, found)
    remove_leftovers(out)
    starts = range(0, len(texts), rows_per_part)
    pieces = [Piece(number, first, min(first + rows_per_part, len(texts))) for number, first in enumerate(starts)]
    work = EncodePiece(texts, load, out, dtype, source)
    made: dict[str, Any] | None = None
    with Progress("encode", total=len(texts), unit="texts", show=show_progress) as bar:
        kept = f"files that are whole are kept in {out}, the same command goes on"
        for outcome in engine.run(work, pieces):
            succeeded(outcome, kept=kept)
            facts = json.loads(outcome.facts)
            if made is not None and facts != made:
                raise InputError(f"expected one encoder on all machines, found {made} and {facts}: use one version")
            made = facts
            bar.update(outcome.rows)
    record = {**job, **(made or {}), "rows": [piece.stop - piece.first for piece in pieces], "complete": True}
    write_json(out / RECORD, record)
    return Encoded(out, record)


def _begun(out: Path, job: dict[str, Any], *, overwrite: bool) -> dict[str, Any]:
    """Return the record of this job in `out`, written if it is new."""
    path = out / RECORD
    if path.is_file() and not overwrite:
        found = read_json(path)
        if isinstance(found, dict) and all(found.get(key) == value for key, value in job.items()):
            return found
        raise InputError(f"expected {out} to hold this job, found another: name another place, or pass --overwrite")
    if not is_empty(out) or out.is_file():
        check_free(out, kind=FOLDER, overwrite=overwrite)
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    write_json(path, {**job, "complete": False})
    return job


def _facts(encoder: Encoder) -> dict[str, Any]:
    values = (
        encoder.spec,
        encoder.revision,
        encoder.dim,
        encoder.normalised,
        getattr(encoder, "precision", None),
    )
    return dict(zip(_ENCODER, values, strict=True))


def _check_same(path: Path, facts: dict[str, Any]) -> None:
    pa, parquet = arrow_library(), arrow_library("pyarrow.parquet")
    try:
        found = json.loads((parquet.read_schema(path).metadata or {}).get(b"fliplens", b"null"))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"expected a file of this job at {path}, could not read it: delete it") from error
    if found != facts:
        differs = next((key for key in facts if not isinstance(found, dict) or found.get(key) != facts[key]), "facts")
        raise InputError(
            f"expected {path} to be of this job, found one of another {differs}: delete it, or pass --overwrite"
        )
