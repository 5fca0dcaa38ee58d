"""`fliplens study`: a table or figure of the paper."""

from __future__ import annotations

import argparse
from pathlib import Path

from fliplens.cli.output import print_json, print_text
from fliplens.cli.signals import StopOnSignal
from fliplens.errors import InterruptedRunError
from fliplens.studies.catalogue import run_study
from fliplens.studies.rendering import to_markdown

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Carry out a study and print its tables and findings."""
    with StopOnSignal() as stop:
        try:
            result = run_study(
                args.name,
                args.config,
                args.output or Path("runs") / args.name,
                data=args.data,
                cache=args.cache,
                device=args.device,
                show_progress=not args.quiet,
                stop=stop,
            )
        except InterruptedRunError as error:
            error.exit_status = stop.exit_status
            raise
    if args.json:
        print_json(result.to_json())
        return 0
    for table in result.study.tables.values():
        print_text(to_markdown(table))
    print_text("\n".join(result.study.findings))
    print_text(f"\n{result.folder}/README.md")
    return 0
