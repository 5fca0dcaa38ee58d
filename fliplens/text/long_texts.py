"""Texts that stay where they are: rows of a file of any length, read as they are asked for.

What a whole list of strings would give, at the memory of a few thousand rows: how many rows there are and their hash,
found in one pass when the file is opened, and any slice. Slices that follow one another cost one more pass.
"""

from __future__ import annotations

import gzip
import hashlib
from abc import ABC, abstractmethod
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, islice
from pathlib import Path
from typing import IO, Any, overload

from fliplens.errors import InputError
from fliplens.files import decoded, reading_text, sha256_of_lines
from fliplens.progress import Progress
from fliplens.sources.columns import texts_of
from fliplens.sources.parquet import ColumnFile, column_files
from fliplens.sources.registry import kind_of
from fliplens.sources.specs import SourceSpec
from fliplens.text.opening import is_text_file, read_texts

__all__ = ["LongTexts", "TextColumn", "TextFile", "hash_of_texts", "open_texts"]

BOM = b"\xef\xbb\xbf"
STEP = 4096
"""Lines between two places of a text file that are remembered: 8 bytes each."""


class LongTexts(Sequence[str], ABC):
    """Rows of text in files that must not change while they are read."""

    sha256: str
    """What `sha256_of_lines` gives for all rows."""

    def __init__(self, paths: Sequence[Path], name: str) -> None:
        self.name = name
        self._states = {path: _state(path) for path in paths}
        self._next = -1
        self._open: Iterator[str] | None = None

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows."""

    @abstractmethod
    def _from(self, row: int) -> Iterator[str]:
        """Iterate from a row on."""

    def __iter__(self) -> Iterator[str]:
        """Iterate over all rows."""
        self._check_same()
        return self._from(0)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        """Return a row, or a list of several.

        Raises:
            InputError: a file has changed since it was opened.
        """
        if not isinstance(index, slice):
            row = range(len(self))[index]
            return self._rows(row, row + 1)[0]
        start, stop, step = index.indices(len(self))
        if step == 1:
            return self._rows(start, max(start, stop))
        return [self[row] for row in range(start, stop, step)]

    def _rows(self, start: int, stop: int) -> list[str]:
        if start == stop:
            return []
        self._check_same()
        if self._open is None or self._next != start:
            self._open = self._from(start)
        rows = list(islice(self._open, stop - start))
        self._next = stop
        if len(rows) != stop - start:
            raise self._changed()
        return rows

    def _check_same(self) -> None:
        for path, state in self._states.items():
            with reading_text(path):
                if _state(path) != state:
                    raise self._changed()

    def _changed(self) -> InputError:
        return InputError(f"expected {self.name} to stay as it was when it was opened, found it changed: start again")

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs to read the same files."""
        return {**self.__dict__, "_open": None, "_next": -1}


class TextFile(LongTexts):
    """The lines of a text file, as `read_lines` tells them apart; a `.gz` is unpacked as it is read.

    Args:
        path: a regular file.
        show_progress: show a bar on stderr where the first pass takes more than a moment.

    Raises:
        InputError: missing, unreadable, empty or not UTF-8, or a `.gz` that is cut off or none.
    """

    def __init__(self, path: str | Path, *, show_progress: bool = False) -> None:
        self.path = Path(path).absolute()  # it may travel to a process that works elsewhere
        with reading_text(self.path):
            super().__init__([self.path], str(path))
        self._packed = self.path.suffix == ".gz"
        self._places = array("q")
        self._count = 0
        self.sha256 = self._scan(show_progress)

    def __len__(self) -> int:
        """Return the number of lines."""
        return self._count

    def _scan(self, show_progress: bool) -> str:
        digest = hashlib.sha256()
        total = None if self._packed else self.path.stat().st_size
        with (
            reading_text(self.path),
            self._stream() as stream,
            Progress("reading texts", total=total, unit="bytes", show=show_progress, delay=2.0) as bar,
        ):
            place = len(BOM) if stream.read(len(BOM)) == BOM else 0
            stream.seek(place)
            while lines := list(islice(stream, STEP)):
                self._places.append(place)
                whole = b"".join(lines)
                decoded(whole, self.path, first_line=self._count + 1)
                pieces: list[bytes] = []
                for line in map(_bare, lines):
                    pieces += (len(line).to_bytes(8, "little"), line)
                digest.update(b"".join(pieces))
                self._count += len(lines)
                place += len(whole)
                bar.update(len(whole))
        if not self._count:
            raise InputError(
                f"expected one sentence a line in {self.path}, found an empty file: write some, or name another file"
            )
        return digest.hexdigest()

    def _from(self, row: int) -> Iterator[str]:
        number = 0 if self._packed else row // STEP
        with reading_text(self.path), self._stream() as stream:
            stream.seek(self._places[number])
            for line in islice(stream, row - number * STEP, None):
                yield _bare(line).decode("utf-8")

    def _stream(self) -> IO[bytes] | gzip.GzipFile:
        if self._packed:
            return gzip.open(self.path, "rb")
        return self.path.open("rb", buffering=1 << 18)


class TextColumn(LongTexts):
    """A column of text of a Parquet file, or of a folder of them in the order of their names.

    Args:
        source: the files, with the option `column`.
        show_progress: show a bar on stderr where the first pass takes more than a moment.

    Raises:
        InputError: missing or damaged; no such column; null in a row, or no row.
        MissingExtraError: there is no pyarrow.
    """

    def __init__(self, source: SourceSpec, *, show_progress: bool = False) -> None:
        here = replace(source, place=str(source.path.absolute()))
        self._files = column_files(here, of="text")
        super().__init__([file.path for file in self._files], str(source))
        self._starts = [0, *accumulate(file.rows for file in self._files)]
        if not len(self):
            raise InputError(f"expected texts in {source}, found no row")
        with Progress("reading texts", total=len(self), unit="rows", show=show_progress, delay=2.0) as bar:
            self.sha256 = sha256_of_lines(_counted(self, bar))

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._starts[-1]

    def _from(self, row: int) -> Iterator[str]:
        number = bisect_right(self._starts, row) - 1
        for start, file in zip(self._starts[number:], self._files[number:], strict=False):
            yield from _texts(file, max(row - start, 0))


def open_texts(source: str | Path, *, show_progress: bool = False) -> Sequence[str]:
    """Open what `read_texts` reads; text files and Parquet, which may be of any length, stay on disk.

    Everything else comes as a list, as does what is no regular file (a pipe): it can be read only once.

    Args:
        source: where they are.
        show_progress: show a bar on stderr where the first pass takes more than a moment.

    Raises:
        InputError: see `TextFile`, `TextColumn` and `read_texts`.
        MissingExtraError: the library that reads it is not installed.
    """
    parsed = SourceSpec.parse(source)
    if is_text_file(parsed):
        return TextFile(parsed.path, show_progress=show_progress) if parsed.path.is_file() else read_texts(source)
    if kind_of(parsed).module == "parquet":
        return TextColumn(parsed, show_progress=show_progress)
    return read_texts(source)


def hash_of_texts(texts: Sequence[str]) -> str:
    """Return the SHA-256 of texts wherever they are, read no more often than needed."""
    return texts.sha256 if isinstance(texts, LongTexts) else sha256_of_lines(texts)


def _bare(line: bytes) -> bytes:
    return line.removesuffix(b"\n").removesuffix(b"\r")


def _state(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _texts(file: ColumnFile, first: int) -> Iterator[str]:
    for row, piece in file.pieces(first):
        if piece.null_count:
            null = row + piece.is_null().to_pylist().index(True)
            raise InputError(
                f"expected a text in every row of column {file.name} of {file.path}, found null in row {null} "
                "(from 0)"
            )
        yield from texts_of([piece], name=file.name, file=file.path)


def _counted(texts: LongTexts, bar: Progress) -> Iterator[str]:
    for text in texts:
        yield text
        bar.update()
