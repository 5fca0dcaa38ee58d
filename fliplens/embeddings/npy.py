"""`.npy` files: mapped, and written block by block."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from fliplens.embeddings.parts import check_array
from fliplens.errors import InputError, reason_of

__all__ = ["damage_of", "map_npy", "write_npy"]

_FIRST_BYTES = 256
"""Enough for the header of a matrix, which is padded to 128 or 192."""


def map_npy(path: Path) -> NDArray[Any]:
    """Memory-map one `.npy`; object arrays are refused before anything is unpickled."""
    if not path.is_file():
        raise InputError(f"expected an .npy file (or a folder of shards) at {path}, found none: check the path")
    with contextlib.suppress(OSError):
        if path.stat().st_size == 0:
            raise InputError(f"expected an .npy file at {path}, found an empty file: write it again")
    try:
        array = _mapped(str(path))
    except (ValueError, EOFError, OSError, SyntaxError) as error:
        reason = reason_of(error)
        raise InputError(
            f"expected an .npy file of floating-point numbers at {path}, could not map it ({reason}): "
            "the file is truncated, holds objects, or is no .npy file; save it again as float32 with numpy.save"
        ) from error
    check_array(array, str(path))
    return array


def damage_of(path: Path, shape: tuple[int, int], dtype: str) -> str | None:
    """Return what keeps a file from being the matrix that a manifest tells of; None if nothing does.

    Header and size are looked at, no numbers are read.

    Args:
        path: the file.
        shape: (n, d) of the matrix.
        dtype: of its numbers.
    """
    try:
        size = path.stat().st_size
        array = _mapped(str(path))
    except FileNotFoundError:
        return "missing"
    except (ValueError, EOFError, OSError, SyntaxError) as error:
        return f"damaged ({reason_of(error)})"
    if array.shape != shape or str(array.dtype) != dtype:
        found = f"{' × '.join(map(str, array.shape))} {array.dtype}"
        return f"damaged ({found} in place of {shape[0]} × {shape[1]} {dtype})"
    if (more := size - array.offset - array.nbytes) > 0:
        return f"damaged ({more} bytes too long)"
    return None


def _mapped(path: str) -> np.memmap[Any, Any]:
    """Map a file as `numpy.lib.format.open_memmap` does, in a third of the time: a folder has thousands of parts."""
    with open(path, "rb") as stream:  # noqa: PTH123 - a `Path` is resolved link by link, by NumPy too
        first = stream.read(_FIRST_BYTES)
    size = 10 + int.from_bytes(first[8:10], "little")
    if first[:8] != b"\x93NUMPY\x01\x00" or size > len(first):
        return np.lib.format.open_memmap(path, mode="r")
    shape, order, dtype = _layout(first[:size])
    return np.memmap(path, dtype=dtype, mode="r", offset=size, shape=shape, order=order)


@lru_cache(maxsize=16)
def _layout(header: bytes) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype[Any]]:
    """Return shape, order and type of numbers of the first bytes of a file; those of parts are mostly the same.

    Raises:
        ValueError: they say something else, or that there are objects in it.
    """
    stream = io.BytesIO(header)
    np.lib.format.read_magic(stream)
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.hasobject:
        raise ValueError("there are Python objects in it")
    return shape, "F" if fortran else "C", dtype


def write_npy(stream: IO[bytes], shape: tuple[int, int], blocks: Iterator[NDArray[Any]], dtype: str) -> None:
    """Write an `.npy` file (C order) block by block, so that the whole matrix is never in memory."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    for block in blocks:
        stream.write(np.ascontiguousarray(block, dtype=dtype).tobytes())
