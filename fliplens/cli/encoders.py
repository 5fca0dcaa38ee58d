"""`fliplens encoders`: which there are; whether one works here."""

from __future__ import annotations

import argparse

from fliplens.cli.output import print_json, print_table, print_text
from fliplens.encoders import load_encoder
from fliplens.encoders.checking import check_encoder
from fliplens.encoders.registry import FAMILIES
from fliplens.errors import InputError

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """List the families of encoders, or check one encoder."""
    if not args.words:
        return _list(args)
    if args.words[0] != "check" or len(args.words) != 2:
        found = "no ENCODER" if args.words == ["check"] else " ".join(args.words)
        raise InputError(
            f"expected check ENCODER behind fliplens encoders, or nothing, found {found}: say fliplens encoders "
            "check minilm, for instance"
        )
    return _check(args, args.words[1])


def _list(args: argparse.Namespace) -> int:
    if args.json:
        rows = [
            {
                "family": name,
                "form": family.form,
                "example": family.example,
                "about": family.about,
                "modality": family.modality,
                "options": dict(family.options),
                "extra": family.extra,
                "installed": family.installed,
            }
            for name, family in FAMILIES.items()
        ]
        print_json({"encoders": rows})
        return 0
    table = []
    for family in FAMILIES.values():
        there = "" if family.installed else f"needs fliplens[{family.extra}]"
        table.append([family.form, family.about, there])
        table += [[f"  #{name}=", meaning, ""] for name, meaning in family.options.items()]
    print_table("Encoders", ["encoder", "what it is", ""], table, left=3)
    print_text("A sentence-transformers model is also named without st:, as OWNER/NAME or an existing folder.")
    return 0


def _check(args: argparse.Namespace, spec: str) -> int:
    encoder = load_encoder(spec, device=args.device, precision=args.precision)
    done = check_encoder(encoder)
    if args.json:
        print_json(done.to_json())
    else:
        about = f"{done.dim} numbers a vector, {'unit length' if done.normalised else 'any length'}, {done.precision}"
        rows = [["name", "", done.name], ["weights", "", str(done.revision or "not known")], ["vectors", "", about]]
        rows += [[check.name, "ok" if check.passed else "FAILED", check.found] for check in done.checks]
        print_table(done.spec, ["", "", ""], rows, left=3)
    return 0 if done.passed else 1
