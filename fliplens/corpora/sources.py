"""The kinds of sources there are, and the call that finds one's files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from fliplens.corpora.common_voice import find_common_voice
from fliplens.corpora.counting import Counts
from fliplens.corpora.hub import HubDataset
from fliplens.corpora.installed import installed_sentences
from fliplens.corpora.parallel import LineFiles, PairFiles, find_line_files
from fliplens.corpora.rows import Row, RowSource
from fliplens.corpora.splits import named_split
from fliplens.corpora.tables import TABLE_SUFFIXES, is_table, text_rows
from fliplens.errors import InputError

__all__ = ["KINDS", "CorpusKind", "Wanted", "open_source"]

UNKNOWN = "und"
"""ISO 639's language of text of which none is told."""
_NAME = re.compile(r"[A-Za-z][\w-]*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is asked of a source, beside where it is. Not every kind of source has an answer to all."""

    languages: tuple[str, ...] | None = None
    """None: those that the files tell."""
    columns: tuple[str, ...] = ()
    """Names of columns, one for each language."""
    resplit: bool = False
    """Whether the source's own splits are passed over."""
    min_up_votes: int = 0
    """Of Common Voice: votes for a clip."""
    max_down_votes: int | None = None
    """Of Common Voice: votes against it; None: any."""
    min_words: int = 4
    """Of installed documentation."""
    max_words: int | None = None
    """Of installed documentation; None: 20."""
    limit: int | None = None
    """Of installed documentation: sentences to look for."""
    seed: int = 0
    """Of installed documentation: which sentences are found first."""


@dataclass(frozen=True)
class CorpusKind:
    """One kind of source."""

    about: str
    """Its layout, in a few words."""
    open: Callable[[Sequence[str], Wanted], RowSource]
    """Makes one of the places that the caller names."""


@dataclass(frozen=True)
class Tables:
    """Named columns of CSV, TSV, JSON lines or Parquet."""

    languages: tuple[str, ...]
    groups: tuple[tuple[str, Path], ...]
    """Split ("" if there is none) and file."""
    columns: tuple[str, ...]
    """One for each language."""
    spoken: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """All files."""
        return tuple(path for _, path in self.groups)

    def rows(self, counts: Counts) -> Iterator[Row]:
        """Yield the rows of all files (see `RowSource.rows`, `text_rows`)."""
        for split, path in self.groups:
            for texts in text_rows(path, self.columns, counts):
                yield Row(texts, split)


@dataclass(frozen=True)
class Installed:
    """Sentences of the documentation installed with Python (`fliplens.corpora.installed`)."""

    wanted: Wanted
    languages: tuple[str, ...] = ("en",)
    spoken: bool = False
    files: tuple[Path, ...] = field(default=())

    def rows(self, counts: Counts) -> Iterator[Row]:
        """Yield the sentences; they are held in memory."""
        most = 20 if self.wanted.max_words is None else self.wanted.max_words
        for sentence in installed_sentences(
            self.wanted.limit, seed=self.wanted.seed, min_words=self.wanted.min_words, max_words=most
        ):
            counts.read += 1
            yield Row((sentence,))


def open_source(kind: str, places: Sequence[str], wanted: Wanted | None = None) -> RowSource:
    """Find the files of a source; nothing of them is read yet.

    Args:
        kind: one of KINDS.
        places: files, stems, folders or ids, as the kind has it; those of text may be given as `SPLIT=PLACE`.
        wanted: languages, columns and the like.

    Raises:
        InputError: no such kind, or nothing of that kind at a place.
    """
    wanted = wanted or Wanted()
    if kind not in KINDS:
        raise InputError(f"expected a kind of source out of {', '.join(KINDS)}, found {kind!r}")
    if not places and kind != "installed":
        raise InputError(f"expected where the source is ({KINDS[kind].about}), found nothing: name it behind {kind}")
    for name in wanted.languages or ():
        if not _NAME.fullmatch(name):
            raise InputError(f"expected a language such as en, hi or zh-Hant, found {name!r}")
    if wanted.languages is not None and len(set(wanted.languages)) < len(wanted.languages):
        raise InputError(f"expected each language once, found {', '.join(wanted.languages)}")
    if wanted.columns and kind not in ("table", "hf", "tatoeba"):
        raise InputError(f"expected columns of table, hf or tatoeba, found some for {kind}: leave --columns out")
    if (wanted.min_up_votes or wanted.max_down_votes is not None) and kind != "common-voice":
        raise InputError(f"expected bounds of votes for common-voice, found some for {kind}: leave them out")
    source = KINDS[kind].open(places, wanted)
    missing = [path for path in source.files if not path.exists()]
    if missing:
        raise InputError(f"expected a file at {missing[0]}, found none: check the path")
    return source


def _common_voice(places: Sequence[str], wanted: Wanted) -> RowSource:
    return find_common_voice(
        places,
        wanted.languages,
        resplit=wanted.resplit,
        min_up_votes=wanted.min_up_votes,
        max_down_votes=wanted.max_down_votes,
    )


def _parallel(places: Sequence[str], wanted: Wanted) -> RowSource:
    found = find_line_files(places, wanted.languages)
    if len(found.languages) < 2:
        raise InputError(f"expected two languages or more, found {', '.join(found.languages)}: or is it text?")
    return found


def _tatoeba(places: Sequence[str], wanted: Wanted) -> RowSource:
    located = [(split, Path(name)) for split, name in map(named_split, places)]
    if not all(path.name.endswith((".tsv", ".txt", ".tsv.gz", ".txt.gz")) for _, path in located):
        return _parallel(places, wanted)
    languages = wanted.languages or next(
        (
            match.groups()
            for _, path in located
            if (match := re.search(r"(?:^|[\W_])([a-z]{2,3})-([a-z]{2,3})(?:[\W_]|$)", path.name))
        ),
        (),
    )
    if len(languages) != 2:
        raise InputError(
            f"expected the two languages of {located[0][1]}, found {len(languages)}: name them, as --languages en,de"
        )
    return PairFiles((languages[0], languages[1]), tuple(located), _numbers(wanted.columns))


def _numbers(columns: Sequence[str]) -> tuple[int, int] | None:
    if not columns:
        return None
    if len(columns) != 2 or not all(one.isdecimal() and int(one) > 0 for one in columns):
        raise InputError(
            f"expected two numbers of columns, from 1, such as --columns 2,4, found {','.join(columns)}: "
            "columns that have names are of the kind table"
        )
    return int(columns[0]) - 1, int(columns[1]) - 1


def _text(places: Sequence[str], wanted: Wanted) -> RowSource:
    languages = wanted.languages or (UNKNOWN,)
    if len(languages) != 1:
        raise InputError(f"expected one language of text, found {', '.join(languages)}: or are the files parallel?")
    return LineFiles(languages, tuple((split, (Path(name),)) for split, name in map(named_split, places)))


def _columns(wanted: Wanted) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if not wanted.columns:
        raise InputError("expected the columns of the text, found none: name them, as --columns en=COLUMN,de=COLUMN")
    languages = wanted.languages or ((UNKNOWN,) if len(wanted.columns) == 1 else ())
    if len(languages) != len(wanted.columns):
        raise InputError(
            f"expected a language for each of the {len(wanted.columns)} columns, found {len(languages)}: name them, "
            "as --columns en=COLUMN,de=COLUMN"
        )
    return languages, wanted.columns


def _table(places: Sequence[str], wanted: Wanted) -> RowSource:
    languages, columns = _columns(wanted)
    located = tuple((split, Path(name)) for split, name in map(named_split, places))
    for _, path in located:
        if not is_table(path):
            raise InputError(
                f"expected a file that ends in {', '.join(TABLE_SUFFIXES)}, found {path}: save it as one of these"
            )
    return Tables(languages, located, columns)


def _hf(places: Sequence[str], wanted: Wanted) -> RowSource:
    if len(places) != 1:
        raise InputError(f"expected one data set, found {len(places)}: prepare each by itself")
    if Path(places[0]).is_file():
        raise InputError(f"expected a data set's folder or name, found a file at {places[0]}: its kind is table")
    languages, columns = _columns(wanted)
    return HubDataset(languages, places[0], columns, wanted.resplit)


def _installed(places: Sequence[str], wanted: Wanted) -> RowSource:
    if places:
        raise InputError(f"expected nothing behind installed, found {places[0]}")
    if wanted.languages not in (None, ("en",)):
        raise InputError(f"expected installed documentation in en, found --languages {','.join(wanted.languages)}")
    return Installed(wanted)


KINDS: Mapping[str, CorpusKind] = MappingProxyType(
    {
        "common-voice": CorpusKind("language folders with train.tsv ... and clips/", _common_voice),
        "europarl": CorpusKind("europarl-v7.de-en, the stem of .de and .en, or their folder", _parallel),
        "samanantar": CorpusKind("en-hi, the folder of train.en and train.hi", _parallel),
        "tatoeba": CorpusKind("pairs a line between tabs (.tsv), or the stem of deu-eng.deu and .eng", _tatoeba),
        "parallel": CorpusKind("stems of STEM.LANGUAGE, folders of such files, or the files", _parallel),
        "text": CorpusKind("files of one sentence a line", _text),
        "table": CorpusKind("CSV, TSV, JSON lines or Parquet with named columns", _table),
        "hf": CorpusKind("a data set saved to disk by datasets, or OWNER/NAME[:CONFIG][@REVISION] of the Hub", _hf),
        "installed": CorpusKind("the documentation installed with Python", _installed),
    }
)
"""By the name that `fliplens corpus prepare` has for it."""
