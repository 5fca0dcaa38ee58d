"""The checkpoint of one training run: a folder beside its output that outlives a kill.

| name | holds |
|---|---|
| `state.safetensors` | the last `TrainState` that was written, and the job it belongs to |
| `words.npy`, its parts and manifest | the encoder's vectors of the vocabulary words, as `encode_texts` writes them |

The state is written to a temporary name and renamed, so a kill leaves the one before or the new one, never half.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import re
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fliplens.embeddings import Embeddings
from fliplens.encoding.texts import encode_texts
from fliplens.errors import FliplensWarning, InputError, InterruptedRunError, reason_of
from fliplens.files import atomic_file
from fliplens.training.distributed import Group
from fliplens.training.recipes import TrainConfig
from fliplens.training.state import STATE_VERSION, TrainState
from fliplens.training.views import Views

if TYPE_CHECKING:
    from fliplens.encoders import Encoder

__all__ = ["Checkpoint", "identity_of", "interruption", "job_of"]

STATE, WORDS = "state.safetensors", "words.npy"
OURS = re.compile(r"state\.safetensors|words\.npy|words\.npy\.parts|words\.manifest\.json|\..+\.tmp(\.old)?")
SAMPLED_ROWS = 256


class Checkpoint:
    """A folder that keeps a training run's state from time to time.

    Args:
        folder: where; made when there is something to keep. Nothing else may lie in it.
        every_seconds: between two writes; what a kill can lose. 0 writes after every step.
        overwrite: drop what another job, or damage, left there, instead of refusing it.
        notify: called with one line when training goes on from what was found.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        every_seconds: float = 60.0,
        overwrite: bool = False,
        notify: Callable[[str], None] | None = None,
    ) -> None:
        if not every_seconds >= 0:
            raise InputError(f"expected seconds between checkpoints of at least 0, found {every_seconds}")
        self.folder = Path(folder).absolute()
        self.every_seconds = every_seconds
        self._overwrite = overwrite
        self._notify = notify
        self._job: dict[str, Any] = {}
        self._opened = False
        self._state: TrainState | None = None
        self._kept = False
        self._due = time.monotonic() + every_seconds
        self._warned = False

    @property
    def is_open(self) -> bool:
        """Whether `open` was called."""
        return self._opened

    @property
    def job(self) -> dict[str, Any]:
        """What `open` was told of the job."""
        return self._job

    def open(self, job: Mapping[str, Any]) -> None:
        """Take up what the folder holds of this very job.

        Args:
            job: plain JSON values that tell this training run from every other.

        Raises:
            InputError: the folder holds another job's state, a damaged one, or other files.
        """
        # As it comes back from the file: a tuple is a list there.
        self._job = json.loads(json.dumps({"format_version": STATE_VERSION, **job}))
        self._opened = True
        if self.folder.exists() and not self.folder.is_dir():
            raise InputError(
                f"expected a folder for checkpoints at {self.folder}, found a file: move it, or name another output"
            )
        foreign = [] if not self.folder.is_dir() else [e for e in self.folder.iterdir() if not OURS.fullmatch(e.name)]
        if foreign:
            raise InputError(
                f"expected nothing but a checkpoint in {self.folder}, found {foreign[0].name}: "
                "move it, or name another output"
            )
        self._sweep()
        try:
            self._state = self._load()
        except InputError:
            if not self._overwrite:
                raise
            self.remove()

    def take_state(self) -> TrainState | None:
        """Return the state to go on from, if one was found, and let go of it."""
        state, self._state = self._state, None
        self._kept = state is not None
        if state is not None and self._notify is not None:
            where = "the end of training" if state.finished else f"step {state.step} (pass {state.number})"
            self._notify(f"going on from {where}, kept in {self.folder}")
        self._due = time.monotonic() + self.every_seconds
        return state

    @property
    def has_state(self) -> bool:
        """Whether there is a state to go on from that nobody has taken yet."""
        return self._state is not None

    @property
    def is_kept(self) -> bool:
        """Whether the folder holds the state that was last taken from it or written to it."""
        return self._kept

    def is_due(self) -> bool:
        """Return whether it is time to write again."""
        return time.monotonic() >= self._due

    def save(self, state: TrainState) -> bool:
        """Write a state; return whether that went well.

        A disk that fills warns once and never stops training.
        """
        self._kept = False
        try:
            with atomic_file(self.folder / STATE) as stream:
                state.write(stream, self._job)
        except OSError as error:
            self._warn(error)
            if self.folder.is_dir() and not any(self.folder.iterdir()):
                self.folder.rmdir()
            return False
        finally:
            self._due = time.monotonic() + self.every_seconds
        self._kept = True
        return True

    def word_vectors(self, encoder: Encoder, words: Sequence[str], *, show_progress: bool) -> NDArray[np.float32]:
        """Return the encoder's vectors of the vocabulary words (V, d), kept as they are made.

        A run that goes on takes those that are there. Where the disk is full they are made without being kept.
        """
        path = self.folder / WORDS
        for attempt in range(2):
            try:
                return encode_texts(words, encoder, path, name="words", show_progress=show_progress).to_numpy()
            except InputError:
                # Damaged, or of other words: of no use, and no loss but the time to make them again.
                if attempt:
                    raise
                self._drop_words()
            except OSError as error:
                self._warn(error)
                break
        self._drop_words()
        return encoder.encode(words, show_progress=show_progress)

    def remove(self) -> None:
        """Delete what `Checkpoint` wrote, and the folder if nothing else lies in it."""
        if not self.folder.is_dir():
            return
        self._drop_words()
        (self.folder / STATE).unlink(missing_ok=True)
        self._sweep()
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _load(self) -> TrainState | None:
        path = self.folder / STATE
        if not path.is_file():
            return None
        try:
            # Mapped, so that the file takes no memory beside the tensors that are made of it.
            with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                state, job = TrainState.from_bytes(data)
        except (OSError, ValueError) as error:  # an empty file cannot be mapped
            raise InputError(
                f"expected a checkpoint in {path}, found one that cannot be read "
                f"({reason_of(error)}): pass --overwrite (overwrite=True) to start anew"
            ) from error
        differs = sorted(
            name for name in {*job, *self._job} if _canonical(job.get(name)) != _canonical(self._job.get(name))
        )
        if differs:
            raise InputError(
                f"expected a checkpoint of this job in {self.folder}, found one of another (it differs in "
                f"{', '.join(differs)}): run that job again to finish it, or pass --overwrite (overwrite=True) to "
                "drop it"
            )
        return state

    def _drop_words(self) -> None:
        if self.folder.is_dir():
            for path in self.folder.glob("words.*"):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Delete what kills in the middle of a write left."""
        if self.folder.is_dir():
            for path in self.folder.glob(".*.tmp"):
                path.unlink(missing_ok=True)

    def _warn(self, error: OSError) -> None:
        if not self._warned:
            warnings.warn(
                f"no checkpoint can be written to {self.folder} ({error.strerror or error}): training goes on, but "
                "a kill would lose what it does",
                FliplensWarning,
                stacklevel=3,
            )
        self._warned = True


def _canonical(value: Any) -> str:
    """Return one text for one JSON value: 1 and 1.0 are equal numbers, but one text and a share of all texts."""
    return json.dumps(value, sort_keys=True)


def interruption(done: str, checkpoint: Checkpoint | None, group: Group) -> InterruptedRunError:
    """Return the error of a run that was asked to stop: how far it came, what is kept, and how to go on.

    Args:
        done: how far the run came.
        checkpoint: what keeps its state, if something does.
        group: the processes that train together.
    """
    if checkpoint is None:
        kept = "nothing was kept, start again" if group.is_first else "process 0 keeps it"
    elif checkpoint.is_kept:
        kept = f"kept in {checkpoint.folder}: run the same command again to go on"
    else:
        kept = "run the same command again to go on from the last checkpoint, if there is one"
    return InterruptedRunError(f"{done}; {kept}")


def identity_of(embeddings: Embeddings | None) -> dict[str, Any] | None:
    """Return what tells embeddings from others: shape, `Embeddings.storage`, and a hash of some rows as read."""
    if embeddings is None:
        return None
    rows = np.unique(np.linspace(0, len(embeddings) - 1, SAMPLED_ROWS).astype(np.int64))
    return {
        "shape": list(embeddings.shape),
        "storage": embeddings.storage(),
        "sample": hashlib.sha256(embeddings.rows(rows).tobytes()).hexdigest(),
    }


def job_of(
    data: Views, config: TrainConfig, dev: Views | None, word_vectors: NDArray[np.float32] | None
) -> dict[str, Any]:
    """Return what tells a training run from others, as plain JSON values: what `Checkpoint.open` takes.

    Args:
        data: rows to train on.
        config: the recipe.
        dev: rows to stop on.
        word_vectors: vectors of the vocabulary words (V, d), where training starts from them.
    """
    return {
        "config": config.to_json(),
        "data": _identity(data),
        "dev": None if dev is None else _identity(dev),
        "word_vectors": None
        if word_vectors is None
        else hashlib.sha256(np.ascontiguousarray(word_vectors).data).hexdigest(),
    }


def _identity(views: Views) -> dict[str, Any]:
    """Return what tells rows from others: a hash of their words, and their vectors' identities."""
    digest = hashlib.sha256(repr(views.counts.shape).encode())
    for array in (views.counts.indptr, views.counts.indices, views.counts.data):
        digest.update(np.ascontiguousarray(array).data)
    return {
        "counts": digest.hexdigest(),
        "primary": identity_of(views.primary),
        "paired": identity_of(views.paired),
    }
