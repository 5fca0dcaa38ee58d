"""A matrix of a `.safetensors` file, mapped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from fliplens.embeddings.matrix import Embeddings
from fliplens.embeddings.parts import BFloat16, check_array
from fliplens.errors import InputError, reason_of
from fliplens.sources.specs import SourceSpec, listed

__all__ = ["open_vectors"]

_TYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "BF16": "<u2"}


def open_vectors(source: SourceSpec) -> Embeddings:
    """Map one tensor (n, d) of a file: the one that `tensor` names, else the only matrix of floating-point numbers.

    Raises:
        InputError: no file, no such tensor or several to choose from, another type or rank, or damage.
    """
    path = source.path
    found = _tensors(path)
    matrices = [name for name, (dtype, shape) in found.items() if dtype in _TYPES and len(shape) == 2]
    name = source.options.get("tensor")
    if name is None:
        if len(matrices) != 1:
            shown = f"{len(matrices)} ({listed(matrices)})" if matrices else f"none among {listed(found)}"
            advice = "name one with #tensor=NAME" if matrices else "save the vectors as a tensor (n, d) of float32"
            raise InputError(f"expected one matrix of floating-point numbers in {path}, found {shown}: {advice}")
        name = matrices[0]
    elif name not in found:
        raise InputError(
            f"expected a tensor out of {listed(found)} in {path}, found none called {name!r}: name one of these"
        )
    dtype, shape = found[name]
    if dtype not in _TYPES:
        raise InputError(
            f"expected float16, bfloat16, float32 or float64 in tensor {name} of {path}, found {dtype}: convert it"
        )
    called = f"{path}#tensor={name}"
    if len(shape) != 2 or 0 in shape:
        check_array(
            np.empty(shape, dtype=np.float32) if 0 in shape else np.broadcast_to(np.float32(0), shape), called
        )
    array: Any = np.memmap(path, dtype=_TYPES[dtype], mode="r", offset=_offset(path, name), shape=tuple(shape))
    return Embeddings([BFloat16(array) if dtype == "BF16" else array], name=called, files=[path])


def _tensors(path: Path) -> dict[str, tuple[str, list[int]]]:
    """Return type and shape of each tensor; the library checks the file's header against its size."""
    import safetensors

    if not path.is_file():
        raise InputError(f"expected a .safetensors file at {path}, found none: check the path")
    try:
        with safetensors.safe_open(path, framework="numpy") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 - no mapping
            return {name: (one.get_dtype(), one.get_shape()) for name, one in slices.items()}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        reason = reason_of(error)
        raise InputError(
            f"expected a .safetensors file at {path}, could not map it ({reason}): "
            "the file is truncated, or is no .safetensors file; write it again"
        ) from error


def _offset(path: Path, name: str) -> int:
    """Return where a tensor's numbers begin. The header has been checked by then."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    return 8 + length + int(header[name]["data_offsets"][0])
