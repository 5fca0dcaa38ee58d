"""Several processes that train one lens together, as `torchrun` starts them.

Every process reads all data and takes its share of each step's rows; the gradients of the summed loss are added
up over all of them, and every process then takes the same step. Gradients here are made in the forward pass
(`fliplens.arithmetic.objective`), without autograd, so DistributedDataParallel has no hook to act in: the sum is
explicit.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from fliplens.errors import FliplensError, InputError, reason_of

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["TIMEOUT", "Group", "is_distributed", "join", "local_device"]

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others; one that ended is noticed at once, as its connection closes."""
NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")

Row = TypeVar("Row", bound="np.generic")


class Group:
    """The processes that train together; by default this one alone, for whom everything here does nothing.

    Args:
        rank: number of this process, from 0, the one that shows, logs, keeps and evaluates.
        size: how many there are.
        device: where tensors that are exchanged have to lie; None is the processor.
    """

    def __init__(self, rank: int = 0, size: int = 1, device: torch.device | None = None) -> None:
        self.rank = rank
        self.size = size
        self._device = device

    @property
    def is_first(self) -> bool:
        """Whether this is process 0."""
        return self.rank == 0

    def share(self, rows: NDArray[Row]) -> NDArray[Row]:
        """Return this process's share of a step's rows; of few rows it may be empty."""
        return rows if self.size == 1 else rows[self.rank :: self.size]

    def add_up(self, tensor: Tensor) -> None:
        """Add a tensor up over all processes, in place; all end with the same bits.

        Raises:
            FliplensError: another process ended.
        """
        if self.size > 1:
            import torch.distributed

            with _told():
                torch.distributed.all_reduce(tensor)

    def total(self, *values: float) -> list[float]:
        """Return numbers added up over all processes, in float64."""
        if self.size == 1:
            return list(values)
        import torch

        tensor = torch.tensor(values, dtype=torch.float64, device=self._device)
        self.add_up(tensor)
        return [float(value) for value in tensor.tolist()]

    def from_first(self, data: bytes | None) -> bytes:
        """Return on every process the bytes that process 0 passes in; what the others pass is not looked at.

        Raises:
            FliplensError: another process ended.
        """
        if self.size == 1:
            return data or b""
        import torch
        import torch.distributed

        content = data if self.is_first and data is not None else b""
        with _told():
            size = torch.tensor([len(content)], dtype=torch.int64, device=self._device)
            torch.distributed.broadcast(size, src=0)
            buffer = torch.empty(int(size), dtype=torch.uint8, device=self._device)
            if self.is_first and content:
                buffer.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))
            if len(buffer):
                torch.distributed.broadcast(buffer, src=0)
        return buffer.cpu().numpy().tobytes()


def is_distributed(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether this process was started by torchrun (or sets what torchrun sets)."""
    return "RANK" in environment and "WORLD_SIZE" in environment


def local_device(device: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return the device of this process: with CUDA, each process of a machine takes the card of its number."""
    import torch

    if is_distributed(environment) and (device == "cuda" or (device == "auto" and torch.cuda.is_available())):
        return f"cuda:{environment.get('LOCAL_RANK', '0')}"
    return device


@contextlib.contextmanager
def join(device: torch.device, environment: Mapping[str, str] = os.environ) -> Iterator[Group]:
    """Join the processes that torchrun started, gloo on the processor and NCCL on CUDA; leave them at the end.

    Without torchrun's environment the group is this process alone.

    Args:
        device: where this process computes.
        environment: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT, as torchrun sets them.

    Raises:
        InputError: the environment is incomplete, or the device has no way to exchange gradients.
        FliplensError: the other processes could not be reached.
    """
    if not is_distributed(environment):
        yield Group()
        return
    missing = [name for name in NAMES if name not in environment]
    if missing:
        raise InputError(
            f"expected {', '.join(NAMES)} in the environment, {', '.join(missing)} missing: use torchrun"
        )
    try:
        rank, size = int(environment["RANK"]), int(environment["WORLD_SIZE"])
    except ValueError as error:
        raise InputError(f"expected RANK and WORLD_SIZE as whole numbers ({error}): use torchrun") from error
    if size == 1:
        yield Group()
        return
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"expected cpu or cuda under torchrun, found {device.type}: use --device cpu")
    import torch
    import torch.distributed

    if device.type == "cuda":
        torch.cuda.set_device(device)
    with _told():
        torch.distributed.init_process_group(
            "nccl" if device.type == "cuda" else "gloo", rank=rank, world_size=size, timeout=TIMEOUT
        )
    try:
        yield Group(rank, size, device)
    finally:
        # Not `with _told()`: whatever ended the work is the message, not that the others are gone as well.
        with contextlib.suppress(RuntimeError):
            torch.distributed.destroy_process_group()


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Turn a failed exchange into one line."""
    try:
        yield
    except RuntimeError as error:
        reason = reason_of(error)
        raise FliplensError(
            f"expected the other processes to take part, found that one had ended or cannot be reached ({reason}): "
            "see what it said, then run the same command again"
        ) from error
