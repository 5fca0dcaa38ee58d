"""The folder of a prepared corpus: whose it is, what its report says, whether it is whole."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fliplens.corpora.counting import Counts
from fliplens.corpora.layout import MARKER, REPORT, SPOOL, folder_of
from fliplens.corpora.splits import DEFAULT_SPLIT
from fliplens.errors import InputError
from fliplens.files import check_free, is_empty, read_json, sha256_of_file, write_json

__all__ = ["FORMAT_VERSION", "PreparedCorpus", "claim", "described_files", "leaving_nothing_unmade"]

FORMAT_VERSION = 1
"""Of the marker and the report."""


@dataclass(frozen=True)
class PreparedCorpus:
    """What a prepared corpus holds."""

    folder: Path
    name: str
    languages: tuple[str, ...]
    spoken: bool
    counts: Counts
    """Rows kept, and left out by reason."""
    splits: Mapping[str, int]
    """Split → rows."""
    n_groups: int
    """Groups of rows that share sentences, before splits and similarity left some out."""
    largest_group: int
    """Rows of the largest one; it is in one split, whatever the shares."""
    files: Mapping[str, Mapping[str, Any]]
    """Name → bytes and sha256, of all files but the report."""

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values; it does not say where the folder is."""
        return {
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "languages": list(self.languages),
            "spoken": self.spoken,
            "rows": self.counts.to_json(),
            "splits": dict(self.splits),
            "groups": {"number": self.n_groups, "largest": self.largest_group},
            "files": {name: dict(one) for name, one in self.files.items()},
        }

    @classmethod
    def load(cls, folder: str | Path) -> PreparedCorpus:
        """Read the report of a folder.

        Raises:
            InputError: there is none, or it is not laid out as one.
        """
        folder = Path(folder)
        value = read_json(folder / REPORT)
        try:
            rows = value["rows"]
            return cls(
                folder=folder,
                name=value["name"],
                languages=tuple(value["languages"]),
                spoken=value["spoken"],
                counts=Counts(read=rows["read"], changed=rows["changed"], **rows["dropped"]),
                splits=value["splits"],
                n_groups=value["groups"]["number"],
                largest_group=value["groups"]["largest"],
                files=value["files"],
            )
        except (KeyError, TypeError) as error:
            raise InputError(
                f"expected the report of a prepared corpus in {folder / REPORT}, found something else ({error}): "
                "prepare it again with --overwrite"
            ) from error


def claim(out: Path, job: Mapping[str, Any], *, overwrite: bool) -> bool:
    """Make the folder ours, and tell whether this very job is finished in it.

    Args:
        out: the folder.
        job: what is to be done, as JSON values: settings and the state of the sources.
        overwrite: replace another corpus.

    Raises:
        InputError: the folder holds something else.
    """
    # As it will be read back: tuples become lists.
    wanted = _as_json(job)
    marker = out / MARKER
    found = read_json(marker) if marker.is_file() else None
    kind = folder_of(_splits_of(out, found))
    if found is not None and {entry.name for entry in out.iterdir()} <= {MARKER, SPOOL}:
        # Left by a job that ended before it had a row to write, over a mistyped column say: nothing to protect.
        shutil.rmtree(out / SPOOL, ignore_errors=True)
        marker.unlink()
        found = None
    if found is not None and not overwrite and found == wanted:
        for left in out.rglob(".*.tmp"):
            # Of a job that was killed while it wrote.
            left.unlink()
        return (out / REPORT).is_file() and _intact(out, PreparedCorpus.load(out))
    check_free(out, kind=kind, overwrite=overwrite)
    if out.is_dir() and not is_empty(out):
        shutil.rmtree(out)
    write_json(marker, wanted)
    return False


@contextlib.contextmanager
def leaving_nothing_unmade(out: Path) -> Iterator[None]:
    """Take the folder away again if the block ends with an exception before there is anything in it to go on from.

    Folders that were there before stay, empty as they were.
    """
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            if {entry.name for entry in out.iterdir()} <= {MARKER}:
                (out / MARKER).unlink(missing_ok=True)
                for folder in made:
                    folder.rmdir()
        raise


def _splits_of(out: Path, marker: Any) -> set[str]:
    """Return the splits that a folder's marker and report name, and the usual ones."""
    named = set(DEFAULT_SPLIT)
    with contextlib.suppress(InputError, KeyError, TypeError):
        named |= set(marker["settings"]["split"] or ())
        named |= set(PreparedCorpus.load(out).splits)
    return named


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _intact(out: Path, done: PreparedCorpus) -> bool:
    """Return whether all files of a finished job are what its report says."""
    return all(
        (out / name).is_file()
        and (out / name).stat().st_size == one.get("bytes")
        and sha256_of_file(out / name) == one.get("sha256")
        for name, one in done.files.items()
    )


def described_files(out: Path) -> dict[str, dict[str, Any]]:
    """Return name → bytes and hash of everything in a corpus's folder but marker and report."""
    found = {}
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if path.is_file() and name not in (MARKER, REPORT) and not path.name.startswith("."):
            found[name] = {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}
    return found
