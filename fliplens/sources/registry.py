"""All kinds of places that vectors can lie in, and how the kind of a source is told.

A kind is a module of this package, imported when one of its sources is asked for. One that is read in place has

    open_vectors(source: SourceSpec) -> Embeddings

one that may hold text has `open_texts(source: SourceSpec) -> list[str]`, and a store has

    connect(source: SourceSpec) -> Store
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fliplens.errors import InputError
from fliplens.sources.specs import SourceSpec

__all__ = ["KINDS", "SourceKind", "check_known", "kind_of", "known_sources"]


@dataclass(frozen=True)
class SourceKind:
    """Places that one adapter reads."""

    form: str
    """How a source of it looks, for people."""
    about: str
    """What it is, in one line."""
    module: str
    """Which module of this package reads it."""
    options: Mapping[str, str] = field(default_factory=dict)
    """What may follow `#`, each with what it means."""
    manifest: bool = False
    """Whether a manifest with hashes may lie there."""
    texts: bool = False
    """Whether text can be read from it, too."""
    store: bool = False
    """Whether its rows cannot be read in place."""

    def adapter(self) -> Any:
        """Return the module that reads it."""
        return importlib.import_module(f"fliplens.sources.{self.module}")


_COLUMN = {"column": "the column; the only one of its type by default"}

KINDS: Mapping[str, SourceKind] = MappingProxyType(
    {
        "npy": SourceKind("FILE.npy", "an array (n, d) of float16, float32 or float64; mapped", "npy", manifest=True),
        "shards": SourceKind(
            "FOLDER",
            "shards and their manifest, as encode and import write; mapped",
            "npy",
            manifest=True,
            texts=True,
        ),
        "safetensors": SourceKind(
            "FILE.safetensors[#tensor=NAME]",
            "a tensor (n, d) of float16, bfloat16, float32 or float64; mapped",
            "safetensors",
            {"tensor": "its name; the only matrix by default"},
        ),
        "parquet": SourceKind(
            "FILE.parquet[#column=NAME]",
            "a column of Parquet, or of a folder of such files in the order of their names; decoded as it is read",
            "parquet",
            _COLUMN,
            texts=True,
        ),
        "arrow": SourceKind(
            "FILE.arrow[#column=NAME]",
            "a column of an Arrow IPC or Feather file; mapped, decoded as it is read where it is compressed",
            "arrow",
            _COLUMN,
            texts=True,
        ),
        "saved-dataset": SourceKind(
            "FOLDER[#column=NAME,split=NAME]",
            "a dataset of Hugging Face saved by save_to_disk; mapped",
            "saved_datasets",
            {**_COLUMN, "split": "of several"},
            texts=True,
        ),
        "hf-dataset": SourceKind(
            "hf-dataset:OWNER/NAME[@REVISION]#split=NAME,column=NAME",
            "a dataset of the Hugging Face Hub; downloaded once, then mapped",
            "hub_datasets",
            {**_COLUMN, "split": "train by default", "config": "which of its configurations"},
            texts=True,
        ),
        "faiss": SourceKind(
            "faiss:FILE",
            "a FAISS index whose vectors can be reconstructed; also FILE.faiss. Rows in the order of their ids",
            "faiss",
        ),
        "qdrant": SourceKind(
            "qdrant:URL#collection=NAME[,vector=NAME,text=FIELD]",
            "a Qdrant collection of a server; imported. The key: QDRANT_API_KEY",
            "qdrant",
            {"collection": "which", "vector": "of several a point", "text": "field of the payload to keep as text"},
            store=True,
        ),
        "pgvector": SourceKind(
            "pgvector:[DSN]#table=NAME,column=NAME,order=ID[,schema=NAME,text=NAME]",
            "a column of PostgreSQL of type vector, halfvec, real[] or double precision[]; imported",
            "pgvector",
            {
                "table": "which",
                "schema": "of the table; by the search path without it",
                "column": "of the vectors",
                "order": "unique column that rows are ordered by, and their id: whole numbers, text or uuid",
                "text": "column to keep as text",
            },
            store=True,
        ),
    }
)
"""By name."""

_SUFFIXES = {
    ".npy": "npy",
    ".safetensors": "safetensors",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".faiss": "faiss",
}
_NPY = b"\x93NUMPY"


def check_known(path: Path) -> None:
    """Refuse a file whose name tells no kind of vectors, unless it begins as `.npy` does.

    Raises:
        InputError: it is of another kind; the message lists those that there are.
    """
    with contextlib.suppress(OSError):
        if path.suffix.lower() in _SUFFIXES or not path.is_file() or not path.stat().st_size:
            return
        with path.open("rb") as stream:
            if stream.read(len(_NPY)) == _NPY:
                return
        raise InputError(
            f"expected vectors in {path}, found a file of another kind than {', '.join(_SUFFIXES)}: give it the "
            "ending of its kind, put faiss: before a FAISS index, or write the vectors with numpy.save"
        )


def known_sources() -> Mapping[str, str]:
    """Return the forms of sources that `open_embeddings` and `fliplens import` take, each with a line about it."""
    return MappingProxyType({kind.form: kind.about for kind in KINDS.values()})


def kind_of(source: SourceSpec) -> SourceKind:
    """Return the kind of a source: what it names itself, or what lies at its path; any other file is `.npy`.

    Raises:
        InputError: an option that the kind does not have.
    """
    kind = KINDS[_name_of(source)]
    unknown = [name for name in source.options if name not in kind.options]
    if unknown:
        some = f"options out of {', '.join(kind.options)}" if kind.options else "no options"
        advice = "name one of these" if kind.options else "leave out what is behind #"
        raise InputError(f"expected {some} of {kind.form}, found {unknown[0]} in {source}: {advice}")
    return kind


def _name_of(source: SourceSpec) -> str:
    if source.scheme:
        return source.scheme
    path = source.path
    if not path.is_dir():
        return _SUFFIXES.get(path.suffix.lower(), "npy")
    if (path / "manifest.json").is_file():
        return "shards"
    if (path / "state.json").is_file() or (path / "dataset_dict.json").is_file():
        return "saved-dataset"
    if next(path.rglob("*.parquet"), None) is not None:
        return "parquet"
    return "shards"
