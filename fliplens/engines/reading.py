"""Reading words by an engine: vectors of any number to a folder of Parquet files, one a piece."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
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
from fliplens.sources.columns import arrow_library, vectors_of
from fliplens.sources.parquet_files import ColumnFile, column_files
from fliplens.sources.specs import Source

__all__ = ["ReadPiece", "Vectors", "read_on"]

ROWS_PER_PART = 65_536
RECORD = "_reading.json"
FOLDER = FolderKind(RECORD, r"_reading\.json|part-\d+\.parquet|\..+\.tmp")


class Vectors:
    """Vectors in files, read in runs of rows: a column of Parquet, or what `open_embeddings` opens.

    Args:
        source: `F.parquet#column=NAME`, a folder of such files, or an `.npy` file or folder of shards.

    Raises:
        InputError: see `column_files` and `open_embeddings`.
    """

    def __init__(self, source: str | Path) -> None:
        parsed = Source.parse(source)
        path = parsed.path.absolute()
        self.name = str(parsed)
        self._files: list[ColumnFile] = []
        self._path = path
        if path.suffix.lower() in (".parquet", ".pq") or (path.is_dir() and next(path.rglob("*.parquet"), None)):
            self._files = column_files(Source("", str(path), parsed.options), of="vectors")
            self._starts = [0, *accumulate(file.rows for file in self._files)]
            self.rows = self._starts[-1]
        else:
            if parsed.scheme or parsed.options:
                raise InputError(f"expected vectors as .npy, a folder of shards or Parquet, found {parsed}")
            self.rows = len(open_embeddings(path))
        if not self.rows:
            raise InputError(f"expected at least one vector in {self.name}, found none")

    def pieces(self, rows: int) -> list[Piece]:
        """Return pieces of about `rows`; of Parquet, of whole row groups, as these are decoded as a whole."""
        ends: list[int] = []
        if self._files:
            last = 0
            for end in accumulate(count for file in self._files for count in file.groups):
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

    def blocks(self, first: int, stop: int) -> Iterator[tuple[int, NDArray[Any]]]:
        """Yield (row, vectors from there on) over rows first..stop, a few thousand at a time."""
        if not self._files:
            opened = open_embeddings(self._path)
            for start in range(first, stop, BLOCK_ROWS):
                yield start, opened.block(start, min(start + BLOCK_ROWS, stop))
            return
        for number in range(bisect_right(self._starts, first) - 1, len(self._files)):
            start, file = self._starts[number], self._files[number]
            if start >= stop:
                return
            for row, column in file.pieces(max(first - start, 0), min(stop - start, file.rows)):
                yield start + row, vectors_of(column, None, name=file.name, file=file.path, first=row)


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
        embeddings: see `Vectors`.
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
