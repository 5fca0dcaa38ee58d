"""The published `datasets.yaml`: which embeddings, texts and similarity scores belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fliplens.embeddings import Embeddings, open_embeddings
from fliplens.errors import InputError
from fliplens.settings import read_yaml

__all__ = ["Dataset", "find_dataset", "locate", "read_datasets"]


@dataclass(frozen=True)
class Dataset:
    """One entry of a `datasets.yaml`, its paths resolved."""

    name: str
    embeddings: dict[str, Path]
    """id → `.npy` (n × d)."""
    texts: dict[str, Path]
    """id → text file of n lines."""
    sim_scores: dict[frozenset[str], Path]
    """the two embedding ids → `.npy` (n,)."""
    pairs: tuple[tuple[str, str], ...]
    """The pairs of `sim_scores` in the order given; the first two embeddings where there are none."""

    def text_id(self, wanted: str | None) -> str:
        """Return the id of the text to use: the one asked for, or the only one there is."""
        if wanted is None:
            if len(self.texts) != 1:
                raise InputError(
                    f"expected --text_id, as dataset {self.name} has {len(self.texts)} texts: {', '.join(self.texts)}"
                )
            return next(iter(self.texts))
        if wanted not in self.texts:
            raise InputError(f"expected a text of dataset {self.name} ({', '.join(self.texts)}), found {wanted!r}")
        return wanted

    def view(self, identifier: str) -> Embeddings:
        """Open the embeddings of one id."""
        if identifier not in self.embeddings:
            raise InputError(
                f"expected embeddings of dataset {self.name} ({', '.join(self.embeddings)}), found {identifier!r}"
            )
        return open_embeddings(self.embeddings[identifier])

    def similar_rows(self, pair: Sequence[str], n: int, threshold: float) -> NDArray[np.int64] | None:
        """Return the rows whose two views are more alike than `threshold`; None (all) without scores."""
        path = self.sim_scores.get(frozenset(pair))
        if path is None:
            return None
        try:
            scores = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"expected similarity scores (n,) in {path}, could not read them") from error
        if not isinstance(scores, np.ndarray) or scores.dtype.kind != "f" or scores.size != n:
            raise InputError(f"expected {n} similarity scores in {path}, one a line of the text, found others")
        return np.flatnonzero(scores.reshape(-1) > threshold)


def read_datasets(path: str | Path) -> dict[str, Dataset]:
    """Read a `datasets.yaml`.

    Paths in it are looked up from the working folder, as the published code does, and else beside the file.

    Raises:
        InputError: no such file, or an entry that is not laid out as expected.
    """
    path = Path(path)
    found = {}
    for name, entry in read_yaml(path).items():
        try:
            scores = entry.get("sim_scores") or []
            pairs = tuple((str(item["pair"][0]), str(item["pair"][1])) for item in scores)
            embeddings = {str(item["id"]): locate(item["file"], path) for item in entry.get("embeddings") or []}
            found[name] = Dataset(
                name=name,
                embeddings=embeddings,
                texts={str(item["id"]): locate(item["file"], path) for item in entry.get("texts") or []},
                sim_scores={
                    frozenset(pair): locate(item["file"], path) for pair, item in zip(pairs, scores, strict=True)
                },
                pairs=pairs or _first_pair(tuple(embeddings)),
            )
        except (AttributeError, KeyError, TypeError, IndexError) as error:
            raise InputError(
                f"expected embeddings, texts and sim_scores as lists of id and file in {name} of {path}, "
                f"found something else ({type(error).__name__}: {error})"
            ) from error
    return found


def _first_pair(ids: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return ((ids[0], ids[1]),) if len(ids) > 1 else tuple((one, one) for one in ids)


def locate(file: object, beside: Path) -> Path:
    """Return the path that a YAML file means: from the working folder, or else beside the YAML file."""
    path = Path(str(file))
    neighbour = beside.parent / path
    return neighbour if not path.exists() and neighbour.exists() else path


def find_dataset(datasets: Mapping[str, Dataset], name: str, path: str | Path) -> Dataset:
    """Return the dataset of that name, or raise InputError that lists those there are."""
    if name not in datasets:
        raise InputError(f"expected a dataset of {path} ({', '.join(datasets)}), found {name!r}")
    return datasets[name]
