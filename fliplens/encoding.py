"""Encoding to disk: in parts, each whole or absent, so that a killed job goes on where it stopped.

One loop, `write_parts`, encodes whatever `Inputs` stands for. Recordings are in `fliplens.audio_encoding`; how
several machines share one job, in `fliplens.encoding_shards`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

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
from fliplens.errors import FliplensError, FliplensWarning, InputError, InterruptedRunError, reason_of
from fliplens.files import (
    FolderKind,
    atomic_file,
    check_free,
    is_empty,
    read_lines,
    remove_leftovers,
    sha256_of_file,
    write_json,
    write_lines,
)
from fliplens.long_texts import hash_of_texts
from fliplens.progress import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "ROWS_PER_PART",
    "SHARDS",
    "Inputs",
    "Part",
    "bad_list",
    "encode_rows",
    "encode_texts",
    "intact",
    "job_of",
    "join_parts",
    "same_job",
    "text_inputs",
    "write_parts",
]

ROWS_PER_PART = 4096
BAD_LIST = "bad.jsonl"
SHARDS = FolderKind("manifest.json", r"manifest\.json|part-\d+\.npy|bad\.jsonl|\..+\.tmp")
MANIFEST_SHARE = 0.05
"""Of the time, at most, goes into writing manifests and lists of bad rows: of a job of many parts they grow long."""
GROWING = ("files", "bad")
"""What the manifest says of the source only as parts are done: a job that goes on does not know it yet."""


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
    encode: Callable[[int, int, Progress, Callable[[], None]], Part]
    """Encodes rows start..stop, moving the bar; calls what it is given last after every batch."""
    state: Callable[[int, int], str] | None = None
    """Of inputs that are files: what changes when those of rows start..stop do."""
    listed: Callable[[int], str] = str
    """How a row is called in the list of bad ones."""


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
    return Inputs(
        rows=len(texts),
        name=name,
        unit="texts",
        identity={"sha256": hash_of_texts(texts)},
        encode=lambda start, stop, bar, heed: _encode(encoder, texts[start:stop], bar, heed),
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
    out = Path(out)
    job = job_of(inputs, encoder, dtype=dtype, rows_per_part=rows_per_part)
    single = out.suffix == ".npy"
    if _finished(out, job, inputs, single=single, overwrite=overwrite, stacklevel=stacklevel + 1):
        return open_embeddings(out)
    folder = out.with_name(out.name + ".parts") if single else out
    # Finished shards of a single file are a job that was killed at its last step; a finished folder is an output.
    done = _resume(folder, job, inputs, overwrite=overwrite, again=overwrite and not single)
    already = sum(done.rows)
    done, cut = write_parts(
        inputs,
        encoder,
        folder / "manifest.json",
        done,
        rows=range(inputs.rows),
        show_progress=show_progress,
        stop=stop,
    )
    if single:
        parts = [folder / part_name(number) for number in range(len(done.rows))]
        join_parts(parts, out, done, bad=_kept_bad(folder, inputs.rows))
        shutil.rmtree(folder, ignore_errors=True)
    if cut and isinstance(encoder, BatchEncoder):
        warnings.warn(over_long(encoder, cut, inputs.rows - already), FliplensWarning, stacklevel=stacklevel)
    return open_embeddings(out)


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


def write_parts(
    inputs: Inputs,
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
        inputs: all rows of the job.
        encoder: what makes the vectors.
        manifest: where the manifest lies, beside the parts.
        done: what it says, of parts that are there.
        rows: those to encode, from the start of a part to the end of one.
        show_progress: a bar on stderr.
        stop: asked before every part; of an encoder that keeps its answers itself, after every batch too.

    Returns:
        The manifest, complete, and how many inputs the model read only the start of.

    Raises:
        InputError: see `encode_texts`.
        FliplensError: see there.
        InterruptedRunError: see there.
    """
    folder, step = manifest.parent, done.source["rows_per_part"]
    cut, kept, cost, written = 0, len(done.rows), 0.0, time.monotonic()
    bad = _kept_bad(folder, rows.start + sum(done.rows))

    def keep(known: Manifest) -> None:
        # The list comes first: what it says of rows that the manifest does not count is left out by who goes on.
        _list_bad(folder / BAD_LIST, bad)
        write_json(manifest, known.to_json())

    def interrupted() -> InterruptedRunError:
        return InterruptedRunError(
            f"interrupted; {sum(done.rows)} of {len(rows)} rows are kept in {folder}: run the same command again "
            "to go on"
        )

    def heed() -> None:
        # A part of local work is ended first, not to be lost; what a service answered is kept by content anyway.
        if stop is not None and getattr(encoder, "keeps_answers", False) and stop():
            raise interrupted()

    with Progress("encode", total=len(rows), unit=inputs.unit, show=show_progress, done=sum(done.rows)) as bar:
        try:
            while (start := rows.start + sum(done.rows)) < rows.stop:
                if stop is not None and stop():
                    raise interrupted()
                end = min(start + step, rows.stop)
                # Before they are read: files that change meanwhile are then found to have changed.
                state = None if inputs.state is None else inputs.state(start, end)
                with _told_where_to_go_on(start, inputs.name, folder):
                    vectors, cut_here, bad_here = inputs.encode(start, end, bar, heed)
                    _check(vectors, end - start, start, encoder, inputs, bad_here)
                cut += cut_here
                part = folder / part_name(start // step)
                with atomic_file(part) as stream:
                    write_npy(stream, vectors.shape, iter([vectors]), done.dtype)
                source = dict(done.source)
                if bad_here:
                    bad += [
                        json.dumps({"row": start + row, "input": inputs.listed(start + row), "error": why})
                        for row, why in sorted(bad_here.items())
                    ]
                    source["bad"] = len(bad)
                if state is not None:
                    source["files"] = [*source.get("files", []), state]
                done = dataclasses.replace(
                    done,
                    rows=[*done.rows, end - start],
                    sha256=[*done.sha256, sha256_of_file(part)],
                    source=source,
                )
                if time.monotonic() - written >= cost / MANIFEST_SHARE:
                    began = time.monotonic()
                    keep(done)
                    kept, written = len(done.rows), time.monotonic()
                    cost = written - began
        except BaseException:
            # What is whole counts; where not even the manifest can be written, why the work ended is worth more.
            if kept < len(done.rows):
                with contextlib.suppress(OSError):
                    keep(done)
            raise
    done = dataclasses.replace(done, complete=True)
    keep(done)
    return done, cut


def bad_list(out: str | Path) -> Path:
    """Return where the rows of `out` are listed whose input could not be read; no such file where there are none."""
    out = Path(out)
    return out.with_suffix(f".{BAD_LIST}") if out.suffix == ".npy" else out / BAD_LIST


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
        reason = reason_of(f"{type(error).__name__}: {error}", 300)
        raise FliplensError(
            f"expected vectors of the {'next ' if start else 'first '}rows, found {reason}{tail}"
        ) from error


def _check(
    vectors: NDArray[np.float32], rows: int, start: int, encoder: Encoder, inputs: Inputs, bad: Mapping[int, str]
) -> None:
    """Refuse vectors of another shape, and such as are not finite but for bad rows."""
    if vectors.shape != (rows, encoder.dim):
        raise FliplensError(
            f"expected {rows} vectors of {encoder.dim} dimensions from {encoder.spec}, found shape {vectors.shape}"
        )
    wrong = np.setdiff1d(np.flatnonzero(~np.isfinite(vectors).all(axis=1)), list(bad))
    if len(wrong):
        raise FliplensError(
            f"expected finite vectors from {encoder.spec}, found NaN or infinite values for row "
            f"{start + int(wrong[0])} of {inputs.name}"
        )


def _kept_bad(folder: Path, rows: int) -> list[str]:
    """Return the lines of the list of bad rows that are of the first `rows`: the others are encoded again."""
    path = folder / BAD_LIST
    lines = read_lines(path) if path.is_file() else []
    return [line for line in lines if json.loads(line)["row"] < rows]


def _list_bad(path: Path, lines: Sequence[str]) -> None:
    """Write the list of bad rows, which is no file where there are none."""
    if lines:
        write_lines(path, lines)
    else:
        path.unlink(missing_ok=True)


def _encode(encoder: Encoder, texts: Sequence[str], bar: Progress, heed: Callable[[], None]) -> Part:
    """Return the vectors of some texts and how many were cut, moving the bar with every batch where that can be."""
    if not isinstance(encoder, BatchEncoder):
        vectors = encoder.encode(texts)
        bar.update(len(texts))
        return Part(vectors)
    vectors, cut = np.empty((len(texts), encoder.dim), dtype=np.float32), 0
    for batch in encoder.batches(texts):
        vectors[batch.rows] = batch.vectors
        cut += batch.cut
        bar.update(len(batch.rows))
        heed()
    return Part(vectors, cut)


def same_job(found: Manifest, job: Manifest) -> bool:
    """Tell whether rows of both are vectors of the same inputs by the same encoder."""
    names = ("encoder", "revision", "dim", "dtype", "normalised")
    if any(getattr(found, name) != getattr(job, name) for name in names):
        return False
    return {name: value for name, value in found.source.items() if name not in GROWING} == job.source


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


def _same_precision(found: Manifest, job: Manifest) -> bool:
    """Tell whether rows of both may stand in one file; where it is not known of one, they may."""
    return None in (found.precision, job.precision) or found.precision == job.precision


def _finished(out: Path, job: Manifest, inputs: Inputs, *, single: bool, overwrite: bool, stacklevel: int) -> bool:
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
                    stacklevel=stacklevel,
                )
            if found.complete and _unchanged(found, inputs) < len(found.source.get("files", [])):
                raise InputError(
                    f"expected the files of {inputs.name} as they were when {out} was encoded, found some that have "
                    "changed since: name another place, or pass --overwrite"
                )
            return found.complete
    raise InputError(
        f"expected {out} to be free or to hold this job, found other vectors or files: "
        "name another place, or pass --overwrite"
    )


def _resume(folder: Path, job: Manifest, inputs: Inputs, *, overwrite: bool, again: bool) -> Manifest:
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
            return intact(folder, found, inputs)
    check_free(folder, kind=SHARDS, overwrite=overwrite)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write_json(path, job.to_json())
    return job


def intact(folder: Path, found: Manifest, inputs: Inputs, *, first: int = 0) -> Manifest:
    """Return the manifest of a job up to its first part that is damaged or gone, or whose input has changed.

    A part is renamed into place before the manifest counts it, so counted parts are whole; but a disk may have
    failed since.

    Args:
        folder: where the parts lie.
        found: what was done.
        inputs: of the job.
        first: number of its first part.
    """
    good = 0
    for number, digest in enumerate(found.sha256[: _unchanged(found, inputs, first=first)], first):
        part = folder / part_name(number)
        if not part.is_file() or sha256_of_file(part) != digest:
            break
        good += 1
    rows = found.rows[:good]
    source = {name: value for name, value in found.source.items() if name not in GROWING}
    if "files" in found.source:
        source["files"] = found.source["files"][:good]
    if bad := len(_kept_bad(folder, first * found.source["rows_per_part"] + sum(rows))):
        source["bad"] = bad
    return dataclasses.replace(found, rows=rows, sha256=found.sha256[:good], source=source, complete=False)


def join_parts(parts: Sequence[Path], out: Path, manifest: Manifest, *, bad: Sequence[str] = ()) -> None:
    """Make one `.npy` of parts, its manifest and the list of `bad` rows beside it."""
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
        _list_bad(bad_list(out), bad)
        write_json(manifest_path(out), whole.to_json())
