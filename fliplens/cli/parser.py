"""The flags of every command. Nothing heavy is imported here: `fliplens --help` must be instant."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NoReturn, TypeAlias

from fliplens import __version__
from fliplens.studies.names import STUDIES

__all__ = ["build_parser", "parse"]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse a command line; leave with status 2 and one line where it is wrong.

    argparse hands the free arguments of a command (sentences, key=value) out once, before the first flag, and
    calls those behind a flag unknown; here they go where they belong. What follows `--` is free in any case.
    """
    parser = build_parser()
    args, left = parser.parse_known_args(argv)
    end = left.index("--") if "--" in left else len(left)
    left, behind = left[:end], left[end + 1 :]
    flags = [item for item in left if item.startswith("-")]
    free = getattr(args, args.free, None) if hasattr(args, "free") else None
    if flags or (left + behind and free is None):
        parser.error(f"unrecognised arguments: {' '.join(flags or left + behind)}")
    if free is not None:
        free.extend(left + behind)
    return args


class OneLineParser(argparse.ArgumentParser):
    """A parser whose complaints are one line, like every other error of the command."""

    def error(self, message: str) -> NoReturn:
        """Print one line and leave with status 2."""
        sys.stderr.write(f"fliplens: {message}: see {self.prog} --help\n")
        raise SystemExit(2)


def _lazily(module: str) -> Callable[[argparse.Namespace], int]:
    """Return a command that imports its module only when it is run."""

    def run(args: argparse.Namespace) -> int:
        status: int = import_module(f"fliplens.cli.{module}").run(args)
        return status

    return run


def build_parser() -> OneLineParser:
    """Return the parser of the whole command line."""
    parser = OneLineParser(
        prog="fliplens",
        description="Read what a sentence embedding says: linear lenses from any embedding space to words.",
    )
    parser.add_argument("--version", action="version", version=f"fliplens {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    common = _common()
    _demo(commands, common)
    _encode(commands, common)
    _encoders(commands, common)
    _fit(commands, common)
    _evaluate(commands, common)
    _explain(commands, common)
    _import(commands, common)
    _info(commands, common)
    _study(commands, common)
    _tag(commands, common)
    _corpus(commands, common)
    return parser


DECODING: dict[str, Any] = {
    "default": "plain",
    "choices": ["plain", "explain-away"],
    "help": "choose each word by its own score, or all together (default: plain)",
}

Commands: TypeAlias = "argparse._SubParsersAction[OneLineParser]"


def _common() -> OneLineParser:
    common = OneLineParser(add_help=False)
    group = common.add_argument_group("common options")
    group.add_argument("--device", default="auto", metavar="auto|cpu|cuda", help="where to compute (default: auto)")
    group.add_argument("--threads", type=int, metavar="N", help="processor threads (default: all)")
    group.add_argument("--quiet", action="store_true", help="no progress on stderr")
    return common


def _engine(group: Any) -> None:
    group.add_argument(
        "--engine",
        default="local",
        choices=["local", "ray"],
        help="here, or on Ray: on the cluster that RAY_ADDRESS names, else on all of this machine (default: local)",
    )
    group.add_argument(
        "--actors", type=int, metavar="N", help="of Ray: how many at once (default: one a GPU, else one a core)"
    )


def _demo(commands: Commands, common: OneLineParser) -> None:
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
    demo.set_defaults(run=_lazily("demo"))


def _encode(commands: Commands, common: OneLineParser) -> None:
    encode = commands.add_parser(
        "encode",
        parents=[common],
        help="text or speech to vectors on disk; resumable",
        description="Encode a text file, one sentence a line, or a column of Parquet, of any length; or, by an "
        "encoder of speech, the files of audio that such a file lists, one path a line, relative to the list. Run "
        "the same command again to finish a killed job.",
    )
    encode.add_argument(
        "texts", nargs="?", metavar="TEXTS", help="a text file, one sentence or path a line, or F.parquet#column=NAME"
    )
    encode.add_argument(
        "-e",
        "--encoder",
        metavar="ENCODER",
        help="minilm, labse, OWNER/NAME, a model folder, or what `fliplens encoders` lists",
    )
    encode.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="OUT",
        help="a .npy file or a folder of shards; a .parquet folder with --engine ray",
    )
    many = encode.add_argument_group("several machines")
    many.add_argument(
        "--shard",
        metavar="I/N",
        help="encode only the I-th of N shards (from 1/N), to a folder that all machines share or to one of its own",
    )
    many.add_argument(
        "--merge", nargs="+", metavar="FOLDER", help="encode nothing: put the shards in these folders together in OUT"
    )
    _engine(many)
    encode.add_argument(
        "--dtype", default="float32", choices=["float16", "float32", "float64"], help="default: float32"
    )
    encode.add_argument(
        "--precision",
        default="auto",
        choices=["auto", "float32", "bfloat16"],
        help="what the encoder multiplies in (default: auto, bfloat16 where the processor or GPU has it)",
    )
    encode.add_argument("--batch-size", type=int, metavar="N", help="texts a batch (default: the encoder's)")
    encode.add_argument(
        "--skip-bad",
        action="store_true",
        help="give files of audio that cannot be read a row of NaN and list them beside OUT, rather than stop",
    )
    encode.add_argument("--overwrite", action="store_true", help="replace what another job left at OUT")
    encode.add_argument("--json", action="store_true", help="print the manifest as JSON")
    encode.set_defaults(run=_lazily("encode"))


def _encoders(commands: Commands, common: OneLineParser) -> None:
    encoders = commands.add_parser(
        "encoders",
        parents=[common],
        help="which encoders there are; check ENCODER: whether one works here",
        description="List the forms of ENCODER, their options, and whether what they need is installed; or, with "
        "check ENCODER, load one and look whether it keeps what encoders promise, and gives known values where they "
        "are known. A failed check leaves with status 1.",
    )
    encoders.add_argument("words", nargs="*", metavar="check ENCODER", help="check this encoder")
    encoders.add_argument(
        "--precision",
        default="auto",
        choices=["auto", "float32", "bfloat16"],
        help="of check: what the encoder multiplies in (default: auto)",
    )
    encoders.add_argument("--json", action="store_true", help="print one JSON document")
    encoders.set_defaults(run=_lazily("encoders"), free="words")


def _fit(commands: Commands, common: OneLineParser) -> None:
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
    fit.set_defaults(run=_lazily("fit"), free="settings")


def _evaluate(commands: Commands, common: OneLineParser) -> None:
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
    evaluate.set_defaults(run=_lazily("evaluate"))


def _explain(commands: Commands, common: OneLineParser) -> None:
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
    _engine(explain)
    explain.add_argument("--json", action="store_true", help="print one JSON document")
    explain.set_defaults(run=_lazily("explain"), free="texts")


def _import(commands: Commands, common: OneLineParser) -> None:
    bring = commands.add_parser(
        "import",
        parents=[common],
        help="vectors of a store, or of any file, to shards on disk; resumable",
        description="Read vectors that are made already, once, and write a folder of shards with their ids, and "
        "texts where the source names some: for stores (Qdrant, PostgreSQL), and for files whose rows cannot be read "
        "in any order. Run the same command again to finish a killed job.",
        epilog="The key of a Qdrant server is read from QDRANT_API_KEY, the password of PostgreSQL from the DSN, "
        "PGPASSWORD or the password file; neither is shown or written.",
    )
    bring.add_argument(
        "source", metavar="SOURCE", help="qdrant:..., pgvector:..., faiss:..., or any other source (docs/formats.md)"
    )
    bring.add_argument("-o", "--output", required=True, metavar="FOLDER", help="the folder of shards to write")
    bring.add_argument("-e", "--encoder", metavar="ENCODER", help="what made the vectors, for the record")
    bring.add_argument("--dtype", choices=["float16", "float32", "float64"], help="default: as the source holds them")
    bring.add_argument("--overwrite", action="store_true", help="replace what another import left in FOLDER")
    bring.add_argument("--json", action="store_true", help="print the manifest as JSON")
    bring.set_defaults(run=_lazily("importing"))


def _info(commands: Commands, common: OneLineParser) -> None:
    info = commands.add_parser(
        "info",
        parents=[common],
        help="what a lens is, on what it was made, how good",
        description="Tell what a lens folder holds.",
    )
    info.add_argument("lens", metavar="LENS", help="folder, state dict or hub:OWNER/REPO/SUBFOLDER")
    info.add_argument("--vocab", metavar="F", help="vocab.json of a bare state dict")
    info.add_argument("--json", action="store_true", help="print one JSON document")
    info.set_defaults(run=_lazily("info"))


def _study(commands: Commands, common: OneLineParser) -> None:
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
    study.set_defaults(run=_lazily("study"))


def _tag(commands: Commands, common: OneLineParser) -> None:
    tag = commands.add_parser(
        "tag",
        parents=[common],
        help="named entities of text, as evaluate --entities reads them; resumable",
        description="Find the named entities of a text file, one sentence a line, and write them as JSON lines. Run "
        "the same command again to finish a killed job.",
    )
    tag.add_argument("texts", metavar="TEXTS", help="a text file, one sentence a line")
    tag.add_argument("-o", "--output", required=True, metavar="OUT.jsonl", help="the file to write")
    tag.add_argument(
        "--by",
        required=True,
        metavar="TAGGER",
        help="gazetteer:FILE (names, one a line), transformers:PATH_OR_HUB_ID[@REVISION], gemini[:MODEL] "
        "(key in GEMINI_API_KEY or GOOGLE_API_KEY; default: gemini-2.5-flash-lite)",
    )
    tag.add_argument(
        "--match-case", action="store_true", help="of a gazetteer: ask for its capital letters (Rose, not rose)"
    )
    tag.add_argument(
        "--tokeniser",
        choices=("default", "icu"),
        help="of a gazetteer: icu also finds names in Chinese, Japanese, Thai, Lao, Khmer and Burmese",
    )
    tag.add_argument(
        "--labels", metavar="PER,ORG,...", help="of a transformers model: which labels count (default: all but O)"
    )
    tag.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="windows of text a batch (transformers, default: 32), or sentences a call (gemini, default: 50)",
    )
    tag.add_argument("--base-url", metavar="URL", help="of gemini: another server than Google's, a proxy say")
    tag.add_argument("--overwrite", action="store_true", help="replace what another job left at OUT.jsonl")
    tag.add_argument("--json", action="store_true", help="print one JSON document")
    tag.set_defaults(run=_lazily("tag"))


KINDS = ("common-voice", "europarl", "samanantar", "tatoeba", "parallel", "text", "table", "hf", "installed")


def _corpus(commands: Commands, common: OneLineParser) -> None:
    corpus = commands.add_parser(
        "corpus",
        parents=[common],
        help="downloaded corpora to aligned text, clips and vectors; resumable",
        description="Read a corpus as it is downloaded, leave out what is not fit, split it so that no sentence is "
        "in two splits, and write texts, lists of clips, vectors, datasets.yaml and study.yaml. Run the same command "
        "again to finish a killed job.",
    )
    corpus.add_argument("action", choices=["prepare"], metavar="prepare", help="what to do")
    corpus.add_argument("kind", choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    corpus.add_argument(
        "sources",
        nargs="*",
        metavar="SOURCE",
        help="files, stems of STEM.LANGUAGE, folders, a data set's name; also as SPLIT=SOURCE, such as train=a.txt",
    )
    corpus.add_argument("-o", "--output", required=True, metavar="DIR", help="the folder to write")
    read = corpus.add_argument_group("what is read")
    read.add_argument("--languages", metavar="en,de", help="which, in which order (default: what the names tell)")
    read.add_argument(
        "--columns",
        metavar="en=NAME,de=NAME",
        help="of table and hf: the columns of the texts; of tatoeba: their numbers, from 1, such as 2,4",
    )
    read.add_argument("--name", metavar="NAME", help="what datasets.yaml calls the corpus (default: DIR's name)")
    keep = corpus.add_argument_group("what is kept")
    keep.add_argument("--min-words", type=int, default=1, metavar="N", help="of every side (default: 1)")
    keep.add_argument("--max-words", type=int, metavar="N", help="of every side")
    keep.add_argument("--min-characters", type=int, default=1, metavar="N", help="of every side (default: 1)")
    keep.add_argument("--max-characters", type=int, metavar="N", help="of every side")
    keep.add_argument("--keep-identical", action="store_true", help="keep rows of which two sides are the same")
    keep.add_argument(
        "--duplicates",
        default="row",
        choices=["keep", "row", "any"],
        help="drop none, rows that repeat all sides (and the clip) of an earlier one, or any of them (default: row)",
    )
    keep.add_argument("--min-seconds", type=float, default=0.05, metavar="S", help="of a clip (default: 0.05)")
    keep.add_argument("--max-seconds", type=float, default=600.0, metavar="S", help="of a clip (default: 600)")
    keep.add_argument("--min-up-votes", type=int, default=0, metavar="N", help="of Common Voice: votes for a clip")
    keep.add_argument("--max-down-votes", type=int, metavar="N", help="of Common Voice: votes against a clip")
    keep.add_argument("--limit", type=int, metavar="N", help="keep N rows at most, drawn by the seed")
    keep.add_argument(
        "--min-similarity",
        type=float,
        metavar="T",
        help="drop rows whose views, by the first encoder's vectors, have a cosine of T or less",
    )
    make = corpus.add_argument_group("what is made of it")
    make.add_argument(
        "--split",
        metavar="train=0.9,dev=0.05,test=0.05",
        help="shares of the rows (default: the source's own splits, else these)",
    )
    make.add_argument("--seed", type=int, default=0, metavar="S", help="of splits and samples (default: 0)")
    make.add_argument(
        "--audio",
        default="header",
        choices=["header", "decode", "wav", "flac"],
        help="look at clips' headers, decode them whole, or also write them as 16 kHz wav or flac (default: header)",
    )
    make.add_argument(
        "-e",
        "--encoder",
        action="append",
        default=[],
        metavar="ENCODER",
        help="also write vectors and similarity scores; may be given again",
    )
    make.add_argument(
        "--dtype", default="float32", choices=["float16", "float32", "float64"], help="of vectors (default: float32)"
    )
    corpus.add_argument("--overwrite", action="store_true", help="replace another corpus in DIR")
    corpus.add_argument("--json", action="store_true", help="print the report as one JSON document")
    corpus.set_defaults(run=_lazily("corpus"), free="sources")
