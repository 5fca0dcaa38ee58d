"""Numbers that published weights are known to give, to tell a sound installation from one that only runs."""

from __future__ import annotations

from dataclasses import dataclass

from fliplens.encoders.protocol import Encoder
from fliplens.encoders.registry import parse_spec
from fliplens.errors import InputError

__all__ = ["GOLDEN", "Golden", "golden_of"]


@dataclass(frozen=True)
class Golden:
    """Cosines, or scalar products, between the vectors of two lists of sentences or recordings."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    """One row a sentence of `rows`, one number a sentence of `columns`."""
    families: tuple[str, ...]
    """The families of encoders that make the published vectors of these weights; others make something else."""
    source: str
    """Where they come from."""
    languages: tuple[str, str] | None = None
    """The codes of the languages of rows and columns, for an encoder that is told them (`in_language`)."""
    tolerance: float = 1e-4
    """What rounding may change of a value in float32."""
    recordings: str = ""
    """Where `rows` and `columns` are names of recordings, that the caller brings: where they are to be had."""
    products: bool = False
    """Whether the values are scalar products, and not cosines."""
    precisions: tuple[str, ...] = ("float32", "bfloat16")
    """In which of these the values say something."""

    @property
    def measure(self) -> str:
        """What the values are, for people."""
        return "products" if self.products else "cosines"


GOLDEN = {
    "sentence-transformers/all-MiniLM-L6-v2": Golden(
        rows=("Hello, my name is Paul", "I'm working as a teacher"),
        columns=("My name is Paul.", "He teaches at a school.", "It rained all summer."),
        values=((0.913714, 0.091435, 0.085512), (0.217712, 0.417592, 0.078610)),
        families=("minilm", "st"),
        source="sentence-transformers in float64, on the published weights",
    ),
    "cointegrated/SONAR_200_text_encoder": Golden(
        rows=("Hello, my name is Paul", "I'm working as a teacher"),
        columns=("Bonjour, mon nom est Paul", "Je travaille comme professeur."),
        values=((0.9367, 0.3658), (0.3787, 0.8596)),
        families=("sonar-text",),
        source="SONAR's own pipeline, its basic text encoder",
        languages=("eng_Latn", "fra_Latn"),
    ),
    "sonar-speech-eng": Golden(
        rows=("audio_1.wav",),
        columns=("audio_1.wav", "audio_2.wav"),
        values=((0.0429819, 0.00286825),),
        families=("sonar-speech",),
        source="SONAR's own tests",
        recordings="tests/integration_tests/data/audio_files of github.com/facebookresearch/SONAR",
        products=True,
        precisions=("float32",),
    ),
}
"""By the name of the encoder: a Hub id, never a folder, as a folder's name says nothing of what it holds; and SONAR's
speech encoders, whose folders say of what language they are, and are experimental until the values are met."""


def golden_of(encoder: Encoder) -> Golden | None:
    """Return what is known of an encoder's vectors, None for one of which nothing is."""
    golden = GOLDEN.get(encoder.name)
    try:
        spec = parse_spec(encoder.spec)
    except InputError:  # an encoder of the caller's own
        return None
    # An option makes other vectors of the same weights; the language is chosen here.
    own = [option for option in spec.options if option != "language"]
    return golden if golden is not None and spec.family in golden.families and not own else None
