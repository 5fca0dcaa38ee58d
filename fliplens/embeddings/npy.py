"""`.npy` files: mapped, and written block by block."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fliplens.embeddings.parts import check_array
from fliplens.errors import InputError, reason_of

__all__ = ["map_npy", "write_npy"]


def map_npy(path: Path) -> NDArray[Any]:
    """Memory-map one `.npy`; object arrays are refused before anything is unpickled."""
    if not path.is_file():
        raise InputError(f"expected an .npy file (or a folder of shards) at {path}, found none: check the path")
    with contextlib.suppress(OSError):
        if path.stat().st_size == 0:
            raise InputError(f"expected an .npy file at {path}, found an empty file: write it again")
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError, OSError, SyntaxError) as error:
        reason = reason_of(error)
        raise InputError(
            f"expected an .npy file of floating-point numbers at {path}, could not map it ({reason}): "
            "the file is truncated, holds objects, or is no .npy file; save it again as float32 with numpy.save"
        ) from error
    check_array(array, str(path))
    return array


def write_npy(stream: IO[bytes], shape: tuple[int, int], blocks: Iterator[NDArray[Any]], dtype: str) -> None:
    """Write an `.npy` file (C order) block by block, so that the whole matrix is never in memory."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    for block in blocks:
        stream.write(np.ascontiguousarray(block, dtype=dtype).tobytes())
