"""The flags of the commands that make and use lenses: demo, fit, evaluate, explain, info, study."""

from __future__ import annotations

from fliplens.cli.flags import DECODING, Commands, OneLineParser, engine, lazily
from fliplens.studies.names import STUDIES

__all__ = ["demo", "evaluate", "explain", "fit", "info", "study"]


def demo(commands: Commands, common: OneLineParser) -> None:
    """Add `fliplens demo`."""
    demo = commands.add_parser(
        "demo",
        parents=[common],
        help="the main job on what is already on the machine",
        description="Fit and measure a lens on the documentation installed with Python, encoded by MiniLM.",
    )
    demo.add_argument("-o", "--output", default="runs/demo", metavar="DIR", help="default: runs/demo")
    demo.add_argument("--sentences", type=int, default=20000, metavar="N", help="how many (default: 20000)")
    demo.add_argument("--seed", type=int, default=0, metavar="S", help="of the sample and the split (default: 0)")
    demo.add_argument("--overwrite", action="store_true", help="forget an earlier run")
    demo.add_argument("--json", action="store_true", help="print one JSON document instead of the table")
    demo.set_defaults(run=lazily("demo"))


def fit(commands: Commands, common: OneLineParser) -> None:
    """Add `fliplens fit`."""
    fit = commands.add_parser(
        "fit",
        parents=[common],
        help="train a lens",
        description="Train a lens by flags, by a YAML file, by key=value, or by all three: later ones win. The "
        "published code's training YAML is taken as it is. Every setting of the recipe can be given as key=value.",
    )
    fit.add_argument("settings", nargs="*", metavar="CONFIG.yaml|key=value", help="settings")
    data = fit.add_argument_group("data")
    data.add_argument("--texts", metavar="F", help="training text, one sentence a line, or F.parquet#column=NAME")
    data.add_argument(
        "--embeddings", metavar="F.npy", help="its vectors: .npy, shards, any source of docs/formats.md"
    )
    data.add_argument("--paired", metavar="F.npy", help="vectors of a second view of the same sentences")
    data.add_argument(
        "--dev-texts", metavar="F", help="text to stop on (default: of 400 rows or more a seeded share is held out)"
    )
    data.add_argument("--dev-embeddings", metavar="F.npy", help="its vectors")
    data.add_argument("--dev-paired", metavar="F.npy", help="its second view")
    data.add_argument("-e", "--encoder", metavar="ENCODER", help="what made the vectors (default: their manifest's)")
    data.add_argument("--verify", action="store_true", help="compare the vectors' files with their manifests' hashes")
    data.add_argument("--drop-bad-rows", action="store_true", help="go on without rows of NaN or infinite values")
    model = fit.add_argument_group("model")
    model.add_argument(
        "--model",
        metavar="flip|lip|frequency|ridge|probe|splice",
        help="a lens (default: flip), or what it is compared with",
    )
    model.add_argument("--recipe", metavar="default|paper", help="preset of all training settings")
    model.add_argument("--rank", metavar="R|full", help="r of the factors, or one full matrix (LiP)")
    model.add_argument("--alpha", metavar="A", help="weight of the primary view against the paired one, 0..1")
    model.add_argument("--vocab-size", metavar="N", help="the most frequent words, at most (default: 100000)")
    model.add_argument(
        "--concepts",
        action="store_const",
        const=True,
        help="choose frequent words and word pairs that belong together (section 3.4) instead of frequent words",
    )
    model.add_argument("--tokeniser", metavar="default|icu|published|published-indic", help="cuts text into words")
    model.add_argument("--passes", metavar="N", help="over the training rows")
    model.add_argument("--seed", metavar="S", help="of everything random")
    fit.add_argument("-o", "--output", metavar="LENS_DIR", help="the lens folder to write")
    fit.add_argument(
        "--overwrite", action="store_true", help="replace a lens in LENS_DIR, and other jobs' checkpoint and metrics"
    )
    # torchrun takes --log for the start of an option of its own, wherever it stands.
    fit.add_argument(
        "--log",
        "--log-to",
        metavar="DIR",
        help="write metrics.jsonl there, and TensorBoard events if installed (under torchrun: --log-to)",
    )
    fit.add_argument(
        "--checkpoint-every",
        type=float,
        default=60.0,
        metavar="S",
        help="seconds between checkpoints, in LENS_DIR.checkpoint until the lens is written (default: 60)",
    )
    fit.add_argument("--json", action="store_true", help="print what `info --json` says of the new lens")
    fit.set_defaults(run=lazily("fit"), free="settings")


def evaluate(commands: Commands, common: OneLineParser) -> None:
    """Add `fliplens evaluate`."""
    evaluate = commands.add_parser(
        "evaluate",
        parents=[common],
        help="measure a lens on text and vectors",
        description="Measure a lens: `evaluate LENS --texts F --embeddings F.npy`, or the published script's call "
        "with --sdict, --data_yaml and --dataset.",
    )
    evaluate.add_argument("lens", nargs="?", metavar="LENS", help="folder, state dict or hub:OWNER/REPO/SUBFOLDER")
    evaluate.add_argument("--texts", metavar="F", help="text, one sentence a line")
    evaluate.add_argument(
        "--embeddings", metavar="F.npy", help="its vectors: .npy, shards, any source of docs/formats.md"
    )
    evaluate.add_argument("--paired", metavar="F.npy", help="vectors of a second view")
    evaluate.add_argument(
        "--against",
        metavar="OTHER",
        help="compare with another lens on the same sentences: accuracies, their difference, Jaccard index of what "
        "is read; on the second view too, where there is one. Where OTHER is LENS, its two views are compared",
    )
    evaluate.add_argument(
        "--against-embeddings",
        metavar="F.npy",
        help="what OTHER reads, compared with what LENS reads from --embeddings (default: the vectors LENS reads; "
        "those of --paired where OTHER is LENS)",
    )
    evaluate.add_argument("--entities", metavar="F.jsonl", help="named entities of the text")
    evaluate.add_argument("--topn", type=int, metavar="N", help="of precision, recall, F1 (default: 20)")
    evaluate.add_argument("--prior", type=float, metavar="P", help="one more position of the prior dial, 0..1")
    evaluate.add_argument(
        "--metrics", default="all", choices=["accuracy", "pr", "all"], help="which metrics (default: all)"
    )
    evaluate.add_argument("--decoding", **DECODING)
    evaluate.add_argument("--verify", action="store_true", help="compare vectors' files with their manifests' hashes")
    evaluate.add_argument("--drop-bad-rows", action="store_true", help="go on without rows of NaN or infinite values")
    evaluate.add_argument("--json", action="store_true", help="print one JSON document")
    published = evaluate.add_argument_group("the published script's options")
    published.add_argument("--sdict", metavar="F", help="state dict: .safetensors or .pt")
    published.add_argument("--vocab", metavar="F", help="vocab.json (default: beside the state dict, then one up)")
    published.add_argument("--data_yaml", metavar="F", help="datasets.yaml")
    published.add_argument("--dataset", metavar="NAME", help="which of its datasets")
    published.add_argument("--text_id", metavar="ID", help="the reference text (default: the only one)")
    published.add_argument("--entities_jsonl", metavar="F", help="named entities of that text")
    published.add_argument("--extract_topk", type=int, default=200, metavar="N", help="accuracy's pool (200)")
    published.add_argument("--batch_size", type=int, default=6000, metavar="N", help="rows a block, at most (6000)")
    published.add_argument("--msl", type=int, default=1, metavar="N", help="shortest sentence, in words (1)")
    published.add_argument("--xsl", type=int, default=1000, metavar="N", help="longest sentence, in words (1000)")
    published.add_argument("--add_bias", action="store_true", help="prior 1 in the result files, else 0")
    published.add_argument("--norm", choices=["l2"], help="scale vectors to length 1")
    published.add_argument("--out_base", default="", metavar="NAME", help="start of the result files' names")
    published.add_argument("--save_details", action="store_true", help="also write every sentence")
    published.add_argument("--verbose", action="store_true", help="name every file that is written")
    evaluate.set_defaults(run=lazily("evaluate"))


def explain(commands: Commands, common: OneLineParser) -> None:
    """Add `fliplens explain`."""
    explain = commands.add_parser(
        "explain",
        parents=[common],
        help="words read from vectors, text or speech",
        description="Print the words that a lens reads from vectors, or from text or recordings that an encoder "
        "turns into some; or write those of a file of any size to OUT.",
    )
    explain.add_argument("lens", metavar="LENS", help="folder, state dict or hub:OWNER/REPO/SUBFOLDER")
    explain.add_argument("texts", nargs="*", metavar="TEXT", help="sentences to encode and read")
    explain.add_argument("--embeddings", metavar="F.npy", help="vectors to read instead")
    explain.add_argument("--audio", nargs="+", metavar="F.wav", help="recordings to encode and read instead")
    explain.add_argument("-n", type=int, metavar="N", help="how many words (default: 10)")
    explain.add_argument("--prior", type=float, default=1.0, metavar="P", help="prior dial, 0..1 (default: 1)")
    explain.add_argument("--decoding", **DECODING)
    explain.add_argument("-e", "--encoder", metavar="ENCODER", help="instead of the one that the lens records")
    explain.add_argument("--vocab", metavar="F", help="vocab.json of a bare state dict")
    explain.add_argument("--verify", action="store_true", help="compare vectors' files with their manifests' hashes")
    explain.add_argument("--drop-bad-rows", action="store_true", help="go on without rows of NaN or infinite values")
    explain.add_argument("-o", "--output", metavar="OUT", help="write the words to a .jsonl or .parquet file instead")
    explain.add_argument("--overwrite", action="store_true", help="replace a file at OUT")
    engine(explain)
    explain.add_argument("--json", action="store_true", help="print one JSON document")
    explain.set_defaults(run=lazily("explain"), free="texts")


def info(commands: Commands, common: OneLineParser) -> None:
    """Add `fliplens info`."""
    info = commands.add_parser(
        "info",
        parents=[common],
        help="what a lens is, on what it was made, how good",
        description="Tell what a lens folder holds.",
    )
    info.add_argument("lens", metavar="LENS", help="folder, state dict or hub:OWNER/REPO/SUBFOLDER")
    info.add_argument("--vocab", metavar="F", help="vocab.json of a bare state dict")
    info.add_argument("--json", action="store_true", help="print one JSON document")
    info.set_defaults(run=lazily("info"))


def study(commands: Commands, common: OneLineParser) -> None:
    """Add `fliplens study`."""
    study = commands.add_parser(
        "study",
        parents=[common],
        help="a table or figure of the paper, on your data; resumable",
        description="Carry out a study: fit, measure, write table, plots and a page. Run the same command again to "
        "go on with a killed one; what OUT holds already is used.",
    )
    kinds = "; ".join(f"{name} ({one.source}: {one.varies})" for name, one in STUDIES.items())
    study.add_argument("name", choices=tuple(STUDIES), metavar="NAME", help=kinds)
    study.add_argument("config", metavar="CONFIG.yaml", help="corpora, encoders, recipe, and what is varied")
    study.add_argument("-o", "--output", metavar="OUT", help="the study's folder (default: runs/NAME)")
    study.add_argument("--data", metavar="DIR", help="where the config's paths are looked up (default: beside it)")
    study.add_argument("--cache", metavar="DIR", help="what studies share: lenses, vectors (default: OUT/cache)")
    study.add_argument("--json", action="store_true", help="print tables and findings as one JSON document")
    study.set_defaults(run=lazily("study"))
