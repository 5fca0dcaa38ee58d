"""`fliplens tag`: named entities of raw text."""

from __future__ import annotations

import argparse
from pathlib import Path

from fliplens.cli.output import print_json, print_text
from fliplens.tagging import load_tagger, tag_texts
from fliplens.tagging.writing import check_output
from fliplens.text.opening import read_texts
from fliplens.wording import counted

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Tag a text file."""
    out = check_output(args.output)
    texts = read_texts(args.texts)
    labels = None if args.labels is None else [label.strip() for label in args.labels.split(",") if label.strip()]
    tagger = load_tagger(
        args.by,
        device=args.device,
        batch_size=args.batch_size,
        match_case=args.match_case or None,
        tokeniser=args.tokeniser,
        labels=labels,
        base_url=args.base_url,
    )
    done = tag_texts(
        texts,
        tagger,
        out,
        name=Path(args.texts).name,
        overwrite=args.overwrite,
        show_progress=not args.quiet,
    )
    if args.json:
        print_json({"output": str(out), "tagger": tagger.spec, "revision": tagger.revision, **done.to_json()})
        return 0
    print_text(
        f"{counted(done.sentences, 'sentence')}, {done.sentences_with_names} with names, "
        f"{counted(done.names, 'name')} ({tagger.spec}) in {out}"
    )
    if done.dropped:
        print_text(f"left out {counted(done.dropped, 'name')} that the sentence does not hold")
    if done.declined:
        print_text(f"the tagger declined {counted(done.declined, 'sentence')}: no names are listed there")
    return 0
