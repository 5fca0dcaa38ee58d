"""Whether an encoder on this machine keeps what encoders promise, in a few seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fliplens.encoders.golden import Golden, golden_of
from fliplens.encoders.protocol import Encoder
from fliplens.errors import FliplensError, InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Check", "EncoderCheck", "check_encoder"]

SENTENCES = (
    "The cat sat on the mat.",
    "A dog!",
    "",
    "Nobody expected rain in the middle of the long dry summer of that year, least of all the farmers.",
    "The cat sat on the mat.",
    "x",
)
SMALLEST_COSINE = {"float32": 1 - 1e-5, "bfloat16": 0.999}
"""Between the vector of an input alone and the same in a batch: what rounding may change."""

GOLDEN_TOLERANCE = {"float32": 1.0, "bfloat16": 100.0}
"""How many times a golden value's tolerance is allowed."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    passed: bool
    found: str
    """What was found, in words and numbers."""

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"name": self.name, "passed": self.passed, "found": self.found}


@dataclass(frozen=True)
class EncoderCheck:
    """What was found of an encoder."""

    spec: str
    name: str
    revision: str | None
    modality: str
    dim: int
    normalised: bool
    precision: str | None
    """What it multiplies in; None where that is not known."""
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return all(check.passed for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        names = ("spec", "name", "revision", "modality", "dim", "normalised", "precision", "passed")
        return {name: getattr(self, name) for name in names} | {"checks": [one.to_json() for one in self.checks]}


def check_encoder(encoder: Encoder, inputs: Sequence[Any] | None = None) -> EncoderCheck:
    """Encode a few inputs in a few ways, and compare.

    Looked at: shape and type, finite values, whether an input's vector changes with what is beside it and with the
    order, unit length where it is promised, no input at all, and, of encoders whose right values are known, those.

    Args:
        encoder: of any modality.
        inputs: three or more inputs of different lengths; None takes sentences, and for speech made-up sound.

    Raises:
        InputError: no inputs for an encoder of another modality.
    """
    if inputs is None:
        if encoder.modality not in _INPUTS:
            raise InputError(f"expected inputs to check {encoder.spec} with, as it encodes {encoder.modality}")
        inputs = _INPUTS[encoder.modality]()
    precision = getattr(encoder, "precision", None)
    checks: list[Check] = []
    golden = golden_of(encoder)
    try:
        together = encoder.encode(inputs)
        checks += _of_vectors(encoder, together, len(inputs))
        if all(check.passed for check in checks):
            smallest = SMALLEST_COSINE[precision or "float32"]
            alone = np.concatenate([encoder.encode([one]) for one in inputs])
            checks.append(_same("alone or in a batch", together, alone, smallest))
            backwards = encoder.encode(list(inputs)[::-1])[::-1]
            checks.append(_same("in another order", together, backwards, smallest))
            empty = encoder.encode([])
            checks.append(Check("no input", empty.shape == (0, encoder.dim), f"shape {empty.shape}"))
            if golden is not None:
                checks.append(_against(golden, encoder, GOLDEN_TOLERANCE[precision or "float32"]))
    except InputError:
        raise
    except FliplensError as error:
        checks.append(Check("encodes", False, str(error)))
    return EncoderCheck(
        spec=encoder.spec,
        name=encoder.name,
        revision=encoder.revision,
        modality=encoder.modality,
        dim=encoder.dim,
        normalised=encoder.normalised,
        precision=precision,
        checks=tuple(checks),
    )


def _of_vectors(encoder: Encoder, vectors: NDArray[np.float32], n: int) -> list[Check]:
    shape = f"{vectors.dtype} of shape {vectors.shape}"
    right = vectors.shape == (n, encoder.dim) and vectors.dtype == np.float32
    checks = [Check("one vector an input", right, shape)]
    if right:
        finite = int(np.isfinite(vectors).all(axis=1).sum())
        checks.append(Check("finite", finite == n, f"{finite} of {n} vectors"))
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
        found = f"lengths {lengths.min():.6g} to {lengths.max():.6g}"
        if encoder.normalised:
            checks.append(Check("unit length", bool(np.allclose(lengths, 1, atol=1e-4)), found))
        checks.append(Check("not all the same", len(np.unique(vectors, axis=0)) > 1, found))
    return checks


def _same(name: str, a: NDArray[np.float32], b: NDArray[np.float32], smallest: float) -> Check:
    cosine = float(np.diagonal(_cosines(a, b)).min())
    return Check(name, cosine >= smallest, f"smallest cosine {cosine:.7f}, {smallest:g} or more expected")


def _cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosines of all pairs, (len(a), len(b))."""
    unit = []
    for vectors in (a, b):
        lengths = np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
        unit.append(vectors / np.where(lengths > 0, lengths, 1))
    cosines: NDArray[np.float64] = unit[0] @ unit[1].T
    return cosines


def _against(golden: Golden, encoder: Any, times: float) -> Check:
    of_rows = of_columns = encoder
    if golden.languages is not None:
        of_rows, of_columns = (encoder.in_language(code) for code in golden.languages)
    cosines = _cosines(of_rows.encode(golden.rows), of_columns.encode(golden.columns))
    worst, allowed = float(np.abs(cosines - np.array(golden.cosines)).max()), golden.tolerance * times
    found = f"cosines {worst:.1e} off at most, {allowed:g} allowed, of those by {golden.source}"
    return Check("known values", worst <= allowed, found)


def _tones() -> list[NDArray[np.float32]]:
    """Return made-up sound, 16,000 samples a second: tones that rise, of different lengths."""
    tones = []
    for seconds, pitch in ((0.7, 180.0), (1.9, 240.0), (1.1, 320.0)):
        time = np.arange(int(16_000 * seconds)) / 16_000
        tones.append((0.3 * np.sin(2 * np.pi * pitch * time * (1 + time / 4))).astype(np.float32))
    return tones


_INPUTS: dict[str, Callable[[], Sequence[Any]]] = {"text": lambda: SENTENCES, "speech": _tones}
