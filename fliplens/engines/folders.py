"""A folder of Parquet that an engine fills piece by piece, resumably: what encoding and reading by an engine share.

Files lie in `OUT.parts` until the last of them is whole; then the folder is renamed to OUT, so that nobody takes half
of it for all. Each is whole or absent, and its hash stands in the record beside them: a run of the same job checks
what it finds and makes the rest.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fliplens.engines.protocol import Engine, Outcome, Piece, Work
from fliplens.errors import FliplensError, InputError, InterruptedRunError, reason_of
from fliplens.files import FolderKind, check_free, read_json, remove_leftovers, sha256_of_file, write_json
from fliplens.progress import Progress

__all__ = ["Job", "PieceWork", "fill", "finished", "piece_name"]

RECORD_SHARE = 0.05
"""Of the time, at most, goes into writing the record: of a job of many pieces it grows long."""
ASKED_EVERY = 0.2
"""Seconds between two questions whether to stop."""


@dataclass(frozen=True)
class Job:
    """What fills a folder."""

    out: Path
    """The folder."""
    kind: FolderKind
    """Of it; its marker is the record."""
    what: Mapping[str, Any]
    """What tells the job from any other, as the record says it."""
    pieces: Sequence[Piece]
    """All rows."""
    verb: str
    """What the bar calls the work."""
    unit: str
    """And a row."""

    @property
    def parts(self) -> Path:
        """Where files lie until all are there."""
        return self.out.with_name(f"{self.out.name}.parts")

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.pieces[-1].stop


def piece_name(number: int) -> str:
    """Return the name of the file of a piece."""
    return f"part-{number:05d}.parquet"


@dataclass
class PieceWork(ABC):
    """Work that writes a file a piece, `part-00000.parquet`, unless it is there."""

    folder: Path
    """Where the files are written."""
    known: Mapping[int, str]
    """SHA-256 of files that an earlier run wrote, by the number of the piece."""
    halt: Path
    """Once there is such a file, no piece is begun, and one that is under way is dropped."""

    def __call__(self, piece: Piece) -> Outcome:
        """Make the file of a piece, or find it whole.

        Raises:
            InterruptedRunError: all is to stop.
            FliplensError: it cannot be made.
        """
        self.heed()
        path = self.folder / piece_name(piece.number)
        if path.is_file():
            digest = sha256_of_file(path)
            # One that is not known was whole when it got its name, just before a kill.
            if self.known.get(piece.number, digest) == digest and (found := self.found(path, piece)) is not None:
                return replace(found, sha256=digest, size=path.stat().st_size)
        made = self.make(path, piece)
        return replace(made, sha256=sha256_of_file(path), size=path.stat().st_size)

    def heed(self) -> None:
        """Raise InterruptedRunError if all is to stop."""
        if self.halt.exists():
            raise InterruptedRunError("interrupted")

    @abstractmethod
    def found(self, path: Path, piece: Piece) -> Outcome | None:
        """Return the outcome of a file that is there; None where it has to be made again."""

    @abstractmethod
    def make(self, path: Path, piece: Piece) -> Outcome:
        """Make the file, atomically, calling `heed` now and then."""


def finished(job: Job, *, overwrite: bool) -> dict[str, Any] | None:
    """Return the record of this very job, finished at `job.out`; None where the job is to be done.

    Raises:
        InputError: something else is there, or a file of the job has gone or another length.
    """
    out, marker = job.out, job.out / job.kind.marker
    if overwrite or not marker.is_file():
        check_free(out, kind=job.kind, overwrite=overwrite)
        return None
    found = read_json(marker)
    if not isinstance(found, dict) or not found.get("complete") or not _says(found, job.what):
        raise InputError(f"expected {out} to hold this job, found another: name another place, or pass --overwrite")
    for number, size in enumerate(found.get("bytes", [])):
        path = out / piece_name(number)
        there = path.stat().st_size if path.is_file() else "none"
        if there != size:
            raise InputError(
                f"expected {size} bytes in {path}, as were written, found {there}: copy it again, or pass --overwrite"
            )
    return found


def fill(
    engine: Engine,
    job: Job,
    work: Callable[[Path, Mapping[int, str], Path], Work],
    told: Callable[[Path, list[Outcome]], Mapping[str, Any]],
    *,
    overwrite: bool,
    show_progress: bool,
    stop: Callable[[], bool] | None,
) -> dict[str, Any]:
    """Do all of a job that is not done, and return its record.

    Args:
        engine: what runs it.
        job: what to do; `finished` has not found it.
        work: makes the work of folder, known hashes and the name of the file that stops it: see `PieceWork`.
        told: what else the record says, of the folder and the outcomes in the order of the pieces; it may write to
            the folder.
        overwrite: forget another job that was begun there, and replace one that was finished.
        show_progress: a bar on stderr.
        stop: asked all the time, by another thread; once it is true pieces under way are dropped.

    Raises:
        InputError: another job was begun there, or as `work` does.
        FliplensError: the engine or the work failed; files that are whole are kept, and the same call goes on.
        InterruptedRunError: `stop` was true.
    """
    folder, record = job.parts, job.parts / job.kind.marker
    known = _begun(job, overwrite=overwrite)
    halt = folder / f".stop.{secrets.token_hex(6)}.tmp"
    outcomes: dict[int, Outcome] = {}
    failed: Outcome | None = None
    kept = f"files that are whole are kept in {folder}, the same command goes on"
    written, cost = time.monotonic(), 0.0

    def keep() -> None:
        hashes = {**known, **{number: outcome.sha256 for number, outcome in outcomes.items()}}
        done = {str(number): hashes[number] for number in sorted(hashes)}
        write_json(record, {**job.what, "done": done, "complete": False})

    try:
        with (
            Progress(job.verb, total=job.rows, unit=job.unit, show=show_progress) as bar,
            _watched(stop, halt),
        ):
            for outcome in engine.run(work(folder, known, halt), job.pieces):
                if outcome.error:
                    # What is under way elsewhere ends before this call does.
                    stopped = outcome.exit_status == InterruptedRunError.exit_status
                    failed = failed if stopped or failed is not None else outcome
                    halt.touch()
                    continue
                outcomes[outcome.number] = outcome
                piece = job.pieces[outcome.number]
                bar.update(piece.stop - piece.first)
                if time.monotonic() - written >= cost / RECORD_SHARE:
                    began = time.monotonic()
                    keep()
                    written = time.monotonic()
                    cost = written - began
    except BaseException as error:
        # Whatever still runs somewhere is told to end; the next run removes the file.
        with contextlib.suppress(OSError):
            halt.touch()
            keep()
        if isinstance(error, OSError):
            reason = reason_of(error.strerror or error)
            raise FliplensError(f"expected to write to {folder}, found {reason}; {kept}") from error
        if isinstance(error, FliplensError):
            kind = InputError if isinstance(error, InputError) else FliplensError
            raise kind(f"{error}; {kept}") from error
        raise
    if len(outcomes) < len(job.pieces):
        with contextlib.suppress(OSError):
            keep()
        remove_leftovers(folder)
        there = {*outcomes, *(number for number in known if (folder / piece_name(number)).is_file())}
        rows = sum(job.pieces[number].stop - job.pieces[number].first for number in there)
        if failed is None:
            raise InterruptedRunError(
                f"interrupted; {rows} of {job.rows} rows are kept in {folder}: run the same command again to go on"
            )
        kind = InputError if failed.exit_status == InputError.exit_status else FliplensError
        raise kind(f"{failed.error}; {kept}")
    remove_leftovers(folder)
    ordered = [outcomes[piece.number] for piece in job.pieces]
    whole = {
        **job.what,
        **told(folder, ordered),
        "rows": [outcome.rows for outcome in ordered],
        "bytes": [outcome.size for outcome in ordered],
        "sha256": [outcome.sha256 for outcome in ordered],
        "complete": True,
    }
    write_json(record, whole)
    _name(folder, job.out)
    return whole


def _begun(job: Job, *, overwrite: bool) -> dict[int, str]:
    """Make the folder of parts ready, and return the hashes of the files in it that the record knows."""
    folder, record = job.parts, job.parts / job.kind.marker
    if record.is_file():
        found = read_json(record)
        if isinstance(found, dict) and _says(found, job.what):
            remove_leftovers(folder)
            done = found.get("done", dict(enumerate(found.get("sha256", []))))
            return {int(number): str(digest) for number, digest in done.items()}
        if not overwrite and any(folder.glob("part-*.parquet")):
            raise InputError(
                f"expected {folder} to hold this job, found another: name another place, or pass --overwrite"
            )
    # What holds no rows yet is nobody's loss.
    check_free(folder, kind=job.kind, overwrite=overwrite or record.is_file())
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write_json(record, {**job.what, "done": {}, "complete": False})
    return {}


def _says(found: Mapping[str, Any], what: Mapping[str, Any]) -> bool:
    # As it comes back from JSON.
    return all(found.get(name) == value for name, value in json.loads(json.dumps(dict(what))).items())


def _name(folder: Path, out: Path) -> None:
    """Rename the folder to its name; what it replaces is moved aside first and deleted last."""
    old = out.with_name(f".{out.name}.{secrets.token_hex(6)}.tmp.old")
    if out.exists():
        out.rename(old)
    try:
        folder.rename(out)
    except BaseException:
        if old.exists():
            old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def _watched(stop: Callable[[], bool] | None, halt: Path) -> Iterator[None]:
    """Make the file that stops the work once `stop` is true; the engine itself may wait for minutes."""
    if stop is None:
        yield
        return
    if stop():
        halt.touch()
    over = threading.Event()

    def ask() -> None:
        while not over.wait(ASKED_EVERY):
            if stop():
                halt.touch()
                return

    thread = threading.Thread(target=ask, name="fliplens-stop", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
