"""`fliplens encoders`: which there are; whether one works here."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fliplens.cli.output import print_json, print_table, print_text
from fliplens.embeddings import open_embeddings
from fliplens.encoders import Encoder, load_encoder
from fliplens.encoders.checking import check_encoder, mark_matched
from fliplens.encoders.registry import FAMILIES
from fliplens.errors import InputError
from fliplens.sources import SourceSpec
from fliplens.text.long_texts import open_texts

__all__ = ["run"]

LISTS = (".txt", ".gz", ".parquet")
"""How files end that name recordings, and are none."""

WORDS = {True: "ok", False: "FAILED", None: "-"}
"""For what was found."""


def run(args: argparse.Namespace) -> int:
    """List the families of encoders, or check one encoder."""
    if not args.words and args.against is None:
        return _list(args)
    if args.words[:1] != ["check"] or len(args.words) < 2:
        found = "no ENCODER" if args.words == ["check"] else " ".join(args.words)
        raise InputError(
            f"expected check ENCODER behind fliplens encoders, or nothing, found "
            f"{found or '--against alone'}: say fliplens encoders "
            "check minilm, for instance"
        )
    return _check(args, args.words[1], args.words[2:])


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


def _check(args: argparse.Namespace, spec: str, words: Sequence[str]) -> int:
    against = None if args.against is None else open_embeddings(args.against)
    encoder = load_encoder(spec, device=args.device, precision=args.precision)
    inputs = _inputs(words, encoder) if words else None
    done = mark_matched(encoder, check_encoder(encoder, inputs, against=against))
    if args.json:
        print_json(done.to_json())
    else:
        about = f"{done.dim} numbers a vector, {'unit length' if done.normalised else 'any length'}, {done.precision}"
        rows = [["name", "", done.name], ["weights", "", str(done.revision or "not known")], ["vectors", "", about]]
        rows += [[check.name, WORDS[check.passed], check.found] for check in done.checks]
        print_table(done.spec, ["", "", ""], rows, left=3)
        if done.experimental and done.passed:
            print_text("It runs, but stays experimental: nothing shows yet that it gives the original's vectors.")
    # An experimental encoder that was not compared with its original has not passed.
    return 0 if done.passed and not done.experimental else 1


def _inputs(words: Sequence[str], encoder: Encoder) -> Sequence[Any]:
    """Return the inputs that words name: files of audio, or one list of them; lines of one text."""
    place = SourceSpec.parse(words[0]).path
    if encoder.modality == "speech":
        if len(words) == 1 and place.suffix in LISTS:
            return [place.parent / line for line in open_texts(words[0])]
        for word in words:
            if not Path(word).is_file():
                raise InputError(f"expected a file of audio at {word}, found none: check the path")
        return list(words)
    if len(words) > 1:
        raise InputError(
            f"expected one TEXTS behind check {encoder.spec}, found {len(words)}: name one file, one sentence a line"
        )
    return open_texts(words[0])
