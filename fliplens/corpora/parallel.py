"""Corpora as files of lines: Europarl, Samanantar, Tatoeba and whatever else is laid out like them, and plain text.

Line n of one file is the translation of line n of the others. Files are `STEM.LANGUAGE`, possibly packed:
`europarl-v7.de-en.de` and `.en`, `en-hi/train.en` and `.hi`, `train.de.gz`, `.en.gz` and `.fr.gz`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from fliplens.corpora.counting import BadRows, Counts
from fliplens.corpora.rows import Row, stream_lines
from fliplens.corpora.splits import SPLIT_NAMES, named_split
from fliplens.errors import InputError

__all__ = ["LineFiles", "PairFiles", "find_line_files"]

SHOWN = 6
"""Corpora of a folder that a message names."""
_LANGUAGE = re.compile(r"[a-z]{2,3}([_-][A-Za-z]{2,4})?")
_PAIR = re.compile(r"(?:^|[._-])([a-z]{2,3})-([a-z]{2,3})$")


@dataclass(frozen=True)
class LineFiles:
    """Files of one sentence a line, parallel line by line."""

    languages: tuple[str, ...]
    groups: tuple[tuple[str, tuple[Path, ...]], ...]
    """Split ("" if there is none) and one file for each language, as often as there are."""
    spoken: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """All files."""
        return tuple(path for _, paths in self.groups for path in paths)

    def rows(self, counts: Counts) -> Iterator[Row]:
        """Yield the rows of all groups (see `RowSource.rows`).

        Raises:
            InputError: parallel files of different length, both of which are told.
        """
        for split, paths in self.groups:
            sides = [stream_lines(path) for path in paths]
            number = 0
            for number, texts in enumerate(zip_longest(*sides), 1):
                if None in texts:
                    _uneven(paths, sides, texts, number)
                counts.read += 1
                yield Row(texts, split)
            if not number:
                raise InputError(
                    f"expected one sentence a line in {paths[0]}, found an empty file: download it again"
                )


def _uneven(paths: Sequence[Path], sides: Sequence[Iterator[str]], texts: Sequence[str | None], number: int) -> None:
    """Count what is left of the longer files, and raise InputError that tells how long each one is."""
    lengths = [
        number - 1 if text is None else number + sum(1 for _ in side) for text, side in zip(texts, sides, strict=True)
    ]
    told = " and ".join(f"{n} lines in {path}" for n, path in zip(lengths, paths, strict=True))
    raise InputError(
        f"expected parallel files of one length, found {told}: one of them is cut off, or belongs to another"
    )


@dataclass(frozen=True)
class PairFiles:
    """Files of a pair a line, its columns separated by tabs, as Tatoeba and ManyThings give them out.

    Of two columns both are text; of three the third names where it comes from; of four the first and the third are
    numbers. `columns` says otherwise.
    """

    languages: tuple[str, str]
    groups: tuple[tuple[str, Path], ...]
    columns: tuple[int, int] | None = None
    """Which columns are the texts, from 0."""
    spoken: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """All files."""
        return tuple(path for _, path in self.groups)

    def rows(self, counts: Counts) -> Iterator[Row]:
        """Yield the pairs of all files; lines of too few columns are counted as malformed (see `RowSource.rows`)."""
        for split, path in self.groups:
            columns = self.columns
            bad, number = BadRows(path, counts), 0
            for number, line in enumerate(stream_lines(path), 1):
                counts.read += 1
                cells = line.split("\t")
                if columns is None and len(cells) > 1:
                    columns = (1, 3) if len(cells) > 3 and cells[0].isdecimal() and cells[2].isdecimal() else (0, 1)
                if columns is None or len(cells) <= max(columns):
                    needed = max(columns or (1,)) + 1
                    bad.add(
                        f"expected {needed} columns, separated by tabs, in line {number} of {path}, "
                        f"found {len(cells)}"
                    )
                    continue
                yield Row((cells[columns[0]], cells[columns[1]]), split)
            if not number:
                raise InputError(
                    f"expected a pair of sentences a line in {path}, found an empty file: download it again"
                )
            bad.end()


def find_line_files(sources: Sequence[str], languages: Sequence[str] | None) -> LineFiles:
    """Find parallel files by their common stem, by the folder that holds them, or by their own names.

    Args:
        sources: stems, folders, or files, each also as `SPLIT=...`.
        languages: which, and in which order; None for those that the files' names tell.

    Raises:
        InputError: no such files, a language of which there is none, or files that tell no languages.
    """
    groups: list[tuple[str, tuple[Path, ...]]] = []
    chosen = tuple(languages or ())
    for split, names in _gathered(sources):
        stems: dict[Path, dict[str, Path]] = {}
        if len(names) == 1 and Path(names[0]).is_dir():
            for path in sorted(Path(names[0]).iterdir()):
                _file_under(path, stems)
        elif all(Path(name).is_file() for name in names):
            for name in names:
                _file_under(Path(name), stems)
            if len(stems) > 1 or not stems:
                # Names that tell nothing: the files in their order are the languages in theirs.
                if len(chosen) != len(names):
                    raise InputError(
                        f"expected as many languages as files ({', '.join(names)}), found "
                        f"{', '.join(chosen) or 'none'}: name them with --languages"
                    )
                groups.append((split, tuple(map(Path, names))))
                continue
            if len(names) == 1:
                raise _alone(Path(names[0]), next(iter(stems)))
            # The order in which they are named.
            chosen = chosen or tuple(*stems.values())
        else:
            for name in names:
                stem = Path(name)
                if stem.parent.is_dir():
                    for path in sorted(stem.parent.glob(_literal(stem.name) + ".*")):
                        _file_under(path, stems, only=stem)
        chosen = chosen or _languages(stems, names)
        found = 0
        for stem, files in sorted(stems.items()):
            if all(language in files for language in chosen):
                groups.append((split or _split_of(stem), tuple(files[language] for language in chosen)))
                found += 1
        if not found:
            raise _not_those(stems, names, f" of {', '.join(chosen)}")
    # One split alone is no way to split a corpus: Samanantar comes as `train` and nothing else.
    if len({split for split, _ in groups}) == 1 and not any(named_split(source)[0] for source in sources):
        groups = [("", paths) for _, paths in groups]
    return LineFiles(chosen, tuple(groups))


def _gathered(sources: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield split and names of what belongs together: files of one split; each stem or folder alone."""
    files: dict[str, list[str]] = {}
    for split, name in map(named_split, sources):
        if Path(name).is_file():
            files.setdefault(split, []).append(name)
        else:
            yield split, [name]
    yield from files.items()


def _file_under(path: Path, stems: dict[Path, dict[str, Path]], *, only: Path | None = None) -> None:
    """Put a file named STEM.LANGUAGE, or STEM.LANGUAGE.gz, with the others of its stem."""
    plain = path.with_suffix("") if path.suffix == ".gz" else path
    stem, language = plain.with_suffix(""), plain.suffix.removeprefix(".")
    if not _LANGUAGE.fullmatch(language) or language in ("txt", "tsv", "csv", "npy") or only not in (None, stem):
        return
    # Of a file that is there packed and plain the plain one counts.
    if path.suffix != ".gz" or language not in stems.get(stem, {}):
        stems.setdefault(stem, {})[language] = path


def _languages(stems: dict[Path, dict[str, Path]], names: Sequence[str]) -> tuple[str, ...]:
    """Return the languages that all stems have: in the order of a name such as de-en, else of the alphabet."""
    common = set.intersection(*map(set, stems.values())) if stems else set()
    for stem in stems:
        for name in (stem.name, stem.parent.name):
            match = _PAIR.search(name)
            if match and set(match.groups()) <= common:
                return match.group(1), match.group(2)
    if len(common) < 2:
        raise _not_those(stems, names, " in two languages or more")
    return tuple(sorted(common))


def _not_those(stems: Mapping[Path, Mapping[str, Path]], names: Sequence[str], wanted: str) -> InputError:
    """Return the error of a place that does not hold the wanted languages: what it holds, and how to name that."""
    if len(names) > 1 or not Path(names[0]).is_dir():
        there = sorted({language for files in stems.values() for language in files})
        return InputError(
            f"expected files {' '.join(names)}.LANGUAGE (or .LANGUAGE.gz){wanted}, found "
            f"{'those of ' + ', '.join(there) if there else 'none'}: check the path, or name other --languages"
        )
    place = names[0]
    # What is parallel first: a folder may hold a README.md beside it.
    parallel = sorted(stem for stem, files in stems.items() if len(files) > 1)
    told = [f"{stem.name} ({', '.join(sorted(stems[stem]))})" for stem in parallel or sorted(stems)]
    found = ", ".join(told[:SHOWN]) + (f" and {len(told) - SHOWN} more" if len(told) > SHOWN else "")
    if not parallel:
        return InputError(
            f"expected files STEM.LANGUAGE (or .LANGUAGE.gz){wanted} in the folder {place}, found {found or 'none'}: "
            "check the path"
        )
    several = f"several corpora, {found}" if len(parallel) > 1 else found
    return InputError(
        f"expected one corpus{wanted} in the folder {place}, found {several}: name one, as {parallel[0]}, or the "
        f"languages of those that are wanted, as --languages {','.join(sorted(stems[parallel[0]]))}"
    )


def _alone(path: Path, stem: Path) -> InputError:
    """Return the error of one file of a corpus: what it is a part of."""
    stems: dict[Path, dict[str, Path]] = {}
    for other in sorted(stem.parent.glob(_literal(stem.name) + ".*")):
        _file_under(other, stems, only=stem)
    there = sorted(stems.get(stem, ()))
    return InputError(
        f"expected files of one text in two languages or more, found {path} alone: "
        + (
            f"name their stem, {stem}, which has {', '.join(there)}"
            if len(there) > 1
            else f"put its translation beside it as {stem.name}.LANGUAGE, or prepare it as text"
        )
    )


def _split_of(stem: Path) -> str:
    return SPLIT_NAMES.get(stem.name.split(".")[0], "")


def _literal(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)
