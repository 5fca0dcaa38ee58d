"""A lens as a scikit-learn estimator, for pipelines and searches. Needs the extra `sklearn`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fliplens.arithmetic.decoding import Decoding, check_decoding
from fliplens.errors import InputError, MissingExtraError
from fliplens.text.choosing import VocabularyConfig
from fliplens.text.tokenisation import Tokeniser
from fliplens.text.vocabulary import check_size
from fliplens.training.fitting import fit
from fliplens.training.recipes import TrainConfig

try:
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise MissingExtraError("fliplens.sklearn", "sklearn") from error

if TYPE_CHECKING:
    from fliplens.lenses.lens import Lens
    from fliplens.lenses.words import TopWords

__all__ = ["LensTransformer"]


class LensTransformer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Embeddings in, word scores out: `fit(embeddings, texts)`, `transform(embeddings)`.

    Args:
        rank: r of the factors, or "full"; None takes 512, or d where that is smaller.
        recipe: "default" or "paper".
        passes: over the rows; None takes the recipe's.
        vocab_size: the most frequent words, at most; None keeps all.
        min_df: leave out words of fewer texts.
        tokeniser: what cuts texts into words: "default", "icu" or another mode of `fliplens.Tokeniser`, or one of
            these itself.
        prior: position of the prior dial in `transform` and `top_words`, 0..1.
        decoding: how `top_words` chooses words: "plain" or "explain-away", which takes some seconds more to fit.
            `transform` gives plain scores either way.
        encoder: spec of the encoder that made the vectors, or an encoder; None needs none.
        random_state: seed, or a NumPy random state.

    Attributes:
        lens_: the fitted `Lens`.
        n_features_in_: d.
    """

    def __init__(
        self,
        *,
        rank: Any = None,
        recipe: str = "default",
        passes: int | None = None,
        vocab_size: int | None = 100_000,
        min_df: int | float = 1,
        tokeniser: Any = "default",
        prior: float = 1.0,
        decoding: Decoding = "plain",
        encoder: Any = None,
        random_state: Any = 0,
    ) -> None:
        self.rank = rank
        self.recipe = recipe
        self.passes = passes
        self.vocab_size = vocab_size
        self.min_df = min_df
        self.tokeniser = tokeniser
        self.prior = prior
        self.decoding = decoding
        self.encoder = encoder
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> LensTransformer:
        """Train a lens on embeddings X (n, d) and their n texts y; what is no string is taken as its `str`."""
        if y is None:
            raise InputError("requires y to be passed, but the target y is None: y is the text of each row")
        X = validate_data(self, X, dtype=np.float32, ensure_min_samples=2)
        texts = [str(text) for text in (y if isinstance(y, list) else np.asarray(y).ravel())]
        if len(texts) != len(X):
            raise InputError(f"expected as many texts as vectors, found {len(texts)} and {len(X)}")
        seed = self.random_state
        if not isinstance(seed, int):
            seed = int(check_random_state(seed).randint(2**31 - 1))
        check_decoding(self.decoding)
        check_size("vocab_size", self.vocab_size)
        cut = self.tokeniser if isinstance(self.tokeniser, Tokeniser) else Tokeniser(mode=self.tokeniser)
        changes = {} if self.passes is None else {"passes": self.passes}
        self.lens_: Lens = fit(
            texts,
            X,
            vocabulary=VocabularyConfig(size=self.vocab_size, min_df=self.min_df, tokeniser=cut),
            encoder=self.encoder,
            config=TrainConfig.from_recipe(self.recipe, rank=self.rank, seed=seed, **changes),
            explain_away=self.decoding == "explain-away",
        )
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Return the scores of all words, (n, V): dense, so meant for moderate n · V; else see `top_words`."""
        check_is_fitted(self)
        return self.lens_.scores(validate_data(self, X, dtype=np.float32, reset=False), prior=self.prior)

    def top_words(self, X: Any, n: int | None = None) -> TopWords:
        """Return the n best words of every vector of X (rows, d)."""
        check_is_fitted(self)
        vectors = validate_data(self, X, dtype=np.float32, reset=False)
        return self.lens_.top(vectors, n, prior=self.prior, decoding=self.decoding)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Return the words, in the order of `transform`'s columns. The names of the input do not matter."""
        del input_features
        check_is_fitted(self)
        return np.asarray(self.lens_.vocabulary.words, dtype=object)

    def __sklearn_tags__(self) -> Any:
        """Say that a target is needed, and that the scores come out as float32."""
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags
