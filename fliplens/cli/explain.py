"""`fliplens explain`: words read from vectors, text or speech."""

from __future__ import annotations

import argparse
import math

import numpy as np

from fliplens.cli.output import print_json, print_table, print_text
from fliplens.cli.signals import StopOnSignal
from fliplens.devices import resolve_device
from fliplens.embeddings import Embeddings, Manifest, open_embeddings
from fliplens.encoders import load_encoder, text_spec
from fliplens.errors import InputError, InterruptedRunError
from fliplens.lenses.extractor import Extractor
from fliplens.lenses.reading_files import Written, check_output, write_top_words
from fliplens.wording import counted

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Print the top words of every input, or write them to a file."""
    if sum((bool(args.texts), args.embeddings is not None, args.audio is not None)) != 1:
        raise InputError("expected either texts or --embeddings F.npy or --audio F.wav, found several or none")
    if args.embeddings is not None and args.encoder is not None:
        raise InputError("expected no --encoder with --embeddings, found both: these vectors are made already")
    if args.engine != "local":
        return _elsewhere(args)
    if args.actors is not None:
        raise InputError("expected --actors with --engine ray, found it without")
    if args.output is not None:
        check_output(args.output, overwrite=args.overwrite)
    lens = Extractor.load(args.lens, vocabulary=args.vocab).to(resolve_device(args.device))
    if args.output is not None:
        return _write(args, lens)
    inputs, vectors = _from_file(args) if args.embeddings is not None else _encoded(args, lens)
    top = lens.top(vectors, args.n, prior=args.prior, decoding=args.decoding)
    if args.json:
        print_json([{"input": one, "words": words.to_json()} for one, words in zip(inputs, top, strict=True)])
        return 0
    for one, words in zip(inputs, top, strict=True):
        # Without probabilities the bars are the scores'.
        bars = [word.score if math.isnan(word.probability) else word.probability for word in words]
        print_table(
            f"row {one}" if args.embeddings is not None else str(one),
            ["word", "", "score", "probability"],
            [
                [
                    word.word,
                    "█" * round(20 * bar / (max(bars) or 1.0)),
                    f"{word.score:.2f}",
                    "" if math.isnan(word.probability) else f"{word.probability:.3f}",
                ]
                for word, bar in zip(words, bars, strict=True)
            ],
            left=2,
        )
    return 0


def _write(args: argparse.Namespace, lens: Extractor) -> int:
    """Write the words of every input to a file, and tell how many."""
    if args.embeddings is not None:
        texts, vectors = None, open_embeddings(args.embeddings, verify=args.verify)
    else:
        texts, vectors = _encoded(args, lens)
    written = write_top_words(
        lens,
        vectors,
        args.output,
        args.n,
        prior=args.prior,
        decoding=args.decoding,
        texts=texts,
        drop_bad_rows=args.drop_bad_rows,
        overwrite=args.overwrite,
        show_progress=not args.quiet,
    )
    return _tell(args, written)


def _elsewhere(args: argparse.Namespace) -> int:
    """Write the words of vectors by an engine."""
    from fliplens.engines.ray_data import RayEngine
    from fliplens.engines.reading import read_on

    if args.embeddings is None or args.output is None or args.verify:
        raise InputError("expected --embeddings and --output OUT.parquet with --engine ray, and no --verify")
    with StopOnSignal() as stop:
        try:
            with RayEngine(actors=args.actors, device=args.device, cores=args.threads) as engine:
                written = read_on(
                    engine,
                    args.lens,
                    args.embeddings,
                    args.output,
                    args.n,
                    vocabulary=args.vocab,
                    prior=args.prior,
                    decoding=args.decoding,
                    drop_bad_rows=args.drop_bad_rows,
                    device=args.device,
                    overwrite=args.overwrite,
                    show_progress=not args.quiet,
                    stop=stop,
                )
        except InterruptedRunError as error:
            error.exit_status = stop.exit_status
            raise
    return _tell(args, written)


def _tell(args: argparse.Namespace, written: Written) -> int:
    if args.json:
        print_json({"output": args.output, "rows": written.rows, "rows_dropped_not_finite": written.dropped})
    else:
        dropped = f", {written.dropped} not finite and left out" if written.dropped else ""
        print_text(f"words of {counted(written.rows, 'vector')} in {args.output}{dropped}")
    return 0


def _from_file(args: argparse.Namespace) -> tuple[list[int], Embeddings]:
    """Return row numbers (from 0) and vectors of a file."""
    vectors = open_embeddings(args.embeddings, verify=args.verify)
    rows = np.arange(len(vectors))
    if args.drop_bad_rows:
        rows = np.setdiff1d(rows, vectors.bad_rows())
        if not len(rows):
            raise InputError(f"expected some finite vectors in {args.embeddings}, found none")
        vectors = vectors.subset(rows)
    return rows.tolist(), vectors


def _encoded(args: argparse.Namespace, lens: Extractor) -> tuple[list[str], Embeddings]:
    """Return texts, or paths of recordings, and their vectors, by the encoder that is named or the lens records."""
    inputs, wanted = (args.texts, "text") if args.audio is None else (args.audio, "speech")
    spec = args.encoder or lens.encoder
    if spec is None:
        raise InputError("expected the lens to record its encoder, found none: name it with --encoder")
    # A lens of vectors of speech reads texts too, where the encoder that made them has one of text in it.
    named = text_spec(spec) if wanted == "text" else spec
    encoder = None if named is None else load_encoder(named, device=args.device)
    if encoder is None or encoder.modality != wanted:
        raise InputError(f"expected an encoder of {wanted}, found {spec}: name one of the same space with --encoder")
    if encoder.dim != lens.dim:
        known = f"{lens.encoder}, which the lens records, or one" if args.encoder and lens.encoder else "one"
        raise InputError(
            f"expected an encoder of {lens.dim} dimensions for this lens, found {spec} of {encoder.dim}: "
            f"name {known} of the same space with --encoder"
        )
    vectors = encoder.encode(inputs, show_progress=not args.quiet and len(inputs) > 256)
    made = Manifest(
        encoder=encoder.spec,
        revision=encoder.revision,
        dim=encoder.dim,
        dtype="float32",
        normalised=encoder.normalised,
    )
    return list(inputs), Embeddings([vectors], manifest=made, name="the texts" if wanted == "text" else "the audio")
