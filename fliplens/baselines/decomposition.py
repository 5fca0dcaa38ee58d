"""SpLiCE: a vector as a sparse, non-negative sum of concept vectors: pure arithmetic.

Sparse Linear Concept Embeddings (Bhalla et al. 2024, arXiv 2402.10376) explain an embedding by the weights of
concepts. Concept vectors are normalised, centred by their own mean, and normalised again: the rows of a dictionary
D (C, d). Embeddings are normalised, centred by the mean of embeddings of their kind, and normalised again: the
targets y (d,). The weights w (C,) of a target minimise

    (1 / (2 d)) · |y - Dᵀ w|² + penalty · Σ_c w_c      over w ≥ 0

which is scikit-learn's `Lasso(alpha=penalty, positive=True, fit_intercept=False)` on X = Dᵀ, as in the authors' code,
whose own `l1_penalty` is 2 d times this penalty. `fliplens.arithmetic.lasso` says how it is solved.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, vstack

from fliplens.arithmetic.lasso import Atoms, Solution, non_negative_lasso
from fliplens.embeddings import Embeddings, EmbeddingsLike, as_embeddings
from fliplens.errors import InputError

__all__ = ["Decomposition", "Dictionary", "centred", "decompose", "decompose_blocks", "mean_of"]

TOLERANCE = 1e-5
BLOCK_BYTES = 48 * 2**20
"""Bound on a block's correlations, rows × C, where the caller does not say how many rows."""
MOST_ROWS = 1024
LENGTH_ERROR = 1e-3
"""How far a row's length may be from 1, in a dictionary that is made elsewhere."""


class Dictionary:
    """Concept vectors, ready for `decompose`. `from_vectors` makes them out of an encoder's vectors.

    Args:
        rows: D (C, d), each row of length 1, or zero: such a concept never gets a weight. Rows may be equal; what
            share each gets of their weight is then left open, their sum is not.

    Raises:
        InputError: not (C, d) floating point, not finite, or a row of another length.
    """

    def __init__(self, rows: EmbeddingsLike) -> None:
        embeddings = as_embeddings(rows, name="the dictionary")
        embeddings.check_finite()
        lengths, array = _lengths(embeddings.to_numpy())
        wrong = np.flatnonzero((np.abs(lengths - 1) > LENGTH_ERROR) & (lengths > 0))
        if len(wrong):
            raise InputError(
                f"expected rows of length 1 or 0 in the dictionary, found length {lengths[wrong[0]]:.6g} in row "
                f"{wrong[0]} (counted from 0): make it with Dictionary.from_vectors"
            )
        self._atoms = Atoms(torch.from_numpy(array))

    @classmethod
    def from_vectors(cls, vectors: EmbeddingsLike) -> Dictionary:
        """Return the dictionary of concepts with these vectors: normalised, centred by their mean, normalised again.

        Args:
            vectors: (C, d), an encoder's vectors of the concepts themselves, or for instance the mean vectors of the
                sentences that hold them. A zero vector, and one that is the mean, become a zero row.

        Raises:
            InputError: not (C, d) floating point, or not finite.
        """
        embeddings = as_embeddings(vectors, name="the concepts' vectors")
        return cls(centred(embeddings.to_numpy(), mean_of(embeddings)))

    def __len__(self) -> int:
        """C, how many concepts there are."""
        return self._atoms.size

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} concepts, dim={self.dim})"

    @property
    def dim(self) -> int:
        """d, the length of a vector."""
        return self._atoms.dim

    @property
    def rows(self) -> NDArray[np.float32]:
        """D (C, d), not to be changed."""
        rows: NDArray[np.float32] = self._atoms.rows.numpy()
        return rows


@dataclass(frozen=True, eq=False)
class Decomposition:
    """The concepts of n vectors, and how near to the optimum they are."""

    weights: csr_matrix[np.float32]
    """w (n, C): above 0, with sorted indices; what is not stored is exactly 0."""

    objective: NDArray[np.float64]
    """(n,): what was minimised."""

    gap: NDArray[np.float64]
    """(n,): a bound on how far the objective is above its minimum, as a share of it: the duality gap. Rounding
    moves it by some 1e-7 · |y| / (d · penalty), in what is worked in and as weights become float32, and the objective
    itself by the square of that alone."""

    rounds: NDArray[np.int32]
    """(n,): how often the problem among a few concepts was solved; one product with the dictionary more."""

    tolerance: float
    """What `gap` was to be brought to."""

    @property
    def reached(self) -> NDArray[np.bool_]:
        """(n,): whether the gap is within the tolerance."""
        return self.gap <= self.tolerance


def mean_of(vectors: EmbeddingsLike) -> NDArray[np.float32]:
    """Return the mean of the normalised vectors, (d,): what `centred` and `decompose` take off.

    Raises:
        InputError: not (n, d) floating point, or not finite.
    """
    embeddings = as_embeddings(vectors, name="vectors")
    total = np.zeros(embeddings.dim)
    for start, rows in embeddings.blocks():
        _check_finite(embeddings, start, rows)
        total += _unit(rows).sum(axis=0, dtype=np.float64)
    return (total / len(embeddings)).astype(np.float32)


def centred(vectors: NDArray[np.floating[Any]], mean: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return vectors (n, d) normalised, with `mean` (d,) taken off, and normalised again; zero rows stay zero."""
    rows = _unit(vectors)
    nothing = ~rows.any(axis=1)
    rows -= mean
    rows[nothing] = 0.0
    # A vector that is the mean but for rounding would become an arbitrary direction.
    rows[np.square(rows, dtype=np.float64).sum(axis=1) < (4 * np.finfo(np.float32).eps) ** 2] = 0.0
    return _unit(rows)


def decompose(
    vectors: EmbeddingsLike,
    dictionary: Dictionary,
    penalty: float,
    *,
    mean: NDArray[np.floating[Any]] | None = None,
    tolerance: float = TOLERANCE,
    block_rows: int | None = None,
) -> Decomposition:
    """Return the concepts of all vectors at once: `decompose_blocks`, put together.

    Args:
        vectors: y (n, d), or with `mean` the embeddings as they come.
        dictionary: D.
        penalty: above 0, scikit-learn's alpha. At max_c D_c·y / d and above, no concept is left.
        mean: (d,), taken off the normalised vectors, which are then normalised again; None takes them as they are.
        tolerance: how far the objective may be above its minimum, as a share of it; float32 does for the usual
            penalties down to some 1e-6, and float64 takes longer.
        block_rows: vectors that are worked on together; memory is some 5 · block_rows · C bytes. None chooses.

    Raises:
        InputError: see `decompose_blocks`.
    """
    parts = [
        part
        for _, part in decompose_blocks(
            vectors, dictionary, penalty, mean=mean, tolerance=tolerance, block_rows=block_rows
        )
    ]
    if len(parts) == 1:
        return parts[0]
    return Decomposition(
        weights=vstack([part.weights for part in parts], format="csr"),
        objective=np.concatenate([part.objective for part in parts]),
        gap=np.concatenate([part.gap for part in parts]),
        rounds=np.concatenate([part.rounds for part in parts]),
        tolerance=tolerance,
    )


def decompose_blocks(
    vectors: EmbeddingsLike,
    dictionary: Dictionary,
    penalty: float,
    *,
    mean: NDArray[np.floating[Any]] | None = None,
    tolerance: float = TOLERANCE,
    block_rows: int | None = None,
) -> Iterator[tuple[int, Decomposition]]:
    """Yield (first row, its decomposition) over blocks of rows in order, so that nothing grows with their number.

    Arguments are those of `decompose`, and are checked at once.

    Raises:
        InputError: vectors that are not (n, d) floating point or not finite, another d than the dictionary's, a
            penalty, tolerance or number of rows that cannot be.
    """
    embeddings = as_embeddings(vectors, name="vectors")
    embeddings.check_dim(dictionary.dim, made_for="the dictionary's")
    if isinstance(penalty, bool) or not penalty > 0 or not math.isfinite(penalty):
        raise InputError(f"expected a penalty above 0, found {penalty!r}")
    if isinstance(tolerance, bool) or not 0 < tolerance < 1:
        raise InputError(f"expected a tolerance between 0 and 1, found {tolerance!r}")
    if block_rows is None:
        block_rows = max(1, min(MOST_ROWS, BLOCK_BYTES // (4 * len(dictionary))))
    elif isinstance(block_rows, bool) or not isinstance(block_rows, int) or block_rows < 1:
        raise InputError(f"expected block_rows as a whole number from 1, found {block_rows!r}")
    mean = None if mean is None else _checked_mean(mean, dictionary.dim)
    return _decompose_blocks(embeddings, dictionary, float(penalty), mean, float(tolerance), block_rows)


def _decompose_blocks(
    embeddings: Embeddings,
    dictionary: Dictionary,
    penalty: float,
    mean: NDArray[np.float32] | None,
    tolerance: float,
    block_rows: int,
) -> Iterator[tuple[int, Decomposition]]:
    atoms = dictionary._atoms
    for start, rows in embeddings.blocks(block_rows):
        _check_finite(embeddings, start, rows)
        lengths, targets = _lengths(rows if mean is None else centred(rows, mean))
        # |y| scales both terms: with y / |y| and λ / |y| the weights are w / |y|, the objective that over |y|².
        scale = np.where(lengths > 0, lengths, 1.0)
        solution = non_negative_lasso(
            torch.from_numpy(targets), torch.from_numpy(penalty * atoms.dim / scale), atoms, tolerance=tolerance
        )
        yield start, _decomposition(solution, scale, atoms, tolerance)


def _decomposition(solution: Solution, scale: NDArray[np.float64], atoms: Atoms, tolerance: float) -> Decomposition:
    """Return the solution of rows of length 1 as that of rows of the given lengths."""
    values = solution.weights.numpy() * scale[:, None]
    rows, places = np.nonzero(solution.weights.numpy() > 0)
    columns = solution.columns.numpy()[rows, places]
    order = np.lexsort((columns, rows))
    starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(scale)))])
    weights = csr_matrix(
        (values[rows, places][order].astype(np.float32), columns[order], starts), shape=(len(scale), atoms.size)
    )
    return Decomposition(
        weights=weights,
        objective=solution.objective.numpy() * scale**2 / atoms.dim,
        gap=solution.gap.numpy(),
        rounds=solution.rounds.numpy(),
        tolerance=tolerance,
    )


def _lengths(rows: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Return the lengths (n,) of rows (n, d), and the rows at length 1; zero rows stay zero."""
    double = rows.astype(np.float64)
    lengths: NDArray[np.float64] = np.sqrt(np.square(double).sum(axis=1))
    unit = double / np.where(lengths > 0, lengths, 1.0)[:, None]
    return lengths, unit.astype(np.float32)


def _unit(rows: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    return _lengths(rows)[1]


def _check_finite(embeddings: Embeddings, start: int, rows: NDArray[np.float32]) -> None:
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise embeddings.not_finite(bad + start)


def _checked_mean(mean: NDArray[np.floating[Any]], dim: int) -> NDArray[np.float32]:
    array: NDArray[np.float32] = np.asarray(mean, dtype=np.float32)
    if array.shape != (dim,) or not np.isfinite(array).all():
        raise InputError(f"expected a mean of {dim} finite numbers, found shape {array.shape}, NaN or infinity")
    return array
