"""Encoding text to disk: in shards, each whole or absent, so that a killed job goes on where it stopped.

How several machines share one job is in `fliplens.encoding_shards`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
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
from fliplens.files import (
    FolderKind,
    atomic_file,
    check_free,
    is_empty,
    remove_leftovers,
    sha256_of_file,
    write_json,
)
from fliplens.long_texts import hash_of_texts
from fliplens.progress import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ROWS_PER_PART", "SHARDS", "encode_texts", "intact", "job_of", "join_parts", "same_job", "write_parts"]

ROWS_PER_PART = 4096
SHARDS = FolderKind("manifest.json", r"manifest\.json|part-\d+\.npy|\..+\.tmp")
MANIFEST_SHARE = 0.05
"""Of the time, at most, goes into writing manifests: of a job of many parts they grow long."""


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
        texts: one row each; those of `fliplens.long_texts.open_texts` are read as they are encoded.
        encoder: what makes the vectors.
        out: a folder of shards with a manifest; or an `.npy` file, whose manifest lies beside it and whose
            shards lie in `<out>.parts` until the last row is done.
        name: what the manifest calls the texts.
        dtype: float16, float32 or float64, on disk.
        rows_per_part: rows a shard. A kill can lose one, and those of the last twentieth of the time if that is more.
        overwrite: replace what another job left at `out`.
        show_progress: a bar on stderr.
        stop: asked before every shard; once it is true the work ends, and the same call goes on with it.

    Returns:
        The finished embeddings, memory-mapped.

    Raises:
        InputError: no texts, or `out` holds something else, or rows of this job in another precision; or the encoder
            refuses a text.
        FliplensError: the encoder failed, or gave a wrong number of vectors, or some that are not finite. The
            message says which row the same call goes on at; all rows before it are kept.
        InterruptedRunError: `stop` was true.

    Warns:
        FliplensWarning: the model read only the start of some texts; once, when the job is done. Or the job was
            done before, in another precision than the encoder has now.
    """
    out = Path(out)
    job = job_of(texts, encoder, name=name, dtype=dtype, rows_per_part=rows_per_part)
    single = out.suffix == ".npy"
    if _finished(out, job, single=single, overwrite=overwrite):
        return open_embeddings(out)
    folder = out.with_name(out.name + ".parts") if single else out
    # Finished shards of a single file are a job that was killed at its last step; a finished folder is an output.
    done = _resume(folder, job, overwrite=overwrite, again=overwrite and not single)
    already = sum(done.rows)
    done, cut = write_parts(
        texts,
        encoder,
        folder / "manifest.json",
        done,
        rows=range(len(texts)),
        show_progress=show_progress,
        stop=stop,
    )
    if single:
        join_parts([folder / part_name(number) for number in range(len(done.rows))], out, done)
        shutil.rmtree(folder, ignore_errors=True)
    if cut and isinstance(encoder, BatchEncoder):
        warnings.warn(over_long(encoder, cut, len(texts) - already), FliplensWarning, stacklevel=2)
    return open_embeddings(out)


def job_of(texts: Sequence[str], encoder: Encoder, *, name: str, dtype: str, rows_per_part: int) -> Manifest:
    """Return the manifest of a job of which nothing is done; see `encode_texts` for arguments and errors."""
    if dtype not in FLOAT_TYPES:
        raise InputError(f"expected dtype {', '.join(FLOAT_TYPES)}, found {dtype!r}")
    if not texts:
        raise InputError(f"expected texts to encode in {name}, found none")
    return Manifest(
        encoder=encoder.spec,
        revision=encoder.revision,
        dim=encoder.dim,
        dtype=dtype,
        normalised=encoder.normalised,
        precision=getattr(encoder, "precision", None),
        source={
            "name": name,
            "rows": len(texts),
            "sha256": hash_of_texts(texts),
            "rows_per_part": rows_per_part,
        },
        complete=False,
    )


def write_parts(
    texts: Sequence[str],
    encoder: Encoder,
    manifest: Path,
    done: Manifest,
    *,
    rows: range,
    show_progress: bool,
    stop: Callable[[], bool] | None,
) -> tuple[Manifest, int]:
    """Encode rows from where `done` ends, part by part, each whole or absent, with a manifest of what is done.

    Args:
        texts: all rows of the job.
        encoder: what makes the vectors.
        manifest: where the manifest lies, beside the parts.
        done: what it says, of parts that are there.
        rows: those to encode, from the start of a part to the end of one.
        show_progress: a bar on stderr.
        stop: asked before every part.

    Returns:
        The manifest, complete, and how many texts the model read only the start of.

    Raises:
        InputError: see `encode_texts`.
        FliplensError: see there.
        InterruptedRunError: see there.
    """
    folder, name, step = manifest.parent, done.source["name"], done.source["rows_per_part"]
    cut, kept, cost, written = 0, len(done.rows), 0.0, time.monotonic()
    with Progress("encode", total=len(rows), unit="texts", show=show_progress, done=sum(done.rows)) as bar:
        try:
            while (start := rows.start + sum(done.rows)) < rows.stop:
                if stop is not None and stop():
                    raise InterruptedRunError(
                        f"interrupted; {start - rows.start} of {len(rows)} rows are kept in {folder}: run the same "
                        "command again to go on"
                    )
                some = texts[start : min(start + step, rows.stop)]
                with _told_where_to_go_on(start, name, folder):
                    vectors, cut_here = _encode(encoder, some, bar)
                    _check(vectors, encoder, len(some), start=start, name=name)
                cut += cut_here
                part = folder / part_name(start // step)
                with atomic_file(part) as stream:
                    write_npy(stream, vectors.shape, iter([vectors]), done.dtype)
                done = dataclasses.replace(
                    done, rows=[*done.rows, len(some)], sha256=[*done.sha256, sha256_of_file(part)]
                )
                if time.monotonic() - written >= cost / MANIFEST_SHARE:
                    began = time.monotonic()
                    write_json(manifest, done.to_json())
                    kept, written = len(done.rows), time.monotonic()
                    cost = written - began
        except BaseException:
            # What is whole counts; where not even the manifest can be written, why the work ended is worth more.
            if kept < len(done.rows):
                with contextlib.suppress(OSError):
                    write_json(manifest, done.to_json())
            raise
    done = dataclasses.replace(done, complete=True)
    write_json(manifest, done.to_json())
    return done, cut


@contextlib.contextmanager
def _told_where_to_go_on(start: int, name: str, folder: Path) -> Iterator[None]:
    """Make what an encoder fails with one line that says where the same command goes on."""
    tail = f"; the rows before are kept in {folder}, the same command goes on at row {start} of {name} (from 0)"
    try:
        yield
    except InterruptedRunError:
        raise
    except FliplensError as error:
        kind = InputError if isinstance(error, InputError) else FliplensError
        raise kind(f"{error}{tail}") from error
    except Exception as error:
        # Whatever a model or its server fails with: the job is as whole as before, and can be gone on with.
        reason = " ".join(str(error).split())[:300]
        raise FliplensError(
            f"expected vectors of the {'next ' if start else 'first '}rows, found {type(error).__name__}"
            f"{': ' if reason else ''}{reason}{tail}"
        ) from error


def _check(vectors: NDArray[np.float32], encoder: Encoder, rows: int, *, start: int, name: str) -> None:
    if vectors.shape != (rows, encoder.dim):
        raise FliplensError(
            f"expected {rows} vectors of {encoder.dim} dimensions from {encoder.spec}, found shape {vectors.shape}"
        )
    if not np.isfinite(vectors).all():
        row = start + int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
        raise FliplensError(
            f"expected finite vectors from {encoder.spec}, found NaN or infinite values for row {row} of {name}"
        )


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


def same_job(found: Manifest, job: Manifest) -> bool:
    """Tell whether rows of both are vectors of the same texts by the same encoder."""
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
        if same_job(found, job):
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
        if same_job(found, job) and not _same_precision(found, job) and not overwrite:
            raise InputError(
                f"expected to go on in {found.precision}, as the {sum(found.rows)} rows in {folder} were encoded, "
                f"found {job.precision}: pass --precision {found.precision}, or --overwrite to start again"
            )
        if same_job(found, job) and _same_precision(found, job) and not (again and found.complete):
            remove_leftovers(folder)
            return intact(folder, found)
    check_free(folder, kind=SHARDS, overwrite=overwrite)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write_json(path, job.to_json())
    return job


def intact(folder: Path, found: Manifest, *, first: int = 0) -> Manifest:
    """Return the manifest of a job up to its first part that is damaged or gone.

    A part is renamed into place before the manifest counts it, so counted parts are whole; but a disk may have
    failed since.

    Args:
        folder: where the parts lie.
        found: what was done.
        first: number of its first part.
    """
    good = 0
    for number, digest in enumerate(found.sha256, first):
        part = folder / part_name(number)
        if not part.is_file() or sha256_of_file(part) != digest:
            break
        good += 1
    return dataclasses.replace(found, rows=found.rows[:good], sha256=found.sha256[:good], complete=False)


def join_parts(parts: Sequence[Path], out: Path, manifest: Manifest) -> None:
    """Make one `.npy` of parts, its manifest beside it."""
    rows = sum(manifest.rows)
    # One part after the other: all of them at once may be more files than a process may have open.
    blocks = (block for part in parts for _, block in open_embeddings(part).blocks())
    remove_leftovers(out.absolute().parent, lambda name: name == out.name)
    with atomic_file(out) as stream:
        write_npy(stream, (rows, manifest.dim), blocks, manifest.dtype)
        stream.flush()
        # The manifest comes first: a kill before the file has its name leaves a job that the shards finish.
        whole = dataclasses.replace(manifest, rows=[rows], sha256=[sha256_of_file(stream.name)])
        # An old file under that name goes before the new manifest comes: the two must never be taken for a pair.
        out.unlink(missing_ok=True)
        write_json(manifest_path(out), whole.to_json())
