"""Encoding text to disk: in shards, each whole or absent, so that a killed job goes on where it stopped."""

from __future__ import annotations

import dataclasses
import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fliplens.embeddings import (
    FLOAT_TYPES,
    Embeddings,
    Manifest,
    manifest_path,
    open_embeddings,
    part_name,
    write_npy,
)
from fliplens.encoders import BatchEncoder, Encoder, over_long
from fliplens.errors import FliplensError, FliplensWarning, InputError, InterruptedRunError
from fliplens.files import FolderKind, atomic_file, check_free, is_empty, sha256_of_file, sha256_of_lines, write_json
from fliplens.progress import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["encode_texts"]

ROWS_PER_PART = 4096
SHARDS = FolderKind("manifest.json", r"manifest\.json|part-\d+\.npy|\..+\.tmp")


def encode_texts(
    texts: Sequence[str],
    encoder: Encoder,
    out: str | Path,
    *,
    name: str = "texts",
    dtype: str = "float32",
    rows_per_part: int = ROWS_PER_PART,
    overwrite: bool = False,
    show_progress: bool = False,
    stop: Callable[[], bool] | None = None,
) -> Embeddings:
    """Encode texts to `out`, going on from whatever an interrupted run of the same job left there.

    Args:
        texts: one row each.
        encoder: what makes the vectors.
        out: a folder of shards with a manifest; or an `.npy` file, whose manifest lies beside it and whose
            shards lie in `<out>.parts` until the last row is done.
        name: what the manifest calls the texts.
        dtype: float16, float32 or float64, on disk.
        rows_per_part: rows a shard; what a kill can lose.
        overwrite: replace what another job left at `out`.
        show_progress: a bar on stderr.
        stop: asked before every shard; once it is true the work ends, and the same call goes on with it.

    Returns:
        The finished embeddings, memory-mapped.

    Raises:
        InputError: no texts, or `out` holds something else, or rows of this job in another precision.
        FliplensError: the encoder gave a wrong number of vectors, or some that are not finite.
        InterruptedRunError: `stop` was true.

    Warns:
        FliplensWarning: the model read only the start of some texts; once, when the job is done. Or the job was
            done before, in another precision than the encoder has now.
    """
    out = Path(out)
    if dtype not in FLOAT_TYPES:
        raise InputError(f"expected dtype {', '.join(FLOAT_TYPES)}, found {dtype!r}")
    if not texts:
        raise InputError(f"expected texts to encode in {name}, found none")
    job = Manifest(
        encoder=encoder.spec,
        revision=encoder.revision,
        dim=encoder.dim,
        dtype=dtype,
        normalised=encoder.normalised,
        precision=getattr(encoder, "precision", None),
        source={
            "name": name,
            "rows": len(texts),
            "sha256": sha256_of_lines(texts),
            "rows_per_part": rows_per_part,
        },
        complete=False,
    )
    single = out.suffix == ".npy"
    if _finished(out, job, single=single, overwrite=overwrite):
        return open_embeddings(out)
    folder = out.with_name(out.name + ".parts") if single else out
    # Finished shards of a single file are a job that was killed at its last step; a finished folder is an output.
    done = _resume(folder, job, overwrite=overwrite, again=overwrite and not single)
    already, cut = sum(done.rows), 0
    with Progress("encode", total=len(texts), unit="texts", show=show_progress, done=already) as bar:
        while sum(done.rows) < len(texts):
            start = sum(done.rows)
            if stop is not None and stop():
                raise InterruptedRunError(
                    f"interrupted; {start} of {len(texts)} rows are kept in {folder}: run the same command again to "
                    "go on"
                )
            vectors, cut_here = _encode(encoder, texts[start : start + rows_per_part], bar)
            cut += cut_here
            rows = min(rows_per_part, len(texts) - start)
            if vectors.shape != (rows, encoder.dim):
                raise FliplensError(
                    f"expected {rows} vectors of {encoder.dim} dimensions from {encoder.spec}, "
                    f"found shape {vectors.shape}"
                )
            if not np.isfinite(vectors).all():
                row = start + int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
                raise FliplensError(
                    f"expected finite vectors from {encoder.spec}, found NaN or infinite values for row {row} "
                    f"of {name}"
                )
            part = folder / part_name(len(done.rows))
            with atomic_file(part) as stream:
                write_npy(stream, vectors.shape, iter([vectors]), dtype)
            done = dataclasses.replace(done, rows=[*done.rows, rows], sha256=[*done.sha256, sha256_of_file(part)])
            write_json(folder / "manifest.json", done.to_json())
    done = dataclasses.replace(done, complete=True)
    write_json(folder / "manifest.json", done.to_json())
    if single:
        _join(folder, out, done)
    if cut and isinstance(encoder, BatchEncoder):
        warnings.warn(over_long(encoder, cut, len(texts) - already), FliplensWarning, stacklevel=2)
    return open_embeddings(out)


def _encode(encoder: Encoder, texts: Sequence[str], bar: Progress) -> tuple[NDArray[np.float32], int]:
    """Return the vectors of some texts and how many were cut, moving the bar with every batch where that can be."""
    if not isinstance(encoder, BatchEncoder):
        vectors = encoder.encode(texts)
        bar.update(len(texts))
        return vectors, 0
    vectors, cut = np.empty((len(texts), encoder.dim), dtype=np.float32), 0
    for batch in encoder.batches(texts):
        vectors[batch.rows] = batch.vectors
        cut += batch.cut
        bar.update(len(batch.rows))
    return vectors, cut


def _same_job(found: Manifest, job: Manifest) -> bool:
    names = ("encoder", "revision", "dim", "dtype", "normalised", "source")
    return all(getattr(found, name) == getattr(job, name) for name in names)


def _same_precision(found: Manifest, job: Manifest) -> bool:
    """Tell whether rows of both may stand in one file; where it is not known of one, they may."""
    return None in (found.precision, job.precision) or found.precision == job.precision


def _finished(out: Path, job: Manifest, *, single: bool, overwrite: bool) -> bool:
    """Return whether `out` already holds this very job, finished; refuse to replace anything else unasked."""
    if single and out.is_dir():
        raise InputError(f"expected an .npy file to write at {out}, found a folder: name another place")
    taken = out.is_file() or not is_empty(out)
    if not taken or overwrite:
        return False
    manifest = manifest_path(out)
    if manifest.is_file():
        found = Manifest.load(manifest)
        if _same_job(found, job):
            if found.complete and not _same_precision(found, job):
                warnings.warn(
                    f"{out} was encoded before, in {found.precision}, and is left as it is: for vectors in "
                    f"{job.precision} pass --overwrite",
                    FliplensWarning,
                    stacklevel=3,
                )
            return found.complete
    raise InputError(
        f"expected {out} to be free or to hold this job, found other vectors or files: "
        "name another place, or pass --overwrite"
    )


def _resume(folder: Path, job: Manifest, *, overwrite: bool, again: bool) -> Manifest:
    """Return the manifest of what is done; an empty one, written, for a new job."""
    path = folder / "manifest.json"
    if path.is_file():
        found = Manifest.load(path)
        if _same_job(found, job) and not _same_precision(found, job) and not overwrite:
            raise InputError(
                f"expected to go on in {found.precision}, as the {sum(found.rows)} rows in {folder} were encoded, "
                f"found {job.precision}: pass --precision {found.precision}, or --overwrite to start again"
            )
        if _same_job(found, job) and _same_precision(found, job) and not (again and found.complete):
            # A shard is renamed into place before the manifest counts it, so counted shards are whole; check
            # all the same, as a disk may have failed since.
            intact = 0
            for number, digest in enumerate(found.sha256):
                part = folder / part_name(number)
                if not part.is_file() or sha256_of_file(part) != digest:
                    break
                intact += 1
            return dataclasses.replace(found, rows=found.rows[:intact], sha256=found.sha256[:intact], complete=False)
    check_free(folder, kind=SHARDS, overwrite=overwrite)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write_json(path, job.to_json())
    return job


def _join(folder: Path, out: Path, manifest: Manifest) -> None:
    """Make one `.npy` of the shards, its manifest beside it, and delete the shards."""
    shards = open_embeddings(folder)
    with atomic_file(out) as stream:
        write_npy(stream, shards.shape, (rows for _, rows in shards.blocks()), manifest.dtype)
        stream.flush()
        # The manifest comes first: a kill before the file has its name leaves a job that the shards finish.
        whole = dataclasses.replace(manifest, rows=[len(shards)], sha256=[sha256_of_file(stream.name)])
        # An old file under that name goes before the new manifest comes: the two must never be taken for a pair.
        out.unlink(missing_ok=True)
        write_json(manifest_path(out), whole.to_json())
    shutil.rmtree(folder, ignore_errors=True)
