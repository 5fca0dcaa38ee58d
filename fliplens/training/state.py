"""Everything that changes while a lens is trained, as one object that is written to one file and read back.

Nothing random is part of it: the order of the rows is a pure function of the seed and the number of the pass
(`fliplens.training.views.batches`), and the starting factors are drawn before the first step. So a state and the job
it belongs to decide all that follows, bit by bit on one machine.

The file is safetensors: the tensors, and one JSON text among its metadata.
"""

from __future__ import annotations

import io
import json
import mmap
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fliplens.arithmetic.objective import Factors
from fliplens.errors import InputError
from fliplens.training.anchoring import Coordinates

__all__ = ["STATE_VERSION", "PassRecord", "TrainState"]

STATE_VERSION = 1
METADATA = "fliplens"
DTYPES = {torch.float32: "F32"}


@dataclass(frozen=True)
class PassRecord:
    """What one pass over the training rows did."""

    number: int
    """From 1; 0 is the anchor before training."""
    loss: float | None
    """Mean loss per word over the pass (weighted over views), natural logarithm; None before training."""
    dev: float | None
    """Dev score after the pass, where it was taken."""
    learning_rate: float
    """E1's rate at the end of the pass."""
    zeros: float
    """Share of exact zeros in E1 (E for LiP)."""
    seconds: float
    """Training time since the start, the anchor's making included, dev evaluations left out."""


@dataclass(kw_only=True)
class TrainState:
    """Where training stands. Its tensors are the live ones: steps change them in place."""

    coordinates: Coordinates
    """Training coordinates, so that going on needs no second look at all rows."""
    anchor: str
    """words, sentences or random."""
    factors: Factors
    """The parameters, in training coordinates."""
    first: Factors
    """AdamW's mean of the gradients (`exp_avg`)."""
    second: Factors
    """AdamW's mean of their squares (`exp_avg_sq`)."""
    steps: list[Tensor]
    """AdamW's count of the steps of each parameter, float32 scalars as torch keeps them."""
    step: int = 0
    """Steps taken."""
    number: int = 1
    """The pass under way, from 1."""
    position: int = 0
    """Steps taken in it."""
    loss: float = 0.0
    """Summed loss of the pass so far."""
    window_loss: float = 0.0
    """Summed loss since the last record of the log."""
    window_words: float = 0.0
    """Words since then."""
    spent: float = 0.0
    """Seconds of training, dev evaluations left out."""
    drops: int = 0
    """How often the plateau schedule lowered the rates."""
    worse_since_best: int = 0
    """Evaluations since the best one."""
    worse_since_drop: int = 0
    """Evaluations without a better score since the rates were last lowered."""
    best_score: float = -1.0
    """Best dev score so far."""
    best_pass: int = 0
    """The pass that reached it."""
    best: Factors | None = None
    """Its weights; None where there is no dev data."""
    finished: bool = False
    """Whether training has come to its end."""
    history: list[PassRecord] = field(default_factory=list)
    """One record a pass, the anchor's first; empty until that is scored."""

    @classmethod
    def start(cls, factors: Factors, coordinates: Coordinates, anchor: str) -> TrainState:
        """Return the state before the first step; the factors are copied."""
        # One layout whatever the anchor made, as a file gives no other back.
        own = factors.map(lambda tensor: tensor.detach().clone(memory_format=torch.contiguous_format))
        return cls(
            coordinates=coordinates,
            anchor=anchor,
            factors=own,
            first=own.map(torch.zeros_like),
            second=own.map(torch.zeros_like),
            steps=[torch.zeros((), dtype=torch.float32, device=tensor.device) for tensor in own.tensors()],
        )

    def to(self, device: torch.device) -> TrainState:
        """Move the tensors to a device, and return the state."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device)

        self.factors, self.first, self.second = (one.map(move) for one in (self.factors, self.first, self.second))
        self.best = None if self.best is None else self.best.map(move)
        # torch's fused AdamW wants the counts beside the parameters.
        self.steps = [move(tensor) for tensor in self.steps]
        return self

    def keep_best(self, score: float, number: int) -> None:
        """Remember the weights as they are as the best ones."""
        self.best_score, self.best_pass = score, number
        self.best = self.factors.map(Tensor.clone)

    def write(self, stream: IO[bytes], job: Mapping[str, Any]) -> None:
        """Write the state and the description of its job; nothing of the size of the tensors is copied.

        Args:
            stream: where to.
            job: plain JSON values that tell this training run from every other.
        """
        tensors = {name: _contiguous(tensor) for name, tensor in self._tensors()}
        values = {name: getattr(self, name) for name in _SCALARS}
        values["history"] = [asdict(record) for record in self.history]
        values["checksums"] = {name: zlib.crc32(_bytes(tensor)) for name, tensor in tensors.items()}
        if isinstance(self.coordinates.transform, float):
            values["transform"] = self.coordinates.transform
        text = json.dumps({"format_version": STATE_VERSION, "job": job, "state": values})
        header: dict[str, Any] = {"__metadata__": {METADATA: text}}
        offset = 0
        for name, tensor in tensors.items():
            end = offset + tensor.numel() * tensor.element_size()
            header[name] = {
                "dtype": DTYPES[tensor.dtype],
                "shape": list(tensor.shape),
                "data_offsets": [offset, end],
            }
            offset = end
        encoded = json.dumps(header).encode("utf-8")
        encoded += b" " * (-len(encoded) % 8)
        stream.write(len(encoded).to_bytes(8, "little") + encoded)
        for tensor in tensors.values():
            stream.write(_bytes(tensor))

    def to_bytes(self, job: Mapping[str, Any] | None = None) -> bytes:
        """Return what `write` writes."""
        stream = io.BytesIO()
        self.write(stream, job or {})
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes | mmap.mmap) -> tuple[TrainState, dict[str, Any]]:
        """Return a state and the description of its job from what `write` wrote; a mapped file may be closed after.

        Raises:
            InputError: damaged, truncated, something else, or of a newer format.
        """
        try:
            size = int.from_bytes(data[:8], "little")
            header = json.loads(data[8 : 8 + size])
            found = json.loads(header.pop("__metadata__")[METADATA])
            version = found["format_version"]
            if isinstance(version, int) and version > STATE_VERSION:
                raise InputError(f"format {version} of a newer FLiPLens, where {STATE_VERSION} is the newest known")
            end = max(entry["data_offsets"][1] for entry in header.values())
            if len(data) != 8 + size + end:
                raise InputError(f"{len(data)} bytes, where {8 + size + end} were written")
            tensors = {name: _read(data, 8 + size, entry) for name, entry in header.items()}
            values = dict(found["state"])
            if values.pop("checksums") != {name: zlib.crc32(_bytes(tensor)) for name, tensor in tensors.items()}:
                raise InputError("other bytes than were written")
            return cls._from_parts(tensors, values), dict(found["job"])
        # What is wrong with a damaged header shows in one of many ways.
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{type(error).__name__}: {error}") from error

    @classmethod
    def _from_parts(cls, tensors: dict[str, Tensor], values: dict[str, Any]) -> TrainState:
        def factors(prefix: str) -> Factors:
            return Factors(tensors[f"{prefix}.E1"], tensors.get(f"{prefix}.E2"), tensors[f"{prefix}.b"])

        transform: NDArray[np.float32] | float
        transform = values.pop("transform") if "transform" in values else tensors["coordinates.transform"].numpy()
        return cls(
            coordinates=Coordinates(tensors["coordinates.mean"].numpy(), transform),
            factors=factors("factors"),
            first=factors("first"),
            second=factors("second"),
            steps=list(tensors["steps"].clone().unbind()),
            best=factors("best") if "best.E1" in tensors else None,
            history=[PassRecord(**record) for record in values.pop("history")],
            **values,
        )

    def _tensors(self) -> Iterator[tuple[str, Tensor]]:
        for prefix in ("factors", "first", "second", "best"):
            factors = getattr(self, prefix)
            if factors is not None:
                yield from ((f"{prefix}.{name}", tensor) for name, tensor in _named(factors))
        yield "steps", torch.stack(self.steps)
        yield "coordinates.mean", torch.from_numpy(self.coordinates.mean)
        if not isinstance(self.coordinates.transform, float):
            yield "coordinates.transform", torch.from_numpy(self.coordinates.transform)


_TENSORS = ("coordinates", "factors", "first", "second", "steps", "best", "history")
_SCALARS = tuple(one.name for one in fields(TrainState) if one.name not in _TENSORS)


def _named(factors: Factors) -> Iterator[tuple[str, Tensor]]:
    for name in ("E1", "E2", "b"):
        tensor = getattr(factors, name)
        if tensor is not None:
            yield name, tensor


def _read(data: bytes | mmap.mmap, start: int, entry: dict[str, Any]) -> Tensor:
    """Return a copy of one tensor, in memory aligned as torch aligns it, so that products give the same bits."""
    if entry["dtype"] != "F32":
        raise ValueError(f"dtype {entry['dtype']}")
    tensor = torch.empty(entry["shape"], dtype=torch.float32)
    offset, end = entry["data_offsets"]
    if end - offset != 4 * tensor.numel():
        raise ValueError(f"{end - offset} bytes for shape {entry['shape']}")
    if tensor.numel():
        found = np.frombuffer(data, dtype="<f4", count=tensor.numel(), offset=start + offset)
        tensor.numpy()[...] = found.reshape(tensor.shape)
    return tensor


def _contiguous(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().contiguous()


def _bytes(tensor: Tensor) -> memoryview:
    """Return the memory of a contiguous tensor on the processor."""
    return tensor.numpy().reshape(-1).view(np.uint8).data
