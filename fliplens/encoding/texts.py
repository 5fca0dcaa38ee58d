"""Encoding to disk, resumably: a killed job goes on where it stopped.

What a job is stands in `fliplens.encoding.jobs`, the loop over its parts in `fliplens.encoding.parts`. Recordings are
in `fliplens.encoding.recordings`; how several machines share one job, in `fliplens.encoding.shards`.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from fliplens.embeddings import Embeddings, Manifest, manifest_path, open_embeddings, part_name
from fliplens.embeddings.npy import damage_of
from fliplens.encoders import BatchEncoder, Encoder, over_long
from fliplens.encoding.jobs import (
    SHARDS,
    Inputs,
    Part,
    bad_beside,
    bad_list,
    check_output,
    check_unchanged,
    damaged_parts,
    difference,
    intact,
    job_of,
    kept_bad,
    same_job,
    same_precision,
    warn_of_damage,
)
from fliplens.encoding.parts import join_parts, write_parts
from fliplens.errors import FliplensWarning, InputError
from fliplens.files import check_free, is_empty, remove_leftovers, write_json
from fliplens.text.long_texts import hash_of_texts

__all__ = ["ROWS_PER_PART", "bad_list", "encode_lines", "encode_rows", "encode_texts", "text_inputs"]

ROWS_PER_PART = 4096


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

    Parts of a folder that are damaged or missing are made again: of a job under way those of another hash, of a
    finished one those whose header or size is not as it should be.

    Args:
        texts: one row each; those of `fliplens.text.long_texts.open_texts` are read as they are encoded.
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
            done before, in another precision than the encoder has now. Or parts are made again; which.
    """
    return encode_rows(
        text_inputs(texts, encoder, name=name),
        encoder,
        out,
        dtype=dtype,
        rows_per_part=rows_per_part,
        overwrite=overwrite,
        show_progress=show_progress,
        stop=stop,
        stacklevel=3,
    )


def text_inputs(texts: Sequence[str], encoder: Encoder, *, name: str) -> Inputs:
    """Return texts as what a job encodes.

    Raises:
        InputError: there are none.
    """
    if not texts:
        raise InputError(f"expected texts to encode in {name}, found none")

    def encode(start: int, end: int, moved: Callable[[int], None]) -> Part:
        return encode_lines(encoder, texts[start:end], moved=moved)

    return Inputs(
        rows=len(texts),
        name=name,
        unit="texts",
        identity={"sha256": hash_of_texts(texts)},
        encode=encode,
    )


def encode_rows(
    inputs: Inputs,
    encoder: Encoder,
    out: str | Path,
    *,
    dtype: str,
    rows_per_part: int,
    overwrite: bool,
    show_progress: bool,
    stop: Callable[[], bool] | None = None,
    stacklevel: int = 2,
) -> Embeddings:
    """Encode whatever `inputs` stands for, part by part; see `encode_texts` for the other arguments and errors.

    Rows whose input cannot be read come out as NaN and are listed in `bad_list(out)`, a line of JSON each.

    Args:
        inputs: what to encode.
        encoder: what makes the vectors.
        out: see `encode_texts`.
        dtype: see there.
        rows_per_part: see there.
        overwrite: see there.
        show_progress: see there.
        stop: see there.
        stacklevel: of warnings, as in `warnings.warn`.
    """
    out = check_output(out)
    job = job_of(inputs, encoder, dtype=dtype, rows_per_part=rows_per_part)
    single = out.suffix == ".npy"
    if _finished(out, job, inputs, single=single, overwrite=overwrite, stacklevel=stacklevel + 1):
        return open_embeddings(out)
    folder = out.with_name(out.name + ".parts") if single else out
    # Finished shards of a single file are a job that was killed at its last step; a finished folder is an output.
    done, damaged = _resume(folder, job, inputs, overwrite=overwrite, again=overwrite and not single)
    warn_of_damage(folder, damaged, len(done.rows), stacklevel=stacklevel)
    already = sum(done.rows) - sum(done.rows[number] for number in damaged)
    done, cut = write_parts(
        inputs,
        encoder,
        folder / "manifest.json",
        done,
        rows=range(inputs.rows),
        show_progress=show_progress,
        stop=stop,
        damaged=damaged,
    )
    if single:
        parts = [folder / part_name(number) for number in range(len(done.rows))]
        join_parts(parts, out, done, bad=kept_bad(bad_beside(folder / "manifest.json"), inputs.rows))
        shutil.rmtree(folder, ignore_errors=True)
    if cut and isinstance(encoder, BatchEncoder):
        warnings.warn(over_long(encoder, cut, inputs.rows - already), FliplensWarning, stacklevel=stacklevel)
    return open_embeddings(out)


def encode_lines(encoder: Encoder, texts: Sequence[str], *, moved: Callable[[int], None]) -> Part:
    """Encode some texts that follow one another.

    Args:
        encoder: what makes the vectors.
        texts: k texts.
        moved: told after every batch how many rows are done with.
    """
    if not isinstance(encoder, BatchEncoder):
        vectors = encoder.encode(texts)
        moved(len(texts))
        return Part(vectors)
    vectors, cut = np.empty((len(texts), encoder.dim), dtype=np.float32), 0
    for batch in encoder.batches(texts):
        vectors[batch.rows] = batch.vectors
        cut += batch.cut
        moved(len(batch.rows))
    return Part(vectors, cut)


def _finished(out: Path, job: Manifest, inputs: Inputs, *, single: bool, overwrite: bool, stacklevel: int) -> bool:
    """Return whether `out` already holds this very job, whole; refuse to replace anything else unasked."""
    if single and out.is_dir():
        raise InputError(f"expected an .npy file to write at {out}, found a folder: name another place")
    taken = out.is_file() or not is_empty(out)
    if not taken or overwrite:
        return False
    manifest = manifest_path(out)
    if manifest.is_file():
        found = Manifest.load(manifest)
        if same_job(found, job):
            if found.complete:
                check_unchanged(found, inputs, out)
                if single and (damage := damage_of(out, (inputs.rows, found.dim), found.dtype)):
                    raise InputError(
                        f"expected {out} as it was encoded, found it {damage}: pass --overwrite to encode it again"
                    )
                if not single and damaged_parts(out, found, range(len(found.rows))):
                    return False
            if found.complete and not same_precision(found, job):
                warnings.warn(
                    f"{out} was encoded before, in {found.precision}, and is left as it is: for vectors in "
                    f"{job.precision} pass --overwrite",
                    FliplensWarning,
                    stacklevel=stacklevel,
                )
            return found.complete
        other = f"vectors {difference(found, job)}"
    else:
        other = "vectors or files"
    raise _other(out, other)


def _resume(
    folder: Path, job: Manifest, inputs: Inputs, *, overwrite: bool, again: bool
) -> tuple[Manifest, list[int]]:
    """Return the manifest of what is done, empty and written for a new job, and which of its parts are damaged."""
    path = folder / "manifest.json"
    if path.is_file():
        found = Manifest.load(path)
        if same_job(found, job) and not same_precision(found, job) and not overwrite:
            raise InputError(
                f"expected to go on in {found.precision}, as the {sum(found.rows)} rows in {folder} were encoded, "
                f"found {job.precision}: pass --precision {found.precision}, or --overwrite to start again"
            )
        if same_job(found, job) and same_precision(found, job) and not (again and found.complete):
            remove_leftovers(folder)
            done, damaged = intact(path, inputs)
            if damaged and found.complete:
                # A run that is killed while it mends a finished folder compares hashes again.
                write_json(path, done.to_json())
            return done, damaged
        if not same_job(found, job) and not overwrite:
            raise _other(folder, f"vectors {difference(found, job)}")
    check_free(folder, kind=SHARDS, overwrite=overwrite)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write_json(path, job.to_json())
    return job, []


def _other(place: Path, other: str) -> InputError:
    return InputError(
        f"expected {place} to be free or to hold this job, found other {other}: name another place, or pass "
        "--overwrite"
    )
