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

from fliplens.embeddings import Embeddings, Manifest, manifest_path, open_embeddings, part_name
from fliplens.encoders import BatchEncoder, Encoder, over_long
from fliplens.encoding.jobs import (
    SHARDS,
    Inputs,
    bad_beside,
    bad_list,
    check_output,
    check_unchanged,
    damaged_parts,
    difference,
    intact,
    job_of,
    kept_bad,
    list_bad,
    same_job,
    same_precision,
    warn_of_damage,
    with_grown,
)
from fliplens.encoding.parts import join_parts, write_parts
from fliplens.encoding.texts import ROWS_PER_PART, text_inputs
from fliplens.errors import FliplensWarning, InputError
from fliplens.files import atomic_folder, is_empty, link_or_copy, remove_leftovers, sha256_of_file, write_json
from fliplens.progress import Progress

__all__ = ["Shard", "ShardDone", "encode_shard", "encode_shard_rows", "merge_shards"]

_NAME = re.compile(r"shard-(\d+)-of-(\d+)\.json")
_OF_SHARDS = re.compile(rf"{_NAME.pattern}|shard-\d+-of-\d+\.bad\.jsonl")
_ENTRY = re.compile(rf"{_OF_SHARDS.pattern}|part-\d+\.npy|manifest\.json|bad\.jsonl|\..+\.tmp")


@dataclass(frozen=True)
class Shard:
    """The i-th of n runs of parts that follow one another."""

    number: int
    """i, from 1."""
    count: int
    """n."""

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            allowed = f"from 1/{self.count} to {self.count}/{self.count}" if self.count > 1 else "1/1"
            raise InputError(f"expected a shard {allowed}, found {self}: count from 1")

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
    bad_list: Path
    """Where the rows are listed whose input could not be read; no such file where there are none."""


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
    return encode_shard_rows(
        text_inputs(texts, encoder, name=name),
        encoder,
        out,
        shard,
        dtype=dtype,
        rows_per_part=rows_per_part,
        overwrite=overwrite,
        show_progress=show_progress,
        stop=stop,
        stacklevel=3,
    )


def encode_shard_rows(
    inputs: Inputs,
    encoder: Encoder,
    out: str | Path,
    shard: Shard,
    *,
    dtype: str,
    rows_per_part: int,
    overwrite: bool,
    show_progress: bool,
    stop: Callable[[], bool] | None = None,
    stacklevel: int = 2,
) -> ShardDone:
    """Encode one shard of whatever `inputs` stands for; see `encode_shard` for the other arguments and errors.

    Args:
        inputs: all rows of the job, the same on every machine.
        encoder: what makes the vectors.
        out: a folder.
        shard: which rows.
        dtype: see `encode_shard`.
        rows_per_part: see there.
        overwrite: see there.
        show_progress: see there.
        stop: see there.
        stacklevel: of warnings, as in `warnings.warn`.
    """
    out = Path(out)
    if out.suffix == ".npy" or out.is_file():
        raise InputError(
            f"expected a folder for a shard, found {out}: name one, and give an .npy file to the merge (--merge)"
        )
    check_output(out)
    job = job_of(inputs, encoder, dtype=dtype, rows_per_part=rows_per_part)
    parts = shard.parts(-(-inputs.rows // rows_per_part))
    rows = range(parts.start * rows_per_part, min(parts.stop * rows_per_part, inputs.rows))
    if (whole := _whole(out, job)) is not None:
        if overwrite:
            raise InputError(
                f"expected shards in {out} to overwrite one of, found all of them put together: delete it, or name "
                "another place"
            )
        check_unchanged(whole, inputs, out, parts=parts)
        if damaged := damaged_parts(out, whole, parts):
            if not same_precision(whole, job):
                raise InputError(
                    f"expected to make damaged parts in {out} again in {whole.precision}, as the others were "
                    f"encoded, found {job.precision}: pass --precision {whole.precision}"
                )
            # The folder stays one that is complete: other machines may be at work on other parts of it.
            warn_of_damage(out, damaged, len(whole.rows), stacklevel=stacklevel)
            whole, _ = write_parts(
                inputs,
                encoder,
                out / "manifest.json",
                whole,
                rows=range(inputs.rows),
                show_progress=show_progress,
                stop=stop,
                damaged=damaged,
            )
        return ShardDone(out, rows, whole, (), bad_list(out))
    _check_folder(out, job, shard, overwrite=overwrite)
    path = out / shard.manifest_name
    if path.is_file() and not overwrite:
        _load(path)
        done, damaged = intact(path, inputs, first=parts.start)
        warn_of_damage(out, damaged, len(done.rows), stacklevel=stacklevel)
    else:
        done, damaged = job, []
        write_json(path, job.to_json())
    ours = {path.name, bad_beside(path).name, *map(part_name, parts)}
    remove_leftovers(out, lambda entry: entry in ours)
    already = sum(done.rows) - sum(done.rows[number - parts.start] for number in damaged)
    done, cut = write_parts(
        inputs, encoder, path, done, rows=rows, show_progress=show_progress, stop=stop, damaged=damaged
    )
    if cut and isinstance(encoder, BatchEncoder):
        warnings.warn(over_long(encoder, cut, len(rows) - already), FliplensWarning, stacklevel=stacklevel)
    try:
        found = _found([out])
        if waiting := _waiting(found, shard.count):
            whole = _whole(out, job)
        else:
            whole = _together(found)
            _make_whole(out, whole, _bad_rows(found))
    except InputError:
        whole = _whole(out, job)
        if whole is None:
            raise
    # Another machine may have made the folder whole meanwhile, and removed what the shards kept.
    if whole is None:
        return ShardDone(out, rows, done, waiting, bad_beside(path))
    return ShardDone(out, rows, whole, (), bad_list(out))


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
    out = check_output(out)
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
    bad = _bad_rows(found)
    files = [
        folder / part_name(number)
        for shard, (manifest, folder) in sorted(found.items(), key=lambda item: item[0].number)
        for number in shard.parts(_parts_of(manifest))
    ]
    with Progress("checking parts", total=len(files), unit="parts", show=show_progress, delay=2.0) as bar:
        for file, digest in zip(files, whole.sha256, strict=True):
            if not file.is_file() or sha256_of_file(file) != digest:
                raise InputError(
                    f"expected the part {file} as it was encoded, found it damaged or gone: copy it again, or "
                    "give the command of its shard again"
                )
            bar.update()
    if out.suffix == ".npy":
        if (out.exists() or manifest_path(out).exists()) and not overwrite:
            raise InputError(f"expected no file at {out}, found one: name another place, or pass --overwrite")
        join_parts(files, out, whole, bad=bad)
    elif all(file.parent.resolve() == out.resolve() for file in files):
        _make_whole(out, whole, bad)
    else:
        with atomic_folder(out, kind=SHARDS, overwrite=overwrite) as folder:
            for file in files:
                link_or_copy(file, folder / file.name)
            list_bad(bad_list(folder), bad)
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
        if differs := difference(manifest, first):
            raise InputError(
                f"expected shards of one job, found shard {shard} in {folder} {differs} of shard {first_shard} in "
                f"{first_folder}: encode one of them again"
            )
    manifests = [manifest for _, (manifest, _) in ordered]
    files = [state for manifest in manifests for state in manifest.source.get("files", [])]
    bad = sum(manifest.source.get("bad", 0) for manifest in manifests)
    return dataclasses.replace(
        first,
        source=with_grown(first.source, files or None, bad),
        rows=[rows for manifest in manifests for rows in manifest.rows],
        sha256=[digest for manifest in manifests for digest in manifest.sha256],
        complete=True,
    )


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
        raise InputError(
            f"expected {out} to be free or to hold this job, found other vectors {difference(found, job)}: name "
            "another place"
        )
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
        if (differs := difference(job, manifest)) and not (overwrite and other == shard):
            raise InputError(
                f"expected the job of shard {other} in {out}, found one {differs} of it: name another place"
            )


def _bad_rows(found: Mapping[Shard, tuple[Manifest, Path]]) -> list[str]:
    """Return the lines of all shards' lists of bad rows.

    Raises:
        InputError: a list is not what the shard's manifest says.
    """
    lines: list[str] = []
    for shard, (manifest, folder) in sorted(found.items(), key=lambda item: item[0].number):
        path = bad_beside(folder / shard.manifest_name)
        first = shard.parts(_parts_of(manifest)).start * manifest.source["rows_per_part"]
        kept = kept_bad(path, first + sum(manifest.rows))
        if len(kept) != manifest.source.get("bad", 0):
            raise InputError(
                f"expected {manifest.source.get('bad', 0)} bad rows of shard {shard} listed in {path}, found "
                f"{len(kept)}: copy the list again"
            )
        lines += kept
    return lines


def _make_whole(out: Path, whole: Manifest, bad: Sequence[str]) -> None:
    # Machines that are the last at the same moment write the same bytes.
    list_bad(bad_list(out), bad)
    write_json(out / "manifest.json", whole.to_json())
    _remove_manifests(out)


def _remove_manifests(out: Path) -> None:
    for path in out.iterdir():
        if _OF_SHARDS.fullmatch(path.name):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
