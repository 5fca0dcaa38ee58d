"""`fliplens encode`: text, or speech, to vectors on disk."""

from __future__ import annotations

import argparse
import contextlib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
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
from fliplens.sources.registry import kind_of
from fliplens.text.long_texts import open_texts
from fliplens.text.opening import is_text_file

__all__ = ["run"]

HEAD = 4096
"""Bytes at the start of a file that tell whether it is text."""


def run(args: argparse.Namespace) -> int:
    """Encode texts, or the recordings that they list where the encoder is of speech; or put shards together."""
    if args.merge is not None:
        return _merge(args)
    if args.texts is None or args.encoder is None:
        raise _incomplete(args)
    if args.engine != "local":
        return _elsewhere(args)
    if args.actors is not None:
        raise InputError("expected --actors with --engine ray, found it without")
    shard = None if args.shard is None else Shard.parse(args.shard)
    check_output(args.output)
    with StopOnSignal() as stop:
        try:
            lines = _open_lines(args)
            encoder = load_encoder(
                args.encoder, device=args.device, batch_size=args.batch_size, precision=args.precision
            )
            return _encode(args, lines, encoder, shard, stop)
        except InterruptedRunError as error:
            error.exit_status = stop.exit_status
            raise


def _incomplete(args: argparse.Namespace) -> InputError:
    """Return what is said of a command without TEXTS, or without --encoder, or without both."""
    if args.texts is not None:
        found, cure = "no --encoder", "name one with -e, as -e minilm"
    elif args.encoder is not None:
        found, cure = "no TEXTS", "name the file to encode, or a list of recordings"
    else:
        found, cure = "neither", "name both"
    return InputError(f"expected TEXTS and --encoder, or --merge FOLDER..., found {found}: {cure}")


def _open_lines(args: argparse.Namespace) -> Sequence[str]:
    """Open the texts, or the list of recordings, that a command names.

    Raises:
        InputError: they cannot be read; where they are a recording itself, or a folder of recordings, it says that
            an encoder of speech takes a list of them.
    """
    source = SourceSpec.parse(args.texts)
    if not source.scheme and not source.options and _takes_speech(args.encoder) and _no_list(source.path):
        kind = "a folder" if source.path.is_dir() else "a file that is no text"
        raise InputError(
            f"expected a text file with the path of one recording a line, as {args.encoder} encodes speech, found "
            f"{source}, {kind}: write the path of each recording into a text file, and name that"
        )
    return open_texts(args.texts, show_progress=not args.quiet)


def _no_list(path: Path) -> bool:
    """Tell whether a path is a folder, but of what has text with it, or a file that begins as no text does."""
    with contextlib.suppress(InputError, OSError):
        if path.is_dir():
            return kind_of(SourceSpec.parse(path)).manifest and not (path / "manifest.json").is_file()
        if path.suffix != ".gz" and is_text_file(SourceSpec.parse(path)) and path.is_file():
            with path.open("rb") as stream:
                head = stream.read(HEAD)
            # WAV, FLAC, Ogg and ID3 have zeros in their headers, a bare MP3 begins with 11 bits that are set; text in
            # UTF-16 looks like both, and is told to be UTF-8 when it is read.
            mp3 = head[:1] == b"\xff" and head[1:2] >= b"\xe0"
            return (b"\0" in head or mp3) and head[:2] not in (BOM_UTF16_LE, BOM_UTF16_BE)
    return False


def _takes_speech(spec: str) -> bool:
    try:
        return _modality(canonical_spec(spec)) == "speech"
    except InputError:
        return False  # what is wrong with it is said when it is loaded


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
                    _open_lines(args),
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
