"""`fliplens info`: what a lens is, on what it was made, how good."""

from __future__ import annotations

import argparse
from typing import Any

from fliplens.cli.output import print_json, print_table
from fliplens.lens import Lens

__all__ = ["describe", "print_description", "run"]


def run(args: argparse.Namespace) -> int:
    """Describe a lens."""
    description = describe(Lens.load(args.lens, vocabulary=args.vocab))
    if args.json:
        print_json(description)
    else:
        print_description(args.lens, description)
    return 0


def describe(lens: Lens) -> dict[str, Any]:
    """Return what is known of a lens as plain JSON values."""
    return {
        "words": len(lens.vocabulary),
        "dim": lens.dim,
        "rank": "full" if lens.rank is None else lens.rank,
        "encoder": lens.encoder,
        "prior": "stored" if lens.prior is not None else "the whole bias",
        "exact_zeros": float((lens.factors.E1 == 0).float().mean()),
        "tokeniser": lens.vocabulary.tokeniser.to_json(),
        "ngram_range": list(lens.vocabulary.ngram_range),
        "first_words": list(lens.vocabulary.words[:10]),
        **{
            name: lens.config[name]
            for name in ("format_version", "fliplens_version", "data", "recipe", "training", "metrics")
            if name in lens.config
        },
    }


def print_description(title: str, description: dict[str, Any]) -> None:
    """Write a description as a table of names and values."""
    data, training = description.get("data") or {}, description.get("training") or {}
    recipe = description.get("recipe") or {}
    rows = [
        ["words", f"{description['words']} ({', '.join(description['first_words'][:6])}, ...)"],
        ["dimensions", str(description["dim"])],
        ["rank", str(description["rank"])],
        ["encoder", str(description["encoder"] or "not recorded")],
        ["prior", description["prior"]],
        ["exact zeros", f"{100 * description['exact_zeros']:.1f}%"],
        ["tokeniser", str(description["tokeniser"]["mode"])],
    ]
    if data:
        views = "one view" if data.get("views") == 1 else "two views"
        rows.append(["trained on", f"{data.get('rows_trained')} rows, {views}; stopped on {data.get('dev_rows')}"])
    if recipe:
        rows.append(["recipe", f"{recipe.get('recipe')}, seed {recipe.get('seed')}"])
    if training:
        rows.append(
            [
                "training",
                f"{training.get('seconds', 0):.1f} s, best after pass {training.get('best_pass')}, "
                f"anchor {training.get('anchor')}",
            ]
        )
    dev = (description.get("metrics") or {}).get("dev") or {}
    for name, view in (dev.get("views") or {}).items():
        for position, shown in (("with_prior", "prior 1"), ("without_prior", "prior 0")):
            one = (view.get("accuracy") or {}).get(position)
            if one and one.get("mean") is not None:
                value = f"{100 * one['mean']:.2f} ± {100 * one['se']:.2f} per cent"
                rows.append([f"dev accuracy, {name}, {shown}", value])
    print_table(title, ["", ""], rows, left=2)
