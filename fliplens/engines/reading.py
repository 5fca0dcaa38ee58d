"""Reading words by an engine: vectors of any number to a folder of Parquet files, one a piece, resumably."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fliplens.arithmetic.decoding import Decoding
from fliplens.devices import resolve_device
from fliplens.embeddings import BLOCK_ROWS, Embeddings, open_embeddings
from fliplens.encoding.recordings import state_of_files
from fliplens.engines.folders import Job, PieceWork, fill, finished
from fliplens.engines.protocol import Engine, Outcome, Piece
from fliplens.errors import InputError
from fliplens.files import FolderKind, atomic_file, sha256_of_file, sha256_of_lines
from fliplens.lenses.extractor import Extractor
from fliplens.lenses.reading_files import Written, parquet_writer
from fliplens.sources.columns import arrow_library
from fliplens.sources.parquet import column_files
from fliplens.sources.registry import kind_of
from fliplens.sources.specs import SourceSpec

__all__ = ["ReadPiece", "Vectors", "read_on"]

ROWS_PER_PART = 65_536
RECORD = "_reading.json"
FOLDER = FolderKind(RECORD, r"_reading\.json|part-\d+\.parquet|\..+\.tmp")


class Vectors:
    """Vectors that `open_embeddings` opens, in runs of rows, in any process.

    Args:
        source: see `open_embeddings`.

    Raises:
        InputError: see there.
    """

    def __init__(self, source: str | Path) -> None:
        parsed = SourceSpec.parse(source)
        self.name = str(parsed)
        if parsed.scheme in ("", "faiss"):  # a path: it may travel to a process that works elsewhere
            parsed = replace(parsed, place=str(parsed.path.absolute()))
        self._source = str(parsed)
        self._opened: Embeddings | None = None
        self.rows = len(self._embeddings)
        # Of Parquet, row groups are decoded as a whole.
        parquet = kind_of(parsed).module == "parquet"
        files = column_files(parsed, of="vectors") if parquet else []
        self._groups = [rows for file in files for rows in file.groups]

    def pieces(self, rows: int) -> list[Piece]:
        """Return pieces of about `rows`; of Parquet, of whole row groups."""
        ends: list[int] = []
        if self._groups:
            last = 0
            for end in accumulate(self._groups):
                if end - last >= rows:
                    ends.append(end)
                    last = end
        else:
            ends = list(range(rows, self.rows, rows))
        if not ends or ends[-1] < self.rows:
            ends.append(self.rows)
        return [
            Piece(number, first, stop) for number, (first, stop) in enumerate(zip([0, *ends], ends, strict=False))
        ]

    def blocks(self, first: int, stop: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield (row, vectors from there on) over rows first..stop, a few thousand at a time."""
        for start in range(first, stop, BLOCK_ROWS):
            yield start, self._embeddings.block(start, min(start + BLOCK_ROWS, stop))

    @property
    def state(self) -> str:
        """What changes when a file of theirs does: a hash of the files' sizes and times of change."""
        return state_of_files(self._embeddings.files)

    @property
    def _embeddings(self) -> Embeddings:
        if self._opened is None:
            self._opened = open_embeddings(self._source)
        return self._opened

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs to open the same vectors."""
        return {**self.__dict__, "_opened": None}


@dataclass
class ReadPiece(PieceWork):
    """The work: the words of a piece's vectors to a file, as `write_top_words` writes them."""

    lens: str
    """What `Extractor.load` takes."""
    vocabulary: str | None
    """Of a bare state dict."""
    vectors: Vectors
    """All rows."""
    n: int | None
    """See `write_top_words`."""
    prior: float
    """See there."""
    decoding: Decoding
    """See there."""
    drop_bad_rows: bool
    """See there."""
    device: str
    """Where to compute."""
    _lens: Extractor | None = field(default=None, init=False)

    def found(self, path: Path, piece: Piece) -> Outcome | None:
        """Return how many rows the file of a piece has; None where it is damaged."""
        pa, parquet = arrow_library(), arrow_library("pyarrow.parquet")
        try:
            return Outcome(piece.number, rows=parquet.read_metadata(path).num_rows)
        except (pa.ArrowException, OSError):
            return None

    def make(self, path: Path, piece: Piece) -> Outcome:
        """Read a piece.

        Raises:
            InputError: see `Extractor.top`; a row of NaN or infinite values, unless they are dropped.
            InterruptedRunError: all is to stop.
        """
        if self._lens is None:
            self._lens = Extractor.load(self.lens, vocabulary=self.vocabulary).to(resolve_device(self.device))
        written = 0
        with atomic_file(path) as stream, parquet_writer(stream, self._lens, None) as write:
            for first, block in self.vectors.blocks(piece.first, piece.stop):
                self.heed()
                good = np.flatnonzero(np.isfinite(block).all(axis=1))
                if len(good) < len(block) and not self.drop_bad_rows:
                    bad = first + int(np.setdiff1d(np.arange(len(block)), good)[0])
                    raise InputError(
                        f"expected finite vectors in {self.vectors.name}, found NaN or infinite values in row {bad} "
                        "(from 0): encode it again, or pass --drop-bad-rows to go on without such rows"
                    )
                if not len(good):
                    continue
                vectors = Embeddings([block[good]], name=self.vectors.name)
                for rows, top in self._lens.top_blocks(vectors, self.n, prior=self.prior, decoding=self.decoding):
                    write(first + good[rows], top)
                written += len(good)
        return Outcome(piece.number, rows=written)


def read_on(
    engine: Engine,
    lens: str | Path,
    embeddings: str | Path,
    out: str | Path,
    n: int | None = None,
    *,
    vocabulary: str | Path | None = None,
    prior: float = 1.0,
    decoding: Decoding = "plain",
    drop_bad_rows: bool = False,
    device: str = "auto",
    rows_per_part: int = ROWS_PER_PART,
    overwrite: bool = False,
    show_progress: bool = False,
    stop: Callable[[], bool] | None = None,
) -> Written:
    """Read the n best words of every vector by an engine, going on from what an earlier run left at `out`.

    Until all of them are there the files lie in `OUT.parts`.

    Args:
        engine: what runs it.
        lens: what `Extractor.load` takes; a path must be the same wherever the engine works.
        embeddings: see `open_embeddings`; a path must be the same wherever the engine works.
        out: the folder, whose name ends in `.parquet`. The files' names are in the order of the rows; their columns
            are those of `write_top_words`.
        n: see `write_top_words`.
        vocabulary: of a bare state dict.
        prior: see `write_top_words`.
        decoding: see there.
        drop_bad_rows: see there; what stopped at a bad row goes on with it.
        device: where to compute.
        rows_per_part: rows a file, about.
        overwrite: replace what another run left at `out`.
        show_progress: a bar on stderr.
        stop: asked all the time, from another thread; once it is true pieces under way are dropped and the work ends.

    Raises:
        InputError: see `Vectors` and `ReadPiece`; no finite vector; `out` holds something else, perhaps words of
            vectors or a lens that have changed since.
        FliplensError: the engine failed; files that are whole are kept, the same call goes on.
        InterruptedRunError: `stop` was true.
        MissingExtraError: there is no pyarrow.
    """
    out = Path(out).absolute()
    if out.suffix != ".parquet":
        raise InputError(f"expected a folder that ends in .parquet to write, found {out}: rename it")
    arrow_library()
    vectors = Vectors(embeddings)
    place = Path(lens)
    lens = str(place.absolute() if place.exists() else lens)
    words = None if vocabulary is None else str(Path(vocabulary).absolute())
    pieces = vectors.pieces(rows_per_part)
    what = {
        "format_version": 1,
        "lens": lens,
        "lens_sha256": _hash_of([place, *([] if words is None else [Path(words)])]),
        "vectors": vectors.name,
        "files": vectors.state,
        "n": n,
        "prior": prior,
        "decoding": decoding,
        "pieces": [piece.stop for piece in pieces],
    }
    job = Job(out, FOLDER, what, pieces, "reading", "vectors")

    def work(folder: Path, known: Mapping[int, str], halt: Path) -> ReadPiece:
        return ReadPiece(folder, known, halt, lens, words, vectors, n, prior, decoding, drop_bad_rows, device)

    def told(folder: Path, outcomes: list[Outcome]) -> dict[str, object]:
        if not any(outcome.rows for outcome in outcomes):
            shutil.rmtree(folder)
            raise InputError(f"expected some finite vectors in {vectors.name}, found none")
        return {}

    record = finished(job, overwrite=overwrite)
    if record is None:
        record = fill(engine, job, work, told, overwrite=overwrite, show_progress=show_progress, stop=stop)
    written = sum(record["rows"])
    return Written(written, vectors.rows - written)


def _hash_of(places: list[Path]) -> str:
    """Return a hash of files, and of those in folders; of what is no path, none."""
    files = [file for place in places for file in ([place] if place.is_file() else sorted(place.glob("*")))]
    return sha256_of_lines(f"{file.name} {sha256_of_file(file)}" for file in files if file.is_file())
