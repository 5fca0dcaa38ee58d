"""Encoders turn sentences into vectors; all of them look the same from here.

An encoder is named by a **spec**, one string that `load_encoder` understands and that lenses and manifests
record:

| spec | encoder |
|---|---|
| `minilm`, `labse` | see `known_encoders()` |
| `st:PATH_OR_HUB_ID[@REVISION]` | any sentence-transformers model, from a folder or the Hugging Face Hub |
| an existing folder, or `OWNER/NAME[@REVISION]` | the same, without the prefix; a folder wins over a Hub name |

Importing this module loads no model library: each adapter imports its own when it is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

from fliplens.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "PRECISIONS",
    "BatchEncoder",
    "EncodedBatch",
    "Encoder",
    "canonical_spec",
    "known_encoders",
    "load_encoder",
    "over_long",
]

PRECISIONS = ("auto", "float32", "bfloat16")
"""What an encoder can be asked to multiply in."""

_KNOWN: Mapping[str, str] = MappingProxyType(
    {
        "minilm": "sentence-transformers/all-MiniLM-L6-v2: English, 384 numbers a sentence, fast on a CPU",
        "labse": "sentence-transformers/LaBSE: 109 languages in one space, 768 numbers a sentence",
    }
)

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*(?:@\S+)?", re.ASCII)


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
    return (
        f"{cut} of {n} texts are longer than the {encoder.max_tokens} tokens that {encoder.name} reads: only their "
        "start was encoded; split them into sentences"
    )


def known_encoders() -> Mapping[str, str]:
    """Return the short names that `load_encoder` takes, each with a line that describes the encoder."""
    return _KNOWN


def load_encoder(
    spec: str, *, device: str = "auto", batch_size: int | None = None, precision: str = "auto"
) -> Encoder:
    """Load the encoder that `spec` names (see the table at the top of this module).

    Args:
        spec: a short name, `st:PATH_OR_HUB_ID[@REVISION]`, a folder, or `OWNER/NAME[@REVISION]`.
        device: "auto" (CUDA if there is one, else the CPU), "cpu", "cuda", "cuda:1", "mps".
        batch_size: how many texts go through the model at once; None forms batches by their number of tokens,
            which is faster for texts of mixed length.
        precision: what the model multiplies in. "bfloat16" leaves a vector's cosine with its float32 self above
            0.9999; "auto" takes it where the device has instructions for it (elsewhere it is far slower), and
            "float32" otherwise. Vectors come out as float32 either way.

    Raises:
        InputError: no encoder goes by that spec, the Hub has no such model, or the device is not there.
        MissingExtraError: the library that runs this encoder is not installed.
        FliplensError: the model could not be loaded.
    """
    if batch_size is not None and batch_size < 1:
        raise InputError(f"expected a batch_size of 1 or more, or None, found {batch_size}")
    if precision not in PRECISIONS:
        raise InputError(f"expected a precision of {', '.join(PRECISIONS)}, found {precision!r}")
    if spec in _KNOWN or _is_sentence_transformers(spec):
        from fliplens.encoders import loading

        if spec == "minilm":
            return loading.load_minilm(device=device, batch_size=batch_size, precision=precision)
        if spec == "labse":
            return loading.load_labse(device=device, batch_size=batch_size, precision=precision)
        return loading.load(spec.removeprefix("st:"), device=device, batch_size=batch_size, precision=precision)
    raise InputError(
        f"expected an encoder, found {spec!r}: name one of {', '.join(_KNOWN)}, a sentence-transformers model "
        "as OWNER/NAME[@REVISION] or st:PATH_OR_HUB_ID[@REVISION], or an existing model folder"
    )


def canonical_spec(spec: str) -> str:
    """Return the one spelling of a spec that lenses and manifests record, without loading anything.

    A folder becomes `st:` and its absolute path, a Hub id `st:OWNER/NAME`; what is unknown here stays as it is.
    """
    if spec in _KNOWN or not _is_sentence_transformers(spec):
        return spec
    name = spec.removeprefix("st:")
    folder = Path(name).expanduser()
    return f"st:{folder.resolve()}" if folder.is_dir() else f"st:{name}"


def _is_sentence_transformers(spec: str) -> bool:
    """Tell whether a spec that is no short name asks for a sentence-transformers model."""
    if spec.startswith("st:"):
        return len(spec) > len("st:")
    return bool(spec) and (Path(spec).is_dir() or _HUB_NAME.fullmatch(spec) is not None)
