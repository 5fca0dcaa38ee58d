"""Clips of speech: whether they are there, whole and of a fitting length; and the same at one rate."""

from __future__ import annotations

import json
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from fliplens.audio import LONGEST, RATE, SHORTEST, audio_info, quieten_this_thread, read_audio
from fliplens.corpora.counting import Counts
from fliplens.corpora.rows import Row
from fliplens.errors import FliplensWarning, InputError, MissingExtraError
from fliplens.files import atomic_file
from fliplens.wording import counted

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["AUDIO", "ClipBounds", "Complaint", "DroppedClips", "checked_rows", "converted_name", "decode_clip"]

AUDIO = ("header", "decode", "wav", "flac")
"""How far a clip is looked into: its header; all of it; all of it, and written again at 16 kHz."""
SILENCE = 1e-4
"""Of full scale, -80 dB: a recording that never rises above it was made with the microphone off."""

FAULTS = ("no_audio", "bad_audio", "silent")
"""Reasons that nobody asked for: worth a warning. How long clips may be is a choice, and the table counts it."""

T = TypeVar("T")
R = TypeVar("R")


class Complaint(NamedTuple):
    """Why a clip is left out."""

    reason: str
    """As `Counts` calls it."""
    error: str
    """What was expected, what was found."""


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

    def complaint(self, clip: str, seconds: float) -> Complaint | None:
        """Return why a clip of that length is left out, None if it is not."""
        if seconds < self.min_seconds:
            reason, bound = "too_brief", f"{self.min_seconds:g} s or more"
        elif seconds > self.max_seconds:
            reason, bound = "too_lengthy", f"{self.max_seconds:g} s or less"
        else:
            return None
        return Complaint(reason, f"expected {bound} in {clip}, found {seconds:.6g} s")


class DroppedClips:
    """The clips that are left out: counted, listed in a file as they come, the first of each fault told at the end.

    To be entered once (`with`). A line of the list is `{"clip", "reason", "error"}`, in the order of the rows; those
    that only decoding finds follow behind the others.

    Args:
        path: where the list waits until it is whole, on the disk that it will stay on.
        counts: gets them.
    """

    def __init__(self, path: Path, counts: Counts) -> None:
        self._counts = counts
        self._path = path
        self._n: dict[str, int] = {}
        self._first: dict[str, str] = {}

    def __enter__(self) -> DroppedClips:
        """Open the list."""
        self._stream = self._path.open("w", encoding="ascii", newline="\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the list."""
        self._stream.close()

    def add(self, clip: str, complaint: Complaint) -> None:
        """Count one more, and list it."""
        reason = complaint.reason
        setattr(self._counts, reason, getattr(self._counts, reason) + 1)
        self._n[reason] = self._n.get(reason, 0) + 1
        self._first.setdefault(reason, complaint.error)
        # In ASCII: names of files may hold bytes that are no UTF-8, which JSON has escapes for.
        self._stream.write(json.dumps({"clip": clip, **complaint._asdict()}) + "\n")

    def keep(self, out: Path) -> None:
        """Put the list where it stays, and tell of it; without clips to list there is no file.

        Warns:
            FliplensWarning: see `tell`.
        """
        if self._n:
            self._stream.flush()
            os.fsync(self._stream.fileno())
            # A name on Windows does not change while the file is open.
            self._stream.close()
            self._path.replace(out)
        else:
            # Of a job that was killed: the clips may have been put right since.
            out.unlink(missing_ok=True)
        self.tell(f"; all are listed in {out}")

    def tell(self, where: str = "") -> None:
        """Tell how many clips have a fault of each kind, and which is the first.

        Args:
            where: what more to say.

        Warns:
            FliplensWarning: there are some.
        """
        for reason in FAULTS:
            if reason in self._n:
                warnings.warn(
                    f"left out {counted(self._n[reason], 'clip')} as {reason.replace('_', ' ')}, the first: "
                    f"{self._first[reason]}{where}",
                    FliplensWarning,
                    stacklevel=2,
                )


def checked_rows(rows: Iterable[Row], bounds: ClipBounds, dropped: DroppedClips) -> Iterator[Row]:
    """Yield the rows whose clip is there, can be opened, and is of a fitting length by its header.

    A clip that the corpus itself says is too short or too long is not opened.

    Raises:
        MissingExtraError: soundfile is not installed.
    """

    def look(row: Row) -> tuple[Row, Complaint | None]:
        if row.seconds is not None and (complaint := bounds.complaint(row.audio, row.seconds)):
            return row, complaint
        try:
            return row, bounds.complaint(row.audio, audio_info(row.audio).seconds)
        except MissingExtraError:
            raise
        except InputError as error:
            return row, _unread(row.audio, error)

    for row, complaint in _side_by_side(look, rows):
        if complaint is None:
            yield row
        else:
            dropped.add(row.audio, complaint)


def decode_clip(clip: str, out: Path | None) -> Complaint | None:
    """Decode a whole clip, and write it as 16-bit samples at 16 kHz if `out` (`.wav`, `.flac`) is given.

    Returns:
        Why it is to be left out, None if it is not. A file that is there is not written again.
    """
    if out is not None and out.is_file():
        return None
    try:
        samples = read_audio(clip)
    except MissingExtraError:
        raise
    except InputError as error:
        return _unread(clip, error)
    loudest = float(abs(samples).max())
    if loudest < SILENCE:
        return Complaint(
            "silent",
            f"expected sound above {SILENCE:g} of full scale (-80 dB) in {clip}, found {loudest:.2g} at most",
        )
    if out is not None:
        _write(samples, out)
    return None


def decoded(clips: Iterable[tuple[str, Path | None]]) -> Iterator[Complaint | None]:
    """Decode many clips (see `decode_clip`), several at a time, and yield what came of each in order."""
    return _side_by_side(lambda one: decode_clip(*one), clips)


def converted_name(clip: str, kind: str) -> str:
    """Return the name of a clip's copy."""
    return f"{Path(clip).name}.{kind}"


def _write(samples: NDArray[np.float32], out: Path) -> None:
    import soundfile

    with atomic_file(out) as stream:
        soundfile.write(stream, samples, RATE, format=out.suffix[1:].upper(), subtype="PCM_16")


def _unread(clip: str, error: InputError) -> Complaint:
    return Complaint("bad_audio" if Path(clip).is_file() else "no_audio", str(error))


def _side_by_side(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield the results in order; libsndfile runs in threads at once, and few items are held at a time."""
    threads = min(8, os.cpu_count() or 1)
    waiting: deque[Future[R]] = deque()
    # These threads do nothing but read clips: what libmpg123 says there names no file, and errors are raised as ever.
    with ThreadPoolExecutor(threads, initializer=quieten_this_thread) as pool:
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
