"""What training tells of its progress: records for a file of JSON lines and for TensorBoard.

A record is one flat mapping. Its `step` says when; which other names there are depends on what happened:

| name | meaning |
|---|---|
| `step`, `pass` | steps taken since the start; the pass under way, from 1 (0: before the first step) |
| `loss` | mean loss per word since the last such record, natural logarithm |
| `learning_rate` | E1's rate at the last step |
| `rows_per_second` | training speed since the last such record, evaluations left out |
| `pass_loss`, `dev`, `zeros` | at the end of a pass: loss per word, dev score if taken, share of exact zeros in E1 |
| `seconds` | training time since the start, evaluations left out |
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from fliplens.errors import FliplensWarning, InputError, MissingExtraError
from fliplens.files import atomic_file

__all__ = ["FolderLog", "JsonLines", "MetricsWriter", "TensorBoard"]

METRICS = "metrics.jsonl"
Record = Mapping[str, float | int]


class MetricsWriter(Protocol):
    """Takes the records of one training run."""

    def open(self, job: Mapping[str, Any], step: int) -> None:
        """Get ready for records past `step`.

        Called once, before the first record. What an interrupted run of the same job wrote past `step` comes
        again and is dropped; at step 0 that is everything, the record of the start included.

        Args:
            job: plain JSON values that tell this training run from every other.
            step: steps already taken; 0 for a run that starts anew.
        """
        ...

    def write(self, record: Record) -> None:
        """Take one record."""
        ...

    def close(self) -> None:
        """Finish; called once, also when training ends early."""
        ...


class JsonLines:
    """One JSON object a line, appended and flushed; the first line names the job.

    Args:
        path: the file.
        overwrite: replace the lines of another job instead of refusing them.
    """

    def __init__(self, path: str | Path, *, overwrite: bool = False) -> None:
        self.path = Path(path).absolute()
        self._overwrite = overwrite
        self._stream: IO[str] | None = None

    def check(self, job: Mapping[str, Any]) -> None:
        """Raise InputError if the file holds another job's lines, or none of ours, and may not be replaced."""
        if self.path.exists() and not self._overwrite and self._job_of_file() != _digest(job):
            raise InputError(
                f"expected no file or this job's lines at {self.path}, found others: name another folder, "
                "or pass --overwrite (overwrite=True) to replace them"
            )

    def open(self, job: Mapping[str, Any], step: int) -> None:
        """See `MetricsWriter`."""
        self.check(job)
        kept = [json.dumps({"job": _digest(job)})]
        if step > 0 and self.path.is_file() and self._job_of_file() == _digest(job):
            kept += [line for line, record in self._lines() if record.get("step", step + 1) <= step]
        try:
            with atomic_file(self.path) as stream:
                stream.write("".join(line + "\n" for line in kept).encode())
            self._stream = self.path.open("a", encoding="utf-8")
        except OSError as error:
            self._give_up(error)

    def write(self, record: Record) -> None:
        """See `MetricsWriter`. A disk that fills warns once and never stops training."""
        if self._stream is None:
            return
        try:
            self._stream.write(json.dumps(dict(record)) + "\n")
            self._stream.flush()
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """See `MetricsWriter`."""
        stream, self._stream = self._stream, None
        if stream is not None:
            try:
                stream.close()
            except OSError as error:
                self._give_up(error)

    def _lines(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the whole lines that hold an object, with it; a kill may have cut the last one."""
        found = []
        for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                continue
            if isinstance(record, dict):
                found.append((line, record))
        return found

    def _job_of_file(self) -> object:
        if not self.path.is_file():
            return None
        lines = self._lines()
        return lines[0][1].get("job") if lines else None

    def _give_up(self, error: OSError) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            with contextlib.suppress(OSError):  # what is still in its buffer
                stream.close()
        _warn(self.path, error)


class TensorBoard:
    """Event files for TensorBoard; needs the extra `tensorboard`.

    Args:
        folder: where the event files go.

    Raises:
        MissingExtraError: tensorboard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("writing TensorBoard events", "tensorboard") from error
        self.folder = Path(folder).absolute()
        self._make: Any = SummaryWriter
        self._writer: Any = None

    def open(self, job: Mapping[str, Any], step: int) -> None:
        """See `MetricsWriter`. TensorBoard itself hides what lies past `step` in older event files."""
        del job
        try:
            self._writer = self._make(str(self.folder), purge_step=step + 1)
        except OSError as error:
            self._give_up(error)

    def write(self, record: Record) -> None:
        """See `MetricsWriter`. A disk that fills warns once and never stops training."""
        try:
            for name, value in record.items():
                if self._writer is not None and name not in ("step", "pass"):
                    self._writer.add_scalar(f"train/{name}", value, global_step=record["step"])
        except OSError as error:
            self._give_up(error)

    def close(self) -> None:
        """See `MetricsWriter`."""
        writer, self._writer = self._writer, None
        try:
            if writer is not None:
                writer.close()
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        self._writer = None
        _warn(self.folder, error)


class FolderLog:
    """`metrics.jsonl` in a folder and, where tensorboard is installed, event files beside it.

    Args:
        folder: where both go.
        overwrite: replace what another job left there instead of refusing it.
    """

    def __init__(self, folder: str | Path, *, overwrite: bool = False) -> None:
        self.folder = Path(folder).absolute()
        self._overwrite = overwrite
        self.lines = JsonLines(self.folder / METRICS, overwrite=overwrite)
        self.missing: str | None = None
        """Why there are no event files, if there are none."""
        self._writers: Sequence[MetricsWriter] = [self.lines]
        try:
            self._writers = [self.lines, TensorBoard(self.folder)]
        except MissingExtraError as error:
            self.missing = str(error)

    def check(self, job: Mapping[str, Any]) -> None:
        """Raise InputError if the folder is none, or holds another job's metrics and may not be replaced."""
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(f"expected a folder for metrics at {self.folder}, found a file: name another place")
        self.lines.check(job)
        if not self.lines.path.exists() and not self._overwrite and any(self._events()):
            raise InputError(
                f"expected a folder of its own for metrics, found event files in {self.folder} that are not this "
                "job's: name another folder, or pass --overwrite (overwrite=True) to replace them"
            )

    def open(self, job: Mapping[str, Any], step: int) -> None:
        """See `MetricsWriter`."""
        self.check(job)
        if step == 0:
            # A run that starts anew has no events of an older one beside its own.
            for path in self._events():
                path.unlink()
        for writer in self._writers:
            writer.open(job, step)

    def write(self, record: Record) -> None:
        """See `MetricsWriter`."""
        for writer in self._writers:
            writer.write(record)

    def close(self) -> None:
        """See `MetricsWriter`."""
        for writer in self._writers:
            writer.close()

    def _events(self) -> list[Path]:
        return list(self.folder.glob("events.out.tfevents.*"))


def _warn(path: Path, error: OSError) -> None:
    warnings.warn(
        f"no more metrics can be written to {path} ({error.strerror or error}): training goes on without",
        FliplensWarning,
        stacklevel=4,
    )


def _digest(job: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(job, sort_keys=True).encode()).hexdigest()
