"""The command line as a whole. Nothing heavy is imported here: `fliplens --help` must be instant."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from fliplens import __version__
from fliplens.cli import data_flags, lens_flags
from fliplens.cli.flags import OneLineParser, common_options

__all__ = ["build_parser", "parse"]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command line; leave with status 2 and one line where it is wrong.

    argparse hands the free arguments of a command (sentences, key=value) out once, before the first flag, and
    calls those behind a flag unknown; here they go where they belong. What follows `--` is free in any case.
    """
    parser = build_parser()
    args, left = parser.parse_known_args(argv)
    end = left.index("--") if "--" in left else len(left)
    left, behind = left[:end], left[end + 1 :]
    flags = [item for item in left if item.startswith("-")]
    free = getattr(args, args.free, None) if hasattr(args, "free") else None
    if flags or (left + behind and free is None):
        parser.error(f"unrecognised arguments: {' '.join(flags or left + behind)}")
    if free is not None:
        free.extend(left + behind)
    return args


def build_parser() -> OneLineParser:
    """Return the parser of the whole command line."""
    parser = OneLineParser(
        prog="fliplens",
        description="Read what a sentence embedding says: linear lenses from any embedding space to words.",
    )
    parser.add_argument("--version", action="version", version=f"fliplens {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    common = common_options()
    lens_flags.demo(commands, common)
    data_flags.encode(commands, common)
    data_flags.encoders(commands, common)
    lens_flags.fit(commands, common)
    lens_flags.evaluate(commands, common)
    lens_flags.explain(commands, common)
    data_flags.import_vectors(commands, common)
    lens_flags.info(commands, common)
    lens_flags.study(commands, common)
    data_flags.tag(commands, common)
    data_flags.corpus(commands, common)
    return parser
