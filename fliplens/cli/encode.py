"""`fliplens encode`: text to vectors on disk."""

from __future__ import annotations

import argparse
from pathlib import Path

from fliplens.cli.output import print_json, print_text
from fliplens.encoders import load_encoder
from fliplens.encoding import encode_texts
from fliplens.files import read_lines

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Encode a text file."""
    texts = read_lines(args.texts)
    encoder = load_encoder(args.encoder, device=args.device, batch_size=args.batch_size, precision=args.precision)
    done = encode_texts(
        texts,
        encoder,
        args.output,
        name=Path(args.texts).name,
        dtype=args.dtype,
        overwrite=args.overwrite,
        show_progress=not args.quiet,
    )
    if args.json and done.manifest is not None:
        print_json(done.manifest.to_json())
    else:
        print_text(f"{len(done)} vectors of {done.dim} dimensions ({encoder.spec}) in {args.output}")
    return 0
