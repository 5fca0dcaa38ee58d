"""`fliplens corpus prepare`: downloaded corpora to aligned text, clips and vectors."""

from __future__ import annotations

import argparse

from fliplens.cli.output import print_json, print_table, print_text
from fliplens.corpora.cleaning import Cleaning
from fliplens.corpora.clips import ClipBounds
from fliplens.corpora.preparation import PrepareConfig, PreparedCorpus, prepare
from fliplens.errors import InputError
from fliplens.wording import counted

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Prepare a corpus and print what was kept and what was not."""
    languages, columns = _columns(args.columns)
    if args.languages is not None:
        languages = tuple(one.strip() for one in args.languages.split(","))
    done = prepare(
        PrepareConfig(
            kind=args.kind,
            sources=tuple(args.sources),
            languages=languages,
            columns=columns,
            name=args.name,
            split=_shares(args.split),
            seed=args.seed,
            cleaning=Cleaning(
                min_words=args.min_words,
                max_words=args.max_words,
                min_characters=args.min_characters,
                max_characters=args.max_characters,
                drop_identical=not args.keep_identical,
            ),
            clips=ClipBounds(min_seconds=args.min_seconds, max_seconds=args.max_seconds),
            audio=args.audio,
            min_up_votes=args.min_up_votes,
            max_down_votes=args.max_down_votes,
            duplicates=args.duplicates,
            limit=args.limit,
            encoders=tuple(args.encoder),
            dtype=args.dtype,
            min_similarity=args.min_similarity,
        ),
        args.output,
        device=args.device,
        overwrite=args.overwrite,
        show_progress=not args.quiet,
    )
    if args.json:
        print_json({"folder": str(done.folder), **done.to_json()})
    else:
        _show(done)
    return 0


def _show(done: PreparedCorpus) -> None:
    counts = done.counts
    print_table(
        f"{done.name}: {', '.join(done.languages)}{', spoken' if done.spoken else ''}",
        ["rows", ""],
        [
            ["read", str(counts.read)],
            *([f"dropped, {name.replace('_', ' ')}", str(n)] for name, n in counts.dropped.items()),
            ["kept", str(counts.kept)],
            *([f"in {split}", str(n)] for split, n in done.splits.items()),
        ],
    )
    print_text(
        f"cleaning changed {counted(counts.changed, 'row')}; "
        + (
            f"{counted(done.n_groups, 'group')} of rows that share no sentence with others, the largest of "
            f"{counted(done.largest_group, 'row')}"
            if done.largest_group > 1
            else "no two rows share a sentence"
        )
        + f"\nEverything is in {done.folder}"
    )


def _columns(text: str | None) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    """Return languages and columns of `en=COLUMN,de=COLUMN`; languages None where none are named."""
    if text is None:
        return None, ()
    pairs = [one.strip().rpartition("=") for one in text.split(",")]
    columns = tuple(column for _, _, column in pairs)
    named = [bool(equals) for _, equals, _ in pairs]
    if not all(columns) or any(named) != all(named):
        raise InputError(f"expected --columns en=COLUMN,de=COLUMN, found {text!r}")
    return (tuple(language for language, _, _ in pairs) if all(named) else None), columns


def _shares(text: str | None) -> dict[str, float] | None:
    """Return split → share of `train=0.9,dev=0.05,test=0.05`."""
    if text is None:
        return None
    found: dict[str, float] = {}
    for one in text.split(","):
        name, _, value = one.partition("=")
        if name.strip() in found:
            raise InputError(f"expected each split once in --split, found {text!r}")
        try:
            found[name.strip()] = float(value)
        except ValueError as error:
            raise InputError(f"expected --split train=0.9,dev=0.05,test=0.05, found {text!r}") from error
    return found
