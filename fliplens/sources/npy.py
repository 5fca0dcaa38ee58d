"""One `.npy` file, or a folder of shards with its manifest, mapped; what import kept beside the shards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fliplens.embeddings.manifest import Manifest, manifest_path, part_name
from fliplens.embeddings.matrix import Embeddings
from fliplens.embeddings.npy import damage_of, map_npy
from fliplens.errors import InputError
from fliplens.files import sha256_of_file
from fliplens.open_files import allow_open_files
from fliplens.sources.registry import check_known
from fliplens.sources.specs import SourceSpec

__all__ = ["about_name", "about_rows", "open_texts", "open_vectors"]


def open_vectors(source: SourceSpec, *, verify: bool = False) -> Embeddings:
    """Map a file, or the shards of a folder; with `verify`, compare them with the manifest's hashes."""
    path = source.path
    if path.is_dir():
        return _open_folder(path, verify=verify)
    check_known(path)
    beside = manifest_path(path)
    manifest = Manifest.load(beside) if beside.is_file() else None
    try:
        array = map_npy(path)
    except InputError as error:
        if manifest is None or not path.exists():
            raise
        raise InputError(
            f"expected the {sum(manifest.rows)} × {manifest.dim} vectors of {beside.name} in {path}, found the file "
            f"{damage_of(path, (sum(manifest.rows), manifest.dim), manifest.dtype)}: encode again with --overwrite"
        ) from error
    if manifest is not None:
        if array.shape != (sum(manifest.rows), manifest.dim):
            raise InputError(
                f"expected the {sum(manifest.rows)} × {manifest.dim} vectors of {beside.name}, found "
                f"{array.shape[0]} × {array.shape[1]} in {path}: encode again, or delete the manifest"
            )
        if verify:
            _verify(path, manifest.sha256[0])
    elif verify:
        raise InputError(f"expected a manifest beside {path} to verify against, found none: open it without verify")
    return Embeddings([array], manifest=manifest, name=str(path))


def open_texts(source: SourceSpec) -> list[str]:
    """Return the texts that were imported with the vectors of a folder, row for row.

    Raises:
        InputError: there are none.
    """
    if source.path.is_dir() and not (source.path / "manifest.json").is_file():
        raise InputError(
            f"expected text at {source}, found a folder without manifest.json: name a text file of one sentence a "
            "line, a table's column as FILE.parquet#column=NAME, or a folder imported with text=NAME"
        )
    texts = []
    for row, about in enumerate(about_rows(source.path)):
        if not isinstance(about.get("text"), str):
            raise InputError(
                f"expected a text with every vector of {source}, found none with row {row} (from 0): "
                "import them with text=FIELD, or name a text file"
            )
        texts.append(about["text"])
    return texts


def about_name(number: int) -> str:
    """Return the name of the file that holds ids and texts of shard `number`, from 0."""
    return f"part-{number:05d}.jsonl"


def about_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield what import kept of every row of a folder, in order: `id`, and `text` where it was asked for.

    Raises:
        InputError: the folder holds no finished import, or another number of ids than of rows.
    """
    manifest = _finished(folder)
    for number, rows in enumerate(manifest.rows):
        file = folder / about_name(number)
        if not file.is_file():
            raise InputError(
                f"expected ids and texts of imported rows in {file}, found no such file: only stores and indices "
                "have ids, name a text file for texts"
            )
        found = 0
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                try:
                    about = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise InputError(f"expected JSON in line {found + 1} of {file}: import again") from error
                if not isinstance(about, dict):
                    raise InputError(f"expected a JSON object in line {found + 1} of {file}: import again")
                found += 1
                yield about
        if found != rows:
            raise InputError(f"expected {rows} lines in {file}, found {found}: import again")


def _finished(path: Path) -> Manifest:
    if path.is_dir() and not (path / "manifest.json").is_file():
        raise InputError(
            f"expected a folder of vectors at {path}, found one without manifest.json: name a folder that fliplens "
            "encode or import wrote, or one of the files in it"
        )
    manifest = Manifest.load(path / "manifest.json")
    if not manifest.complete:
        raise InputError(
            f"expected finished embeddings in {path}, found {sum(manifest.rows)} of "
            f"{manifest.source.get('rows', '?')} rows: run the same {manifest.source.get('command', 'encode')} "
            "command again to finish them"
        )
    if not manifest.rows:
        raise InputError(f"expected vectors in {path}, found a manifest without parts: encode again")
    return manifest


def _open_folder(path: Path, *, verify: bool) -> Embeddings:
    manifest = _finished(path)
    allow_open_files(len(manifest.rows), what=f"the parts in {path}")
    parts = []
    for number, (rows, digest) in enumerate(zip(manifest.rows, manifest.sha256, strict=True)):
        file = path / part_name(number)
        try:
            array = map_npy(file)
        except InputError as error:
            raise _damaged(path, manifest, number) from error
        if array.shape != (rows, manifest.dim) or str(array.dtype) != manifest.dtype:
            raise _damaged(path, manifest, number)
        if verify:
            _verify(file, digest)
        parts.append(array)
    return Embeddings(parts, manifest=manifest, name=str(path))


def _damaged(path: Path, manifest: Manifest, number: int) -> InputError:
    """Return what is said of a folder of which part `number` cannot be mapped."""
    state = damage_of(path / part_name(number), (manifest.rows[number], manifest.dim), manifest.dtype) or "damaged"
    if manifest.source.get("command", "encode") == "encode":
        cure = "give the same encode command again, which makes that part again"
    else:
        cure = f"give the same {manifest.source['command']} command again, with --overwrite"
    return InputError(
        f"expected all {len(manifest.rows)} parts of the vectors in {path}, found {part_name(number)} {state}: {cure}"
    )


def _verify(file: Path, expected: str) -> None:
    found = sha256_of_file(file)
    if found != expected:
        raise InputError(
            f"expected {file} to have sha256 {expected}, found {found}: the file changed, encode or import again "
            "with --overwrite"
        )
