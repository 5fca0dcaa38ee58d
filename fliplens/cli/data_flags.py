"""The flags of the commands that bring texts and vectors: encode, encoders, import, tag, corpus."""

from __future__ import annotations

from fliplens.cli.flags import Commands, OneLineParser, engine, lazily

__all__ = ["KINDS", "corpus", "encode", "encoders", "import_vectors", "tag"]

KINDS = ("common-voice", "europarl", "samanantar", "tatoeba", "parallel", "text", "table", "hf", "installed")
"""Of `fliplens.corpora.sources`, which is not imported for the names."""


def encode(commands: Commands, common: OneLineParser) -> None:
    """Add `fliplens encode`."""
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
    engine(many)
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
    encode.set_defaults(run=lazily("encode"))


def encoders(commands: Commands, common: OneLineParser) -> None:
    """Add `fliplens encoders`."""
    encoders = commands.add_parser(
        "encoders",
        parents=[common],
        help="which encoders there are; check ENCODER: whether one works here",
        description="List the forms of ENCODER, their options, and whether what they need is installed; or, with "
        "check ENCODER, load one and look whether it keeps what encoders promise, and gives known values where they "
        "are known. INPUT is one TEXTS of encode, or, for an encoder of speech, files of audio or a list of them. A "
        "failed check leaves with status 1, and so does an experimental encoder that was not compared with its "
        "original.",
    )
    encoders.add_argument(
        "words",
        nargs="*",
        metavar="check ENCODER [INPUT]",
        help="check this encoder, on these inputs too; the known values of SONAR's speech encoder are of "
        "recordings that are named here, and mark its folder as checked",
    )
    encoders.add_argument(
        "--against",
        metavar="F.npy",
        help="of check: vectors of INPUT, row for row, made elsewhere; ours must be the same (cosine 0.9999, length "
        "within 0.001; bfloat16: 0.999, 0.01)",
    )
    encoders.add_argument(
        "--precision",
        default="auto",
        choices=["auto", "float32", "bfloat16"],
        help="of check: what the encoder multiplies in (default: auto)",
    )
    encoders.add_argument("--json", action="store_true", help="print one JSON document")
    encoders.set_defaults(run=lazily("encoders"), free="words")


def import_vectors(commands: Commands, common: OneLineParser) -> None:
    """Add `fliplens import`."""
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
    bring.set_defaults(run=lazily("importing"))


def tag(commands: Commands, common: OneLineParser) -> None:
    """Add `fliplens tag`."""
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
    tag.set_defaults(run=lazily("tag"))


def corpus(commands: Commands, common: OneLineParser) -> None:
    """Add `fliplens corpus`."""
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
    corpus.set_defaults(run=lazily("corpus"), free="sources")
