"""`fliplens demo`: the main job on what is already on the machine."""

from __future__ import annotations

import argparse

from fliplens.cli.output import percent, print_json, print_table, print_text
from fliplens.demo import EXAMPLES_PRIOR, DemoResult, run_demo

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Run the demo and show what it found."""
    result = run_demo(
        args.output,
        sentences=args.sentences,
        seed=args.seed,
        overwrite=args.overwrite,
        device=args.device,
        show_progress=not args.quiet,
    )
    if args.json:
        print_json(result.to_json())
    else:
        _show(result)
    return 0


def _show(result: DemoResult) -> None:
    sizes = ", ".join(f"{n} {split}" for split, n in result.sizes.items())
    print_table(
        f"Words read from MiniLM vectors of installed documentation ({sizes} sentences; "
        f"vocabulary {result.vocabulary_size})",
        ["method", "accuracy", "without prior", f"recall@{result.rows[0].result.topn}", "parameters", "training"],
        [
            [
                row.name,
                percent(row.result.accuracy, "with_prior"),
                percent(row.result.accuracy, "without_prior"),
                percent(row.result.views["primary"].metrics["recall"], "with_prior"),
                f"{row.parameters / 1e6:.2f} M",
                "none" if row.seconds is None else f"{row.seconds:.1f} s",
            ]
            for row in result.rows
        ],
    )
    print_text(
        "test sentences, per cent, ± standard error; accuracy: share of a sentence's k words among the top k\n"
    )
    print_table(
        f"Held-out sentences and the words read from their vectors alone (prior {EXAMPLES_PRIOR}: fewer stop words)",
        ["sentence", "words"],
        [[text, str(words)] for text, words in result.examples],
        left=2,
    )
    folder = result.folder
    print_text(
        f"Everything is in {folder}. Next:\n"
        f'  fliplens explain {folder}/lens "Return the number of rows in the table."\n'
        f"  fliplens evaluate {folder}/lens --texts {folder}/test.txt --embeddings {folder}/test.npy\n"
        f"  fliplens info {folder}/lens\n"
        "  fliplens fit --texts YOUR.txt --embeddings YOUR.npy --encoder minilm -o YOUR_LENS"
    )
