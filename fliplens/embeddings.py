"""Embeddings on disk and in memory: one matrix of vectors, whatever holds it.

`Embeddings` is what every other module takes: rows come out as float32, files stay memory-mapped until a row
is read, and what is wrong with a file is said when it is opened rather than hours later.
"""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fliplens.errors import EmbeddingSpaceError, InputError
from fliplens.files import read_json, sha256_of_file
from fliplens.open_files import allow_open_files
from fliplens.progress import Progress

if TYPE_CHECKING:
    import torch

__all__ = [
    "Embeddings",
    "EmbeddingsLike",
    "Manifest",
    "as_embeddings",
    "manifest_path",
    "open_embeddings",
    "write_npy",
]

MANIFEST_VERSION = 1
BLOCK_ROWS = 8192
FLOAT_TYPES = ("float16", "float32", "float64")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a folder of shards (or the JSON file beside a single `.npy`) says about its vectors."""

    encoder: str | None
    """The encoder's spec, as `load_encoder` takes it."""
    revision: str | None
    """The encoder's pinned revision, if it has one."""
    dim: int
    """d, the length of a vector."""
    dtype: str
    """float16, float32 or float64."""
    normalised: bool
    """Whether the vectors have unit length."""
    precision: str | None = None
    """What the encoder multiplied in, float32 or bfloat16, if known. The space is the same (cosine above 0.9999)."""
    rows: list[int] = field(default_factory=list)
    """Rows of each part, in order."""
    sha256: list[str] = field(default_factory=list)
    """SHA-256 of each part's file, in order."""
    source: dict[str, Any] = field(default_factory=dict)
    """What was encoded: `name`, `rows` and `sha256` of its lines."""
    complete: bool = True
    """False while an encoding job is still under way, or was cut off."""
    format_version: int = MANIFEST_VERSION
    """Version of this file's layout."""

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as plain JSON values."""
        return asdict(self)

    @classmethod
    def load(cls, path: str | Path) -> Manifest:
        """Read a manifest.

        Raises:
            InputError: the file is missing, no manifest, or of a newer format.
        """
        value = read_json(path)
        if not isinstance(value, dict) or not isinstance(value.get("format_version"), int):
            raise InputError(f"expected a manifest with a format_version in {path}, found none: encode again")
        if value["format_version"] > MANIFEST_VERSION:
            raise InputError(
                f"expected manifest format {MANIFEST_VERSION} in {path}, found {value['format_version']}: "
                "it was written by a newer FLiPLens, upgrade this one"
            )
        try:
            known = {name: value[name] for name in cls.__dataclass_fields__ if name in value}
            manifest = cls(**known)
        except TypeError as error:
            raise InputError(f"expected a complete manifest in {path}, found one where {error}") from error
        good = (
            isinstance(manifest.dim, int)
            and manifest.dim > 0
            and manifest.dtype in FLOAT_TYPES
            and isinstance(manifest.rows, list)
            and all(isinstance(n, int) and n >= 0 for n in manifest.rows)
            and isinstance(manifest.sha256, list)
            and len(manifest.sha256) == len(manifest.rows)
            and isinstance(manifest.encoder, str | None)
            and isinstance(manifest.revision, str | None)
            and isinstance(manifest.precision, str | None)
            and isinstance(manifest.source, dict)
        )
        if not good:
            raise InputError(
                f"expected dim, dtype ({', '.join(FLOAT_TYPES)}), encoder, rows and sha256 lists of one length in "
                f"{path}, found others: encode again"
            )
        return manifest


class Embeddings:
    """An n × d matrix of sentence embeddings, in memory or memory-mapped; rows come out as float32.

    Args:
        parts: arrays (k × d, floating point) that follow one another; memory maps stay unread.
        manifest: what is known about the vectors, if anything.
        name: how messages call them.
        index: which rows of the parts these embeddings are, in order; all of them by default.
        unit_length: scale every row to Euclidean length 1 as it is read; a zero row stays zero.
    """

    def __init__(
        self,
        parts: Sequence[NDArray[Any]],
        *,
        manifest: Manifest | None = None,
        name: str = "embeddings",
        index: NDArray[np.int64] | None = None,
        unit_length: bool = False,
    ) -> None:
        # Plain views: the checks that a memory map makes at every access cost more than a small gather.
        self._parts = [np.asarray(part) for part in parts]
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

    def __getitem__(self, row: int) -> NDArray[np.float32]:
        """Return one vector, (d,); rows count from the end if negative, as in a list."""
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        vector: NDArray[np.float32] = self.rows(np.array([row % len(self)]))[0]
        return vector

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Return all rows as one array, for NumPy; `copy` is always granted."""
        return self.to_numpy().astype(dtype or np.float32, copy=False)

    def __repr__(self) -> str:
        return f"Embeddings({self.name!r}, n={len(self)}, dim={self.dim})"

    @property
    def half(self) -> bool:
        """Whether every row is stored as float16 and read as it is, so that float16 holds it exactly."""
        return not self._unit_length and all(part.dtype == np.float16 for part in self._parts)

    def rows(self, indices: NDArray[np.integer[Any]], *, out: NDArray[Any] | None = None) -> NDArray[np.float32]:
        """Return the rows at `indices` (k,) as a new float32 array (k, d), in the order asked for.

        Ascending numbers are the fastest, and suit the disk; runs of consecutive ones are copied as one piece.

        Args:
            indices: row numbers, from 0.
            out: memory for the result (k, d), contiguous; float32, or float16 where `half` is true.

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
            if (steps[first : stop - 1] == 1).all():
                _convert(part[rows[0] : rows[-1] + 1], out[first:stop], owned=False)
            elif part.dtype == out.dtype:
                # The numbers are known to be in range: "clip" spares the copy that "raise" makes of `out`.
                np.take(part, rows, axis=0, out=out[first:stop], mode="clip")
            else:
                _convert(part[rows], out[first:stop], owned=True)

    def block(self, start: int, stop: int) -> NDArray[np.float32]:
        """Return rows start..stop as a new float32 array."""
        return self.rows(np.arange(start, min(stop, len(self))))

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
        return Embeddings(
            self._parts, manifest=self.manifest, name=self.name, index=index, unit_length=self._unit_length
        )

    def normalised(self) -> Embeddings:
        """Return the same rows, each scaled to Euclidean length 1 as it is read."""
        return Embeddings(self._parts, manifest=self.manifest, name=self.name, index=self._index, unit_length=True)

    def storage(self) -> dict[str, Any]:
        """Return what tells whether the stored numbers have changed, as plain JSON values.

        That is the manifest's hashes where it names each part's. Otherwise it is a checksum over all of a part in
        memory, and size and time of change of a memory-mapped file, which may be too large to be read once more. And
        a checksum of the row numbers, where these embeddings are some of the rows.
        """
        index = None if self._index is None else zlib.crc32(np.ascontiguousarray(self._index).data)
        if self.manifest is not None and len(self.manifest.sha256) == len(self._parts):
            return {"rows": index, "sha256": hashlib.sha256("".join(self.manifest.sha256).encode()).hexdigest()}
        return {"rows": index, "parts": [_state_of(part) for part in self._parts]}

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
        parts: list[NDArray[Any]] = []
        index = []
        offset = 0
        for one in several:
            one.check_dim(first.dim, made_for=f"as in {first.name}")
            index.append(offset + (np.arange(len(one)) if one._index is None else one._index))
            parts.extend(one._parts)
            offset += int(one._starts[-1])
        makers = {None if one.manifest is None else one.manifest.encoder for one in several}
        return cls(
            parts,
            manifest=first.manifest if len(makers) == 1 else None,
            name=" + ".join(one.name for one in several),
            index=np.concatenate(index).astype(np.int64),
            unit_length=first._unit_length,
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


EmbeddingsLike: TypeAlias = "Embeddings | NDArray[np.floating[Any]] | torch.Tensor | str | Path"


def as_embeddings(value: EmbeddingsLike, *, name: str = "embeddings") -> Embeddings:
    """Return `value` as `Embeddings`: an array or tensor (n, d), a path, or embeddings as they are.

    Raises:
        InputError: not two-dimensional, not floating point, or without rows or columns.
    """
    if isinstance(value, Embeddings):
        return value
    if isinstance(value, str | Path):
        return open_embeddings(value)
    if hasattr(value, "detach"):
        tensor = value.detach().cpu()
        array = np.asarray((tensor.float() if tensor.is_floating_point() else tensor).numpy())
    else:
        array = np.asarray(value)
    _check_array(array, name)
    return Embeddings([array], name=name)


def open_embeddings(path: str | Path, *, verify: bool = False) -> Embeddings:
    """Open one `.npy` file, or a folder of shards with its `manifest.json`, without reading the vectors.

    Headers, shapes, dtypes and file sizes are checked.

    Args:
        path: an `.npy` file of shape (n, d), float16, float32 or float64; or a folder.
        verify: also compare every part's SHA-256 with the manifest.

    Raises:
        InputError: missing, empty, truncated, of the wrong rank or dtype, or not what the manifest says.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path, verify=verify)
    array = _map_npy(path)
    beside = manifest_path(path)
    manifest = Manifest.load(beside) if beside.is_file() else None
    if manifest is not None:
        if array.shape != (sum(manifest.rows), manifest.dim):
            raise InputError(
                f"expected the {sum(manifest.rows)} × {manifest.dim} vectors of {beside.name}, found "
                f"{array.shape[0]} × {array.shape[1]} in {path}: encode again, or delete the manifest"
            )
        if verify:
            _verify(path, manifest.sha256[0])
    elif verify:
        raise InputError(f"expected a manifest beside {path} to verify against, found none")
    return Embeddings([array], manifest=manifest, name=str(path))


def manifest_path(path: str | Path) -> Path:
    """Return where the manifest of the single file or folder `path` lies."""
    path = Path(path)
    return path.with_suffix(".manifest.json") if path.suffix == ".npy" else path / "manifest.json"


def part_name(number: int) -> str:
    """Return the file name of shard `number`, from 0."""
    return f"part-{number:05d}.npy"


def write_npy(stream: IO[bytes], shape: tuple[int, int], blocks: Iterator[NDArray[Any]], dtype: str) -> None:
    """Write an `.npy` file (C order) block by block, so that the whole matrix is never in memory."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    for block in blocks:
        stream.write(np.ascontiguousarray(block, dtype=dtype).tobytes())


def _open_folder(path: Path, *, verify: bool) -> Embeddings:
    manifest = Manifest.load(path / "manifest.json")
    if not manifest.complete:
        raise InputError(
            f"expected finished embeddings in {path}, found {sum(manifest.rows)} of "
            f"{manifest.source.get('rows', '?')} rows: run the same encode command again to finish them"
        )
    if not manifest.rows:
        raise InputError(f"expected vectors in {path}, found a manifest without parts: encode again")
    allow_open_files(len(manifest.rows), what=f"the parts in {path}")
    parts = []
    for number, (rows, digest) in enumerate(zip(manifest.rows, manifest.sha256, strict=True)):
        file = path / part_name(number)
        array = _map_npy(file)
        if array.shape != (rows, manifest.dim) or str(array.dtype) != manifest.dtype:
            raise InputError(
                f"expected {rows} × {manifest.dim} {manifest.dtype} in {file}, found {array.shape[0]} × "
                f"{array.shape[1]} {array.dtype}: encode again with --overwrite"
            )
        if verify:
            _verify(file, digest)
        parts.append(array)
    return Embeddings(parts, manifest=manifest, name=str(path))


def _convert(rows: NDArray[Any], out: NDArray[Any], *, owned: bool) -> None:
    """Copy `rows` to `out`, as its type; `owned` rows are a copy already, others lie in a part."""
    if rows.dtype != np.float16 or out.dtype != np.float32:
        out[:] = rows
        return
    import torch

    # NumPy converts float16 one number at a time; torch does it nine times as fast, with the processor's own
    # instructions, but takes no array that must not be written to, as a memory-mapped one.
    torch.from_numpy(out).copy_(torch.from_numpy(rows if owned or rows.flags.writeable else rows.copy()))


def _state_of(part: NDArray[Any]) -> list[int]:
    """Return size in bytes and time of change of the file an array is mapped from; else size and a checksum."""
    base: Any = part
    while base is not None:
        path = base.filename if isinstance(base, np.memmap) else None
        if path is not None:
            with contextlib.suppress(OSError):
                stat = Path(path).stat()
                return [stat.st_size, stat.st_mtime_ns]
        base = getattr(base, "base", None)
    checksum = 0
    for start in range(0, len(part), BLOCK_ROWS):
        checksum = zlib.crc32(np.ascontiguousarray(part[start : start + BLOCK_ROWS]).data, checksum)
    return [part.nbytes, checksum]


def _verify(file: Path, expected: str) -> None:
    found = sha256_of_file(file)
    if found != expected:
        raise InputError(f"expected {file} to have sha256 {expected}, found {found}: the file changed, encode again")


def _map_npy(path: Path) -> NDArray[Any]:
    """Memory-map one `.npy`; object arrays are refused before anything is unpickled."""
    if not path.is_file():
        raise InputError(f"expected an .npy file (or a folder of shards) at {path}, found none: check the path")
    with contextlib.suppress(OSError):
        if path.stat().st_size == 0:
            raise InputError(f"expected an .npy file at {path}, found an empty file: write it again")
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError, OSError, SyntaxError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"expected an .npy file of floating-point numbers at {path}, could not map it ({reason}): "
            "the file is truncated, holds objects, or is no .npy file"
        ) from error
    _check_array(array, str(path))
    return array


def _check_array(array: NDArray[Any], name: str) -> None:
    if array.ndim != 2:
        raise InputError(
            f"expected vectors as two dimensions (n, d) in {name}, found {array.ndim} ({array.shape}): "
            "stack them one a row"
        )
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise InputError(f"expected {', '.join(FLOAT_TYPES)} in {name}, found {array.dtype}: convert the vectors")
    if array.shape[0] == 0 or array.shape[1] == 0:
        raise InputError(f"expected at least one vector in {name}, found shape {array.shape}")
