"""Encoding recordings to disk: a list of files of audio to one vector a line of it, resumable as text is.

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
from fliplens.encoding import Inputs, Part, encode_rows
from fliplens.errors import InputError
from fliplens.files import sha256_of_lines
from fliplens.long_texts import hash_of_texts
from fliplens.progress import Progress

if TYPE_CHECKING:
    from fliplens.embeddings import Embeddings

__all__ = ["encode_audio"]

ROWS_PER_PART = 512


def encode_audio(
    paths: Sequence[str],
    encoder: Encoder,
    out: str | Path,
    *,
    folder: str | Path = ".",
    name: str = "recordings",
    skip_bad: bool = False,
    dtype: str = "float32",
    rows_per_part: int = ROWS_PER_PART,
    overwrite: bool = False,
    show_progress: bool = False,
    stop: Callable[[], bool] | None = None,
) -> Embeddings:
    """Encode recordings to `out`, going on from whatever an interrupted run of the same job left there.

    Args:
        paths: files of audio, one row each, perhaps those of `fliplens.long_texts.open_texts`; memory holds no
            more of the files than a batch needs.
        encoder: a speech encoder.
        out: see `encode_texts`.
        folder: where paths that are relative start; not part of the job, so that data may be moved as a whole.
        name: what the manifest and messages call the list.
        skip_bad: give a file that cannot be read a row of NaN, and list it in `bad_list(out)`, rather than stop. Both
            kinds of run are one job: what stopped at a file goes on with it.
        dtype: see `encode_texts`.
        rows_per_part: rows a shard; what a kill can lose.
        overwrite: replace what another job left at `out`.
        show_progress: a bar on stderr.
        stop: see `encode_texts`.

    Returns:
        The finished embeddings, memory-mapped; rows of NaN are what `drop_bad_rows` elsewhere leaves out.

    Raises:
        InputError: no paths, no speech encoder, a file that cannot be read (the message names its line); or as
            `encode_texts`. Also where files of a finished job have changed since.
        FliplensError: see `encode_texts`.

    Warns:
        FliplensWarning: see `encode_texts`.
    """
    if not paths:
        raise InputError(f"expected recordings to encode in {name}, found none")
    if encoder.modality != "speech" or not isinstance(encoder, SpeechEncoder):
        raise InputError(f"expected an encoder of speech for {name}, found {encoder.spec}, of {encoder.modality}")

    def files(start: int, end: int) -> list[Path]:
        return [Path(folder) / path for path in paths[start:end]]

    def encode(start: int, end: int, bar: Progress, heed: Callable[[], None]) -> Part:
        vectors, cut = np.full((end - start, encoder.dim), np.nan, dtype=np.float32), 0
        bad: dict[int, str] = {}

        def on_bad(row: int, error: InputError) -> None:
            if not skip_bad:
                raise InputError(
                    f"line {start + row + 1} of {name}: {error}; mend it, or pass --skip-bad (skip_bad=True) "
                    "for a row of NaN"
                ) from error
            bad[row] = str(error)
            bar.update()

        for batch in encoder.batches(files(start, end), on_bad=on_bad):
            vectors[batch.rows] = batch.vectors
            cut += batch.cut
            bar.update(len(batch.rows))
            heed()
        return Part(vectors, cut, bad)

    inputs = Inputs(
        rows=len(paths),
        name=name,
        unit="recordings",
        identity={"modality": "speech", "sha256": hash_of_texts(paths)},
        encode=encode,
        state=lambda start, end: sha256_of_lines(map(_state, files(start, end))),
        listed=lambda row: paths[row],
    )
    return encode_rows(
        inputs,
        encoder,
        out,
        dtype=dtype,
        rows_per_part=rows_per_part,
        overwrite=overwrite,
        show_progress=show_progress,
        stop=stop,
        stacklevel=3,
    )


def _state(file: Path) -> str:
    """Return size and time of change of a file; "" of what is none."""
    try:
        found = file.stat()
    except OSError:
        return ""
    return f"{found.st_size} {found.st_mtime_ns}" if stat.S_ISREG(found.st_mode) else ""
