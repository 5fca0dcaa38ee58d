"""Clips of speech: whether they are there, whole and of a fitting length; and the same at one rate."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from fliplens.audio import LONGEST, RATE, SHORTEST, audio_info, read_audio
from fliplens.corpora.counting import Counts
from fliplens.corpora.rows import Row
from fliplens.errors import InputError, MissingExtraError
from fliplens.files import atomic_file

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["AUDIO", "ClipBounds", "checked_rows", "converted_name", "decode_clip"]

AUDIO = ("header", "decode", "wav", "flac")
"""How far a clip is looked into: its header; all of it; all of it, and written again at 16 kHz."""
SILENCE = 1e-4
"""Of full scale, -80 dB: a recording that never rises above it was made with the microphone off."""

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, kw_only=True)
class ClipBounds:
    """How long clips may be."""

    min_seconds: float = SHORTEST
    max_seconds: float = LONGEST

    def __post_init__(self) -> None:
        if not SHORTEST <= self.min_seconds <= self.max_seconds <= LONGEST:
            raise InputError(
                f"expected {SHORTEST:g} <= min_seconds <= max_seconds <= {LONGEST:g}, found "
                f"{self.min_seconds:g} and {self.max_seconds:g}"
            )

    def reason(self, seconds: float) -> str | None:
        """Return why a clip of that length is left out, None if it is not."""
        if seconds < self.min_seconds:
            return "too_brief"
        return "too_lengthy" if seconds > self.max_seconds else None


def checked_rows(rows: Iterable[Row], bounds: ClipBounds, counts: Counts) -> Iterator[Row]:
    """Yield the rows whose clip is there, can be opened, and is of a fitting length by its header.

    A clip that the corpus itself says is too short or too long is not opened.

    Raises:
        MissingExtraError: soundfile is not installed.
    """

    def look(row: Row) -> tuple[Row, str | None]:
        if row.seconds is not None and (reason := bounds.reason(row.seconds)):
            return row, reason
        if not Path(row.audio).is_file():
            return row, "no_audio"
        try:
            return row, bounds.reason(audio_info(row.audio).seconds)
        except InputError:
            return row, "bad_audio"

    for row, reason in _side_by_side(look, rows):
        if reason is None:
            yield row
        else:
            _count(counts, reason)


def decode_clip(clip: str, out: Path | None) -> str | None:
    """Decode a whole clip, and write it as 16-bit samples at 16 kHz if `out` (`.wav`, `.flac`) is given.

    Returns:
        Why it is to be left out (a reason of `Counts`), None if it is not. A file that is there is not written again.
    """
    if out is not None and out.is_file():
        return None
    try:
        samples = read_audio(clip)
    except MissingExtraError:
        raise
    except InputError:
        return "bad_audio" if Path(clip).is_file() else "no_audio"
    if float(abs(samples).max()) < SILENCE:
        return "silent"
    if out is not None:
        _write(samples, out)
    return None


def decoded(clips: Iterable[tuple[str, Path | None]]) -> Iterator[str | None]:
    """Decode many clips (see `decode_clip`), several at a time, and yield what came of each in order."""
    return _side_by_side(lambda one: decode_clip(*one), clips)


def converted_name(clip: str, kind: str) -> str:
    """Return the name of a clip's copy."""
    return f"{Path(clip).name}.{kind}"


def _write(samples: NDArray[np.float32], out: Path) -> None:
    import soundfile

    with atomic_file(out) as stream:
        soundfile.write(stream, samples, RATE, format=out.suffix[1:].upper(), subtype="PCM_16")


def _count(counts: Counts, reason: str) -> None:
    setattr(counts, reason, getattr(counts, reason) + 1)


def _side_by_side(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield the results in order; libsndfile runs in threads at once, and few items are held at a time."""
    threads = min(8, os.cpu_count() or 1)
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > 16 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
