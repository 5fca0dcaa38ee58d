"""SpLiCE as a method that reads words: its weights are the scores, and concepts without weight are not named."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fliplens.arithmetic.decoding import Decoding
from fliplens.baselines.decomposition import Dictionary, decompose_blocks
from fliplens.embeddings import Embeddings
from fliplens.errors import InputError
from fliplens.lenses.extractor import Extractor, ViewName, check_prior
from fliplens.lenses.fingerprint import Fingerprint
from fliplens.text.vocabulary import Vocabulary

__all__ = ["Splice"]


class Splice(Extractor):
    """A sparse, non-negative sum of concept vectors for every vector (`fliplens.baselines.decomposition`).

    Args:
        dictionary: float32 (C, d), the concepts' vectors, each of length 1 or 0.
        mean: (d,), taken off the normalised vectors of the primary view.
        paired_mean: (d,), taken off those of the paired view, which are of another kind (`for_view`); by default
            the same.
        penalty: of the weights, scikit-learn's alpha.
        vocabulary: the C concepts.
        fingerprint: of the embedding space.
        config: what is known of how it was made.

    Raises:
        InputError: shapes that do not fit together, values that are not finite, or a penalty that is none.
    """

    kind: ClassVar[str] = "SpLiCE model"
    softmax: ClassVar[bool] = False
    floor: ClassVar[float] = 0.0

    def __init__(
        self,
        dictionary: Tensor | NDArray[np.float32],
        mean: Tensor | NDArray[np.float32],
        penalty: float,
        vocabulary: Vocabulary,
        *,
        fingerprint: Fingerprint | None = None,
        paired_mean: Tensor | NDArray[np.float32] | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(vocabulary, fingerprint=fingerprint, config=config)
        rows = np.asarray(torch.as_tensor(dictionary).cpu(), dtype=np.float32)
        given = {"primary": mean} if paired_mean is None else {"primary": mean, "paired": paired_mean}
        self._means = {view: np.asarray(torch.as_tensor(one).cpu(), dtype=np.float32) for view, one in given.items()}
        for one in self._means.values():
            if rows.ndim != 2 or len(rows) != len(vocabulary) or one.shape != rows.shape[1:]:
                raise InputError(
                    f"expected a dictionary of {len(vocabulary)} rows and a mean of its width, found shapes "
                    f"{rows.shape} and {one.shape}: these files belong to different models"
                )
            if not np.isfinite(one).all():
                raise InputError("expected finite numbers in the mean, found NaN or infinite ones: the file is bad")
        if isinstance(penalty, bool) or not 0 < penalty < float("inf"):
            raise InputError(f"expected a penalty above 0, found {penalty!r}")
        self.penalty = float(penalty)
        self.dictionary = Dictionary(rows)
        self._view: ViewName = "primary"

    @property
    def dim(self) -> int:
        """d, the length of the vectors it reads."""
        return self.dictionary.dim

    def __repr__(self) -> str:
        sizes = f"{len(self.vocabulary)} concepts, {self.dim} dimensions"
        return f"Splice({sizes}, penalty {self.penalty:g}, {self.encoder})"

    def to(self, device: torch.device | str) -> Splice:
        """Return itself: the decomposition runs on the processor, whatever device others use."""
        del device
        return self

    def for_view(self, view: ViewName) -> Splice:
        """Return what takes the mean of that view's vectors off; without a paired one all are alike."""
        if view == self._view or view not in self._means:
            return self
        other = copy.copy(self)
        other._view = view
        return other

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return dictionary, mean and penalty, and beside them the paired view's mean, where there is one."""
        parameters = {
            "dictionary": torch.from_numpy(self.dictionary.rows),
            "mean": torch.from_numpy(self._means["primary"]),
            "penalty": torch.tensor([self.penalty], dtype=torch.float64),
        }
        paired = self._means.get("paired")
        return parameters, {} if paired is None else {"paired_mean": torch.from_numpy(paired)}

    def describe(self) -> dict[str, Any]:
        """Return kind, sizes and penalty."""
        sizes = {"vocabulary_size": len(self.vocabulary), "embedding_dim": self.dim}
        return {"model": {"type": "SpLiCE", "penalty": self.penalty, **sizes}}

    def decoding_bias(self, decoding: Decoding, prior: float = 1.0) -> Tensor:
        """Return zeros: weights have no prior, wherever the dial stands."""
        if decoding != "plain":
            raise InputError(
                f"expected decoding plain of a SpLiCE model, found {decoding!r}: it reads concepts together anyway"
            )
        check_prior(prior)
        return torch.zeros(len(self.vocabulary))

    def decoding_blocks(
        self, embeddings: Embeddings, decoding: Decoding, *, most_rows: int | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield (first row, weights) in blocks of bounded memory; concepts without weight are below zero, all apart.

        Below zero they are not named (`floor`), and being all different they need no ordering of ties.
        """
        del decoding
        mean = self._means.get(self._view, self._means["primary"])
        without = -torch.arange(1, len(self.vocabulary) + 1, dtype=torch.float32)
        blocks = decompose_blocks(embeddings, self.dictionary, self.penalty, mean=mean, block_rows=most_rows)
        for start, found in blocks:
            scores = without.repeat(found.weights.shape[0], 1)
            rows = np.repeat(np.arange(found.weights.shape[0]), np.diff(found.weights.indptr))
            scores[rows, found.weights.indices.astype(np.int64)] = torch.from_numpy(found.weights.data)
            yield start, scores
