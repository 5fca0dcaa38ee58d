"""`fliplens evaluate`: measure a lens, by our call or the published script's."""

from __future__ import annotations

import argparse
from pathlib import Path

from fliplens.cli.against import Against
from fliplens.cli.output import print_evaluation, print_json, print_text
from fliplens.devices import resolve_device
from fliplens.embeddings import open_embeddings
from fliplens.errors import InputError
from fliplens.evaluation.entities import read_entities
from fliplens.evaluation.evaluating import DEFAULT_TOPN, evaluate
from fliplens.lenses.extractor import Extractor
from fliplens.lenses.lens import Lens
from fliplens.published import evaluate_dataset, write_results
from fliplens.published.evaluation import inside
from fliplens.training.views import Rows

__all__ = ["run"]

OURS = (
    "lens",
    "texts",
    "embeddings",
    "paired",
    "against",
    "against_embeddings",
    "entities",
    "drop_bad_rows",
    "verify",
    "decoding",
)
PUBLISHED = (
    "sdict",
    "data_yaml",
    "dataset",
    "text_id",
    "entities_jsonl",
    "extract_topk",
    "batch_size",
    "msl",
    "xsl",
    "add_bias",
    "norm",
    "out_base",
    "save_details",
    "verbose",
)
BOTH = ("vocab", "metrics", "topn")


def run(args: argparse.Namespace) -> int:
    """Evaluate a lens."""
    if args.sdict is not None or args.data_yaml is not None:
        return _run_published(args)
    _refuse_given(args, PUBLISHED, "which goes with --sdict F --data_yaml F --dataset NAME")
    for name in ("lens", "texts", "embeddings"):
        if getattr(args, name) is None:
            flag = "LENS" if name == "lens" else f"--{name}"
            raise InputError(
                f"expected {flag}, found none: evaluate LENS --texts F --embeddings F.npy, "
                "or --sdict F --data_yaml F --dataset NAME"
            )
    lens = Extractor.load(args.lens, vocabulary=args.vocab).to(resolve_device(args.device))
    given = Rows.of(
        args.texts,
        open_embeddings(args.embeddings, verify=args.verify),
        None if args.paired is None else open_embeddings(args.paired, verify=args.verify),
        "evaluation",
    )
    against = Against.of(args, lens, given)
    # `evaluate` refuses bad rows itself; only leaving them out needs a pass over the vectors here.
    rows = given
    if args.drop_bad_rows:
        rows, against = (given.finite(drop=True)[0], None) if against is None else against.finite(given)
    entities = None
    if args.entities is not None:
        # Line numbers in the entity file count the lines as they were given.
        entities = read_entities(args.entities, given.texts, lens.vocabulary)
        if rows.kept is not None:
            entities = entities.subset(rows.kept)
    result = evaluate(
        lens,
        rows.texts,
        rows.primary,
        paired=rows.paired,
        entities=entities,
        topn=args.topn,
        prior=args.prior,
        metrics=args.metrics,
        decoding=args.decoding,
        keep_hits=against is not None,
    )
    compared = None if against is None else against.compare(args, lens, result, rows)
    if args.json:
        print_json({**result.to_json(), **({} if compared is None else {"against": compared.to_json()})})
        return 0
    print_evaluation(f"{args.lens} on {args.texts}", result)
    if compared is not None:
        compared.print(args)
    return 0


def _refuse_given(args: argparse.Namespace, names: tuple[str, ...], why: str) -> None:
    """Refuse options of the other form of the call: an option that does nothing is a bug."""
    from fliplens.cli.parser import parse

    unset = parse(["evaluate"])
    for name in names:
        value = getattr(args, name)
        if value != getattr(unset, name):
            shown = f"LENS ({value})" if name == "lens" else f"--{name.replace('_', '-') if name in OURS else name}"
            raise InputError(f"expected no {shown}, found it: {why}")


def _run_published(args: argparse.Namespace) -> int:
    _refuse_given(args, OURS, "which does not go with --sdict, --data_yaml and --dataset")
    for name in ("sdict", "data_yaml", "dataset"):
        if getattr(args, name) is None:
            raise InputError(f"expected --sdict, --data_yaml and --dataset together, found no --{name}")
    if args.batch_size < 1:
        raise InputError(f"expected --batch_size of at least 1, found {args.batch_size}")
    source = Path(args.sdict)
    if not source.exists():
        raise InputError(f"expected a state dict at {source}, found none: download the model, or check the path")
    # Inside the model's own folder: beside it, two models would overwrite each other's.
    folder = (source if source.is_dir() else source.parent) / "results"
    if source.is_file() and source.name != "model.safetensors":
        # Several state dicts, of several passes say, may share a folder.
        folder /= source.stem
    inside(folder, f"{args.out_base or args.dataset}_")
    lens = Lens.load(source, vocabulary=args.vocab).to(resolve_device(args.device))
    if args.topn is None:
        args.topn = min(DEFAULT_TOPN, len(lens.vocabulary))
    if args.add_bias and args.prior is not None:
        raise InputError("expected --add_bias or --prior, found both: --add_bias is --prior 1")
    # There the bias counts only when asked for; everywhere else our default is the full bias.
    prior = args.prior if args.prior is not None else 1.0 if args.add_bias else 0.0
    evaluations = evaluate_dataset(
        lens,
        args.data_yaml,
        args.dataset,
        text_id=args.text_id,
        entities_jsonl=args.entities_jsonl,
        metrics=args.metrics,
        topn=args.topn,
        pool=args.extract_topk,
        shortest=args.msl,
        longest=args.xsl,
        prior=prior,
        unit_length=args.norm == "l2",
        block_rows=args.batch_size,
    )
    options = {name: getattr(args, name) for name in (*PUBLISHED, *BOTH)}
    written = [
        path
        for done in evaluations
        for path in write_results(lens, done, folder, config=options, base=args.out_base, details=args.save_details)
    ]
    if args.json:
        # The first pair's figures on top, as without --sdict; all pairs below, however many there are.
        pairs = [{"ids": done.ids, **done.result.to_json()} for done in evaluations]
        print_json({**evaluations[0].result.to_json(), "pairs": pairs})
        return 0
    for done in evaluations:
        shown = " and ".join(f"{key} = {identifier}" for key, identifier in done.ids.items())
        print_evaluation(f"{args.sdict} on {done.dataset.name}: {shown}", done.result)
    print_text(f"results in {folder}")
    if args.verbose:
        print_text("\n".join(str(path) for path in written))
    return 0
