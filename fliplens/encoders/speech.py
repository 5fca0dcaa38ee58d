"""What speech encoders that run on the machine share: reading recordings, batches of like length, checks.

Recordings are read one after the other until they come to `CHUNK_SECONDS`, sorted by length, and put through the
model in batches whose padded length is bounded: memory depends neither on how many recordings there are nor on how
they are mixed.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from fliplens.audio import LONGEST, RATE, check_samples, read_audio
from fliplens.encoders.collecting import check_shape, encode_all
from fliplens.encoders.protocol import EncodedBatch, Encoder, OnBad, Speech
from fliplens.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LocalSpeechEncoder", "Samples", "SoundBatch", "check_list", "sound_batches"]

CHUNK_SECONDS = 1200.0
"""Seconds of sound in memory at once (77 MB), sorted by length together."""

SECONDS_A_BATCH_CPU = 40.0
"""Seconds of sound, padding included, that go through a model at once on a processor."""

SECONDS_A_BATCH_ACCELERATOR = 480.0
"""The same where there are thousands of cores to keep busy."""

Samples: TypeAlias = "NDArray[np.float32]"
"""(samples,), 16,000 a second."""


class SoundBatch(NamedTuple):
    """Recordings that go through a model together."""

    rows: NDArray[np.int64]
    """Positions of the k recordings among those that were handed in."""
    sounds: list[Samples]
    """The longest first."""


class LocalSpeechEncoder(ABC):
    """A speech encoder whose model is in this process; a subclass says what becomes of one batch.

    Args:
        spec: what `load_encoder` takes to get it again.
        name: the Hub id, or the name that people know the model by.
        revision: which version of the weights, if known.
        language: ISO 639-1 code, None for several or unknown.
        dim: d, the size of a vector.
        normalised: whether vectors have unit length.
        precision: what it multiplies in, "float32" or "bfloat16".
        device: of the model: "cpu", "cuda", "cuda:1", ...
        batch_size: recordings in a batch; None bounds the batch's seconds instead.
        longest: seconds that a recording may have.
    """

    modality = "speech"
    max_tokens = None

    def __init__(
        self,
        *,
        spec: str,
        name: str,
        revision: str | None,
        language: str | None,
        dim: int,
        normalised: bool,
        precision: str,
        device: str,
        batch_size: int | None = None,
        longest: float = LONGEST,
    ) -> None:
        self.spec = spec
        self.name = name
        self.revision = revision
        self.language = language
        self.dim = dim
        self.normalised = normalised
        self.precision = precision
        self.device = device
        self.batch_size = batch_size
        self.longest = longest

    def __repr__(self) -> str:
        return f"{type(self).__name__}(spec={self.spec!r}, dim={self.dim}, precision={self.precision!r})"

    @property
    def reads(self) -> str:
        """How much of a recording it reads, for people, where that is less than `longest`; else ""."""
        return ""

    @property
    def text_encoder(self) -> Encoder | None:
        """An encoder of text in the same space, where this one holds one."""
        return None

    @abstractmethod
    def _vectors(self, sounds: list[Samples]) -> tuple[NDArray[np.float32], int]:
        """Return (k, d) vectors of k recordings, the longest first, and of how many only the start was read."""

    def _seconds(self, seconds: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return how many seconds go through the model for recordings of so many, which is what batches are for."""
        return seconds

    def encode(self, inputs: Sequence[Speech], *, show_progress: bool = False) -> NDArray[np.float32]:
        """Return one vector for each recording, in their order; see `Encoder.encode`.

        Args:
            inputs: n paths of files of audio, or arrays of samples at 16,000 a second.
            show_progress: show a bar on stderr.

        Returns:
            (n, d) float32; (0, d) for no recording.

        Raises:
            InputError: a recording cannot be read; the message says which.
            FliplensError: the model gave vectors that are not finite.

        Warns:
            FliplensWarning: only the start of some recordings was read.
        """
        check_list(inputs)
        return encode_all(self, inputs, show_progress=show_progress)

    def batches(self, inputs: Sequence[Speech], *, on_bad: OnBad | None = None) -> Iterator[EncodedBatch]:
        """Yield the vectors of batches of recordings as they are done; see `SpeechEncoder.batches`."""
        for rows, sounds in self._sound_batches(inputs, on_bad):
            vectors, cut = self._vectors(sounds)
            vectors = np.ascontiguousarray(vectors, dtype=np.float32)
            check_shape(vectors, (len(sounds), self.dim), self)
            yield EncodedBatch(rows, vectors, cut)

    def _sound_batches(self, inputs: Sequence[Speech], on_bad: OnBad | None) -> Iterator[SoundBatch]:
        kind = self.device.partition(":")[0]
        budget = SECONDS_A_BATCH_CPU if kind == "cpu" else SECONDS_A_BATCH_ACCELERATOR
        for chunk in sound_batches(inputs, longest=self.longest, on_bad=on_bad):
            costs = self._seconds(np.array([len(sound) / RATE for sound in chunk.sounds]))
            start = 0
            while start < len(costs):
                size = self.batch_size or max(1, int(budget // costs[start]))
                yield SoundBatch(chunk.rows[start : start + size], chunk.sounds[start : start + size])
                start += size


def sound_batches(
    inputs: Sequence[Speech], *, longest: float = LONGEST, on_bad: OnBad | None = None
) -> Iterator[SoundBatch]:
    """Yield recordings read, `CHUNK_SECONDS` of them at once, the longest of those first.

    Args:
        inputs: paths of files of audio, or arrays of samples.
        longest: seconds that a recording may have.
        on_bad: see `SpeechEncoder.batches`.

    Raises:
        InputError: the inputs are none, or one of them cannot be read and there is no `on_bad`.
    """
    check_list(inputs)
    rows: list[int] = []
    sounds: list[Samples] = []
    held = 0
    for row, one in enumerate(inputs):
        try:
            sound = _read(one, row, longest)
        except InputError as error:
            if on_bad is None:
                raise InputError(f"recording {row + 1} of {len(inputs)}: {error}") from error
            on_bad(row, error)
            continue
        rows.append(row)
        sounds.append(sound)
        held += len(sound)
        if held >= CHUNK_SECONDS * RATE:
            yield _longest_first(rows, sounds)
            rows, sounds, held = [], [], 0
    if rows:
        yield _longest_first(rows, sounds)


def check_list(inputs: Sequence[Speech]) -> None:
    """Raise InputError if one recording was handed in where a list of them is wanted."""
    if isinstance(inputs, str | bytes | Path):
        raise InputError(f"expected a list of recordings, found one {type(inputs).__name__}: put it in a list")


def _read(one: Speech, row: int, longest: float) -> Samples:
    if isinstance(one, str | Path):
        return read_audio(one, longest=longest)
    if isinstance(one, np.ndarray):
        return check_samples(one, name=f"recording {row + 1}", longest=longest)
    raise InputError(f"expected a path or an array of samples, found {type(one).__name__}")


def _longest_first(rows: list[int], sounds: list[Samples]) -> SoundBatch:
    order = np.argsort([-len(sound) for sound in sounds], kind="stable")
    return SoundBatch(np.array(rows, dtype=np.int64)[order], [sounds[i] for i in order])
