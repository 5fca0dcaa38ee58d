"""What the flags of several commands share. Nothing heavy is imported here: `fliplens --help` must be instant."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, NoReturn, TypeAlias

__all__ = ["DECODING", "Commands", "OneLineParser", "common_options", "engine", "lazily"]


class OneLineParser(argparse.ArgumentParser):
    """A parser whose complaints are one line, like every other error of the command."""

    def error(self, message: str) -> NoReturn:
        """Print one line and leave with status 2."""
        sys.stderr.write(f"fliplens: {message}: see {self.prog} --help\n")
        raise SystemExit(2)


Commands: TypeAlias = "argparse._SubParsersAction[OneLineParser]"

DECODING: dict[str, Any] = {
    "default": "plain",
    "choices": ["plain", "explain-away"],
    "help": "choose each word by its own score, or all together (default: plain)",
}


def lazily(module: str) -> Callable[[argparse.Namespace], int]:
    """Return a command that imports its module only when it is run."""

    def run(args: argparse.Namespace) -> int:
        status: int = import_module(f"fliplens.cli.{module}").run(args)
        return status

    return run


def common_options() -> OneLineParser:
    """Return what every command takes."""
    common = OneLineParser(add_help=False)
    group = common.add_argument_group("common options")
    group.add_argument("--device", default="auto", metavar="auto|cpu|cuda", help="where to compute (default: auto)")
    group.add_argument("--threads", type=int, metavar="N", help="processor threads (default: all)")
    group.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return common


def engine(group: Any) -> None:
    """Add where the work is done."""
    group.add_argument(
        "--engine",
        default="local",
        choices=["local", "ray"],
        help="here, or on Ray: on the cluster that RAY_ADDRESS names, else on all of this machine (default: local)",
    )
    group.add_argument(
        "--actors", type=int, metavar="N", help="of Ray: how many at once (default: one a GPU, else one a core)"
    )
