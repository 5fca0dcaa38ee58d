"""Where the arithmetic runs, and in what precision it runs fast there."""

from __future__ import annotations

import platform
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fliplens.errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = [
    "machine",
    "multiplies_bfloat16",
    "processor",
    "resolve_device",
    "resolve_precision",
    "runs_triton",
    "set_threads",
]


def resolve_device(device: str = "auto") -> torch.device:
    """Return the torch device for "auto" (CUDA where there is one, else the processor), "cpu", "cuda" or "mps".

    Raises:
        InputError: an unknown device, or one this machine lacks.
    """
    import torch

    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = device.partition(":")
    found = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if kind not in found or (index and not index.isdecimal()):
        raise InputError(f"expected a device of auto, cpu, cuda, cuda:N or mps, found {device!r}")
    if int(index or 0) >= found[kind]:
        raise InputError(f"expected a device {device}, found none on this machine: use auto or cpu")
    return torch.device(device)


def set_threads(threads: int | None) -> None:
    """Bound the processor threads that torch uses; None leaves them as they are.

    Raises:
        InputError: fewer than one thread.
    """
    if threads is None:
        return
    if threads < 1:
        raise InputError(f"expected at least 1 thread, found {threads}")
    import torch

    torch.set_num_threads(threads)


def processor() -> str:
    """Return the processor's name as the system tells it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    named = (line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def machine(device: str = "auto") -> str:
    """Return what work on a device runs on, in words."""
    import torch

    where = resolve_device(device)
    if where.type == "cuda":
        return torch.cuda.get_device_name(where)
    n = torch.get_num_threads()
    return f"{n} thread{'s' * (n != 1)} of {processor()}"


@cache
def multiplies_bfloat16(kind: str) -> bool:
    """Return whether a device of this kind ("cpu", "cuda", "mps") has bfloat16 matrix instructions.

    A processor without them emulates bfloat16 at a fiftieth of its float32 speed, so this decides what
    `precision="auto"` means. Read from the processor's flags on Linux; elsewhere the answer is no.
    """
    if kind == "cuda":
        import torch

        return torch.cuda.get_device_capability() >= (8, 0)
    if kind != "cpu":
        return False
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    flags = next((line.split() for line in text.splitlines() if line.startswith("flags")), [])
    return "avx512_bf16" in flags or "amx_bf16" in flags


def resolve_precision(precision: str, kind: str) -> str:
    """Return "float32" or "bfloat16": "auto" is what a device of this kind multiplies fast."""
    if precision != "auto":
        return precision
    return "bfloat16" if multiplies_bfloat16(kind) else "float32"


@cache
def runs_triton(kind: str) -> bool:
    """Return whether the kernels of `fliplens.arithmetic.objective_triton` run on a device of this kind.

    That is an NVIDIA device since Ampere, with Triton installed; where not, torch's own operations do the same work.
    Triton is looked for, not imported.
    """
    if kind != "cuda" or find_spec("triton") is None:
        return False
    import torch

    return torch.version.cuda is not None and torch.cuda.get_device_capability() >= (8, 0)
