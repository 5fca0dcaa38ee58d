"""Rows on their way: texts wait in files, and a few numbers a row in memory say what becomes of each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fliplens.corpora.counting import Counts
from fliplens.corpora.grouping import (
    KEY_BYTES,
    draw_rows,
    duplicates,
    groups,
    held_apart,
    numbered,
    sentence_key,
    split_groups,
)
from fliplens.corpora.rows import Row
from fliplens.errors import InputError
from fliplens.files import atomic_file

__all__ = ["DROPPED", "Spool"]

DROPPED = -1
PROTECTED = ("test", "dev")
"""Splits that are measured on: where a source's own splits share a sentence, these keep it, the first one first."""


class Spool:
    """The cleaned rows of a source, in a folder of its own.

    After `gather` the texts are in files and each row has a key of 16 bytes for itself and for every sentence; after
    `drop_duplicates`, `draw` and `split`, `assigned` tells the split of every row.

    Args:
        folder: for the files; it is there, and empty.
        sides: sentences a row.
        spoken: whether rows have clips.
    """

    def __init__(self, folder: Path, sides: int, *, spoken: bool) -> None:
        self.folder = folder
        self.assigned: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        """(n,): the number of each row's split, or DROPPED."""
        self.splits: tuple[str, ...] = ()
        """Names of the splits, by number."""
        self.n_groups = 0
        """Groups of rows that share sentences."""
        self.largest_group = 0
        """Rows of the largest one."""
        self._n_sides = sides
        self._spoken = spoken
        self._sentences = np.zeros((0, 2), dtype=np.uint64)
        self._rows = np.zeros((0, 2), dtype=np.uint64)
        self._sides = np.zeros((0, sides), dtype=np.int64)
        self._own: NDArray[np.uint8] = np.zeros(0, dtype=np.uint8)

    def gather(self, rows: Iterable[Row]) -> None:
        """Write the texts and clips of rows to files, and keep their keys."""
        sentences, whole, own = bytearray(), bytearray(), bytearray()
        names: dict[str, int] = {}
        with ExitStack() as stack:
            texts = [stack.enter_context(self._side(side).open("wb")) for side in range(self._n_sides)]
            clips = stack.enter_context(self._clips.open("wb")) if self._spoken else None
            write = [stream.write for stream in texts]
            # Of one sentence a row the row's key is the sentence's.
            alone = self._n_sides == 1 and not self._spoken
            for row in rows:
                start = len(sentences)
                for text, out in zip(row.texts, write, strict=True):
                    sentences += sentence_key(text)
                    out(text.encode() + b"\n")
                own.append(names.setdefault(row.split, len(names)))
                if alone:
                    continue
                key = bytes(sentences[start:])
                if clips is not None:
                    clip = row.audio.encode("utf-8", "surrogateescape")
                    if b"\n" in clip:
                        raise InputError(f"expected clips without line breaks in their names, found {row.audio!r}")
                    clips.write(clip + b"\n")
                    key += clip
                if len(key) > KEY_BYTES:
                    key = hashlib.blake2b(key, digest_size=KEY_BYTES).digest()
                whole += key
        if "" in names and len(names) > 1:
            raise InputError(
                f"expected a split for all rows or for none, found some of {', '.join(filter(None, names))} and "
                "others of none: name it for every source, as train=PLACE"
            )
        self.splits = tuple(name for name in names if name)
        self._own = np.frombuffer(own, np.uint8)
        self._sentences = np.frombuffer(sentences, np.uint64).reshape(-1, 2)
        self._rows = self._sentences if alone else np.frombuffer(whole, np.uint64).reshape(-1, 2)
        self._sides = numbered(self._sentences).reshape(-1, self._n_sides)
        self.assigned = np.zeros(len(self._rows), dtype=np.int64)

    @property
    def kept(self) -> NDArray[np.int64]:
        """Numbers of the rows that are not dropped."""
        return np.flatnonzero(self.assigned != DROPPED)

    def drop_duplicates(self, how: str, counts: Counts) -> None:
        """Drop rows that say what an earlier one says (see `grouping.duplicates`)."""
        if how == "row":
            self._drop(duplicates(numbered(self._rows)[:, None], "row"), counts, "duplicate")
        else:
            self._drop(duplicates(self._sides, how), counts, "duplicate")

    def draw(self, limit: int | None, seed: int, counts: Counts) -> None:
        """Drop all but `limit` rows, drawn by the seed and what the rows hold."""
        kept = self.kept
        if limit is not None and len(kept) > limit:
            left = kept[~draw_rows(self._rows[kept], limit, seed=seed)]
            self.assigned[left] = DROPPED
            counts.beyond_limit += len(left)

    def split(self, shares: Mapping[str, float] | None, seed: int, counts: Counts) -> None:
        """Assign every row to a split: by shares, or as the source does, without sentences that several have."""
        kept = self.kept
        sides = self._sides[kept]
        group = groups(sides)
        sizes = np.unique(group, return_counts=True)[1]
        self.n_groups, self.largest_group = len(sizes), int(sizes.max(initial=0))
        if shares is not None:
            # The keys of the sentences by their numbers, which are ranks among all there were.
            keys = np.empty((int(self._sides.max(initial=-1)) + 1, 2), dtype=np.uint64)
            keys[self._sides.reshape(-1)] = self._sentences
            self.splits = tuple(shares)
            self.assigned[kept] = split_groups(group, keys, shares, seed=seed)
        else:
            self.assigned[kept] = self._own[kept]
            order = sorted(
                range(len(self.splits)),
                key=lambda number: PROTECTED.index(name) if (name := self.splits[number]) in PROTECTED else 2,
            )
            out = np.zeros(len(self.assigned), dtype=bool)
            out[kept] = held_apart(sides, self._own[kept], order)
            self._drop(out, counts, "in_other_split")

    def drop(self, rows: NDArray[np.int64]) -> None:
        """Drop rows by their numbers; whoever calls counts them."""
        self.assigned[rows] = DROPPED

    def clips(self) -> Iterator[tuple[int, str]]:
        """Yield number and clip of the rows that are not dropped."""
        with self._clips.open("rb") as stream:
            for number, line in enumerate(stream):
                if self.assigned[number] != DROPPED:
                    yield number, line[:-1].decode("utf-8", "surrogateescape")

    def sizes(self) -> dict[str, int]:
        """Return split → rows."""
        counted = np.bincount(self.assigned[self.kept], minlength=len(self.splits))
        return dict(zip(self.splits, counted.tolist(), strict=True))

    def write_texts(self, side: int, outs: Sequence[Path]) -> None:
        """Write the texts of one side to a file for each split, in the order in which they were read."""
        assigned = self.assigned.tolist()
        with ExitStack() as stack:
            write = [stack.enter_context(atomic_file(out)).write for out in outs]
            with self._side(side).open("rb") as stream:
                for line, split in zip(stream, assigned, strict=True):
                    if split != DROPPED:
                        write[split](line)

    def write_clips(self, outs: Sequence[Path], name: Mapping[int, str] | None = None) -> None:
        """Write the clips to a file for each split, one path a line; `name` has others for some rows."""
        with ExitStack() as stack:
            write = [stack.enter_context(atomic_file(out)).write for out in outs]
            for number, clip in self.clips():
                shown = clip if name is None else name.get(number, clip)
                write[self.assigned[number]](shown.encode("utf-8", "surrogateescape") + b"\n")

    def _drop(self, out: NDArray[np.bool_], counts: Counts, reason: str) -> None:
        new = out & (self.assigned != DROPPED)
        self.assigned[new] = DROPPED
        setattr(counts, reason, getattr(counts, reason) + int(new.sum()))

    def _side(self, side: int) -> Path:
        return self.folder / f"{side}.txt"

    @property
    def _clips(self) -> Path:
        return self.folder / "clips.txt"
