"""One encoding job on several machines: each encodes its shard of the parts; the last one makes them one folder.

Shard i of n is a run of whole parts, so that the parts of all shards are those of one unbroken run, with the same
names and bytes. What a shard has done stands in a manifest of its own beside its parts; once all n are complete,
these become one `manifest.json`, the same bytes again, and the folder opens as any other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fliplens.embeddings import Embeddings, Manifest, manifest_path, open_embeddings, part_name
from fliplens.encoders import BatchEncoder, Encoder, over_long
from fliplens.encoding import (
    ROWS_PER_PART,
    SHARDS,
    intact,
    job_of,
    join_parts,
    same_job,
    text_inputs,
    write_parts,
)
from fliplens.errors import FliplensWarning, InputError
from fliplens.files import atomic_folder, is_empty, link_or_copy, remove_leftovers, sha256_of_file, write_json
from fliplens.progress import Progress

__all__ = ["Shard", "ShardDone", "encode_shard", "merge_shards"]

_SAME = ("encoder", "revision", "dim", "dtype", "normalised", "precision")
_NAME = re.compile(r"shard-(\d+)-of-(\d+)\.json")
_ENTRY = re.compile(rf"{_NAME.pattern}|part-\d+\.npy|manifest\.json|\..+\.tmp")


@dataclass(frozen=True)
class Shard:
    """The i-th of n runs of parts that follow one another."""

    number: int
    """i, from 1."""
    count: int
    """n."""

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise InputError(f"expected a shard from 1/{max(self.count, 1)} on, found {self}: count from 1")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `i/n`.

        Raises:
            InputError: it is something else.
        """
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if not found:
            raise InputError(f"expected a shard as I/N (1/4 is the first of four), found {text!r}")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        """Return `i/n`."""
        return f"{self.number}/{self.count}"

    @property
    def manifest_name(self) -> str:
        """The name of the manifest of what it has done."""
        return f"shard-{self.number:05d}-of-{self.count:05d}.json"

    def parts(self, total: int) -> range:
        """Return the numbers of its parts out of `total`; none where there are fewer parts than shards."""
        return range(total * (self.number - 1) // self.count, total * self.number // self.count)


@dataclass(frozen=True)
class ShardDone:
    """Where a job stands once one of its shards is encoded."""

    out: Path
    """The folder."""
    rows: range
    """The shard's rows, encoded."""
    manifest: Manifest
    """Of the whole job where that is complete, else of the shard."""
    waiting: tuple[str, ...]
    """Shards that are not complete in this folder, `i/n`; none where `open_embeddings` opens it."""


def encode_shard(
    texts: Sequence[str],
    encoder: Encoder,
    out: str | Path,
    shard: Shard,
    *,
    name: str = "texts",
    dtype: str = "float32",
    rows_per_part: int = ROWS_PER_PART,
    overwrite: bool = False,
    show_progress: bool = False,
    stop: Callable[[], bool] | None = None,
) -> ShardDone:
    """Encode one shard of a job to the folder `out`, going on from whatever an interrupted run of it left there.

    Machines that share a disk name one folder: whichever is the last makes it whole. Machines that do not name one
    each, and `merge_shards` puts them together.

    Args:
        texts: all rows of the job, the same on every machine.
        encoder: see `encode_texts`.
        out: a folder.
        shard: which rows.
        name: see `encode_texts`.
        dtype: see there.
        rows_per_part: see there.
        overwrite: encode this shard anew; what else is in the folder is left as it is.
        show_progress: see `encode_texts`.
        stop: see there.

    Raises:
        InputError: as `encode_texts`; or `out` holds something else, shards of another job or of another count.
        FliplensError: see there.
        InterruptedRunError: see there.

    Warns:
        FliplensWarning: the model read only the start of some texts.
    """
    out = Path(out)
    if out.suffix == ".npy" or out.is_file():
        raise InputError(
            f"expected a folder for a shard, found {out}: name one, and give an .npy file to the merge (--merge)"
        )
    inputs = text_inputs(texts, encoder, name=name)
    job = job_of(inputs, encoder, dtype=dtype, rows_per_part=rows_per_part)
    parts = shard.parts(-(-inputs.rows // rows_per_part))
    rows = range(parts.start * rows_per_part, min(parts.stop * rows_per_part, inputs.rows))
    if (whole := _whole(out, job)) is not None:
        return ShardDone(out, rows, whole, ())
    _check_folder(out, job, shard, overwrite=overwrite)
    path = out / shard.manifest_name
    if path.is_file() and not overwrite:
        done = intact(out, _load(path), inputs, first=parts.start)
    else:
        done = job
        write_json(path, job.to_json())
    remove_leftovers(out, lambda entry: entry == path.name or entry in map(part_name, parts))
    already = sum(done.rows)
    done, cut = write_parts(inputs, encoder, path, done, rows=rows, show_progress=show_progress, stop=stop)
    if cut and isinstance(encoder, BatchEncoder):
        warnings.warn(over_long(encoder, cut, len(rows) - already), FliplensWarning, stacklevel=2)
    found = _found([out])
    waiting = _waiting(found, shard.count)
    if waiting:
        # Another machine may have made the folder whole meanwhile, and removed the shards' manifests.
        whole = _whole(out, job)
        return ShardDone(out, rows, done if whole is None else whole, () if whole is not None else waiting)
    whole = _together(found)
    _make_whole(out, whole)
    return ShardDone(out, rows, whole, ())


def merge_shards(
    folders: Sequence[str | Path], out: str | Path, *, overwrite: bool = False, show_progress: bool = False
) -> Embeddings:
    """Put the shards of a job together, from the folders that several machines wrote.

    Every part is compared with the hash in its manifest. Files get a second name where the disk can give one, else
    they are copied; the folders stay as they are, unless `out` is one of them.

    Args:
        folders: where the shards are, in any order.
        out: the folder to write, or an `.npy` file; or the only one of `folders`, which is made whole.
        overwrite: replace embeddings at `out`.
        show_progress: a bar on stderr.

    Raises:
        InputError: a shard is missing or not complete (the message names it), or two are of different jobs; a part is
            damaged; `out` holds something else.
    """
    out = Path(out)
    places = [Path(folder) for folder in folders]
    if len(places) == 1 and places[0].resolve() == out.resolve() and (out / "manifest.json").is_file():
        return open_embeddings(out)
    found = _found(places)
    if not found:
        raise InputError(
            f"expected shards in {', '.join(map(str, places))}, found none: name folders that --shard wrote"
        )
    counts = {shard.count for shard in found}
    if len(counts) > 1:
        few, many = sorted(counts)[:2]
        raise InputError(f"expected shards of one count, found some of {few} and some of {many}: merge one job")
    whole = _together(found)
    if waiting := _waiting(found, counts.pop()):
        done = {str(shard): manifest for shard, (manifest, _) in found.items()}
        first = waiting[0]
        state = f"only {sum(done[first].rows)} rows of it" if first in done else "none of it"
        more = f" (nor are {len(waiting) - 1} others complete: {', '.join(waiting[1:6])})" if waiting[1:] else ""
        raise InputError(f"expected shard {first}, complete, in the folders to merge, found {state}{more}: encode it")
    files = [
        folder / part_name(number)
        for shard, (manifest, folder) in sorted(found.items(), key=lambda item: item[0].number)
        for number in shard.parts(_parts_of(manifest))
    ]
    with Progress("checking parts", total=len(files), unit="parts", show=show_progress, delay=2.0) as bar:
        for file, digest in zip(files, whole.sha256, strict=True):
            if not file.is_file() or sha256_of_file(file) != digest:
                raise InputError(
                    f"expected the part {file} as it was encoded, found it damaged or gone: copy it again"
                )
            bar.update()
    if out.suffix == ".npy":
        if (out.exists() or manifest_path(out).exists()) and not overwrite:
            raise InputError(f"expected no file at {out}, found one: name another place, or pass --overwrite")
        join_parts(files, out, whole)
    elif all(file.parent.resolve() == out.resolve() for file in files):
        _make_whole(out, whole)
    else:
        with atomic_folder(out, kind=SHARDS, overwrite=overwrite) as folder:
            for file in files:
                link_or_copy(file, folder / file.name)
            write_json(folder / "manifest.json", whole.to_json())
    return open_embeddings(out)


def _load(path: Path) -> Manifest:
    manifest = Manifest.load(path)
    source = manifest.source
    if not all(isinstance(source.get(key), int) and source[key] > 0 for key in ("rows", "rows_per_part")):
        raise InputError(f"expected the manifest of a shard in {path}, found another: encode the shard again")
    return manifest


def _parts_of(manifest: Manifest) -> int:
    return -(-int(manifest.source["rows"]) // int(manifest.source["rows_per_part"]))


def _found(folders: Sequence[Path]) -> dict[Shard, tuple[Manifest, Path]]:
    """Return the shards in some folders; of one that is in several, the complete one."""
    found: dict[Shard, tuple[Manifest, Path]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"expected a folder of shards at {folder}, found none: check the path")
        for path in sorted(folder.iterdir()):
            if not (name := _NAME.fullmatch(path.name)):
                continue
            try:
                manifest = _load(path)
            except InputError:
                if path.is_file():
                    raise
                continue  # made whole by another machine at this very moment
            shard = Shard(int(name[1]), int(name[2]))
            if shard not in found or not found[shard][0].complete:
                found[shard] = (manifest, folder)
    return found


def _waiting(found: Mapping[Shard, tuple[Manifest, Path]], count: int) -> tuple[str, ...]:
    shards = (Shard(number, count) for number in range(1, count + 1))
    return tuple(str(shard) for shard in shards if shard not in found or not found[shard][0].complete)


def _together(found: Mapping[Shard, tuple[Manifest, Path]]) -> Manifest:
    """Return the manifest of all shards' parts.

    Raises:
        InputError: two are of different jobs.
    """
    ordered = sorted(found.items(), key=lambda item: item[0].number)
    first_shard, (first, first_folder) = ordered[0]
    for shard, (manifest, folder) in ordered[1:]:
        if difference := _difference(manifest, first):
            raise InputError(
                f"expected shards of one job, found shard {shard} in {folder} {difference} of shard {first_shard} in "
                f"{first_folder}: encode one of them again"
            )
    return dataclasses.replace(
        first,
        rows=[rows for _, (manifest, _) in ordered for rows in manifest.rows],
        sha256=[digest for _, (manifest, _) in ordered for digest in manifest.sha256],
        complete=True,
    )


def _difference(found: Manifest, job: Manifest) -> str:
    """Return what makes two manifests those of different jobs, in words that end before "of"; "" if nothing does."""

    def of(manifest: Manifest) -> dict[str, Any]:
        values = {name: getattr(manifest, name) for name in _SAME}
        values |= {f"{name} of the texts": manifest.source.get(name) for name in ("name", "rows", "sha256")}
        return {**values, "rows a part": manifest.source.get("rows_per_part")}

    theirs, ours = of(found), of(job)
    for name, value in ours.items():
        if theirs[name] != value:
            return f"with {name} {theirs[name]}, not the {value}"
    return ""


def _whole(out: Path, job: Manifest) -> Manifest | None:
    """Return the manifest of a folder that is complete; what a kill left of its shards' manifests goes.

    Raises:
        InputError: the folder holds another job, or one that is not divided.
    """
    path = out / "manifest.json"
    if not path.is_file():
        return None
    found = Manifest.load(path)
    if not same_job(found, job):
        raise InputError(f"expected {out} to be free or to hold this job, found other vectors: name another place")
    if not found.complete:
        raise InputError(
            f"expected shards in {out}, found the same job undivided: go on without --shard, or name another place"
        )
    _remove_manifests(out)
    return found


def _check_folder(out: Path, job: Manifest, shard: Shard, *, overwrite: bool) -> None:
    """Refuse a folder that holds anything but shards of this very job."""
    if is_empty(out):
        return
    foreign = sorted(entry.name for entry in out.iterdir() if not _ENTRY.fullmatch(entry.name))
    found = _found([out])
    if foreign or not found:
        raise InputError(
            f"expected an empty or new folder at {out}, or one of shards, found other files "
            f"({foreign[0] if foreign else 'parts of no shard'}): name another place"
        )
    for other, (manifest, _) in found.items():
        if other.count != shard.count:
            raise InputError(
                f"expected shards of {other.count} in {out}, as shard {other} there, found {shard}: use the same "
                "count on all machines, or name another place"
            )
        if (difference := _difference(job, manifest)) and not (overwrite and other == shard):
            raise InputError(
                f"expected the job of shard {other} in {out}, found one {difference} of it: name another place"
            )


def _make_whole(out: Path, whole: Manifest) -> None:
    # Machines that are the last at the same moment write the same bytes.
    write_json(out / "manifest.json", whole.to_json())
    _remove_manifests(out)


def _remove_manifests(out: Path) -> None:
    for path in out.iterdir():
        if _NAME.fullmatch(path.name):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
