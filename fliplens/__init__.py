"""FLiPLens: read what a sentence embedding says.

    from fliplens import fit
    lens = fit(texts, embeddings)
    lens.words(embedding, n=10)

Names are loaded when they are first used, so that `import fliplens` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fliplens.baselines.fitting import (
        FrequencyConfig,
        ProbeConfig,
        RidgeConfig,
        SpliceConfig,
        fit_baseline,
    )
    from fliplens.choosing import VocabularyConfig
    from fliplens.comparison import ComparedAt, Comparison, compare
    from fliplens.concepts import ConceptConfig
    from fliplens.embeddings import Embeddings, Manifest, open_embeddings
    from fliplens.encoders import Encoder, load_encoder
    from fliplens.encoding import encode_texts
    from fliplens.entities import Entities, read_entities
    from fliplens.errors import (
        EmbeddingSpaceError,
        EmbeddingSpaceWarning,
        FliplensError,
        FliplensWarning,
        InputError,
        InterruptedRunError,
        MissingExtraError,
    )
    from fliplens.evaluation import AtPriors, EntityRecall, EvaluationResult, ViewResult, evaluate
    from fliplens.extractor import Extractor
    from fliplens.fitting import fit
    from fliplens.lens import Lens
    from fliplens.reading_files import write_top_words
    from fliplens.recipes import TrainConfig
    from fliplens.tokenisation import Tokeniser
    from fliplens.training import Checkpoint
    from fliplens.uncertainty import Difference, Estimate
    from fliplens.vocabulary import References, Vocabulary
    from fliplens.words import TopWords, Word, Words

__version__ = "0.1.0"

_HOMES = {
    "baselines.fitting": ("FrequencyConfig", "ProbeConfig", "RidgeConfig", "SpliceConfig", "fit_baseline"),
    "choosing": ("VocabularyConfig",),
    "comparison": ("ComparedAt", "Comparison", "compare"),
    "concepts": ("ConceptConfig",),
    "embeddings": ("Embeddings", "Manifest", "open_embeddings"),
    "encoders": ("Encoder", "load_encoder"),
    "encoding": ("encode_texts",),
    "entities": ("Entities", "read_entities"),
    "errors": (
        "EmbeddingSpaceError",
        "EmbeddingSpaceWarning",
        "FliplensError",
        "FliplensWarning",
        "InputError",
        "InterruptedRunError",
        "MissingExtraError",
    ),
    "evaluation": ("AtPriors", "EntityRecall", "EvaluationResult", "ViewResult", "evaluate"),
    "extractor": ("Extractor",),
    "fitting": ("fit",),
    "lens": ("Lens",),
    "uncertainty": ("Difference", "Estimate"),
    "reading_files": ("write_top_words",),
    "recipes": ("TrainConfig",),
    "tokenisation": ("Tokeniser",),
    "training": ("Checkpoint",),
    "vocabulary": ("References", "Vocabulary"),
    "words": ("TopWords", "Word", "Words"),
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
