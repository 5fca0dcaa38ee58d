"""What every encoder offers, whatever runs it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeAlias, runtime_checkable

from fliplens.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BatchEncoder", "EncodedBatch", "Encoder", "OnBad", "Speech", "SpeechEncoder", "over_long"]

Speech: TypeAlias = "str | Path | NDArray[np.float32]"
"""What a speech encoder takes: a file of audio, or its samples, one channel at 16,000 a second from -1 to 1."""

OnBad: TypeAlias = Callable[[int, InputError], None]
"""Told the position of an input that cannot be read, and why; where there is one, work goes on without that input."""


@runtime_checkable
class Encoder(Protocol):
    """What every encoder offers."""

    @property
    def spec(self) -> str:
        """What `load_encoder` takes to get this encoder again."""
        ...

    @property
    def name(self) -> str:
        """The Hub id, or the name that people know the model by."""
        ...

    @property
    def revision(self) -> str | None:
        """Which version of the weights: a commit, or `sha256:` and their hash; None if not known."""
        ...

    @property
    def dim(self) -> int:
        """d, the size of a vector."""
        ...

    @property
    def modality(self) -> str:
        """What is encoded: "text", or "speech" by a `SpeechEncoder`."""
        ...

    @property
    def language(self) -> str | None:
        """The language the model was made for (ISO 639-1); None if several or not known."""
        ...

    @property
    def normalised(self) -> bool:
        """Whether vectors have unit length."""
        ...

    def encode(self, inputs: Sequence[str], *, show_progress: bool = False) -> NDArray[np.float32]:
        """Return one vector for each input, in the order of the inputs.

        Args:
            inputs: n texts; an empty text is encoded like any other, so that a row stays a row. Where `modality` is
                "speech", n paths of files of audio.
            show_progress: show a bar on stderr.

        Returns:
            (n, d) float32, C-contiguous; (0, d) for no input.

        Raises:
            InputError: an input is not a text, or cannot be read as audio.
            FliplensError: the model gave another number of vectors, or vectors that are not finite.

        Warns:
            FliplensWarning: the model read only the start of some texts.
        """
        ...


class EncodedBatch(NamedTuple):
    """What comes out of an encoder at once."""

    rows: NDArray[np.int64]
    """Positions of the k texts among those that were handed in."""
    vectors: NDArray[np.float32]
    """(k, d)."""
    cut: int
    """How many of the k texts the model read only the start of."""


@runtime_checkable
class BatchEncoder(Encoder, Protocol):
    """An encoder that also gives its vectors batch by batch, so that long work can be followed."""

    @property
    def precision(self) -> str:
        """What it multiplies in: "float32" or "bfloat16"."""
        ...

    @property
    def max_tokens(self) -> int | None:
        """Tokens that the model reads of a text, None if it has no limit."""
        ...

    def batches(self, inputs: Sequence[str]) -> Iterator[EncodedBatch]:
        """Yield every input's vector once, in whatever order is fastest.

        Unlike `encode`, it neither warns of over-long texts (it counts them) nor looks for vectors that are not
        finite.

        Raises:
            InputError: an input is not a text.
            FliplensError: the model gave another number of vectors.
        """
        ...


@runtime_checkable
class SpeechEncoder(BatchEncoder, Protocol):
    """An encoder of recordings: `modality` is "speech"."""

    @property
    def longest(self) -> float:
        """Seconds that a recording may have; a longer one cannot be read."""
        ...

    @property
    def reads(self) -> str:
        """How much of a recording it reads, for people, where that is less than `longest`; else ""."""
        ...

    @property
    def text_encoder(self) -> Encoder | None:
        """An encoder of text in the same space, where this one holds one."""
        ...

    def encode(self, inputs: Sequence[Speech], *, show_progress: bool = False) -> NDArray[np.float32]:
        """Return one vector for each recording; see `Encoder.encode`."""
        ...

    def batches(self, inputs: Sequence[Speech], *, on_bad: OnBad | None = None) -> Iterator[EncodedBatch]:
        """Yield every recording's vector once; see `BatchEncoder.batches`.

        Args:
            inputs: n recordings.
            on_bad: told of each that cannot be read, which is then in no batch.

        Raises:
            InputError: a recording cannot be read, and there is no `on_bad`.
        """
        ...


def over_long(encoder: BatchEncoder, cut: int, n: int) -> str:
    """Return the warning that says how many of n inputs the model read only the start of."""
    if isinstance(encoder, SpeechEncoder) and encoder.modality == "speech":
        return (
            f"{cut} of {n} recordings are longer than {encoder.reads} that {encoder.name} reads: only their start "
            "was encoded; cut them into sentences"
        )
    limit = "" if encoder.max_tokens is None else f"the {encoder.max_tokens} tokens that "
    return (
        f"{cut} of {n} texts are longer than {limit}{encoder.name} reads: only their start was encoded; split them "
        "into sentences"
    )
