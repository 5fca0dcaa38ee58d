"""What every encoder offers, whatever runs it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BatchEncoder", "EncodedBatch", "Encoder", "over_long"]


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
        """What is encoded: "text"."""
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
            inputs: n texts; an empty text is encoded like any other, so that a row stays a row.
            show_progress: show a bar on stderr.

        Returns:
            (n, d) float32, C-contiguous; (0, d) for no input.

        Raises:
            InputError: an input is not a text.
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


def over_long(encoder: BatchEncoder, cut: int, n: int) -> str:
    """Return the warning that says how many of n texts the model read only the start of."""
    limit = "" if encoder.max_tokens is None else f"the {encoder.max_tokens} tokens that "
    return (
        f"{cut} of {n} texts are longer than {limit}{encoder.name} reads: only their start was encoded; split them "
        "into sentences"
    )
