"""Plain, slow, float64 versions of what the library computes, written apart from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def dense_loss_and_gradients(
    E1: F64, E2: F64 | None, b: F64, embeddings: F64, counts: F64, weights: F64
) -> tuple[float, F64, F64 | None, F64]:
    """Loss and gradients of the log-linear model, one row at a time."""
    W = E1 if E2 is None else E1 @ E2
    gW, gb, loss = np.zeros_like(W), np.zeros_like(b), 0.0
    for s, x, weight in zip(embeddings, counts, weights, strict=True):
        logits = W @ s + b
        shift = logits.max()
        log_total = shift + math.log(np.exp(logits - shift).sum())
        loss += weight * float(-(x * (logits - log_total)).sum())
        slope = weight * (x.sum() * np.exp(logits - log_total) - x)
        gW += np.outer(slope, s)
        gb += slope
    if E2 is None:
        return loss, gW, None, gb
    return loss, gW @ E2.T, E1.T @ gW, gb


def brute_force_top(scores: F64, n: int) -> list[int]:
    """Best n indices of one row; ties to the lower index."""
    return sorted(range(len(scores)), key=lambda index: (-scores[index], index))[:n]


def brute_force_accuracy(scores: F64, known: set[int]) -> float | None:
    """Share of the k known words among the top k; None without any."""
    if not known:
        return None
    return len(known & set(brute_force_top(scores, len(known)))) / len(known)


def brute_force_entity_recall(
    ranked: Sequence[str], entities: Sequence[Sequence[str]], n: int
) -> tuple[float, float]:
    """Strict and partial recall of a sentence's entities among its first n words."""
    top = set(ranked[:n])
    strict = [all(word in top for word in entity) for entity in entities]
    partial = [sum(word in top for word in entity) / len(entity) for entity in entities]
    return sum(strict) / len(strict), sum(partial) / len(partial)


def ordered_scores_of_row(E1: NDArray[np.float32], b: NDArray[np.float32], z: NDArray[np.float32]) -> Any:
    """Scores of all words for one latent vector in the library's stated order, (V,): zeros fill up to halves."""
    terms = E1 * z[None, :]
    width = 1
    while width < terms.shape[1]:
        width *= 2
    terms = np.concatenate([terms, np.zeros((len(E1), width - terms.shape[1]), np.float32)], axis=1)
    while terms.shape[1] > 1:
        left, right = np.split(terms, 2, axis=1)
        terms = left + right
    return terms[:, 0] + b
