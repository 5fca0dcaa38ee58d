"""Reading words by an engine: vectors of any number to a folder of Parquet files, one a piece."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fliplens.decoding import Decoding
from fliplens.devices import resolve_device
from fliplens.embeddings import BLOCK_ROWS, Embeddings, open_embeddings
from fliplens.engines.protocol import Engine, Outcome, Piece, succeeded
from fliplens.errors import InputError
from fliplens.extractor import Extractor
from fliplens.files import FolderKind, atomic_file, atomic_folder, check_free, write_json
from fliplens.progress import Progress
from fliplens.reading_files import Written, parquet_writer
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
    def _embeddings(self) -> Embeddings:
        if self._opened is None:
            self._opened = open_embeddings(self._source)
        return self._opened

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs to open the same vectors."""
        return {**self.__dict__, "_opened": None}


@dataclass
class ReadPiece:
    """The work: the words of a piece's vectors to `part-00000.parquet`, as `write_top_words` writes them."""

    lens: str
    """What `Extractor.load` takes."""
    vocabulary: str | None
    """Of a bare state dict."""
    vectors: Vectors
    """All rows."""
    out: Path
    """The folder."""
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

    def __call__(self, piece: Piece) -> Outcome:
        """Read a piece.

        Raises:
            InputError: see `Extractor.top`; a row of NaN or infinite values, unless they are dropped.
        """
        if self._lens is None:
            self._lens = Extractor.load(self.lens, vocabulary=self.vocabulary).to(resolve_device(self.device))
        written = 0
        with (
            atomic_file(self.out / f"part-{piece.number:05d}.parquet") as stream,
            parquet_writer(stream, self._lens, None) as write,
        ):
            for first, block in self.vectors.blocks(piece.first, piece.stop):
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
) -> Written:
    """Read the n best words of every vector by an engine, and write them to a folder of Parquet, whole or not at all.

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
        drop_bad_rows: see there.
        device: where to compute.
        rows_per_part: rows a file, about.
        overwrite: replace what an earlier run left at `out`.
        show_progress: a bar on stderr.

    Raises:
        InputError: see `Vectors` and `ReadPiece`; no finite vector; `out` holds something else.
        FliplensError: the engine failed.
        MissingExtraError: there is no pyarrow.
    """
    out = Path(out).absolute()
    if out.suffix != ".parquet":
        raise InputError(f"expected a folder that ends in .parquet to write, found {out}: rename it")
    check_free(out, kind=FOLDER, overwrite=overwrite)
    arrow_library()
    vectors = Vectors(embeddings)
    place = Path(lens)
    lens = str(place.absolute() if place.exists() else lens)
    words = None if vocabulary is None else str(Path(vocabulary).absolute())
    pieces = vectors.pieces(rows_per_part)
    written = 0
    with (
        atomic_folder(out, kind=FOLDER, overwrite=overwrite) as folder,
        Progress("reading", total=vectors.rows, unit="vectors", show=show_progress) as bar,
    ):
        work = ReadPiece(lens, words, vectors, folder, n, prior, decoding, drop_bad_rows, device)
        for outcome in engine.run(work, pieces):
            succeeded(outcome, kept="nothing was written")
            written += outcome.rows
            bar.update(pieces[outcome.number].stop - pieces[outcome.number].first)
        if not written:
            raise InputError(f"expected some finite vectors in {vectors.name}, found none")
        record = {"format_version": 1, "lens": lens, "vectors": vectors.name, "n": n, "prior": prior}
        write_json(folder / RECORD, {**record, "decoding": decoding, "rows": written})
    return Written(written, vectors.rows - written)
