"""What is known of vectors on disk: the JSON beside them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fliplens.errors import InputError
from fliplens.files import read_json

__all__ = ["FLOAT_TYPES", "Manifest", "manifest_path", "part_name"]

MANIFEST_VERSION = 1
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


def manifest_path(path: str | Path) -> Path:
    """Return where the manifest of the single file or folder `path` lies."""
    path = Path(path)
    return path.with_suffix(".manifest.json") if path.suffix == ".npy" else path / "manifest.json"


def part_name(number: int) -> str:
    """Return the file name of shard `number`, from 0."""
    return f"part-{number:05d}.npy"
