"""The one way to vectors: whatever a caller hands in, opened as `Embeddings`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fliplens.embeddings.matrix import Embeddings
from fliplens.embeddings.parts import check_array
from fliplens.errors import InputError
from fliplens.sources.registry import kind_of
from fliplens.sources.specs import SourceSpec

if TYPE_CHECKING:
    import torch

__all__ = ["EmbeddingsLike", "as_embeddings", "open_embeddings"]

EmbeddingsLike: TypeAlias = "Embeddings | NDArray[np.floating] | torch.Tensor | str | Path"


def as_embeddings(value: EmbeddingsLike, *, name: str = "embeddings") -> Embeddings:
    """Return `value` as `Embeddings`: an array or tensor (n, d), a source, or embeddings as they are.

    Raises:
        InputError: not two-dimensional, not floating point, or without rows or columns.
    """
    if isinstance(value, Embeddings):
        return value
    if isinstance(value, str | Path):
        return open_embeddings(value)
    if hasattr(value, "detach"):
        tensor = value.detach().cpu()
        array = np.asarray((tensor.float() if tensor.is_floating_point() else tensor).numpy())
    else:
        array = np.asarray(value)
    check_array(array, name)
    return Embeddings([array], name=name)


def open_embeddings(source: str | Path, *, verify: bool = False) -> Embeddings:
    """Open the vectors that a source names, without reading them.

    Headers, shapes, dtypes and file sizes are checked. `fliplens.sources.known_sources` lists the forms: an `.npy`
    file, a folder of shards, `.safetensors`, Parquet, Arrow, a saved dataset, a FAISS index, each with options behind
    `#` where it needs any.

    Args:
        source: a path, or `KIND:PLACE`, either perhaps with `#option=value,option=value`.
        verify: also compare every part's SHA-256 with the manifest.

    Raises:
        InputError: missing, empty, truncated, of the wrong rank or dtype, or not what the manifest says; or a store
            that has to be imported first.
        MissingExtraError: the library that reads it is not installed.
    """
    parsed = SourceSpec.parse(source)
    kind = kind_of(parsed)
    if kind.store:
        raise InputError(
            f"expected vectors on this machine's disk, found those of a store ({parsed}): bring them here once with "
            "fliplens import SOURCE -o FOLDER, and name FOLDER"
        )
    if verify and not kind.manifest:
        raise InputError(
            f"expected vectors with a manifest to verify against, found {parsed}, which has none: import it first"
        )
    embeddings: Embeddings = kind.adapter().open_vectors(parsed, **({"verify": True} if verify else {}))
    return embeddings
