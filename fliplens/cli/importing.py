"""`fliplens import`: vectors that are made already, to shards on disk."""

from __future__ import annotations

import argparse

from fliplens.cli.output import print_json, print_text, vectors_of
from fliplens.encoders import canonical_spec
from fliplens.sources.importing import import_vectors

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Import the vectors of a source."""
    done = import_vectors(
        args.source,
        args.output,
        encoder=None if args.encoder is None else canonical_spec(args.encoder),
        dtype=args.dtype,
        overwrite=args.overwrite,
        show_progress=not args.quiet,
    )
    if args.json and done.manifest is not None:
        print_json(done.manifest.to_json())
    else:
        bad = 0 if done.manifest is None else done.manifest.source.get("bad", 0)
        left = f", {bad} of them not finite" if bad else ""
        print_text(f"{vectors_of(len(done), done.dim)} in {args.output}{left}")
    return 0
