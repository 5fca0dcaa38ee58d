"""FLiPLens: read what a sentence embedding says.

    from fliplens import fit
    lens = fit(texts, embeddings)
    lens.words(embedding, n=10)

Names are loaded when they are first used, so that `import fliplens` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fliplens.arithmetic.uncertainty import Difference, Estimate
    from fliplens.baselines.fitting import (
        FrequencyConfig,
        ProbeConfig,
        RidgeConfig,
        SpliceConfig,
        fit_baseline,
    )
    from fliplens.embeddings import Embeddings, Manifest, open_embeddings
    from fliplens.encoders import Encoder, load_encoder
    from fliplens.encoding.texts import encode_texts
    from fliplens.errors import (
        EmbeddingSpaceError,
        EmbeddingSpaceWarning,
        FliplensError,
        FliplensWarning,
        InputError,
        InterruptedRunError,
        MissingExtraError,
    )
    from fliplens.evaluation.comparison import ComparedAt, Comparison, compare
    from fliplens.evaluation.entities import Entities, read_entities
    from fliplens.evaluation.evaluating import AtPriors, EntityRecall, EvaluationResult, ViewResult, evaluate
    from fliplens.lenses.extractor import Extractor
    from fliplens.lenses.lens import Lens
    from fliplens.lenses.reading_files import write_top_words
    from fliplens.lenses.words import TopWords, Word, Words
    from fliplens.text.choosing import VocabularyConfig
    from fliplens.text.concepts import ConceptConfig
    from fliplens.text.tokenisation import Tokeniser
    from fliplens.text.vocabulary import References, Vocabulary
    from fliplens.training import Checkpoint
    from fliplens.training.fitting import fit
    from fliplens.training.recipes import TrainConfig

__version__ = "0.1.0"

_HOMES = {
    "baselines.fitting": ("FrequencyConfig", "ProbeConfig", "RidgeConfig", "SpliceConfig", "fit_baseline"),
    "text.choosing": ("VocabularyConfig",),
    "evaluation.comparison": ("ComparedAt", "Comparison", "compare"),
    "text.concepts": ("ConceptConfig",),
    "embeddings": ("Embeddings", "Manifest", "open_embeddings"),
    "encoders": ("Encoder", "load_encoder"),
    "encoding.texts": ("encode_texts",),
    "evaluation.entities": ("Entities", "read_entities"),
    "errors": (
        "EmbeddingSpaceError",
        "EmbeddingSpaceWarning",
        "FliplensError",
        "FliplensWarning",
        "InputError",
        "InterruptedRunError",
        "MissingExtraError",
    ),
    "evaluation.evaluating": ("AtPriors", "EntityRecall", "EvaluationResult", "ViewResult", "evaluate"),
    "lenses.extractor": ("Extractor",),
    "training.fitting": ("fit",),
    "lenses.lens": ("Lens",),
    "arithmetic.uncertainty": ("Difference", "Estimate"),
    "lenses.reading_files": ("write_top_words",),
    "training.recipes": ("TrainConfig",),
    "text.tokenisation": ("Tokeniser",),
    "training": ("Checkpoint",),
    "text.vocabulary": ("References", "Vocabulary"),
    "lenses.words": ("TopWords", "Word", "Words"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AtPriors",
    "Checkpoint",
    "ComparedAt",
    "Comparison",
    "ConceptConfig",
    "Difference",
    "EmbeddingSpaceError",
    "EmbeddingSpaceWarning",
    "Embeddings",
    "Encoder",
    "Entities",
    "EntityRecall",
    "Estimate",
    "EvaluationResult",
    "Extractor",
    "FliplensError",
    "FliplensWarning",
    "FrequencyConfig",
    "InputError",
    "InterruptedRunError",
    "Lens",
    "Manifest",
    "MissingExtraError",
    "ProbeConfig",
    "References",
    "RidgeConfig",
    "SpliceConfig",
    "Tokeniser",
    "TopWords",
    "TrainConfig",
    "ViewResult",
    "Vocabulary",
    "VocabularyConfig",
    "Word",
    "Words",
    "__version__",
    "compare",
    "encode_texts",
    "evaluate",
    "fit",
    "fit_baseline",
    "load_encoder",
    "open_embeddings",
    "read_entities",
    "write_top_words",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"fliplens.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
