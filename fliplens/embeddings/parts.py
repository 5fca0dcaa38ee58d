"""What holds rows of vectors: an array, mapped or in memory, or `LazyRows`, which are read as they are asked for."""

from __future__ import annotations

import contextlib
import threading
import warnings
import zlib
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fliplens.embeddings.manifest import FLOAT_TYPES
from fliplens.errors import FliplensWarning, InputError

__all__ = ["BLOCK_ROWS", "BFloat16", "LazyRows", "Shelf", "Streamed", "check_array", "convert", "file_of", "state_of"]

BLOCK_ROWS = 8192
CHUNK_BYTES = 2**23
"""What is decoded in one piece."""
PIECE_ROWS = 256
"""Rows that are kept together when the rest of what was decoded with them is given up: half of a run of consecutive
rows that training draws from (`fliplens.training.views.RUN_ROWS`), so that few more are kept than it wants."""
SHELF_BYTES = 2**29
"""What is kept: the rows of a window of training (`fliplens.training.views.WINDOW_ROWS`) of 1,024 float32 numbers,
and half as many beside them."""
WASTE = 20
"""Rows decoded for each row that was asked for, from which on a file is read in an order that it was not made for."""


class LazyRows(ABC):
    """Consecutive rows (n, d) that are no array: they are read, or decoded, when they are asked for."""

    def __init__(self, shape: tuple[int, int], dtype: Any) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        """What rows come out as: float16, float32 or float64."""

    def __len__(self) -> int:
        return self.shape[0]

    @abstractmethod
    def ascending(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the rows whose numbers are given in ascending order, some perhaps twice, as a new array (k, d)."""

    def read(self, rows: NDArray[np.int64], out: NDArray[Any]) -> None:
        """Copy rows, in any order, to `out` (k, d), as its type."""
        if (np.diff(rows) >= 0).all():
            convert(self.ascending(rows), out, owned=True)
            return
        order = np.argsort(rows, kind="stable")
        ordered = np.empty_like(out)
        convert(self.ascending(rows[order]), ordered, owned=True)
        out[order] = ordered


class BFloat16(LazyRows):
    """Mapped bfloat16 numbers, a type that NumPy has no name for; rows come out as float32.

    Args:
        bits: (n, d) uint16, their upper halves of float32.
    """

    def __init__(self, bits: NDArray[np.uint16]) -> None:
        super().__init__((bits.shape[0], bits.shape[1]), np.float32)
        self._bits = bits

    def ascending(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return rows as float32, exactly."""
        wide = self._bits[rows].astype(np.uint32)
        wide <<= 16
        return wide.view(np.float32)


class Shelf:
    """What parts of one file, or of one folder, keep of their decoded rows, and one open reader.

    Chunks are kept whole while there is room. Then the pieces of the oldest that were asked for are kept of it, and
    in the end the last used of these: rows that are wanted again stay, whatever was decoded on the way to them.

    Args:
        most_bytes: of decoded rows; the memory that reading takes, however large the files are.
    """

    def __init__(self, most_bytes: int = SHELF_BYTES) -> None:
        self.lock = threading.RLock()
        self._rows = self._parts = 0
        self._most_bytes = most_bytes
        self._held = 0
        self._whole: OrderedDict[tuple[int, int, int], _Chunk] = OrderedDict()
        self._pieces: OrderedDict[tuple[int, int, int, int], NDArray[Any]] = OrderedDict()
        self._reader: tuple[tuple[int, int], int, Iterator[NDArray[Any]]] | None = None
        self._decoded = self._asked = 0
        self._told = False

    def join(self, rows: int) -> int:
        """Take in a part of that many rows; return the number that it goes by."""
        self._rows += rows
        self._parts += 1
        return self._parts

    def asked(self, rows: int, name: str) -> None:
        """Count rows that were asked for of the files `name`; warn once where far more were decoded for them.

        Warns:
            FliplensWarning: the order of the rows does not suit the files.
        """
        self._asked += rows
        # What the first sweep decodes is decoded in any case.
        if self._decoded > self._rows + WASTE * self._asked and not self._told:
            self._told = True
            warnings.warn(
                f"rows of {name} are wanted in an order that its layout does not suit, so that more than {WASTE} are "
                "decoded for each: fliplens import makes a folder of it that is fast in any order",
                FliplensWarning,
                stacklevel=2,
            )

    @property
    def held(self) -> int:
        """Bytes of the rows that are kept."""
        return self._held

    def piece(
        self, part: int, group: int, number: int, piece: int, rows: int, start: Callable[[], Iterator[NDArray[Any]]]
    ) -> NDArray[Any]:
        """Return a piece of a chunk: from the shelf, or decoded on from where the reader stands.

        Args:
            part: which part asks.
            group: which of its groups.
            number: of the chunk in the group.
            piece: of the chunk.
            rows: of a piece; the last one of a chunk may have fewer.
            start: begins to decode the group.
        """
        key = (part, group, number)
        if key in self._whole:
            self._whole.move_to_end(key)
        elif (*key, piece) in self._pieces:
            self._pieces.move_to_end((*key, piece))
            return self._pieces[(*key, piece)]
        else:
            self._decode(key, rows, start)
        chunk = self._whole[key]
        chunk.asked.add(piece)
        return chunk.rows[piece * rows : (piece + 1) * rows]

    def _decode(self, key: tuple[int, int, int], rows: int, start: Callable[[], Iterator[NDArray[Any]]]) -> None:
        part, group, number = key
        reader = self._reader
        if reader is None or reader[0] != (part, group) or reader[1] > number:
            reader = ((part, group), 0, start())
        here = reader[1]
        self._reader = None  # what fails below leaves no reader half-way
        while here <= number:
            self._keep((part, group, here), next(reader[2]), rows)
            here += 1
        self._reader = ((part, group), here, reader[2])

    def _keep(self, key: tuple[int, int, int], found: NDArray[Any], rows: int) -> None:
        self._decoded += len(found)
        chunk = _Chunk(found, rows)
        for piece in range(-(-len(found) // rows)):
            if (old := self._pieces.pop((*key, piece), None)) is not None:
                self._held -= old.nbytes
                chunk.asked.add(piece)
        before = self._whole.pop(key, None)
        if before is not None:
            self._held -= before.rows.nbytes
            chunk.asked |= before.asked
        self._held += found.nbytes
        self._whole[key] = chunk
        while self._held > self._most_bytes and len(self._whole) > 1:
            oldest, given_up = self._whole.popitem(last=False)
            self._held -= given_up.rows.nbytes
            for piece in sorted(given_up.asked):
                # A copy: a view would keep all of the chunk.
                kept = given_up.rows[piece * given_up.piece_rows : (piece + 1) * given_up.piece_rows].copy()
                self._pieces[(*oldest, piece)] = kept
                self._held += kept.nbytes
        while self._held > self._most_bytes and self._pieces:
            self._held -= self._pieces.popitem(last=False)[1].nbytes


@dataclass
class _Chunk:
    """What was decoded in one piece, and which pieces of it were asked for."""

    rows: NDArray[Any]
    piece_rows: int
    asked: set[int] = field(default_factory=set)


class Streamed(LazyRows):
    """Rows that are decoded group by group, each from its start: row groups of Parquet, compressed Arrow batches.

    Memory holds what the shelf keeps, not the file. Ascending numbers are the fastest.

    Args:
        sizes: rows of each group.
        dim: d.
        dtype: float16, float32 or float64.
        decode: (group, rows of a chunk) → its rows in order, in chunks of that many; the last one may have fewer.
        shelf: where what is decoded is kept; shared by the parts of a folder.
        name: how messages call the file.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        dim: int,
        dtype: Any,
        decode: Callable[[int, int], Iterator[NDArray[Any]]],
        *,
        shelf: Shelf,
        name: str,
    ) -> None:
        super().__init__((sum(sizes), dim), dtype)
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._decode = decode
        rows = max(1, CHUNK_BYTES // (dim * self.dtype.itemsize))
        self._piece_rows = min(PIECE_ROWS, rows)
        self._chunk_rows = rows - rows % self._piece_rows
        self._shelf = shelf
        self._name = name
        self._number = shelf.join(self.shape[0])

    def ascending(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return rows, decoding what the shelf does not hold."""
        out = np.empty((len(rows), self.shape[1]), dtype=self.dtype)
        done = 0
        with self._shelf.lock:
            while done < len(rows):
                group = int(np.searchsorted(self._starts, rows[done], side="right")) - 1
                number, within = divmod(int(rows[done] - self._starts[group]), self._chunk_rows)
                piece = within // self._piece_rows
                first = int(self._starts[group]) + number * self._chunk_rows + piece * self._piece_rows
                start = partial(self._decode, group, self._chunk_rows)
                found = self._shelf.piece(self._number, group, number, piece, self._piece_rows, start)
                stop = done + int(np.searchsorted(rows[done:], first + len(found)))
                out[done:stop] = found[rows[done:stop] - first]
                done = stop
            self._shelf.asked(len(rows), self._name)
        return out


def convert(rows: NDArray[Any], out: NDArray[Any], *, owned: bool) -> None:
    """Copy `rows` to `out`, as its type; `owned` rows are a copy already, others lie in a part."""
    if rows.dtype != np.float16 or out.dtype != np.float32:
        out[:] = rows
        return
    import torch

    # NumPy converts float16 one number at a time; torch does it nine times as fast, with the processor's own
    # instructions, but takes no array that must not be written to, as a memory-mapped one.
    torch.from_numpy(out).copy_(torch.from_numpy(rows if owned or rows.flags.writeable else rows.copy()))


def file_of(part: NDArray[Any] | LazyRows) -> Path | None:
    """Return the file that an array is mapped from, where NumPy mapped it; else None."""
    base: Any = part
    while base is not None:
        if isinstance(base, np.memmap) and base.filename is not None:
            return Path(base.filename)
        base = getattr(base, "base", None)
    return None


def state_of(part: NDArray[Any] | LazyRows, file: Path | None) -> list[int]:
    """Return size in bytes and time of change of the file that a part is read from; else size and a checksum."""
    if file is not None:
        with contextlib.suppress(OSError):
            stat = file.stat()
            return [stat.st_size, stat.st_mtime_ns]
    checksum = size = 0
    for start in range(0, len(part), BLOCK_ROWS):
        rows = (
            part[start : start + BLOCK_ROWS]
            if not isinstance(part, LazyRows)
            else part.ascending(np.arange(start, min(start + BLOCK_ROWS, len(part))))
        )
        checksum = zlib.crc32(np.ascontiguousarray(rows).data, checksum)
        size += rows.nbytes
    return [size, checksum]


def check_array(array: NDArray[Any], name: str) -> None:
    """Raise InputError, which calls the array `name`, unless it is a matrix of floating-point numbers with rows."""
    if array.ndim != 2:
        raise InputError(
            f"expected vectors as two dimensions (n, d) in {name}, found {array.ndim} ({array.shape}): "
            "stack them one a row"
        )
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise InputError(f"expected {', '.join(FLOAT_TYPES)} in {name}, found {array.dtype}: convert the vectors")
    if array.shape[0] == 0 or array.shape[1] == 0:
        raise InputError(f"expected at least one vector in {name}, found shape {array.shape}")
