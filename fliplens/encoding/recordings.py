"""Encoding recordings to disk: a list of files of audio to one vector a line of it, resumed and shared as text is.

What tells one job from another is the list itself and, part by part, each file's size and time of change. These cost
one look at the file system a recording, and only for what is done already: a file that was mended after a job stopped
at it costs nothing that comes before.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fliplens.encoders import Encoder, SpeechEncoder
from fliplens.encoding.jobs import Inputs, Part
from fliplens.encoding.shards import Shard, ShardDone, encode_shard_rows
from fliplens.encoding.texts import encode_rows
from fliplens.errors import InputError
from fliplens.files import sha256_of_lines
from fliplens.text.long_texts import hash_of_texts

if TYPE_CHECKING:
    from fliplens.embeddings import Embeddings

__all__ = ["audio_files", "audio_inputs", "encode_audio", "encode_audio_shard", "encode_files", "state_of_files"]

ROWS_PER_PART = 512


def encode_audio(
    paths: Sequence[str],
    encoder: Encoder,
    out: str | Path,
    *,
    name: str = "recordings",
    dtype: str = "float32",
    rows_per_part: int = ROWS_PER_PART,
    overwrite: bool = False,
    show_progress: bool = False,
    stop: Callable[[], bool] | None = None,
    folder: str | Path = ".",
    skip_bad: bool = False,
) -> Embeddings:
    """Encode recordings to `out`, going on from whatever an interrupted run of the same job left there.

    Args:
        paths: files of audio, one row each, perhaps those of `fliplens.text.long_texts.open_texts`; memory holds no
            more of the files than a batch needs.
        encoder: a speech encoder.
        out: see `encode_texts`.
        name: what the manifest and messages call the list.
        dtype: see `encode_texts`.
        rows_per_part: rows a shard; what a kill can lose.
        overwrite: replace what another job left at `out`.
        show_progress: a bar on stderr.
        stop: see `encode_texts`.
        folder: where paths that are relative start; not part of the job, so that data may be moved as a whole.
        skip_bad: give a file that cannot be read a row of NaN, and list it in `bad_list(out)`, rather than stop. Both
            kinds of run are one job: what stopped at a file goes on with it.

    Returns:
        The finished embeddings, memory-mapped; rows of NaN are what `drop_bad_rows` elsewhere leaves out.

    Raises:
        InputError: no paths, no speech encoder, a file that cannot be read (the message names its line); or as
            `encode_texts`. Also where files of a finished job have changed since.
        FliplensError: see `encode_texts`.

    Warns:
        FliplensWarning: see `encode_texts`.
    """
    return encode_rows(
        audio_inputs(paths, encoder, name=name, folder=folder, skip_bad=skip_bad),
        encoder,
        out,
        dtype=dtype,
        rows_per_part=rows_per_part,
        overwrite=overwrite,
        show_progress=show_progress,
        stop=stop,
        stacklevel=3,
    )


def encode_audio_shard(
    paths: Sequence[str],
    encoder: Encoder,
    out: str | Path,
    shard: Shard,
    *,
    name: str = "recordings",
    dtype: str = "float32",
    rows_per_part: int = ROWS_PER_PART,
    overwrite: bool = False,
    show_progress: bool = False,
    stop: Callable[[], bool] | None = None,
    folder: str | Path = ".",
    skip_bad: bool = False,
) -> ShardDone:
    """Encode one shard of a list of recordings, as `fliplens.encoding.shards.encode_shard` does one of texts.

    The list is the same on every machine, and the files of a shard's own rows must be there.

    Args:
        paths: all rows of the job; see `encode_audio`.
        encoder: a speech encoder.
        out: a folder.
        shard: which rows.
        name: see `encode_audio`.
        dtype: see there.
        rows_per_part: see there.
        overwrite: encode this shard anew; what else is in the folder is left as it is.
        show_progress: see `encode_audio`.
        stop: see there.
        folder: see there.
        skip_bad: see there; bad rows of the shard are listed in `ShardDone.bad_list`, those of all shards in
            `bad_list(out)` once the folder is whole.

    Raises:
        InputError: see `encode_audio` and `encode_shard`.
        FliplensError: see `encode_texts`.
        InterruptedRunError: see there.

    Warns:
        FliplensWarning: see there.
    """
    return encode_shard_rows(
        audio_inputs(paths, encoder, name=name, folder=folder, skip_bad=skip_bad),
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


def audio_inputs(
    paths: Sequence[str], encoder: Encoder, *, name: str, folder: str | Path = ".", skip_bad: bool = False
) -> Inputs:
    """Return recordings as what a job encodes; see `encode_audio` for the arguments.

    Raises:
        InputError: there are none, or the encoder is not of speech.
    """
    if not paths:
        raise InputError(f"expected recordings to encode in {name}, found none")
    if encoder.modality != "speech" or not isinstance(encoder, SpeechEncoder):
        raise InputError(f"expected an encoder of speech for {name}, found {encoder.spec}, of {encoder.modality}")

    def encode(start: int, end: int, moved: Callable[[int], None]) -> Part:
        files = audio_files(paths, start, end, folder=folder)
        return encode_files(encoder, files, start=start, name=name, skip_bad=skip_bad, moved=moved)

    return Inputs(
        rows=len(paths),
        name=name,
        unit="recordings",
        identity={"modality": "speech", "sha256": hash_of_texts(paths)},
        encode=encode,
        state=lambda start, end: state_of_files(audio_files(paths, start, end, folder=folder)),
        listed=lambda row: paths[row],
    )


def audio_files(paths: Sequence[str], start: int, end: int, *, folder: str | Path) -> list[Path]:
    """Return where the files of rows start..end lie; of a blank line, one in `folder` that has a blank name."""
    return [Path(folder) / (path if path.strip() else " ") for path in paths[start:end]]


def encode_files(
    encoder: SpeechEncoder,
    files: Sequence[Path],
    *,
    start: int,
    name: str,
    skip_bad: bool,
    moved: Callable[[int], None],
) -> Part:
    """Encode some files of a list.

    Args:
        encoder: what makes the vectors.
        files: k files of audio.
        start: the row of the first.
        name: what messages call the list.
        skip_bad: give one that cannot be read a row of NaN.
        moved: told after every batch how many rows are done with.

    Raises:
        InputError: a file cannot be read, and is not to be skipped.
    """
    vectors, cut = np.full((len(files), encoder.dim), np.nan, dtype=np.float32), 0
    bad: dict[int, str] = {}

    def on_bad(row: int, error: InputError) -> None:
        if not files[row].name.strip():
            error = InputError("expected the path of a recording, found a blank line")
        if not skip_bad:
            raise InputError(
                f"line {start + row + 1} of {name}: {error}; mend it, or pass --skip-bad (skip_bad=True) "
                "for a row of NaN"
            ) from error
        bad[row] = str(error)
        moved(1)

    for batch in encoder.batches(files, on_bad=on_bad):
        vectors[batch.rows] = batch.vectors
        cut += batch.cut
        moved(len(batch.rows))
    return Part(vectors, cut, bad)


def state_of_files(files: Sequence[Path]) -> str:
    """Return what changes when one of some files does: a hash of their sizes and times of change."""
    return sha256_of_lines(map(_state, files))


def _state(file: Path) -> str:
    """Return size and time of change of a file; "" of what is none."""
    try:
        found = file.stat()
    except OSError:
        return ""
    return f"{found.st_size} {found.st_mtime_ns}" if stat.S_ISREG(found.st_mode) else ""
