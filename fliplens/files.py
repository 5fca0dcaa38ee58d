"""Reading and writing files without leaving half of one behind.

Everything that FLiPLens writes goes to a temporary name in the same folder first and is renamed when it is
whole, so that a full disk, a kill or an exception leaves either the old file or the new one.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import re
import secrets
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fliplens.errors import InputError

__all__ = [
    "FolderKind",
    "atomic_file",
    "atomic_folder",
    "check_free",
    "check_free_file",
    "decoded",
    "is_empty",
    "link_or_copy",
    "read_json",
    "read_lines",
    "reading_text",
    "remove_leftovers",
    "sha256_of_file",
    "sha256_of_lines",
    "write_json",
    "write_lines",
]


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[IO[bytes]]:
    """Open a binary file that appears under `path` only once the block ends without an exception.

    Missing parent folders are made. On any exception the temporary file is removed and an existing file at
    `path` stays as it was.
    """
    path = Path(path).absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_name(path)
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@dataclass(frozen=True)
class FolderKind:
    """What folders of one kind hold, so that only such a folder is ever replaced."""

    marker: str
    """A file that each of them has."""
    entries: str
    """Regular expression of all names that they may hold."""


@contextlib.contextmanager
def atomic_folder(path: str | Path, *, kind: FolderKind, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty temporary folder that takes the name `path` once the block ends without an exception.

    A folder that is replaced is moved aside first and deleted last: a kill between the two renames leaves it
    whole beside `path`, as `.NAME.<hex>.tmp.old`.

    Args:
        path: the folder to make.
        kind: what folders of its kind hold.
        overwrite: replace a folder of the same kind (see `check_free`).

    Raises:
        InputError: see `check_free`.
    """
    path = check_free(path, kind=kind, overwrite=overwrite)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_name(path)
    temporary.mkdir()
    try:
        yield temporary
        if path.exists():
            old = temporary.with_suffix(".tmp.old")
            path.rename(old)
            try:
                temporary.rename(path)
            except BaseException:
                old.rename(path)
                raise
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def check_free(path: str | Path, *, kind: FolderKind, overwrite: bool) -> Path:
    """Return the absolute path of a folder that may be written, or raise InputError.

    Called before long work, so that an output that cannot be written is known at once. Even with `overwrite`
    only a folder that holds nothing but what its kind does is replaced: a slip of the hand must not delete
    somebody's work.
    """
    path = Path(path).absolute()
    here = Path.cwd()
    if path == here or path in here.parents:
        raise InputError(f"expected a folder of its own to write, found {path}, where you are: name one inside it")
    if path.exists() and not path.is_dir():
        raise InputError(f"expected a folder to write at {path}, found a file: name another place")
    above = next(parent for parent in path.parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"expected {above} to be a folder that can be written to, found none: name another place")
    if is_empty(path):
        return path
    foreign = [entry.name for entry in path.iterdir() if not re.fullmatch(kind.entries, entry.name)]
    if foreign or not (path / kind.marker).is_file():
        shown = f"other files ({sorted(foreign)[0]})" if foreign else f"no {kind.marker}"
        raise InputError(
            f"expected an empty or new folder at {path}, found one with {shown}: it is not ours to replace, "
            "name another place"
        )
    if not overwrite:
        raise InputError(
            f"expected an empty or new folder at {path}, found one that holds another run: "
            "name another place, or pass --overwrite (overwrite=True) to replace it"
        )
    return path


def check_free_file(path: str | Path, suffixes: Sequence[str], *, overwrite: bool = False) -> Path:
    """Return the path of a file that is to be written; called before long work, so that what cannot be is known.

    Args:
        path: where.
        suffixes: those that tell a format we write.
        overwrite: whether a file may be there.

    Raises:
        InputError: another suffix, a folder, or a file that is there without leave to replace it.
    """
    path = Path(path)
    if path.suffix not in suffixes:
        raise InputError(f"expected an output that ends in {' or '.join(suffixes)}, found {path}: rename it")
    if path.is_dir():
        raise InputError(f"expected a file to write at {path}, found a folder: name another place")
    if path.exists() and not overwrite:
        raise InputError(
            f"expected no file at {path}, found one: name another place, or pass --overwrite (overwrite=True)"
        )
    return path


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name; on disks that cannot, a copy. No file of ours is ever changed in place."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def is_empty(folder: Path) -> bool:
    """Return whether a folder is absent or holds nothing but what killed writes left: ours, and nobody's work."""
    return not folder.is_dir() or all(_TEMPORARY.fullmatch(entry.name) for entry in folder.iterdir())


def remove_leftovers(folder: Path, ours: Callable[[str], bool] = bool) -> None:
    """Delete what killed writes left in a folder, of files whose names are `ours`; nobody may be writing these."""
    for entry in folder.glob(".*.tmp"):
        if (found := _TEMPORARY.fullmatch(entry.name)) and ours(found[1]) and not entry.is_dir():
            entry.unlink(missing_ok=True)


def read_json(path: str | Path) -> Any:
    """Read one JSON document.

    Raises:
        InputError: the file is missing, unreadable, not UTF-8 or not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"expected a JSON file at {path}, found none: check the path") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"expected JSON in {path}, found something else ({error}): restore the file") from error


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, atomically. NaN and infinities are not JSON: refused."""
    with atomic_file(path) as stream:
        stream.write((json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n").encode("utf-8"))


def read_lines(path: str | Path) -> list[str]:
    r"""Read a text file of one sentence a line.

    Only `\n` and `\r\n` end a line (a sentence may hold U+2028 and the like); an empty line is still a row; a
    byte-order mark is dropped. A file named `.gz` is unpacked.

    Raises:
        InputError: the file is missing, unreadable, empty or not UTF-8, or a `.gz` that is cut off or none.
    """
    path = Path(path)
    with reading_text(path):
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
    text = decoded(raw, path).removeprefix("\ufeff")
    if not text:
        raise InputError(
            f"expected one sentence a line in {path}, found an empty file: name another, or write it again"
        )
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


@contextlib.contextmanager
def reading_text(path: Path) -> Iterator[None]:
    """Turn what goes wrong while a text file is read, or unpacked, into an InputError."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"expected a whole gzip file at {path}, could not unpack it ({error}): copy or download it again"
        ) from error
    except FileNotFoundError as error:
        raise InputError(f"expected a text file at {path}, found none: check the path") from error
    except OSError as error:
        raise InputError(f"expected a text file at {path}, could not read it ({error.strerror})") from error


def decoded(raw: bytes, path: Path, *, first_line: int = 1) -> str:
    """Return UTF-8 as text.

    Args:
        raw: the bytes, from the start of a line on.
        path: where they lie, for the message.
        first_line: number of that line.

    Raises:
        InputError: they are something else; the message names the line.
    """
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + first_line
        raise InputError(
            f"expected UTF-8 text in {path}, found byte 0x{raw[error.start]:02x} in line {line}: "
            "convert the file to UTF-8"
        ) from error


def write_lines(path: str | Path, lines: Iterable[str]) -> None:
    """Write one line of text each, atomically; a line break inside a line becomes a space."""
    with atomic_file(path) as stream:
        for line in lines:
            stream.write(line.replace("\r", " ").replace("\n", " ").encode("utf-8") + b"\n")


def sha256_of_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes as hexadecimal."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_lines(lines: Iterable[str]) -> str:
    """Return the SHA-256 of texts, each prefixed by its length so that no two lists collide."""
    digest = hashlib.sha256()
    for line in lines:
        encoded = line.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()


_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-f]{12}\.tmp(\.old)?")


def _temporary_name(path: Path) -> Path:
    """Return a hidden name beside `path`, so that the final rename stays within one file system."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
