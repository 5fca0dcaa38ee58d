"""Vectors that a service was paid for, kept on disk by what they are of, so that none is paid for twice.

One SQLite file a vector space (service, model, size, task), in write-ahead mode: any number of processes read and
write it at once, and what one has written stays written when it is killed. Texts are there as hashes only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fliplens.errors import FliplensError

__all__ = ["Kept", "VectorCache", "cache_folder", "text_key"]

KEYS_A_QUERY = 500
BUSY_SECONDS = 60.0


class Kept(NamedTuple):
    """A vector, as it is kept."""

    vector: NDArray[np.float32]
    """(d,)."""
    cut: bool
    """Whether the model read only the start of its text."""


def cache_folder() -> Path:
    """Return the folder for what can be had again: FLIPLENS_CACHE, or `fliplens` in the user's cache folder.

    The user's cache folder is XDG_CACHE_HOME where that is an absolute path, as its specification asks, or ~/.cache.
    """
    named = os.environ.get("FLIPLENS_CACHE", "")
    if named:
        return Path(named).expanduser().absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "fliplens"


def text_key(text: str) -> bytes:
    """Return the 16 bytes that stand for a text."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).digest()


class VectorCache:
    """The vectors of one space, by the keys of their texts.

    Args:
        folder: where the file lies; made when first needed.
        space: what tells this space from any other; it stands in the file, so it holds no secret.
    """

    def __init__(self, folder: Path, space: Mapping[str, str | None]) -> None:
        self._space = json.dumps(dict(space), ensure_ascii=False, sort_keys=True)
        name = re.sub(r"[^\w.-]+", "-", space.get("model") or "", flags=re.ASCII).strip("-.")[:60] or "model"
        digest = hashlib.sha256(self._space.encode("utf-8")).hexdigest()[:12]
        self.path = folder / "vectors" / f"{name}-{digest}.sqlite"
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Kept]:
        """Return what is kept of these keys.

        Raises:
            FliplensError: the file cannot be read, or is none of ours.
        """
        found: dict[bytes, Kept] = {}
        with self._opened() as connection:
            for start in range(0, len(keys), KEYS_A_QUERY):
                some = keys[start : start + KEYS_A_QUERY]
                marks = ",".join("?" * len(some))
                rows = connection.execute(
                    f"SELECT key, vector, cut FROM vectors WHERE key IN ({marks})",  # noqa: S608 - question marks
                    some,
                )
                for key, vector, cut in rows:
                    found[key] = Kept(np.frombuffer(vector, dtype="<f4").astype(np.float32, copy=False), bool(cut))
        return found

    def put(self, items: Iterable[tuple[bytes, Kept]]) -> None:
        """Keep vectors: all of them, on disk, when this returns. What is there already stays.

        Raises:
            FliplensError: the file cannot be written.
        """
        rows = [(key, kept.vector.astype("<f4", copy=False).tobytes(), int(kept.cut)) for key, kept in items]
        with self._opened() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                connection.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?, ?)", rows)
                connection.execute("COMMIT")
            except BaseException:
                # A full disk may have rolled it back already.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Let go of the file; the next call opens it again."""
        with self._lock:
            if self._connection is not None:
                _close(self._connection, self._process)
            self._connection = None

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        """Yield the connection to one thread at a time; say in one line what is wrong with the file."""
        with self._lock:
            try:
                # A connection must not be taken along into a child process.
                if self._connection is None or self._process != os.getpid():
                    self._connection, self._process = self._open(), os.getpid()
                yield self._connection
            except (sqlite3.Error, OSError) as error:
                raise FliplensError(
                    f"expected to keep vectors in {self.path}, could not ({error}): make room or delete the file, or "
                    "name another folder in FLIPLENS_CACHE, and run the same command again"
                ) from error

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            _write_ahead(connection)
            # What is committed outlives the process; only a loss of power may take the last answers, never the file.
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("CREATE TABLE IF NOT EXISTS space (description TEXT PRIMARY KEY)")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS vectors "
                "(key BLOB PRIMARY KEY, vector BLOB NOT NULL, cut INTEGER NOT NULL)"
            )
            connection.execute("INSERT OR IGNORE INTO space VALUES (?)", (self._space,))
            connection.execute("COMMIT")
            (spaces,) = connection.execute("SELECT count(*) FROM space").fetchone()
            if spaces != 1:
                raise sqlite3.DatabaseError("it is of another model")
        except BaseException:
            connection.close()
            raise
        weakref.finalize(self, _close, connection, os.getpid())
        return connection


def _close(connection: sqlite3.Connection, process: int) -> None:
    """Close a connection in the process that opened it: in its child that would take the parent's locks away."""
    if process == os.getpid():
        connection.close()


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Switch to write-ahead mode, for which SQLite itself does not wait where another process is at it."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > until:
                raise
        time.sleep(0.01)
