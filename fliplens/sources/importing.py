"""Vectors of any source brought into a folder of shards, once; what was cut off goes on where it stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fliplens.embeddings.manifest import FLOAT_TYPES, Manifest, part_name
from fliplens.embeddings.matrix import Embeddings
from fliplens.embeddings.npy import write_npy
from fliplens.embeddings.opening import open_embeddings
from fliplens.errors import FliplensError, FliplensWarning, InputError
from fliplens.files import FolderKind, atomic_file, check_free, sha256_of_file, write_json, write_lines
from fliplens.progress import Progress
from fliplens.sources.npy import about_name, about_rows
from fliplens.sources.registry import kind_of
from fliplens.sources.specs import SourceSpec
from fliplens.sources.stores import Page, Store

__all__ = ["import_vectors", "read_ids"]

PART_BYTES = 2**25
"""Vectors of a shard, at most: what a kill can lose, and what memory holds."""
PART_ROWS = 65_536
PAGE_ROWS = 512
UNIT = 1e-3
"""How far from 1 the length of a vector of unit length may be: float16 rounds as much."""
IMPORTED = FolderKind("manifest.json", r"manifest\.json|part-\d+\.(npy|jsonl)|bad\.jsonl|\..+\.tmp")
GROWING = ("next", "bad")
"""What the manifest says of the source only as shards are written: an import that goes on does not know it yet."""
BAD_LIST = "bad.jsonl"
"""Where rows of NaN or infinite values are listed, as those of recordings are that could not be read."""
SHOWN_ROWS = 5


def import_vectors(
    source: str | Path,
    out: str | Path,
    *,
    encoder: str | None = None,
    dtype: str | None = None,
    rows_per_part: int | None = None,
    overwrite: bool = False,
    show_progress: bool = False,
) -> Embeddings:
    """Read every vector of a source once, in order, and write a folder that `open_embeddings` maps.

    Beside each shard lie the ids of its rows, and their texts where the source was told to give them, so that what is
    read from row i can be joined back; `read_ids` and `fliplens.text.opening.read_texts` read them. The same call
    goes on with an import that was cut off, and leaves a finished one as it is.

    Rows of NaN or infinite values keep their place, so that texts and ids still fit, and are listed in `bad.jsonl`;
    what reads the folder refuses them unless it is told to leave them out (`drop_bad_rows`).

    Args:
        source: what `open_embeddings` takes, or a store: `fliplens.sources.known_sources` lists the forms.
        out: the folder to write.
        encoder: spec of what made the vectors, for the record.
        dtype: float16, float32 or float64, on disk; by default what holds them exactly.
        rows_per_part: rows of a shard.
        overwrite: replace what another import left at `out`.
        show_progress: a bar on stderr.

    Returns:
        The finished embeddings, memory-mapped.

    Raises:
        InputError: the source is missing or not as it says, or `out` holds something else.
        MissingExtraError: the library that reads it is not installed.
        FliplensError: a store cannot be reached, or changed while it was read.

    Warns:
        FliplensWarning: rows are not finite; how many, and the first of them.
    """
    folder = Path(out)
    if dtype is not None and dtype not in FLOAT_TYPES:
        raise InputError(f"expected dtype {', '.join(FLOAT_TYPES)}, found {dtype!r}")
    if rows_per_part is not None and rows_per_part < 1:
        raise InputError(f"expected rows_per_part of 1 or more, found {rows_per_part}")
    if folder.suffix == ".npy":
        raise InputError(f"expected a folder to write, found {folder}: name it without .npy")
    with contextlib.closing(_store(source)) as store:
        if rows_per_part is None:
            rows_per_part = max(1, min(PART_ROWS, PART_BYTES // (4 * store.dim)))
        job = Manifest(
            encoder=encoder,
            revision=None,
            dim=store.dim,
            dtype=dtype or store.dtype,
            normalised=True,
            source={
                "command": "import",
                "name": store.name,
                "rows": store.rows,
                "state": store.state,
                "rows_per_part": rows_per_part,
                "next": None,
            },
            complete=False,
        )
        done = _resume(folder, job, overwrite=overwrite)
        if done.complete:
            return _opened(folder)
        with Progress("import", total=store.rows, unit="vectors", show=show_progress, done=sum(done.rows)) as bar:
            for page in _pages(store, done, rows_per_part, bar):
                done = _write(folder, done, page)
        if sum(done.rows) != store.rows:
            raise FliplensError(
                f"expected {store.rows} vectors of {store.name}, as it said, found {sum(done.rows)}: it changed "
                "while it was read, import it again with --overwrite"
            )
        write_json(folder / "manifest.json", dataclasses.replace(done, complete=True).to_json())
    return _opened(folder)


def read_ids(folder: str | Path) -> list[int | str]:
    """Return the id of every row of an imported folder, in order.

    Raises:
        InputError: no finished import lies there, or one of a source without ids.
    """
    return [about["id"] for about in about_rows(Path(folder))]


def _opened(folder: Path) -> Embeddings:
    """Open a finished import; warn where rows of it are not finite."""
    opened = open_embeddings(folder)
    source: Mapping[str, Any] = {} if opened.manifest is None else opened.manifest.source
    if source.get("bad"):
        path = folder / BAD_LIST
        first = []
        if path.is_file():
            with path.open("rb") as lines:
                first = [str(json.loads(line)["row"]) for line in islice(lines, SHOWN_ROWS)]
        shown = ", ".join([*first, "..."] if source["bad"] > len(first) else first)
        warnings.warn(
            f"{source['name']} holds NaN or infinite values in {source['bad']} of {len(opened)} rows (counted from "
            f"0: {shown}), which were imported as they are and are listed in {path}: pass --drop-bad-rows to fit, "
            "evaluate and explain to go on without them, or mend them in the source and import with --overwrite",
            FliplensWarning,
            stacklevel=3,
        )
    return opened


def _store(source: str | Path) -> Store:
    parsed = SourceSpec.parse(source)
    kind = kind_of(parsed)
    if kind.store:
        store: Store = kind.adapter().connect(parsed)
        return store
    adapter = kind.adapter()
    embeddings: Embeddings = adapter.open_vectors(parsed)
    return _InPlace(embeddings, adapter.open_ids(parsed) if hasattr(adapter, "open_ids") else None)


class _InPlace:
    """What is read in place, as a store."""

    def __init__(self, embeddings: Embeddings, ids: Sequence[int | str] | None) -> None:
        self._embeddings = embeddings
        self._ids = ids
        self.name = embeddings.name
        self.rows, self.dim = embeddings.shape
        self.dtype = embeddings.dtype
        self.state = embeddings.storage()

    def pages(self, start: Any, rows: int) -> Iterator[Page]:
        for first in range(start or 0, self.rows, rows):
            stop = min(first + rows, self.rows)
            ids = None if self._ids is None else self._ids[first:stop]
            yield Page(self._embeddings.stored(first, stop), ids, None, None if stop == self.rows else stop)

    def close(self) -> None:
        """Nothing to let go of: what is mapped goes with the arrays."""


def _resume(folder: Path, job: Manifest, *, overwrite: bool) -> Manifest:
    """Return the manifest of what is done; an empty one, written, for a new job."""
    path = folder / "manifest.json"
    if path.is_file() and not overwrite:
        found = Manifest.load(path)
        if not found.rows and not found.complete and _identity(found) != _identity(job):
            # An import that failed before its first shard left nothing to protect.
            overwrite = True
    if path.is_file() and not overwrite:
        if _identity(found) == _identity(job):
            if found.complete:
                return found
            # A shard has its name before the manifest counts it; a disk may have failed since.
            whole = all(
                (folder / part_name(number)).is_file() and sha256_of_file(folder / part_name(number)) == digest
                for number, digest in enumerate(found.sha256)
            )
            if whole and (
                not found.rows or found.source.get("next") is not None or sum(found.rows) == job.source["rows"]
            ):
                _keep_bad(folder, sum(found.rows))
                return found
            raise InputError(
                f"expected the shards that {path} counts, found damaged ones: import again with --overwrite"
            )
        raise InputError(
            f"expected {folder} to be free or to hold this import, found another one, or one of what has changed "
            "since: name another place, or pass --overwrite"
        )
    check_free(folder, kind=IMPORTED, overwrite=overwrite)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write_json(path, job.to_json())
    return job


def _identity(manifest: Manifest) -> dict[str, Any]:
    source = {name: value for name, value in manifest.source.items() if name not in GROWING}
    kept = {"encoder": manifest.encoder, "dim": manifest.dim, "dtype": manifest.dtype, "source": source}
    # As JSON keeps it: what was written compares with what was made.
    value: dict[str, Any] = json.loads(json.dumps(kept))
    return value


def _pages(store: Store, done: Manifest, rows: int, bar: Progress) -> Iterator[Page]:
    """Yield what the store has left, a shard's worth at a time."""
    if sum(done.rows) and done.source["next"] is None:
        return  # the last shard was written, and the kill came before the manifest said so
    waiting: list[Page] = []
    for page in store.pages(done.source["next"], min(rows, PAGE_ROWS)):
        if page.vectors.ndim != 2 or page.vectors.shape[1] != store.dim:
            raise FliplensError(
                f"expected vectors of {store.dim} dimensions in {store.name}, found shape {page.vectors.shape}"
            )
        waiting.append(page)
        bar.update(len(page.vectors))
        if sum(len(one.vectors) for one in waiting) + min(rows, PAGE_ROWS) > rows:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def _joined(pages: list[Page]) -> Page:
    ids = [one for page in pages for one in page.ids or ()]
    texts = [one for page in pages for one in page.texts or ()]
    return Page(
        np.concatenate([page.vectors for page in pages]),
        None if pages[0].ids is None else ids,
        None if pages[0].texts is None else texts,
        pages[-1].next,
    )


def _write(folder: Path, done: Manifest, page: Page) -> Manifest:
    """Write a shard, then what is known of its rows, then the manifest that counts it."""
    number = len(done.rows)
    vectors = _as_type(page.vectors, done.dtype, first=sum(done.rows))
    part = folder / part_name(number)
    with atomic_file(part) as stream:
        write_npy(stream, (vectors.shape[0], vectors.shape[1]), iter([vectors]), done.dtype)
    if page.ids is not None:
        with atomic_file(folder / about_name(number)) as stream:
            for row, one in enumerate(page.ids):
                about = {"id": one} if page.texts is None else {"id": one, "text": page.texts[row]}
                stream.write(json.dumps(about, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
    lengths = np.sqrt(np.einsum("ij,ij->i", page.vectors, page.vectors, dtype=np.float64))
    # Finite float64 numbers may have a length that is not.
    bad = np.flatnonzero(~np.isfinite(lengths))
    bad = bad[~np.isfinite(page.vectors[bad]).all(axis=1)]
    source = {**done.source, "next": page.next}
    if len(bad):
        _list_bad(folder, bad, first=sum(done.rows), ids=page.ids)
        source["bad"] = done.source.get("bad", 0) + len(bad)
    done = dataclasses.replace(
        done,
        rows=[*done.rows, len(vectors)],
        sha256=[*done.sha256, sha256_of_file(part)],
        normalised=done.normalised and bool((np.abs(np.delete(lengths, bad) - 1) < UNIT).all()),
        source=source,
    )
    write_json(folder / "manifest.json", done.to_json())
    return done


def _list_bad(folder: Path, bad: NDArray[np.int64], *, first: int, ids: Sequence[int | str] | None) -> None:
    """Add the rows `bad` of a page to the list of those that are not finite.

    The list comes before the manifest that counts them: what it says of rows that are read again is left out by the
    import that goes on.
    """
    with (folder / BAD_LIST).open("ab") as stream:
        for row in bad.tolist():
            about = {
                "row": first + row,
                "input": None if ids is None else ids[row],
                "error": "NaN or infinite values",
            }
            stream.write(json.dumps(about).encode() + b"\n")


def _keep_bad(folder: Path, rows: int) -> None:
    """Leave in the list those of the first `rows`: the others are read again, and the last line may be cut off."""
    path = folder / BAD_LIST
    if not path.is_file():
        return
    kept = []
    for line in path.read_text(encoding="ascii").splitlines():
        with contextlib.suppress(ValueError):
            kept += [line] if json.loads(line)["row"] < rows else []
    write_lines(path, kept)


def _as_type(vectors: NDArray[Any], dtype: str, *, first: int) -> NDArray[Any]:
    """Return vectors as a type; what is finite must stay so."""
    with np.errstate(over="ignore"):
        cast: NDArray[Any] = vectors.astype(dtype)
    wrong = np.flatnonzero((np.isinf(cast) & np.isfinite(vectors)).any(axis=1))
    if len(wrong):
        raise InputError(
            f"expected numbers that {dtype} holds, found larger ones in row {first + int(wrong[0])} (from 0): "
            "import as float32 or float64"
        )
    return cast
