"""The state that training starts from: coordinates, anchor, zero moments."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fliplens.arithmetic.objective import Factors
from fliplens.embeddings import Embeddings
from fliplens.errors import InputError
from fliplens.training.anchoring import (
    Coordinates,
    anchored_factors,
    covariance,
    log_unigrams,
    random_factors,
    sentence_means,
)
from fliplens.training.recipes import TrainConfig
from fliplens.training.state import TrainState
from fliplens.training.views import Views

__all__ = ["starting_state"]

WHITENING_RIDGE = 0.1


def starting_state(
    data: Views,
    config: TrainConfig,
    rank: int | None,
    word_vectors: NDArray[np.float32] | None,
    *,
    show_progress: bool = False,
) -> TrainState:
    """Return the state before the first step, on the processor.

    Args:
        data: rows to train on.
        config: the recipe.
        rank: r; None for the full-rank baseline.
        word_vectors: the encoder's vectors of the vocabulary words (V, d), for anchor words.
        show_progress: bars on stderr where a look at all rows takes more than a moment.

    Raises:
        InputError: embeddings that are all alike, anchor words without vectors or with vectors of another shape.
    """
    views = data.weighted(config.alpha)
    coordinates, spread = _coordinates(views, config, show_progress)
    factors, anchor = _start(data, views, config, coordinates, spread, rank, word_vectors, show_progress)
    return TrainState.start(factors, coordinates, anchor)


def _coordinates(
    views: list[tuple[Embeddings, float]], config: TrainConfig, show_progress: bool
) -> tuple[Coordinates, NDArray[np.float64]]:
    """Return the training coordinates and the covariance of the sentences in them."""
    moments = [(*covariance(view, show_progress=show_progress), weight) for view, weight in views]
    mean = sum((m * weight for m, _, weight in moments), np.zeros(views[0][0].dim))
    spread = sum(
        ((c + np.outer(m - mean, m - mean)) * weight for m, c, weight in moments), np.zeros((len(mean),) * 2)
    )
    length = float(np.trace(spread))
    if not length > 0:
        raise InputError(f"expected embeddings that differ from row to row, found {views[0][0].name} all alike")
    if not config.centre:
        # Raw coordinates, as the paper trains; the second moment takes the covariance's place in an anchor.
        spread = spread + np.outer(mean, mean)
        mean = np.zeros_like(mean)
        scale = 1.0
    else:
        scale = float(1 / np.sqrt(length))
    transform: NDArray[np.float32] | float = scale
    if config.whiten:
        variances, axes = np.linalg.eigh(spread)
        variances = np.maximum(variances, 0) + WHITENING_RIDGE * variances.mean()
        root = (axes / np.sqrt(variances)) @ axes.T
        root /= np.sqrt(np.trace(root @ spread @ root))
        transform = root.astype(np.float32)
        spread = root @ spread @ root
    else:
        spread = spread * scale**2
    return Coordinates(mean.astype(np.float32), transform), spread


def _start(
    data: Views,
    views: list[tuple[Embeddings, float]],
    config: TrainConfig,
    coordinates: Coordinates,
    spread: NDArray[np.float64],
    rank: int | None,
    word_vectors: NDArray[np.float32] | None,
    show_progress: bool,
) -> tuple[Factors, str]:
    """Return starting factors and the name of their anchor."""
    n_words, dim = data.counts.shape[1], data.primary.dim
    anchor: str = config.anchor
    if anchor == "auto":
        anchor = "sentences" if word_vectors is None else "words"
    if anchor == "random":
        generator = torch.Generator().manual_seed(config.seed)
        # The published code draws its bias near zero; its log-unigram start never took effect.
        bias = log_unigrams(data.counts) if config.centre else _small_bias(n_words, generator)
        return random_factors(n_words, dim, bias, rank=rank, generator=generator), anchor
    if anchor == "words":
        if word_vectors is None:
            raise InputError(
                "expected an encoder for anchor=words, found none: name it with --encoder, or use anchor=sentences"
            )
        vectors = word_vectors
    else:
        vectors = sentence_means(views, data.counts, show_progress=show_progress)
    if vectors.shape != (n_words, dim):
        raise InputError(
            f"expected one vector of {dim} dimensions for each of {n_words} words, found {vectors.shape}: "
            "the encoder is not the one that made the embeddings"
        )
    return (
        anchored_factors(
            coordinates.apply(vectors, overwrite=anchor == "sentences"),
            torch.from_numpy(spread),
            log_unigrams(data.counts),
            rank=rank,
        ),
        anchor,
    )


def _small_bias(n_words: int, generator: torch.Generator) -> Tensor:
    """Return a Xavier-normal (V, 1) bias, as the published code starts with."""
    return torch.randn(n_words, generator=generator).mul_((2.0 / (n_words + 1)) ** 0.5)
