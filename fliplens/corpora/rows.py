"""What every source of text gives, and the lines of its files."""

from __future__ import annotations

import gzip
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, Protocol, cast

from fliplens.corpora.counting import Counts
from fliplens.errors import FliplensWarning
from fliplens.files import reading_text

__all__ = ["Row", "RowSource", "stream_lines"]


class Row(NamedTuple):
    """The same sentence in every language of a corpus, and where it is spoken."""

    texts: tuple[str, ...]
    """One for each language of the source, in its order."""
    split: str = ""
    """Which of the source's own splits holds it: train, dev, test; "" where it has none."""
    audio: str = ""
    """Path of the clip that speaks the first text; "" where there is no speech."""
    seconds: float | None = None
    """How long the clip is, where the source tells."""


class RowSource(Protocol):
    """Where rows come from. Made without reading; `rows` reads as it goes, and keeps no row."""

    @property
    def languages(self) -> tuple[str, ...]:
        """What the texts of a row are in."""
        ...

    @property
    def spoken(self) -> bool:
        """Whether rows have clips."""
        ...

    @property
    def files(self) -> tuple[Path, ...]:
        """What is read, as far as it is known to be files here."""
        ...

    def rows(self, counts: Counts) -> Iterator[Row]:
        """Yield the rows in order, and count those read and those that the layout itself leaves out.

        Raises:
            InputError: a file is missing or cut off, or none of its rows is laid out as expected.

        Warns:
            FliplensWarning: some rows are not laid out as the others, or hold bytes that are no UTF-8: how many, or
                from where on.
        """
        ...


def stream_lines(path: str | Path) -> Iterator[str]:
    r"""Yield the lines of a text file in constant memory, as `fliplens.files.read_lines` cuts them.

    Only `\n` and `\r\n` end a line; a byte-order mark is dropped; a file named `.gz` is unpacked. Bytes that are no
    UTF-8 become U+FFFD, which cleaning knows: one bad line of millions ends no job.

    Raises:
        InputError: the file is missing or unreadable, or a `.gz` that is cut off or none.

    Warns:
        FliplensWarning: there are bytes that are no UTF-8; the first line that has some is named.
    """
    path = Path(path)
    told = False
    # Decoded block by block, which is several times as fast as line by line.
    with (
        reading_text(path),
        io.TextIOWrapper(_opened(path), encoding="utf-8-sig", errors="replace", newline="\n") as lines,
    ):
        for line in lines:
            # The character may also be in the file as such: only bytes that are none are worth a warning.
            if not told and "\ufffd" in line:
                told = True
                _warn_of_bytes(path)
            yield line.rstrip("\n").removesuffix("\r")


def _opened(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    return path.open("rb")


def _warn_of_bytes(path: Path) -> None:
    """Warn of the first line (from 1) that is not UTF-8, if there is one."""
    with _opened(path) as raw:
        for number, line in enumerate(raw, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                warnings.warn(
                    f"expected UTF-8 text in {path}, found byte 0x{line[error.start]:02x} in line {number}: such "
                    "rows are left out as mangled; convert the file to UTF-8 if they are many",
                    FliplensWarning,
                    stacklevel=3,
                )
                return
