"""`fliplens encode`: text, or speech, to vectors on disk."""

from __future__ import annotations

import argparse
from pathlib import Path

from fliplens.audio_encoding import encode_audio
from fliplens.cli.output import print_json, print_text
from fliplens.encoders import load_encoder
from fliplens.encoding import bad_list, encode_texts
from fliplens.errors import InputError
from fliplens.files import read_lines

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Encode a text file, or the recordings that one lists where the encoder is of speech."""
    lines = read_lines(args.texts)
    encoder = load_encoder(args.encoder, device=args.device, batch_size=args.batch_size, precision=args.precision)
    listed = Path(args.texts)
    if encoder.modality == "speech":
        done = encode_audio(
            lines,
            encoder,
            args.output,
            folder=listed.parent,
            name=listed.name,
            skip_bad=args.skip_bad,
            dtype=args.dtype,
            overwrite=args.overwrite,
            show_progress=not args.quiet,
        )
    elif args.skip_bad:
        raise InputError(
            f"expected an encoder of speech with --skip-bad, found {encoder.spec}: every text has a vector"
        )
    else:
        done = encode_texts(
            lines,
            encoder,
            args.output,
            name=listed.name,
            dtype=args.dtype,
            overwrite=args.overwrite,
            show_progress=not args.quiet,
        )
    bad = 0 if done.manifest is None else done.manifest.source.get("bad", 0)
    if args.json and done.manifest is not None:
        print_json(done.manifest.to_json())
    else:
        left_out = f", {bad} of them NaN, listed in {bad_list(args.output)}" if bad else ""
        print_text(f"{len(done)} vectors of {done.dim} dimensions ({encoder.spec}) in {args.output}{left_out}")
    return 0
