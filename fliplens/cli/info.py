"""`fliplens info`: what a lens is, on what it was made, how good."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from fliplens.cli.output import print_json, print_table
from fliplens.lenses.extractor import Extractor
from fliplens.lenses.lens import Lens

__all__ = ["describe", "print_description", "run"]


KINDS: dict[str, type] = {"format_version": int, "fliplens_version": str}


def run(args: argparse.Namespace) -> int:
    """Describe a lens."""
    description = describe(Extractor.load(args.lens, vocabulary=args.vocab))
    if args.json:
        print_json(description)
    else:
        print_description(args.lens, description)
    return 0


def describe(lens: Extractor) -> dict[str, Any]:
    """Return what is known of a lens as plain JSON values."""
    linear: dict[str, Any] = {}
    if isinstance(lens, Lens):
        linear = {
            "rank": "full" if lens.rank is None else lens.rank,
            "prior": "stored" if lens.prior is not None else "the whole bias",
            "exact_zeros": float((lens.factors.E1 == 0).float().mean()),
        }
    return {
        "kind": lens.kind,
        "words": len(lens.vocabulary),
        "dim": lens.dim,
        "encoder": lens.encoder,
        **linear,
        "tokeniser": lens.vocabulary.tokeniser.to_json(),
        "ngram_range": list(lens.vocabulary.ngram_range),
        "spans": lens.vocabulary.spans,
        "first_words": list(lens.vocabulary.words[:10]),
        **{
            name: lens.config[name]
            for name in ("format_version", "fliplens_version", "data", "recipe", "training", "metrics")
            # Another program's config.json may hold anything under these names.
            if "format_version" in lens.config and isinstance(lens.config.get(name), KINDS.get(name, dict))
        },
    }


def print_description(title: str, description: dict[str, Any]) -> None:
    """Write a description as a table of names and values."""
    data, training, recipe = (description.get(name, {}) for name in ("data", "training", "recipe"))
    rows = [
        ["kind", description["kind"]],
        ["words", f"{description['words']} ({', '.join(description['first_words'][:6])}, ...)"],
        ["dimensions", str(description["dim"])],
        ["encoder", str(description["encoder"] or "not recorded")],
        ["tokeniser", _tokeniser(description["tokeniser"])],
        ["n-grams", "{} to {} words, {spans}".format(*description["ngram_range"], **description)],
    ]
    if description["kind"] == Lens.kind:
        rows += [
            ["rank", str(description["rank"])],
            ["prior", description["prior"]],
            ["exact zeros", f"{100 * description['exact_zeros']:.1f}%"],
        ]
    if data:
        views = "one view" if data.get("views") == 1 else "two views"
        rows.append(["trained on", f"{data.get('rows_trained')} rows, {views}; stopped on {data.get('dev_rows')}"])
    chosen = training.get("chosen")
    if "model" in recipe:
        # What no recipe trains has few settings of its own; those that were left open were chosen.
        own = {name: value for name, value in recipe.items() if name not in ("model", "train") and value is not None}
        settings = own | (chosen if isinstance(chosen, dict) else {})
        rows.append(["model", ", ".join([str(recipe["model"]), *(f"{n} {_short(v)}" for n, v in settings.items())])])
        if training:
            rows.append(["made in", f"{training.get('seconds')} s"])
    elif recipe:
        rows.append(["recipe", f"{recipe.get('recipe')}, seed {recipe.get('seed')}"])
    if training and "model" not in recipe:
        rows.append(
            [
                "training",
                f"{training.get('seconds')} s, best after pass {training.get('best_pass')}, "
                f"anchor {training.get('anchor')}",
            ]
        )
    for name, position, one in _dev_accuracies(description.get("metrics", {})):
        shown = {"with_prior": "prior 1", "without_prior": "prior 0"}[position]
        value = f"{100 * one['mean']:.2f} ± {100 * one['se']:.2f} per cent"
        rows.append([f"dev accuracy, {name}, {shown}", value])
    print_table(title, ["", ""], rows, left=2)


def _tokeniser(settings: dict[str, Any]) -> str:
    version = settings.get("icu_version")
    return f"{settings['mode']} ({version})" if version else str(settings["mode"])


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _dev_accuracies(metrics: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, float]]]:
    """Yield view, position of the dial and estimate of every dev accuracy that is laid out as ours."""
    dev = metrics.get("dev")
    views = dev.get("views") if isinstance(dev, dict) else None
    for name, view in views.items() if isinstance(views, dict) else ():
        accuracy = view.get("accuracy") if isinstance(view, dict) else None
        for position in ("with_prior", "without_prior"):
            one = accuracy.get(position) if isinstance(accuracy, dict) else None
            if isinstance(one, dict) and all(isinstance(one.get(key), float) for key in ("mean", "se")):
                yield name, position, one
