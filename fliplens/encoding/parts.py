"""The one loop that encodes: part by part, each whole or absent, with a manifest of what is done beside them."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fliplens.embeddings import Manifest, manifest_path, open_embeddings, part_name, write_npy
from fliplens.encoders import Encoder
from fliplens.encoding.jobs import Inputs, bad_beside, bad_list, kept_bad, list_bad, with_grown
from fliplens.errors import FliplensError, InputError, InterruptedRunError, reason_of
from fliplens.files import atomic_file, remove_leftovers, sha256_of_file, write_json
from fliplens.progress import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["check_vectors", "join_parts", "write_parts"]

MANIFEST_SHARE = 0.05
"""Of the time, at most, goes into writing manifests and lists of bad rows: of a job of many parts they grow long."""


def write_parts(
    inputs: Inputs,
    encoder: Encoder,
    manifest: Path,
    done: Manifest,
    *,
    rows: range,
    show_progress: bool,
    stop: Callable[[], bool] | None,
    damaged: Sequence[int] = (),
) -> tuple[Manifest, int]:
    """Encode damaged parts and rows from where `done` ends, part by part, each whole or absent, with a manifest.

    Args:
        inputs: all rows of the job.
        encoder: what makes the vectors.
        manifest: where the manifest lies, beside the parts.
        done: what it says, of parts that are there or in `damaged`. Where it is complete it stays so meanwhile.
        rows: those to encode, from the start of a part to the end of one.
        show_progress: a bar on stderr.
        stop: asked before every part; of an encoder that keeps its answers itself, after every batch too.
        damaged: numbers of parts that `done` counts and that are made again, ascending.

    Returns:
        The manifest, complete, and how many inputs the model read only the start of.

    Raises:
        InputError: see `fliplens.encoding.texts.encode_texts`.
        FliplensError: see there.
        InterruptedRunError: see there.
    """
    folder, step = manifest.parent, done.source["rows_per_part"]
    cut, cost, written, finished = 0, 0.0, time.monotonic(), done.complete
    first = rows.start // step
    todo = [*damaged, *range(first + len(done.rows), -(-rows.stop // step))]
    missing = sum(done.rows[number - first] for number in damaged)
    made = kept = 0
    bad = kept_bad(bad_beside(manifest), rows.start + sum(done.rows))
    files = done.source.get("files", [])

    def keep(known: Manifest) -> None:
        # The list comes first: what it says of rows that the manifest does not count is left out by who goes on.
        list_bad(bad_beside(manifest), bad)
        write_json(manifest, known.to_json())

    def interrupted() -> InterruptedRunError:
        return InterruptedRunError(
            f"interrupted; {sum(done.rows) - missing} of {len(rows)} rows are kept in {folder}: run the same "
            "command again to go on"
        )

    def moved(more: int) -> None:
        bar.update(more)
        # A part of local work is ended first, not to be lost; what a service answered is kept by content anyway.
        if stop is not None and getattr(encoder, "keeps_answers", False) and stop():
            raise interrupted()

    with Progress(
        "encode", total=len(rows), unit=inputs.unit, show=show_progress, done=sum(done.rows) - missing
    ) as bar:
        try:
            for number in todo:
                if stop is not None and stop():
                    raise interrupted()
                start, end = number * step, min((number + 1) * step, rows.stop)
                # Before they are read: files that change meanwhile are then found to have changed.
                state = None if inputs.state is None else inputs.state(start, end)
                with _told_where_to_go_on(start, inputs.name, folder):
                    vectors, cut_here, bad_here = inputs.encode(start, end, moved)
                    check_vectors(vectors, end - start, start, encoder, inputs.name, bad_here)
                cut += cut_here
                part = folder / part_name(number)
                with atomic_file(part) as stream:
                    write_npy(stream, vectors.shape, iter([vectors]), done.dtype)
                if made < len(damaged):
                    bad = [line for line in bad if not start <= json.loads(line)["row"] < end]
                    missing -= done.rows[number - first]
                bad += [
                    json.dumps({"row": start + row, "input": inputs.listed(start + row), "error": why})
                    for row, why in sorted(bad_here.items())
                ]
                if made < len(damaged):
                    bad.sort(key=lambda line: int(json.loads(line)["row"]))
                place = number - first
                if state is not None:
                    files = [*files[:place], state, *files[place + 1 :]]
                done = dataclasses.replace(
                    done,
                    rows=[*done.rows[:place], end - start, *done.rows[place + 1 :]],
                    sha256=[*done.sha256[:place], sha256_of_file(part), *done.sha256[place + 1 :]],
                    source=with_grown(done.source, None if state is None else files, len(bad)),
                )
                made += 1
                if time.monotonic() - written >= cost / MANIFEST_SHARE:
                    began = time.monotonic()
                    keep(done)
                    kept, written = made, time.monotonic()
                    cost = written - began
            done = dataclasses.replace(done, complete=True)
            keep(done)
        except BaseException as error:
            # What is whole counts; where not even the manifest can be written, why the work ended is worth more.
            if kept < made:
                with contextlib.suppress(OSError):
                    keep(dataclasses.replace(done, complete=finished))
                    kept = made
            if isinstance(error, OSError):
                raise FliplensError(
                    f"expected to write to {folder}, found {reason_of(error.strerror or error)}; nothing is half "
                    f"written and the rows before are kept: make room, and the same command goes on at row "
                    f"{todo[kept] * step if kept < len(todo) else rows.stop} of {inputs.name} (from 0)"
                ) from error
            raise
    return done, cut


def join_parts(parts: Sequence[Path], out: Path, manifest: Manifest, *, bad: Sequence[str] = ()) -> None:
    """Make one `.npy` of parts, its manifest and the list of `bad` rows beside it.

    Raises:
        FliplensError: it cannot be written; the parts are left as they are.
    """
    rows = sum(manifest.rows)
    # One part after the other: all of them at once may be more files than a process may have open.
    blocks = (block for part in parts for _, block in open_embeddings(part).blocks())
    remove_leftovers(out.absolute().parent, lambda name: name == out.name)
    try:
        with atomic_file(out) as stream:
            write_npy(stream, (rows, manifest.dim), blocks, manifest.dtype)
            stream.flush()
            # The manifest comes first: a kill before the file has its name leaves a job that the shards finish.
            whole = dataclasses.replace(manifest, rows=[rows], sha256=[sha256_of_file(stream.name)])
            # An old file under that name goes before the new manifest comes: the two must never be taken for a pair.
            out.unlink(missing_ok=True)
            list_bad(bad_list(out), bad)
            write_json(manifest_path(out), whole.to_json())
    except OSError as error:
        size = rows * manifest.dim * np.dtype(manifest.dtype).itemsize
        places = ", ".join(sorted({str(part.parent) for part in parts}))
        raise FliplensError(
            f"expected to write {size / 1e9:.3g} GB to {out}, found {reason_of(error.strerror or error)}; all "
            f"{rows} rows are kept in {places}: make room, and the same command takes this last step again"
        ) from error


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


def check_vectors(
    vectors: NDArray[np.float32], rows: int, start: int, encoder: Encoder, name: str, bad: Mapping[int, str]
) -> None:
    """Refuse vectors of another shape, and such as are not finite but for bad rows.

    Args:
        vectors: what the encoder gave.
        rows: for how many inputs.
        start: the row of the first.
        encoder: what made them.
        name: what messages call the inputs.
        bad: of the rows, counted from `start`, those that may be NaN.

    Raises:
        FliplensError: see above.
    """
    if vectors.shape != (rows, encoder.dim):
        raise FliplensError(
            f"expected {rows} vectors of {encoder.dim} dimensions from {encoder.spec}, found shape {vectors.shape}"
        )
    wrong = np.setdiff1d(np.flatnonzero(~np.isfinite(vectors).all(axis=1)), list(bad))
    if len(wrong):
        raise FliplensError(
            f"expected finite vectors from {encoder.spec}, found NaN or infinite values for row "
            f"{start + int(wrong[0])} of {name}"
        )
