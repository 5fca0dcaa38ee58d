"""What every source of text gives, and the lines of its files."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, Protocol, cast

from fliplens.corpora.counting import Counts
from fliplens.errors import InputError

__all__ = ["Row", "Source", "stream_lines"]


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


class Source(Protocol):
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
            InputError: a file is missing, cut off, not UTF-8, or not laid out as expected.
        """
        ...


def stream_lines(path: str | Path) -> Iterator[str]:
    r"""Yield the lines of a text file in constant memory, as `fliplens.files.read_lines` cuts them.

    Only `\n` and `\r\n` end a line; a byte-order mark is dropped; a file named `.gz` is unpacked.

    Raises:
        InputError: the file is missing, unreadable, not UTF-8 (the line is named), or a `.gz` that is cut off or
            none.
    """
    path = Path(path)
    try:
        # Decoded block by block, which is several times as fast as line by line.
        with io.TextIOWrapper(_opened(path), encoding="utf-8-sig", newline="\n") as lines:
            for line in lines:
                yield line.rstrip("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        number, byte = _undecodable(path)
        raise InputError(
            f"expected UTF-8 text in {path}, found byte 0x{byte:02x} in line {number}: convert the file to UTF-8"
        ) from error
    except FileNotFoundError as error:
        raise InputError(f"expected a text file at {path}, found none: check the path") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"expected a whole gzip file at {path}, could not unpack it ({error}): copy or download it again"
        ) from error
    except OSError as error:
        raise InputError(f"expected a text file at {path}, could not read it ({error.strerror})") from error


def _opened(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    return path.open("rb")


def _undecodable(path: Path) -> tuple[int, int]:
    """Return the first line (from 1) that is not UTF-8, and the byte of it that is to blame."""
    with _opened(path) as raw:
        for number, line in enumerate(raw, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return number, line[error.start]
    raise AssertionError(f"{path} decodes line by line, but not whole")
