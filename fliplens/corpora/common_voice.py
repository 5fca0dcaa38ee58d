"""Mozilla Common Voice, a language's folder as it is downloaded: lists of clips (`train.tsv`, ...) and `clips/`."""

from __future__ import annotations

import hashlib
import re
import warnings
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fliplens.corpora.counting import BadRows, Counts
from fliplens.corpora.rows import Row, stream_lines
from fliplens.errors import FliplensWarning, InputError

__all__ = ["CommonVoice", "find_common_voice"]

SPLITS = ("train", "dev", "test")
LISTS = (*SPLITS, "validated")
NEEDED = ("path", "sentence")
_QUOTED = re.compile(r'"((?:[^"]|"")*"")(?:[^"]|"")*"')


@dataclass(frozen=True)
class CommonVoice:
    """Clips of one language or more, with the sentences they speak."""

    languages: tuple[str, ...]
    """One; all folders are of it."""
    lists: tuple[tuple[str, Path], ...]
    """Split ("" for clips that are not split) and the list of its clips."""
    min_up_votes: int = 0
    """Votes that a clip must have for it."""
    max_down_votes: int | None = None
    """Votes that it may have against it; None: any."""
    spoken: bool = True

    @property
    def files(self) -> tuple[Path, ...]:
        """The lists and the durations; clips, of which there may be a million, are looked at as they come."""
        durations = {path.with_name("clip_durations.tsv") for _, path in self.lists}
        return (*(path for _, path in self.lists), *sorted(path for path in durations if path.is_file()))

    def rows(self, counts: Counts) -> Iterator[Row]:
        """Yield sentence, clip and, if the folder tells it, duration (see `RowSource.rows`)."""
        durations: tuple[Path, _Durations] | None = None
        for split, path in self.lists:
            if durations is None or durations[0] != path.parent:
                durations = path.parent, _Durations.read(path.parent)
            yield from self._list(split, path, durations[1], counts)

    def _list(self, split: str, path: Path, durations: _Durations, counts: Counts) -> Iterator[Row]:
        lines = stream_lines(path)
        head = next(lines, "").split("\t")
        missing = [name for name in NEEDED if name not in head]
        votes = [name for name in ("up_votes", "down_votes") if name in head]
        if self.min_up_votes > 0 or self.max_down_votes is not None:
            missing += [name for name in ("up_votes", "down_votes") if name not in votes]
        if missing:
            raise InputError(
                f"expected columns {', '.join(missing)} in the first line of {path}, found "
                f"{', '.join(filter(None, head)) or 'none'}: is it a list of Common Voice's clips?"
            )
        clip, sentence = (head.index(name) for name in NEEDED)
        up, down = (head.index(name) if name in votes else None for name in ("up_votes", "down_votes"))
        last = max(place for place in (clip, sentence, up, down) if place is not None)
        # Whole: the list that is written of them is read from elsewhere.
        clips = path.parent.absolute() / "clips"
        bad = BadRows(path, counts)
        for number, line in enumerate(lines, 2):
            if not line:
                continue
            counts.read += 1
            cells = line.split("\t")
            if len(cells) <= last:
                bad.add(f"expected {last + 1} columns or more in line {number} of {path}, found {len(cells)}")
                continue
            try:
                voted = self._voted(cells, up, down)
            except (ValueError, OverflowError):
                bad.add(f"expected numbers of votes in line {number} of {path}, found something else")
                continue
            if not voted:
                counts.few_votes += 1
                continue
            # The first releases name their clips without .mp3.
            name = cells[clip] if "." in cells[clip] else f"{cells[clip]}.mp3"
            yield Row((_unquoted(cells[sentence]),), split, str(clips / name), durations.of(name))
        bad.end()

    def _voted(self, cells: Sequence[str], up: int | None, down: int | None) -> bool:
        for at, least, most in ((up, self.min_up_votes, None), (down, 0, self.max_down_votes)):
            if at is None or not (least or most is not None):
                continue
            votes = int(float(cells[at] or 0))
            if votes < least or (most is not None and votes > most):
                return False
        return True


def find_common_voice(
    folders: Sequence[str],
    languages: Sequence[str] | None,
    *,
    resplit: bool = False,
    min_up_votes: int = 0,
    max_down_votes: int | None = None,
) -> CommonVoice:
    """Return the clips of language folders.

    Args:
        folders: each with `train.tsv`, `dev.tsv`, `test.tsv` or `validated.tsv`, and `clips`.
        languages: the language; None for the folder's name.
        resplit: whether the corpus is to be split anew: all of `validated.tsv`, if there is one, is taken then.
        min_up_votes: see `CommonVoice`.
        max_down_votes: see `CommonVoice`.

    Raises:
        InputError: a folder that is none, or holds no list of clips.
    """
    lists: list[tuple[str, Path]] = []
    for name in folders:
        folder = Path(name)
        there = [one for one in LISTS if (folder / f"{one}.tsv").is_file()]
        if not there or not (folder / "clips").is_dir():
            inside = sorted(path.name for path in folder.iterdir())[:8] if folder.is_dir() else []
            raise InputError(
                f"expected a language's folder of Common Voice at {folder}, with clips and one of "
                f"{', '.join(f'{one}.tsv' for one in LISTS)}, found {', '.join(inside) or 'none'}: name the folder "
                "that holds them, such as cv-corpus/en"
            )
        split = [one for one in there if one in SPLITS]
        if resplit or not split:
            lists += [("", folder / f"{one}.tsv") for one in (["validated"] if "validated" in there else split)]
        else:
            lists += [(one, folder / f"{one}.tsv") for one in split]
    if languages is None:
        languages = list(dict.fromkeys(Path(name).resolve().name for name in folders))
    if len(languages) != 1:
        raise InputError(
            f"expected clips of one language, found {', '.join(languages)}: prepare each by itself, or name the one "
            "that all are in with --languages"
        )
    return CommonVoice(tuple(languages), tuple(lists), min_up_votes, max_down_votes)


class _Durations:
    """Clip → seconds, twelve bytes a clip: a million clips are no more than they need to be."""

    def __init__(self, keys: array[int], seconds: array[float]) -> None:
        self._keys = keys
        self._seconds = seconds

    @classmethod
    def read(cls, folder: Path) -> _Durations:
        """Read `clip_durations.tsv`: clip, tab, milliseconds below a head line. Without it nothing is known."""
        import numpy as np

        keys, seconds = array("Q"), array("f")
        path = folder / "clip_durations.tsv"
        if path.is_file():
            lines = stream_lines(path)
            next(lines, None)
            bad = []
            for number, line in enumerate(lines, 2):
                name, _, value = line.partition("\t")
                try:
                    seconds.append(float(value) / 1000)
                except ValueError:
                    bad.append(number)
                    continue
                keys.append(_key(name))
            if bad and not keys:
                raise InputError(
                    f"expected a clip, a tab and its milliseconds a line in {path}, found no such line: restore the "
                    "file, or take it away, and the clips' headers tell"
                )
            if bad:
                warnings.warn(
                    f"expected a clip, a tab and its milliseconds in line {bad[0]} of {path}, found something else "
                    f"there{f' and in {len(bad) - 1} more' if bad[1:] else ''}: the clips' headers tell instead",
                    FliplensWarning,
                    stacklevel=2,
                )
            order = np.argsort(np.frombuffer(keys, np.uint64) if keys else np.zeros(0, np.uint64), kind="stable")
            keys = array("Q", np.frombuffer(keys, np.uint64)[order].tobytes()) if keys else keys
            seconds = array("f", np.frombuffer(seconds, np.float32)[order].tobytes()) if seconds else seconds
        return cls(keys, seconds)

    def of(self, name: str) -> float | None:
        """Return a clip's seconds, None if they are not known."""
        if not self._keys:
            return None
        key = _key(name)
        place = bisect_left(self._keys, key)
        return self._seconds[place] if place < len(self._keys) and self._keys[place] == key else None


def _key(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def _unquoted(text: str) -> str:
    """Undo the quoting of a cell.

    Some releases quote cells that hold quotation marks, and double those; others quote nothing, and marks at both
    ends are the sentence's own. Doubled marks inside of outer ones tell the two apart.
    """
    if text[:1] == '"' and _QUOTED.fullmatch(text):
        return text[1:-1].replace('""', '"')
    return text
