"""Embeddings on disk and in memory: one matrix of vectors, whatever holds it.

`Embeddings` is what every other module takes. `open_embeddings` makes it of what a source names (`fliplens.sources`):
rows stay on the disk until they are read, and what is wrong with a file is said when it is opened rather than hours
later.
"""

from __future__ import annotations

from fliplens.embeddings.manifest import FLOAT_TYPES, Manifest, manifest_path, part_name
from fliplens.embeddings.matrix import Embeddings
from fliplens.embeddings.npy import write_npy
from fliplens.embeddings.opening import EmbeddingsLike, as_embeddings, open_embeddings
from fliplens.embeddings.parts import BLOCK_ROWS

__all__ = [
    "BLOCK_ROWS",
    "FLOAT_TYPES",
    "Embeddings",
    "EmbeddingsLike",
    "Manifest",
    "as_embeddings",
    "manifest_path",
    "open_embeddings",
    "part_name",
    "write_npy",
]
