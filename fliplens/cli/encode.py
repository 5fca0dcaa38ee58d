"""`fliplens encode`: text, or speech, to vectors on disk."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

from fliplens.audio_encoding import encode_audio
from fliplens.cli.output import print_json, print_text
from fliplens.cli.signals import StopOnSignal
from fliplens.embeddings import Manifest
from fliplens.encoders import Encoder, canonical_spec, load_encoder
from fliplens.encoding import bad_list, encode_texts
from fliplens.encoding_shards import Shard, encode_shard, merge_shards
from fliplens.errors import InputError, InterruptedRunError
from fliplens.long_texts import open_texts
from fliplens.sources import SourceSpec

__all__ = ["run"]


def run(args: argparse.Namespace) -> int:
    """Encode texts, or the recordings that they list where the encoder is of speech; or put shards together."""
    if args.merge is not None:
        return _merge(args)
    if args.texts is None or args.encoder is None:
        raise InputError("expected TEXTS and --encoder, or --merge FOLDER..., found neither: name both")
    if args.engine != "local":
        return _elsewhere(args)
    if args.actors is not None:
        raise InputError("expected --actors with --engine ray, found it without")
    shard = None if args.shard is None else Shard.parse(args.shard)
    with StopOnSignal() as stop:
        try:
            lines = open_texts(args.texts, show_progress=not args.quiet)
            encoder = load_encoder(
                args.encoder, device=args.device, batch_size=args.batch_size, precision=args.precision
            )
            return _encode(args, lines, encoder, shard, stop)
        except InterruptedRunError as error:
            error.exit_status = stop.exit_status
            raise


def _encode(
    args: argparse.Namespace, lines: Sequence[str], encoder: Encoder, shard: Shard | None, stop: StopOnSignal
) -> int:
    speech = encoder.modality == "speech"
    if args.skip_bad and not speech:
        raise InputError(
            f"expected an encoder of speech with --skip-bad, found {encoder.spec}: every text has a vector"
        )
    if speech and shard is not None:
        raise InputError(f"expected an encoder of text with --shard, found {encoder.spec}, of speech: leave it out")
    place = SourceSpec.parse(args.texts).path
    options: dict[str, Any] = {
        "name": place.name,
        "dtype": args.dtype,
        "overwrite": args.overwrite,
        "show_progress": not args.quiet,
        "stop": stop,
    }
    if shard is not None:
        done = encode_shard(lines, encoder, args.output, shard, **options)
        if not done.waiting:
            state = f"all {len(lines)} rows are there"
        else:
            state = f"shard{'s' if done.waiting[1:] else ''} {', '.join(done.waiting[:5])} still to come"
            state += f" and {len(done.waiting) - 5} more" if done.waiting[5:] else ""
        what = f"rows {done.rows.start} to {done.rows.stop} (shard {shard}, {encoder.spec}; {state})"
        return _tell(args, done.manifest, what)
    if speech:
        made = encode_audio(lines, encoder, args.output, folder=place.parent, skip_bad=args.skip_bad, **options)
    else:
        made = encode_texts(lines, encoder, args.output, **options)
    return _tell(args, made.manifest, f"{len(made)} vectors of {made.dim} dimensions ({encoder.spec})")


def _merge(args: argparse.Namespace) -> int:
    found = [name for name in ("texts", "encoder", "shard", "actors") if getattr(args, name) is not None]
    found += ["engine"] if args.engine != "local" else []
    found += ["skip-bad"] if args.skip_bad else []
    if found:
        raise InputError(f"expected nothing but folders and --output with --merge, found {found[0]} too")
    made = merge_shards(args.merge, args.output, overwrite=args.overwrite, show_progress=not args.quiet)
    return _tell(args, made.manifest, f"{len(made)} vectors of {made.dim} dimensions")


def _tell(args: argparse.Namespace, manifest: Manifest | None, what: str) -> int:
    bad = 0 if manifest is None else manifest.source.get("bad", 0)
    if args.json and manifest is not None:
        print_json(manifest.to_json())
    else:
        left_out = f", {bad} of them NaN, listed in {bad_list(args.output)}" if bad else ""
        print_text(f"{what} in {args.output}{left_out}")
    return 0


def _elsewhere(args: argparse.Namespace) -> int:
    from fliplens.engines.encoding import encode_on
    from fliplens.engines.ray_data import RayEngine

    if args.shard is not None:
        raise InputError("expected no --shard with --engine ray, found one: Ray divides the rows itself")
    if args.skip_bad:
        raise InputError("expected no --skip-bad with --engine ray, found it: engines encode text alone")
    spec = canonical_spec(args.encoder)
    load = partial(load_encoder, spec, device=args.device, batch_size=args.batch_size, precision=args.precision)
    with RayEngine(actors=args.actors, device=args.device, cores=args.threads) as engine:
        done = encode_on(
            engine,
            open_texts(args.texts, show_progress=not args.quiet),
            load,
            args.output,
            spec=spec,
            name=SourceSpec.parse(args.texts).path.name,
            dtype=args.dtype,
            overwrite=args.overwrite,
            show_progress=not args.quiet,
        )
    if args.json:
        print_json(done.record)
    else:
        print_text(f"{done.rows} vectors of {done.record['dim']} dimensions ({spec}) in {args.output}")
    return 0
