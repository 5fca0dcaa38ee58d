"""Whether an encoder on this machine keeps what encoders promise, in a few seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fliplens.encoders.golden import Golden, golden_of
from fliplens.encoders.protocol import Encoder
from fliplens.errors import FliplensError, InputError
from fliplens.wording import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fliplens.embeddings import Embeddings

__all__ = ["Check", "EncoderCheck", "check_encoder", "mark_matched"]

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

SMALLEST_COSINE_TO_GIVEN = {"float32": 0.9999, "bfloat16": 0.999}
"""Between our vector of an input and one that another program made of it: what its arithmetic may change."""

LENGTH_TOLERANCE = {"float32": 1e-3, "bfloat16": 1e-2}
"""How far our vector may be from such a one's length, as a share of it."""

INPUTS_LOOKED_AT = 16
"""Of the caller's, besides made ones, for what does not compare them with given vectors."""

ROWS_AT_ONCE = 512
"""Given vectors that are compared at once."""

ORIGINAL = "scripts/encode_sonar_speech.py"
"""What writes vectors of recordings by SONAR's own code."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    passed: bool | None
    """None for what could not be looked at; `found` says why."""
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
    matched: str | None = None
    """Which values, or vectors, of the original implementation were met; None where none were compared, or missed."""
    experimental: bool = False
    """Whether it is a port that has to match its original, and has not been found to: neither now nor before."""

    @property
    def passed(self) -> bool:
        """Whether nothing failed; that does not say that it was compared with anything, which `matched` does."""
        return all(check.passed is not False for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        names = ["spec", "name", "revision", "modality", "dim", "normalised", "precision"]
        names += ["passed", "matched", "experimental"]
        return {name: getattr(self, name) for name in names} | {"checks": [one.to_json() for one in self.checks]}


def check_encoder(
    encoder: Encoder, inputs: Sequence[Any] | None = None, *, against: Embeddings | None = None
) -> EncoderCheck:
    """Encode a few inputs in a few ways, and compare.

    Looked at: shape and type, finite values, whether an input's vector changes with what is beside it and with the
    order, unit length where it is promised, no input at all; vectors of the inputs that are there already, if they
    are given; and, of encoders whose right values are known, those.

    Args:
        encoder: of any modality.
        inputs: the caller's own, the first few of which are looked at beside made ones (sentences, tones). Known
            values of encoders of speech are of recordings, told by the names of their files, that have to be here.
        against: vectors of these inputs, row for row, by whatever made them. All are compared, but those that are
            not finite: cosines and lengths.

    Raises:
        InputError: no inputs for an encoder of another modality, or none to compare; an input that cannot be read; as
            many vectors as inputs are not there, or none that is finite.
        EmbeddingSpaceError: the vectors are of another size.
    """
    given: Sequence[Any] = () if inputs is None else inputs
    if against is not None:
        _check_given(encoder, given, against)
    if encoder.modality not in _INPUTS and not len(given):
        raise InputError(f"expected inputs to check {encoder.spec} with, as it encodes {encoder.modality}")
    looked_at = [*_first(given, against), *_INPUTS.get(encoder.modality, list)()]
    precision = getattr(encoder, "precision", None)
    checks: list[Check] = []
    matched = None
    try:
        together = encoder.encode(looked_at)
        checks += _of_vectors(encoder, together, len(looked_at))
        if all(check.passed for check in checks):
            smallest = SMALLEST_COSINE[precision or "float32"]
            alone = np.concatenate([encoder.encode([one]) for one in looked_at])
            checks.append(_same("alone or in a batch", together, alone, smallest))
            backwards = encoder.encode(looked_at[::-1])[::-1]
            checks.append(_same("in another order", together, backwards, smallest))
            empty = encoder.encode([])
            checks.append(Check("no input", empty.shape == (0, encoder.dim), f"shape {empty.shape}"))
            if against is not None:
                found, matched = _with_given(encoder, given, against)
                checks += found
            known, met = _with_known(encoder, given, matched, against)
            checks.append(known)
            matched = met or matched
        else:
            checks.append(Check("known values", None, "not compared: what is above failed"))
    except InputError:
        raise
    except FliplensError as error:
        checks.append(Check("encodes", False, str(error)))
    if not all(check.passed is not False for check in checks):
        matched = None
    return EncoderCheck(
        spec=encoder.spec,
        name=encoder.name,
        revision=encoder.revision,
        modality=encoder.modality,
        dim=encoder.dim,
        normalised=encoder.normalised,
        precision=precision,
        checks=tuple(checks),
        matched=matched,
        experimental=_must_match(encoder) and encoder.matched is None and matched is None,  # type: ignore[attr-defined]
    )


def mark_matched(encoder: Encoder, done: EncoderCheck) -> EncoderCheck:
    """Mark the folder of an experimental encoder that was found to match its original, so that it warns no more.

    Args:
        encoder: what was checked; nothing is done for one that need not match, or is marked already.
        done: what was found of it.

    Returns:
        `done`, with a line on the mark where it was to be written; a failed one where it could not be.
    """
    port: Any = encoder
    if done.matched is None or not _must_match(encoder) or port.matched is not None:
        return done
    try:
        port.mark_matched(done.matched)
        check = Check("marked as checked", True, f"{port.folder} warns no more")
    except FliplensError as error:
        check = Check("marked as checked", False, str(error))
    return replace(done, checks=(*done.checks, check))


def _must_match(encoder: Encoder) -> bool:
    """Tell whether an encoder is a port that is experimental until it is found to match its original."""
    return hasattr(encoder, "mark_matched")


def _check_given(encoder: Encoder, inputs: Sequence[Any], against: Embeddings) -> None:
    if not len(inputs):
        raise InputError(f"expected the inputs that the vectors in {against.name} are of, found none: name them too")
    if len(against) != len(inputs):
        raise InputError(
            f"expected one vector an input, found {counted(len(against), 'vector')} in {against.name} and "
            f"{counted(len(inputs), 'input')}: name the vectors of these inputs, row for row"
        )
    against.check_dim(encoder.dim, made_for=f"those of {encoder.name}")


def _first(inputs: Sequence[Any], against: Embeddings | None) -> list[Any]:
    """Return the first few inputs; not those without a given vector, as they may be what nobody can read."""
    few = list(inputs[:INPUTS_LOOKED_AT])
    if against is None:
        return few
    return [few[row] for row in _finite_rows(against.block(0, len(few)))]


def _finite_rows(vectors: NDArray[np.float32]) -> list[int]:
    rows: list[int] = np.flatnonzero(np.isfinite(vectors).all(axis=1)).tolist()
    return rows


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
        distinct = len(np.unique(vectors, axis=0))
        checks.append(Check("not all the same", distinct > 1, f"{distinct} of {n} vectors differ"))
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


def _with_given(encoder: Encoder, inputs: Sequence[Any], against: Embeddings) -> tuple[list[Check], str | None]:
    """Compare with given vectors; also return what was matched, where they are known to be the original's."""
    manifest = against.manifest
    made_in = {getattr(encoder, "precision", None), None if manifest is None else manifest.precision}
    kind = "bfloat16" if "bfloat16" in made_in else "float32"
    smallest, allowed = SMALLEST_COSINE_TO_GIVEN[kind], LENGTH_TOLERANCE[kind]
    cosines, ratios = np.full(len(against), np.nan), np.full(len(against), np.nan)
    first: NDArray[np.float32] | None = None
    differ = False
    for start, block in against.blocks(ROWS_AT_ONCE):
        rows, batch = _finite_rows(block), inputs[start : start + len(block)]
        theirs, ours = block[rows], encoder.encode([batch[row] for row in rows])
        at = start + np.array(rows, dtype=np.int64)
        lengths = [np.linalg.norm(one.astype(np.float64), axis=1) for one in (ours, theirs)]
        products = np.einsum("ij,ij->i", ours.astype(np.float64), theirs.astype(np.float64))
        both_zero = (lengths[0] == 0) & (lengths[1] == 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            cosines[at] = np.where(both_zero, 1, np.nan_to_num(products / (lengths[0] * lengths[1])))
            ratios[at] = np.where(both_zero, 1, lengths[0] / lengths[1])
        if len(rows):
            first = theirs[:1] if first is None else first
            differ = differ or float(_cosines(first, theirs).min()) < smallest
    compared = np.flatnonzero(np.isfinite(cosines))
    if not len(compared):
        raise InputError(
            f"expected vectors to compare with in {against.name}, found none that is finite: name others"
        )
    worst = int(compared[cosines[compared].argmin()])
    left_out = len(against) - len(compared)
    found = f"smallest cosine {cosines[worst]:.7f}, of row {worst + 1}, {smallest:g} or more expected"
    found += f"; {counted(len(compared), 'vector')} of {against.name}"
    found += f", {left_out} others left out, which are not finite" if left_out else ""
    low, high = float(ratios[compared].min()), float(ratios[compared].max())
    lengths_found = f"{low:.6g} to {high:.6g} times theirs, {1 - allowed:g} to {1 + allowed:g} expected"
    checks = [
        Check("given vectors", bool(cosines[worst] >= smallest), found),
        Check("their lengths", low >= 1 - allowed and high <= 1 + allowed, lengths_found),
    ]
    says = kind == "float32" and differ and all(check.passed for check in checks)
    by_original = _must_match(encoder) and _by_original(encoder, against)
    return checks, f"{counted(len(compared), 'vector')} by {ORIGINAL}" if says and by_original else None


def _by_original(encoder: Encoder, against: Embeddings) -> bool:
    """Tell whether vectors say that SONAR's own code made them: our encoders, unlike it, record their weights."""
    manifest = against.manifest
    return manifest is not None and manifest.encoder == encoder.name and manifest.revision is None


def _with_known(
    encoder: Encoder, inputs: Sequence[Any], matched: str | None, against: Embeddings | None
) -> tuple[Check, str | None]:
    """Compare with known values, where there are some; also return what was matched."""
    name, golden, precision = "known values", golden_of(encoder), getattr(encoder, "precision", None) or "float32"
    if golden is None and not _must_match(encoder):
        found = "none: no right values are known of it, and it was not compared with any"
        return Check(name, None, found if against is None else "none: only the given vectors were compared"), None
    before = getattr(encoder, "matched", None)
    earlier = f" now; {before} were matched before" if before else ""
    if golden is None:
        if matched is not None:
            return Check(name, None, f"none are published; {matched} are matched instead"), None
        found = (
            f"not compared{earlier}: none are published of {encoder.name}; name recordings, and --against their "
            f"vectors by SONAR's own code, as {ORIGINAL} writes them (two or more, that differ; in float32)"
        )
        return Check(name, None, found), None
    if precision not in golden.precisions:
        return Check(name, None, f"not compared{earlier}: they are of float32; say --precision float32"), None
    places: dict[str, Any] = {text: text for text in (*golden.rows, *golden.columns)}
    if golden.recordings:
        there = {Path(one).name: one for one in inputs if isinstance(one, str | Path)}
        if not set(places) <= set(there):
            wanted = f"name {' and '.join(places)} of {golden.source} ({golden.recordings})"
            instead = f"; {matched} are matched instead" if matched else ""
            return Check(name, None, f"not compared{earlier}: {wanted}{instead}"), None
        places = {text: there[text] for text in places}
    check = _against(golden, encoder, places, GOLDEN_TOLERANCE[precision])
    return check, f"{golden.measure} by {golden.source}" if check.passed else None


def _against(golden: Golden, encoder: Any, places: Mapping[str, Any], times: float) -> Check:
    """Compare with known values.

    Args:
        golden: the values.
        encoder: what should give them.
        places: what to encode for each of the golden rows and columns.
        times: how often the tolerance is allowed.
    """
    of_rows = of_columns = encoder
    if golden.languages is not None:
        of_rows, of_columns = (encoder.in_language(code) for code in golden.languages)
    rows = of_rows.encode([places[one] for one in golden.rows])
    columns = of_columns.encode([places[one] for one in golden.columns])
    products = rows.astype(np.float64) @ columns.astype(np.float64).T
    values = products if golden.products else _cosines(rows, columns)
    worst, allowed = float(np.abs(values - np.array(golden.values)).max()), golden.tolerance * times
    found = f"{golden.measure} {worst:.1e} off at most, {allowed:g} allowed, of those by {golden.source}"
    return Check("known values", worst <= allowed, found)


def _tones() -> list[NDArray[np.float32]]:
    """Return made-up sound, 16,000 samples a second: tones that rise, of different lengths."""
    tones = []
    for seconds, pitch in ((0.7, 180.0), (1.9, 240.0), (1.1, 320.0)):
        time = np.arange(int(16_000 * seconds)) / 16_000
        tones.append((0.3 * np.sin(2 * np.pi * pitch * time * (1 + time / 4))).astype(np.float32))
    return tones


_INPUTS: dict[str, Callable[[], Sequence[Any]]] = {"text": lambda: SENTENCES, "speech": _tones}
