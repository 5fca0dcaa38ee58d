"""A dataset of Hugging Face saved by `save_to_disk`: Arrow streams, mapped. No code of a dataset runs."""

from __future__ import annotations

from pathlib import Path

from fliplens.embeddings.matrix import Embeddings
from fliplens.errors import InputError
from fliplens.files import read_json
from fliplens.sources.arrow import texts_of_files, vectors_of_files
from fliplens.sources.specs import SourceSpec

__all__ = ["open_texts", "open_vectors"]


def open_vectors(source: SourceSpec) -> Embeddings:
    """Map a column of a saved dataset."""
    return vectors_of_files(_files(source), source)


def open_texts(source: SourceSpec) -> list[str]:
    """Read a column of text of a saved dataset."""
    return texts_of_files(_files(source), source)


def _files(source: SourceSpec) -> list[Path]:
    """Return the files of a dataset, or of the split wanted of several."""
    folder, wanted = source.path, source.options.get("split")
    if (folder / "dataset_dict.json").is_file():
        described = read_json(folder / "dataset_dict.json")
        splits = described.get("splits") if isinstance(described, dict) else None
        if not isinstance(splits, list) or not all(isinstance(one, str) for one in splits) or not splits:
            raise InputError(f"expected splits in {folder / 'dataset_dict.json'}, found none: save the dataset again")
        if wanted is None and len(splits) > 1:
            raise InputError(f"expected one split of {folder}, found {', '.join(splits)}: name one with #split=NAME")
        wanted = splits[0] if wanted is None else wanted
        if wanted not in splits:
            raise InputError(
                f"expected a split out of {', '.join(splits)} in {folder}, found {wanted!r}: name one of these"
            )
        folder = folder / _plain(wanted, folder)
    elif wanted is not None:
        raise InputError(f"expected no split, as {folder} is one dataset, found {wanted!r}: leave split= out")
    state = read_json(folder / "state.json")
    names = state.get("_data_files") if isinstance(state, dict) else None
    if not isinstance(names, list) or not all(
        isinstance(one, dict) and isinstance(one.get("filename"), str) for one in names
    ):
        raise InputError(f"expected the names of data files in {folder / 'state.json'}, found none: save it again")
    if state.get("_indices_data_files"):
        raise InputError(
            f"expected the rows of {folder} in the order they lie in, found a dataset that is an index into them: "
            "call flatten_indices() and save it again"
        )
    if not names:
        raise InputError(f"expected at least one vector in {folder}, found a dataset without files: save it again")
    return [folder / _plain(one["filename"], folder) for one in names]


def _plain(name: str, folder: Path) -> str:
    """Return a file's name; a description that leads out of its folder is none of ours to follow."""
    if name in ("", ".", "..") or Path(name).name != name:
        raise InputError(f"expected names of files in {folder}, found {name!r}: save the dataset again")
    return name
