"""`Embeddings`: one matrix of vectors, whatever holds it.

It is what every other module takes: rows come out as float32, and files stay unread until a row is asked for.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from fliplens.embeddings.manifest import Manifest
from fliplens.embeddings.parts import BLOCK_ROWS, LazyRows, convert, file_of, state_of
from fliplens.errors import EmbeddingSpaceError, InputError
from fliplens.progress import Progress

__all__ = ["Embeddings"]


class Embeddings:
    """An n × d matrix of sentence embeddings, in memory or memory-mapped; rows come out as float32.

    Args:
        parts: arrays (k × d, floating point) that follow one another, or what gives rows as an array does; memory
            maps stay unread.
        manifest: what is known about the vectors, if anything.
        name: how messages call them.
        index: which rows of the parts these embeddings are, in order; all of them by default.
        unit_length: scale every row to Euclidean length 1 as it is read; a zero row stays zero.
        files: of each part, the file it is read from; needed where the array does not know it, as a NumPy memory
            map does.
    """

    def __init__(
        self,
        parts: Sequence[NDArray[Any] | LazyRows],
        *,
        manifest: Manifest | None = None,
        name: str = "embeddings",
        index: NDArray[np.int64] | None = None,
        unit_length: bool = False,
        files: Sequence[Path | None] | None = None,
    ) -> None:
        # Plain views: the checks that a memory map makes at every access cost more than a small gather.
        self._parts = [part if isinstance(part, LazyRows) else np.asarray(part) for part in parts]
        self._files = [file_of(part) for part in self._parts] if files is None else list(files)
        self._starts = np.concatenate([[0], np.cumsum([len(part) for part in self._parts])]).astype(np.int64)
        self._index = index
        self._unit_length = unit_length
        self.manifest = manifest
        self.name = name

    @property
    def dim(self) -> int:
        """d, the length of a vector."""
        return int(self._parts[0].shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return len(self), self.dim

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._index is None else len(self._index)

    def __getitem__(self, row: SupportsIndex | slice | Sequence[int] | NDArray[Any]) -> NDArray[np.float32]:
        """Return one vector, (d,), or those of a slice, of a list of numbers or of a mask, (k, d), as an array does.

        Numbers count from the end if negative. What stays on disk until it is read: `subset`.

        Raises:
            IndexError: a number that is no row's, or a mask of another length.
        """
        if isinstance(row, slice):
            return self.rows(np.arange(*row.indices(len(self))))
        wanted = np.asarray(row)
        if wanted.dtype == bool:
            if wanted.shape != (len(self),):
                raise IndexError(f"expected a mask of shape {(len(self),)}, found {wanted.shape}")
            return self.rows(np.flatnonzero(wanted))
        if wanted.size == 0:
            wanted = wanted.astype(np.int64)
        if wanted.ndim > 1 or not np.issubdtype(wanted.dtype, np.integer):
            raise IndexError(
                f"expected a row number, a slice, a list of numbers or a mask, found {type(row).__name__}"
            )
        outside = (wanted < -len(self)) | (wanted >= len(self))
        if outside.any():
            raise IndexError(f"row {wanted[outside].flat[0]} of {len(self)}")
        found = self.rows(np.atleast_1d(wanted) % len(self))
        return found if wanted.ndim else found[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return all rows as one array, for NumPy; `copy` is always granted."""
        return self.to_numpy().astype(dtype or np.float32, copy=False)

    def __repr__(self) -> str:
        return f"Embeddings({self.name!r}, n={len(self)}, dim={self.dim})"

    @property
    def half(self) -> bool:
        """Whether every row is stored as float16 and read as it is, so that float16 holds it exactly."""
        return not self._unit_length and all(part.dtype == np.float16 for part in self._parts)

    @property
    def dtype(self) -> str:
        """float16, float32 or float64: what holds every row exactly."""
        stored = np.result_type(*(part.dtype for part in self._parts)).newbyteorder("=")
        return str(np.result_type(stored, np.float32) if self._unit_length else stored)

    @property
    def files(self) -> list[Path]:
        """The files that the vectors are read from, in order; what is in memory has none."""
        return list(dict.fromkeys(file for file in self._files if file is not None))

    def rows(self, indices: NDArray[np.integer[Any]], *, out: NDArray[Any] | None = None) -> NDArray[np.float32]:
        """Return the rows at `indices` (k,) as a new float32 array (k, d), in the order asked for.

        Ascending numbers are the fastest, and suit the disk; runs of consecutive ones are copied as one piece.

        Args:
            indices: row numbers, from 0.
            out: memory for the result (k, d), contiguous; float32, or of the type `dtype`.

        Raises:
            IndexError: a number below 0, or from n on.
        """
        wanted = self._checked(indices)
        if self._index is not None:
            wanted = self._index[wanted]
        if out is None:
            out = np.empty((len(wanted), self.dim), dtype=np.float32)
        steps = np.diff(wanted)
        if len(self._parts) == 1 or bool((steps >= 0).all()):
            self._fill(out, wanted, steps)
        else:
            order = np.argsort(wanted, kind="stable")
            ascending = np.empty_like(out)
            self._fill(ascending, wanted[order], np.diff(wanted[order]))
            out[order] = ascending
        if self._unit_length:
            lengths = np.sqrt(np.einsum("ij,ij->i", out, out))[:, None]
            out /= np.where(lengths > 0, lengths, 1)
        return out

    def _checked(self, indices: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        wanted = np.asarray(indices, dtype=np.int64)
        if len(wanted) and not (wanted.min() >= 0 and wanted.max() < len(self)):
            raise IndexError(f"expected row numbers from 0 to {len(self) - 1}, found {wanted.min()}..{wanted.max()}")
        return wanted

    def _fill(self, out: NDArray[Any], wanted: NDArray[np.int64], steps: NDArray[np.int64]) -> None:
        """Copy the parts' rows at `wanted`, with `steps` between them, to `out`: ascending, or all of one part."""
        bounds = np.array([0, len(wanted)]) if len(self._parts) == 1 else np.searchsorted(wanted, self._starts)
        for number in np.flatnonzero(np.diff(bounds)):
            first, stop = int(bounds[number]), int(bounds[number + 1])
            part, rows = self._parts[number], wanted[first:stop] - self._starts[number]
            if isinstance(part, LazyRows):
                part.read(rows, out[first:stop])
            elif (steps[first : stop - 1] == 1).all():
                convert(part[rows[0] : rows[-1] + 1], out[first:stop], owned=False)
            elif part.dtype == out.dtype:
                # The numbers are known to be in range: "clip" spares the copy that "raise" makes of `out`.
                np.take(part, rows, axis=0, out=out[first:stop], mode="clip")
            else:
                convert(part[rows], out[first:stop], owned=True)

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return rows start..stop as a new float32 array."""
        return self.rows(np.arange(start, min(stop, len(self))))

    def stored(self, start: int, stop: int) -> NDArray[Any]:
        """Return rows start..stop as a new array of the type that holds them exactly."""
        rows = np.arange(start, min(stop, len(self)))
        return self.rows(rows, out=np.empty((len(rows), self.dim), dtype=self.dtype))

    def blocks(self, size: int = BLOCK_ROWS, *, show: str | None = None) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield (first row, float32 rows) over the whole matrix, at most `size` rows at a time.

        Args:
            size: rows of a block.
            show: a word or two that name the work, for a bar on stderr where it takes more than a moment.
        """
        with Progress(show or "", total=len(self), unit="rows", show=show is not None, delay=2.0) as bar:
            for start in range(0, len(self), size):
                yield start, self.block(start, start + size)
                bar.update(min(size, len(self) - start))

    def to_numpy(self) -> NDArray[np.float32]:
        """Return all rows as one float32 array (n, d)."""
        return self.block(0, len(self))

    def subset(self, indices: NDArray[np.integer[Any]]) -> Embeddings:
        """Return the rows at `indices`, in that order, as embeddings that still read from the same parts.

        Raises:
            IndexError: a number below 0, or from n on.
        """
        wanted = self._checked(indices)
        index = wanted if self._index is None else self._index[wanted]
        return self._changed(index, unit_length=self._unit_length)

    def normalised(self) -> Embeddings:
        """Return the same rows, each scaled to Euclidean length 1 as it is read."""
        return self._changed(self._index, unit_length=True)

    def _changed(self, index: NDArray[np.int64] | None, *, unit_length: bool) -> Embeddings:
        return Embeddings(
            self._parts,
            manifest=self.manifest,
            name=self.name,
            index=index,
            unit_length=unit_length,
            files=self._files,
        )

    def storage(self) -> dict[str, Any]:
        """Return what tells whether the stored numbers have changed, as plain JSON values.

        That is the manifest's hashes where it names each part's. Otherwise it is a checksum over all of a part in
        memory, and size and time of change of a file that is read in place, which may be too large to be read once
        more. And a checksum of the row numbers, where these embeddings are some of the rows.
        """
        index = None if self._index is None else zlib.crc32(np.ascontiguousarray(self._index).data)
        if self.manifest is not None and len(self.manifest.sha256) == len(self._parts):
            return {"rows": index, "sha256": hashlib.sha256("".join(self.manifest.sha256).encode()).hexdigest()}
        states: list[list[int]] = []
        for number, (part, file) in enumerate(zip(self._parts, self._files, strict=True)):
            # Thousands of parts may lie in one file, whose state is told once.
            if file is None or number == 0 or file != self._files[number - 1]:
                states.append(state_of(part, file))
        return {"rows": index, "parts": states}

    @classmethod
    def concatenate(cls, several: Sequence[Embeddings]) -> Embeddings:
        """Return the rows of several embeddings of one dimension one after the other, still read from their files.

        What is known of their making (the manifest) is kept only where all agree on the encoder.

        Raises:
            EmbeddingSpaceError: the dimensions differ.
            ValueError: some are scaled to unit length as they are read, and some are not.
        """
        first = several[0]
        if len(several) == 1:
            return first
        if len({one._unit_length for one in several}) > 1:
            raise ValueError("embeddings scaled to unit length and others do not make one matrix")
        parts: list[NDArray[Any] | LazyRows] = []
        files: list[Path | None] = []
        index = []
        offset = 0
        for one in several:
            one.check_dim(first.dim, made_for=f"as in {first.name}")
            index.append(offset + (np.arange(len(one)) if one._index is None else one._index))
            parts.extend(one._parts)
            files.extend(one._files)
            offset += int(one._starts[-1])
        makers = {None if one.manifest is None else one.manifest.encoder for one in several}
        return cls(
            parts,
            manifest=first.manifest if len(makers) == 1 else None,
            name=" + ".join(one.name for one in several),
            index=np.concatenate(index).astype(np.int64),
            unit_length=first._unit_length,
            files=files,
        )

    def bad_rows(self, *, show_progress: bool = False) -> NDArray[np.int64]:
        """Return the numbers (from 0) of the rows that hold NaN or an infinity."""
        found = [
            start + np.flatnonzero(~np.isfinite(rows).all(axis=1))
            for start, rows in self.blocks(show="checking vectors" if show_progress else None)
        ]
        return np.concatenate(found).astype(np.int64) if found else np.zeros(0, dtype=np.int64)

    def check_finite(self, *, show_progress: bool = False) -> None:
        """Raise InputError that numbers the rows with NaN or infinite values, if there are any."""
        bad = self.bad_rows(show_progress=show_progress)
        if len(bad):
            raise self.not_finite(bad)

    def not_finite(self, bad: NDArray[np.int64]) -> InputError:
        """Return the error that numbers the rows `bad` (from 0), which hold NaN or infinite values."""
        shown = ", ".join(str(row) for row in bad[:5]) + (", ..." if len(bad) > 5 else "")
        return InputError(
            f"expected finite vectors in {self.name}, found NaN or infinite values in {len(bad)} of "
            f"{len(self)} rows (counted from 0: {shown}): encode them again, or pass --drop-bad-rows "
            "to go on without them"
        )

    def check_dim(self, dim: int, *, made_for: str) -> None:
        """Raise EmbeddingSpaceError unless the vectors have `dim` dimensions."""
        if self.dim != dim:
            raise EmbeddingSpaceError(
                f"expected vectors of {dim} dimensions ({made_for}), found {self.dim} in {self.name}: "
                "use vectors of the same encoder"
            )

    def check_rows(self, n: int, *, other: str) -> None:
        """Raise InputError unless there are `n` rows, as many as `other` has."""
        if len(self) != n:
            raise InputError(
                f"expected as many vectors as lines, found {len(self)} vectors in {self.name} and {n} lines "
                f"in {other}: they must be parallel, row for row"
            )
