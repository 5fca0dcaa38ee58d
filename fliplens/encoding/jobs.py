"""What a job of encoding is, and what of it lies on disk: its parts, its manifest, its list of rows that are bad.

`Inputs` stands for whatever is encoded. A manifest counts parts that are whole, each with its hash; a run of the same
job goes on behind them, and makes those again that were damaged since (`intact`). Writing them is
`fliplens.encoding.parts`.
"""

from __future__ import annotations

import dataclasses
import json
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from fliplens.embeddings import FLOAT_TYPES, Manifest, manifest_path, part_name
from fliplens.embeddings.npy import damage_of
from fliplens.encoders import Encoder
from fliplens.errors import FliplensWarning, InputError
from fliplens.files import FolderKind, read_lines, sha256_of_file, write_lines

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "SHARDS",
    "Inputs",
    "Part",
    "bad_beside",
    "bad_list",
    "check_output",
    "check_unchanged",
    "damaged_parts",
    "difference",
    "intact",
    "job_of",
    "kept_bad",
    "list_bad",
    "same_job",
    "same_precision",
    "warn_of_damage",
    "with_grown",
]

BAD_LIST = "bad.jsonl"
SHARDS = FolderKind("manifest.json", r"manifest\.json|part-\d+\.npy|bad\.jsonl|\..+\.tmp")
SHOWN_PARTS = 5
"""How many parts that are damaged a message names."""
SHOWN_DIGITS = 12
"""How much of a hash a message shows."""
_SAME = ("encoder", "revision", "dim", "dtype", "normalised", "precision")
GROWING = ("files", "bad")
"""What the manifest says of the source only as parts are done: a job that goes on does not know it yet."""
OTHER_FILES = re.compile(
    r"\.(npy|npz|te?xt|csv|tsv|jsonl?|ndjson|ya?ml|md|parquet|pq|arrow|feather|ipc|safetensors|pth?|bin|pkl|pickle|"
    r"joblib|h5|hdf5|faiss|index|db|sqlite|gz|bz2|xz|zst|zip|tar|tgz|wav|mp3|flac|ogg)",
    re.IGNORECASE,
)
"""How names of files end. A folder may have a dot in its name (`news.2024`); one that looks like a file misleads."""


class Part(NamedTuple):
    """Some rows that follow one another, encoded."""

    vectors: NDArray[np.float32]
    """(k, d)."""
    cut: int = 0
    """How many of the inputs the encoder read only the start of."""
    bad: Mapping[int, str] = MappingProxyType({})
    """Of the k rows, those whose input cannot be read, with why; their vectors are NaN."""


@dataclass(frozen=True)
class Inputs:
    """What a job encodes, whatever it is."""

    rows: int
    """How many."""
    name: str
    """What messages and the manifest call them all."""
    unit: str
    """What one row of them is called."""
    identity: Mapping[str, Any]
    """What the manifest says of them and a run must find there again to go on."""
    encode: Callable[[int, int, Callable[[int], None]], Part]
    """Encodes rows start..stop, telling what it is given last after every batch how many rows are done with."""
    state: Callable[[int, int], str] | None = None
    """Of inputs that are files: what changes when those of rows start..stop do."""
    listed: Callable[[int], str] = str
    """How a row is called in the list of bad ones."""


def job_of(inputs: Inputs, encoder: Encoder, *, dtype: str, rows_per_part: int) -> Manifest:
    """Return the manifest of a job of which nothing is done; see `encode_texts` for arguments and errors."""
    if dtype not in FLOAT_TYPES:
        raise InputError(f"expected dtype {', '.join(FLOAT_TYPES)}, found {dtype!r}")
    return Manifest(
        encoder=encoder.spec,
        revision=encoder.revision,
        dim=encoder.dim,
        dtype=dtype,
        normalised=encoder.normalised,
        precision=getattr(encoder, "precision", None),
        source={"name": inputs.name, "rows": inputs.rows, **inputs.identity, "rows_per_part": rows_per_part},
        complete=False,
    )


def check_output(out: str | Path) -> Path:
    """Return where vectors are to be written: an `.npy` file, or a folder, by whatever name that is not a file's.

    Raises:
        InputError: the name ends as that of a file of another kind does.
    """
    out = Path(out)
    if out.suffix == ".npy" or out.is_dir() or not OTHER_FILES.fullmatch(out.suffix):
        return out
    bare = out
    while OTHER_FILES.fullmatch(bare.suffix):
        bare = bare.with_suffix("")
    parquet = ", or with --engine ray for Parquet" if out.suffix == ".parquet" else ""
    raise InputError(
        f"expected an output that ends in .npy, or a folder, found {out}: write {bare}.npy for one file, {bare} "
        f"for a folder of parts{parquet}"
    )


def same_job(found: Manifest, job: Manifest) -> bool:
    """Tell whether rows of both are vectors of the same inputs by the same encoder."""
    names = ("encoder", "revision", "dim", "dtype", "normalised")
    if any(getattr(found, name) != getattr(job, name) for name in names):
        return False
    return _asked(found.source) == _asked(job.source)


def same_precision(found: Manifest, job: Manifest) -> bool:
    """Tell whether rows of both may stand in one file; where it is not known of one, they may."""
    return None in (found.precision, job.precision) or found.precision == job.precision


def difference(found: Manifest, job: Manifest) -> str:
    """Return what makes two manifests those of different jobs, as "with this, not the that"; "" if nothing does.

    Of inputs with one name but other rows: "of texts that have changed, with ...".
    """
    unit = "recordings" if "speech" in (found.source.get("modality"), job.source.get("modality")) else "texts"

    def of(manifest: Manifest) -> dict[str, Any]:
        values = {name: getattr(manifest, name) for name in _SAME}
        values |= {f"{name} of the {unit}": manifest.source.get(name) for name in ("name", "rows", "sha256")}
        return {**values, "rows a part": manifest.source.get("rows_per_part"), **_asked(manifest.source)}

    theirs, ours = of(found), of(job)
    for name in {**ours, **theirs}:
        if theirs.get(name) != ours.get(name):
            there, here = (str(value)[:SHOWN_DIGITS] for value in (theirs.get(name), ours.get(name)))
            if name.endswith(f" of the {unit}") and not name.startswith("name"):
                return f"of {unit} that have changed, {name} {there}, not the {here}"
            return f"with {name} {theirs.get(name)}, not the {ours.get(name)}"
    return ""


def with_grown(source: Mapping[str, Any], files: Sequence[str] | None, bad: int) -> dict[str, Any]:
    """Return what a manifest says of the source with what grew as parts were done, in one order whatever came first.

    Args:
        source: what it says.
        files: the state of each part's files, None where the inputs are none.
        bad: how many rows are bad.
    """
    grown: dict[str, Any] = {} if files is None else {"files": list(files)}
    return {**_asked(source), **grown, **({"bad": bad} if bad else {})}


def intact(manifest: Path, inputs: Inputs, *, first: int = 0) -> tuple[Manifest, list[int]]:
    """Return the manifest of a job up to its first part whose input has changed, and which parts of it are damaged.

    A part is renamed into place before the manifest counts it, so counted parts are whole; but a disk may have
    failed since. Every one is compared with its hash.

    Args:
        manifest: where it lies, beside the parts.
        inputs: of the job.
        first: number of its first part.
    """
    found = Manifest.load(manifest)
    good = _unchanged(found, inputs, first=first)
    damaged = []
    for number, digest in enumerate(found.sha256[:good], first):
        part = manifest.with_name(part_name(number))
        if not part.is_file() or sha256_of_file(part) != digest:
            damaged.append(number)
    rows = found.rows[:good]
    files = found.source["files"][:good] if "files" in found.source else None
    bad = len(kept_bad(bad_beside(manifest), first * found.source["rows_per_part"] + sum(rows)))
    kept = dataclasses.replace(
        found,
        rows=rows,
        sha256=found.sha256[:good],
        source=with_grown(found.source, files, bad),
        complete=False,
    )
    return kept, damaged


def damaged_parts(folder: Path, manifest: Manifest, numbers: range) -> list[int]:
    """Return which parts of a finished folder are missing or cannot be what its manifest says, by header and size.

    Args:
        folder: where they lie.
        manifest: of all of them.
        numbers: those to look at.
    """
    return [
        number
        for number in numbers
        if damage_of(folder / part_name(number), (manifest.rows[number], manifest.dim), manifest.dtype)
    ]


def warn_of_damage(folder: Path, damaged: Sequence[int], kept: int, *, stacklevel: int) -> None:
    """Tell which parts are encoded again, if any are.

    Args:
        folder: where they lie.
        damaged: their numbers.
        kept: how many are counted, with these.
        stacklevel: as in `warnings.warn`.
    """
    if not damaged:
        return
    names = map(part_name, damaged[:SHOWN_PARTS])
    named = [f"{name} {'damaged' if (folder / name).exists() else 'missing'}" for name in names]
    more = f" and {len(damaged) - SHOWN_PARTS} more" if len(damaged) > SHOWN_PARTS else ""
    warnings.warn(
        f"found {', '.join(named)}{more} of the {kept} parts in {folder}: their rows are encoded again, the other "
        "parts are kept",
        FliplensWarning,
        stacklevel=stacklevel + 1,
    )


def check_unchanged(found: Manifest, inputs: Inputs, out: Path, *, parts: range | None = None) -> None:
    """Refuse a finished job of which files of the inputs have changed since.

    Args:
        found: its manifest.
        inputs: as they are now.
        out: what the message calls it.
        parts: numbers of those to look at; by default all.

    Raises:
        InputError: some have changed.
    """
    states = found.source.get("files", [])
    seen = range(len(states)) if parts is None else parts
    part = dataclasses.replace(found, source={**found.source, "files": states[seen.start : seen.stop]})
    if states and _unchanged(part, inputs, first=seen.start) < len(part.source["files"]):
        raise InputError(
            f"expected the files of {inputs.name} as they were when {out} was encoded, found some that have changed "
            "since: name another place, or pass --overwrite"
        )


def _unchanged(found: Manifest, inputs: Inputs, *, first: int = 0) -> int:
    """Return how many parts, from number `first`, come first whose files are as they were when they were encoded."""
    if inputs.state is None:
        return len(found.rows)
    states = found.source.get("files", [])
    step = found.source["rows_per_part"]
    for number, state in enumerate(states, first):
        if inputs.state(number * step, min((number + 1) * step, inputs.rows)) != state:
            return number - first
    return len(states)


def _asked(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a manifest says of the source from the start."""
    return {name: value for name, value in source.items() if name not in GROWING}


def bad_list(out: str | Path) -> Path:
    """Return where the rows of `out` are listed whose input could not be read; no such file where there are none."""
    return bad_beside(manifest_path(out))


def bad_beside(manifest: Path) -> Path:
    """Return where the bad rows are listed of a manifest: beside it, `bad.jsonl` or `NAME.bad.jsonl`."""
    name = manifest.name.removesuffix("manifest.json").removesuffix(".json")
    return manifest.with_name(BAD_LIST if not name else f"{name.removesuffix('.')}.{BAD_LIST}")


def kept_bad(path: Path, rows: int) -> list[str]:
    """Return the lines of a list of bad rows that are of the first `rows`: the others are encoded again."""
    lines = read_lines(path) if path.is_file() else []
    return [line for line in lines if json.loads(line)["row"] < rows]


def list_bad(path: Path, lines: Sequence[str]) -> None:
    """Write a list of bad rows, which is no file where there are none."""
    if lines:
        write_lines(path, lines)
    else:
        path.unlink(missing_ok=True)
