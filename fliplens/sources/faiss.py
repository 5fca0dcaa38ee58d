"""A FAISS index whose vectors can be had back: flat ones exactly, quantised ones nearly."""

from __future__ import annotations

import importlib
import threading
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fliplens.embeddings.matrix import Embeddings
from fliplens.embeddings.parts import LazyRows
from fliplens.errors import FliplensWarning, InputError, MissingExtraError
from fliplens.sources.specs import SourceSpec

__all__ = ["open_ids", "open_vectors"]

_EXACT = ("IndexFlat", "IndexFlatL2", "IndexFlatIP", "IndexIVFFlat", "IndexHNSWFlat", "IndexNSGFlat")
CHECK_ROWS = 1


class _Reconstructed(LazyRows):
    """The vectors of an index, by their keys in it."""

    def __init__(self, owner: Any, index: Any, keys: NDArray[np.int64] | None) -> None:
        super().__init__((int(index.ntotal), int(index.d)), np.float32)
        # What downcasting and unwrapping give is freed with the object that was read.
        self._owner = owner
        self._index = index
        self._keys = keys
        # An index is not made to be read by two threads while one of its lists is decoded.
        self._lock = threading.Lock()

    def ascending(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return rows as the index gives them back."""
        keys = rows if self._keys is None else self._keys[rows]
        with self._lock:
            found: NDArray[Any] = self._index.reconstruct_batch(np.ascontiguousarray(keys, dtype=np.int64))
        return found


def open_vectors(source: SourceSpec) -> Embeddings:
    """Open an index; rows are reconstructed as they are asked for, in ascending order of their ids.

    An index of ids of its own (`IndexIDMap`) is read in the order of those. What the library can map stays on the
    disk, anything else is read into memory.

    Raises:
        InputError: no file, no index, an empty one, or one that does not give its vectors back.
        MissingExtraError: faiss is not installed.

    Warns:
        FliplensWarning: the index is quantised, so that its vectors only come close to those that were put in.
    """
    owner = _read(source)
    keys, _ = _keys_and_ids(owner, source)
    inner = _inner(owner)
    name = type(inner).__name__
    part = _Reconstructed(owner, inner, keys)
    try:
        part.ascending(np.arange(CHECK_ROWS))
    except RuntimeError as error:
        raise InputError(
            f"expected a FAISS index whose vectors can be reconstructed in {source.path}, found {name}, which keeps "
            "none: name the vectors that it was built from"
        ) from error
    if name not in _EXACT:
        warnings.warn(
            f"{source.path} holds quantised vectors ({name}): what is read from it is only close to "
            "what the encoder made",
            FliplensWarning,
            stacklevel=3,
        )
    return Embeddings([part], name=str(source), files=[source.path])


def open_ids(source: SourceSpec) -> list[int]:
    """Return the id of every row, in the order of `open_vectors`."""
    _, ids = _keys_and_ids(_read(source), source)
    found: list[int] = ids.tolist()
    return found


def _library() -> Any:
    try:
        return importlib.import_module("faiss")
    except ImportError as error:
        raise MissingExtraError("a FAISS index", "faiss") from error


def _read(source: SourceSpec) -> Any:
    faiss = _library()
    path = source.path
    if not path.is_file():
        raise InputError(f"expected a FAISS index at {path}, found none: check the path")
    try:
        index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    except (RuntimeError, MemoryError, ValueError) as error:
        raise InputError(
            f"expected a FAISS index of float vectors at {path}, could not read it: it is truncated, binary, or "
            "none; write it again with faiss.write_index"
        ) from error
    if index.ntotal == 0 or index.d == 0:
        raise InputError(f"expected at least one vector in {path}, found an empty index: add the vectors first")
    return index


def _inner(index: Any) -> Any:
    """Return the index that holds the vectors, without the one that gives them ids of their own."""
    faiss = _library()
    index = faiss.downcast_index(index)
    while type(index).__name__ in ("IndexIDMap", "IndexIDMap2"):
        index = faiss.downcast_index(index.index)
    return index


def _keys_and_ids(owner: Any, source: SourceSpec) -> tuple[NDArray[np.int64] | None, NDArray[np.int64]]:
    """Return what the inner index calls each row, and each row's id; rows are in ascending order of ids.

    Raises:
        InputError: two vectors of one id.
    """
    faiss = _library()
    index, inner = faiss.downcast_index(owner), _inner(owner)
    n = int(index.ntotal)
    keys: NDArray[np.int64] | None = None
    if isinstance(inner, faiss.IndexIVF):
        lists = faiss.downcast_InvertedLists(inner.invlists)
        found = []
        for number in range(inner.nlist):
            size = lists.list_size(number)
            if size:
                ids = lists.get_ids(number)
                found.append(faiss.rev_swig_ptr(ids, size).copy())
        keys = np.sort(np.concatenate(found)).astype(np.int64)
        _check_single(keys, source)
        plain = bool(keys[0] == 0 and keys[-1] == n - 1)
        inner.set_direct_map_type(faiss.DirectMap.Array if plain else faiss.DirectMap.Hashtable)
    if not type(index).__name__.startswith("IndexIDMap"):
        return (keys, np.arange(n) if keys is None else keys)
    ids = faiss.vector_to_array(index.id_map).astype(np.int64)
    order = np.argsort(ids, kind="stable")
    _check_single(ids[order], source)
    return (order if keys is None else keys[order]), ids[order]


def _check_single(ids: NDArray[np.int64], source: SourceSpec) -> None:
    """Raise InputError where an id stands twice among ids in ascending order."""
    twice = np.flatnonzero(np.diff(ids) == 0)
    if len(twice):
        raise InputError(
            f"expected one vector of each id in {source.path}, found several of id {ids[twice[0]]}: give each an "
            "id of its own"
        )
