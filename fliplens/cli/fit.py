"""`fliplens fit`: train a lens from flags, YAML and key=value."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

from fliplens.cli.info import describe, print_description
from fliplens.cli.output import print_json
from fliplens.cli.signals import StopOnSignal
from fliplens.devices import resolve_device
from fliplens.embeddings import open_embeddings
from fliplens.errors import FliplensWarning, InputError, InterruptedRunError
from fliplens.files import check_free
from fliplens.lenses.extractor import Extractor
from fliplens.lenses.files import LENS_FOLDER
from fliplens.models import fit_model
from fliplens.progress import say
from fliplens.published import is_training_yaml, read_training_yaml
from fliplens.settings import EXPLAIN_AWAY, FitSettings, is_override, parse_override, read_yaml, switch
from fliplens.training import Checkpoint, FolderLog
from fliplens.training.distributed import Group, is_distributed, join, local_device
from fliplens.training.fitting import fit

__all__ = ["run"]

FLAGS = (
    "model",
    "texts",
    "embeddings",
    "paired",
    "dev_texts",
    "dev_embeddings",
    "dev_paired",
    "encoder",
    "recipe",
    "rank",
    "alpha",
    "vocab_size",
    "concepts",
    "tokeniser",
    "passes",
    "seed",
    "output",
)
PUBLISHED_NAMES = {
    "rank": "model.rank",
    "alpha": "model.alpha",
    "passes": "training.iterations",
    "seed": "experiment.seed",
}


def run(args: argparse.Namespace) -> int:
    """Fit a lens and write it, alone or as one of the processes that torchrun started."""
    device = local_device(args.device)
    with StopOnSignal(patient=is_distributed()) as stop, join(resolve_device(device)) as group:
        try:
            lens, output, checkpoint = _fit(args, device, stop, group)
        except InterruptedRunError as error:
            error.exit_status = stop.exit_status
            raise
    if not group.is_first:
        return 0
    lens.save(output, overwrite=args.overwrite)
    checkpoint.remove()
    description = describe(lens)
    if args.json:
        print_json(description)
    else:
        print_description(str(output), description)
    return 0


def _fit(
    args: argparse.Namespace, device: str, stop: StopOnSignal, group: Group
) -> tuple[Extractor, Path, Checkpoint]:
    paths = [item for item in args.settings if not is_override(item)]
    if len(paths) > 1:
        raise InputError(f"expected one CONFIG.yaml and key=value settings, found {' '.join(paths)}")
    overrides = dict(parse_override(item) for item in args.settings if is_override(item))
    flags = {name: getattr(args, name) for name in FLAGS if getattr(args, name) is not None}
    config = read_yaml(paths[0]) if paths else {}
    common = {
        "drop_bad_rows": args.drop_bad_rows,
        "device": device,
        "show_progress": not args.quiet and group.is_first,
        "metrics": _log(args) if group.is_first else None,
        "stop": stop,
        "group": group,
    }
    if is_training_yaml(config):
        return _fit_published(args, config, paths[0], flags, overrides, common)
    return _fit_ours(args, {**config, **flags, **overrides}, common)


def _fit_ours(
    args: argparse.Namespace, values: dict[str, Any], common: dict[str, Any]
) -> tuple[Extractor, Path, Checkpoint]:
    settings = FitSettings.from_mapping(values)
    data: dict[str, Any] = dict(settings.data)
    for name, flag in (("texts", "--texts"), ("embeddings", "--embeddings"), ("output", "-o LENS_DIR")):
        if name not in data:
            raise InputError(f"expected {flag} (or {name}=...), found none: see fliplens fit --help")
    if "alpha" in values and "paired" not in data:
        warnings.warn("alpha has no effect without a paired view", FliplensWarning, stacklevel=2)
    output = Path(data.pop("output"))
    checkpoint = _checkpoint(output, args)
    for name in ("embeddings", "paired", "dev_embeddings", "dev_paired"):
        if name in data:
            data[name] = open_embeddings(data[name], verify=args.verify)
    lens = fit_model(settings, data.pop("texts"), data.pop("embeddings"), checkpoint=checkpoint, **{**data, **common})
    return lens, output, checkpoint


def _fit_published(
    args: argparse.Namespace,
    config: dict[str, Any],
    path: str,
    flags: dict[str, Any],
    overrides: dict[str, Any],
    common: dict[str, Any],
) -> tuple[Extractor, Path, Checkpoint]:
    output = flags.pop("output", None)
    encoder = flags.pop("encoder", None)
    foreign = sorted(set(flags) - set(PUBLISHED_NAMES))
    if foreign:
        raise InputError(
            f"expected {', '.join(PUBLISHED_NAMES)}, encoder or output beside a published training YAML, found "
            f"{', '.join(foreign)}: change others as section.name=value"
        )
    if "rank" in flags:
        full = flags["rank"] == "full"
        overrides = {"model.type": "LoLM" if full else "FactLoLM", **overrides}
        if full:
            flags.pop("rank")
    # The published code has no such thing, so no place for it in its sections.
    explain_away = switch(EXPLAIN_AWAY, overrides.get(EXPLAIN_AWAY, True))
    overrides = {name: value for name, value in overrides.items() if name != EXPLAIN_AWAY}
    renamed = {PUBLISHED_NAMES[name]: value for name, value in flags.items()}
    job = read_training_yaml(config, path, {**renamed, **overrides})
    target = Path(output) if output is not None else job.output
    checkpoint = _checkpoint(target, args)
    lens = fit(
        job.texts,
        job.embeddings,
        paired=job.paired,
        dev_texts=job.dev_texts,
        dev_embeddings=job.dev_embeddings,
        dev_paired=job.dev_paired,
        vocabulary=job.vocabulary,
        encoder=encoder,
        config=job.train,
        checkpoint=checkpoint,
        explain_away=explain_away,
        **{**common, "show_progress": common["show_progress"] and job.verbose},
    )
    return lens, target, checkpoint


def _checkpoint(output: Path, args: argparse.Namespace) -> Checkpoint:
    """Return the checkpoint beside the lens folder; find out before long work that no lens could be written."""
    output = check_free(output, kind=LENS_FOLDER, overwrite=args.overwrite)
    return Checkpoint(
        output.with_name(output.name + ".checkpoint"),
        every_seconds=args.checkpoint_every,
        overwrite=args.overwrite,
        notify=say,
    )


def _log(args: argparse.Namespace) -> FolderLog | None:
    """Return what writes the metrics, where they are asked for; say so if that is without TensorBoard events."""
    if args.log is None:
        return None
    log = FolderLog(args.log, overwrite=args.overwrite)
    if log.missing:
        say(f"metrics go to {log.lines.path} alone, as {log.missing}")
    return log
