"""FLiPLens: read what a sentence embedding says.

    from fliplens import fit
    lens = fit(texts, embeddings)
    lens.words(embedding, n=10)

Names are loaded when they are first used, so that `import fliplens` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
        MissingExtraError,
    )
    from fliplens.evaluation import AtPriors, EntityRecall, EvaluationResult, ViewResult, evaluate
    from fliplens.fitting import VocabularyConfig, fit
    from fliplens.lens import Lens, TopWords, Word, Words
    from fliplens.metrics import Estimate
    from fliplens.recipes import TrainConfig
    from fliplens.tokenisation import Tokeniser
    from fliplens.vocabulary import References, Vocabulary

__version__ = "0.1.0"

_HOMES = {
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
        "MissingExtraError",
    ),
    "evaluation": ("AtPriors", "EntityRecall", "EvaluationResult", "ViewResult", "evaluate"),
    "fitting": ("VocabularyConfig", "fit"),
    "lens": ("Lens", "TopWords", "Word", "Words"),
    "metrics": ("Estimate",),
    "recipes": ("TrainConfig",),
    "tokenisation": ("Tokeniser",),
    "vocabulary": ("References", "Vocabulary"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AtPriors",
    "EmbeddingSpaceError",
    "EmbeddingSpaceWarning",
    "Embeddings",
    "Encoder",
    "Entities",
    "EntityRecall",
    "Estimate",
    "EvaluationResult",
    "FliplensError",
    "FliplensWarning",
    "InputError",
    "Lens",
    "Manifest",
    "MissingExtraError",
    "References",
    "Tokeniser",
    "TopWords",
    "TrainConfig",
    "ViewResult",
    "Vocabulary",
    "VocabularyConfig",
    "Word",
    "Words",
    "__version__",
    "encode_texts",
    "evaluate",
    "fit",
    "load_encoder",
    "open_embeddings",
    "read_entities",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"fliplens.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
