"""`fliplens encode`: text, or speech, to vectors on disk."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fliplens.cli.output import print_json, print_text, vectors_of
from fliplens.cli.signals import StopOnSignal
from fliplens.embeddings import Manifest
from fliplens.encoders import Encoder, canonical_spec, load_encoder
from fliplens.encoders.registry import FAMILIES, parse_spec
from fliplens.encoding.jobs import bad_list, check_output
from fliplens.encoding.recordings import encode_audio, encode_audio_shard
from fliplens.encoding.shards import Shard, encode_shard, merge_shards
from fliplens.encoding.texts import encode_texts
from fliplens.errors import InputError, InterruptedRunError
from fliplens.sources import SourceSpec
from fliplens.text.long_texts import open_texts

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
    check_output(args.output)
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
    place = SourceSpec.parse(args.texts).path
    options: dict[str, Any] = {
        "name": place.name,
        "dtype": args.dtype,
        "overwrite": args.overwrite,
        "show_progress": not args.quiet,
        "stop": stop,
    }
    heard: dict[str, Any] = {"folder": place.parent, "skip_bad": args.skip_bad} if speech else {}
    if shard is not None:
        if speech:
            done = encode_audio_shard(lines, encoder, args.output, shard, **options, **heard)
        else:
            done = encode_shard(lines, encoder, args.output, shard, **options)
        if not done.waiting:
            state = f"all {len(lines)} rows are there"
        else:
            state = f"shard{'s' if done.waiting[1:] else ''} {', '.join(done.waiting[:5])} still to come"
            state += f" and {len(done.waiting) - 5} more" if done.waiting[5:] else ""
        what = f"rows {done.rows.start} to {done.rows.stop} (shard {shard}, {encoder.spec}; {state})"
        return _tell(args, done.manifest, what, done.bad_list)
    if speech:
        made = encode_audio(lines, encoder, args.output, **options, **heard)
    else:
        made = encode_texts(lines, encoder, args.output, **options)
    what = f"{vectors_of(len(made), made.dim)} ({encoder.spec})"
    return _tell(args, made.manifest, what, bad_list(args.output))


def _merge(args: argparse.Namespace) -> int:
    found = [name for name in ("texts", "encoder", "shard", "actors") if getattr(args, name) is not None]
    found += ["engine"] if args.engine != "local" else []
    found += ["skip-bad"] if args.skip_bad else []
    if found:
        raise InputError(f"expected nothing but folders and --output with --merge, found {found[0]} too")
    made = merge_shards(args.merge, args.output, overwrite=args.overwrite, show_progress=not args.quiet)
    return _tell(args, made.manifest, vectors_of(len(made), made.dim), bad_list(args.output))


def _tell(args: argparse.Namespace, manifest: Manifest | None, what: str, listed: Path) -> int:
    if args.json and manifest is not None:
        print_json(manifest.to_json())
    else:
        bad = 0 if manifest is None else manifest.source.get("bad", 0)
        print_text(f"{what} in {args.output}{_left_out(bad, listed)}")
    return 0


def _left_out(bad: int, listed: Path) -> str:
    return f", {bad} of them NaN, listed in {listed}" if bad else ""


def _elsewhere(args: argparse.Namespace) -> int:
    from fliplens.engines.encoding import encode_on
    from fliplens.engines.ray_data import RayEngine

    if args.shard is not None:
        raise InputError("expected no --shard with --engine ray, found one: Ray divides the rows itself")
    spec = canonical_spec(args.encoder)
    modality = _modality(spec)
    if args.skip_bad and modality != "speech":
        raise InputError(f"expected an encoder of speech with --skip-bad, found {spec}: every text has a vector")
    load = partial(load_encoder, spec, device=args.device, batch_size=args.batch_size, precision=args.precision)
    place = SourceSpec.parse(args.texts).path
    with StopOnSignal() as stop:
        try:
            with RayEngine(actors=args.actors, device=args.device, cores=args.threads) as engine:
                done = encode_on(
                    engine,
                    open_texts(args.texts, show_progress=not args.quiet),
                    load,
                    args.output,
                    spec=spec,
                    modality=modality,
                    name=place.name,
                    dtype=args.dtype,
                    overwrite=args.overwrite,
                    show_progress=not args.quiet,
                    stop=stop,
                    folder=place.parent,
                    skip_bad=args.skip_bad,
                )
        except InterruptedRunError as error:
            error.exit_status = stop.exit_status
            raise
    if args.json:
        print_json(done.record)
    else:
        what = f"{vectors_of(done.rows, done.record['dim'])} ({spec}) in {args.output}"
        print_text(f"{what}{_left_out(done.bad, done.bad_list)}")
    return 0


def _modality(spec: str) -> str:
    """Return what an encoder encodes, without loading it."""
    return FAMILIES[parse_spec(spec).family].modality
