"""Top words of whole files of vectors, written as JSON lines or Parquet in constant memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from fliplens.arithmetic.decoding import Decoding
from fliplens.embeddings import EmbeddingsLike, as_embeddings
from fliplens.errors import InputError, MissingExtraError
from fliplens.files import atomic_file, check_free_file
from fliplens.lenses.extractor import Extractor
from fliplens.lenses.words import TopWords
from fliplens.progress import Progress

__all__ = ["Written", "check_output", "parquet_writer", "write_top_words"]

Write: TypeAlias = "Callable[[NDArray[np.int64], TopWords], None]"


@dataclass(frozen=True)
class Written:
    """What one call wrote."""

    rows: int
    """Vectors whose words are in the file."""
    dropped: int
    """Vectors left out because they hold NaN or infinite values."""


def check_output(out: str | Path, *, overwrite: bool = False) -> Path:
    """Return where words are to be written; called before long work, so that what cannot be is known at once.

    Raises:
        InputError: a suffix other than .jsonl and .parquet, or a file that is there without leave to replace it.
        MissingExtraError: .parquet without pyarrow.
    """
    out = check_free_file(out, tuple(_FORMATS), overwrite=overwrite)
    if out.suffix == ".parquet":
        _pyarrow()
    return out


def write_top_words(
    lens: Extractor,
    embeddings: EmbeddingsLike,
    out: str | Path,
    n: int | None = None,
    *,
    prior: float = 1.0,
    probabilities: bool = True,
    decoding: Decoding = "plain",
    texts: Sequence[str] | None = None,
    drop_bad_rows: bool = False,
    overwrite: bool = False,
    show_progress: bool = False,
) -> Written:
    """Read the n best words of every vector and write them to a file, whole or not at all.

    Vectors are read once, block by block, and memory does not grow with their number. A line of `.jsonl` is what an
    item of `fliplens explain --json` is, `{"input": row, "words": [{"word", "score", "probability"}]}`; `.parquet`
    has the columns row (int64), text (string, where texts are given), words (list of string), scores and
    probabilities (lists of float). Rows count from 0.

    Args:
        lens: what reads.
        embeddings: (rows, d), most useful as the path of a file or folder of shards.
        out: `.jsonl` or `.parquet`.
        n: how many words, 1..V; by default 10, or V where that is less.
        prior: position of the prior dial, 0..1.
        probabilities: also the words' shares of the softmax; null in the file where they are not asked for, which
            is faster.
        decoding: see `Extractor.top`.
        texts: what the vectors were made from, one a row; stands for the row number in `.jsonl`.
        drop_bad_rows: leave rows of NaN or infinite values out rather than stop at the first.
        overwrite: replace a file at `out`.
        show_progress: show a bar on stderr.

    Raises:
        InputError: see `check_output` and `Extractor.top`; texts of another number than vectors; no finite vector.
        MissingExtraError: `.parquet` without pyarrow.
    """
    out = check_output(out, overwrite=overwrite)
    vectors = as_embeddings(embeddings)
    if texts is not None:
        vectors.check_rows(len(texts), other="the texts")
    blocks = lens.top_blocks(
        vectors, n, prior=prior, probabilities=probabilities, decoding=decoding, drop_bad_rows=drop_bad_rows
    )
    written = seen = 0
    with (
        Progress("reading", total=len(vectors), unit="vectors", show=show_progress) as bar,
        atomic_file(out) as stream,
        _FORMATS[out.suffix](stream, lens, texts) as write,
    ):
        for rows, top in blocks:
            write(rows, top)
            written += len(rows)
            bar.update(int(rows[-1]) + 1 - seen)
            seen = int(rows[-1]) + 1
        bar.update(len(vectors) - seen)
        if not written:
            raise InputError(f"expected some finite vectors in {vectors.name}, found none")
    return Written(written, len(vectors) - written)


@contextmanager
def _jsonl(stream: IO[bytes], _lens: Extractor, texts: Sequence[str] | None) -> Iterator[Write]:
    def write(rows: NDArray[np.int64], top: TopWords) -> None:
        for row, words in zip(rows.tolist(), top, strict=True):
            item = {"input": row if texts is None else _clean(texts[row]), "words": words.to_json()}
            stream.write(json.dumps(item, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n")

    yield write


@contextmanager
def parquet_writer(stream: IO[bytes], lens: Extractor, texts: Sequence[str] | None) -> Iterator[Write]:
    """Open a Parquet file of words: yields what takes row numbers and their words; see `write_top_words`."""
    pa, pq = _pyarrow()
    vocabulary = pa.array(lens.vocabulary.words, type=pa.string())
    fields = [("row", pa.int64())]
    if texts is not None:
        fields.append(("text", pa.string()))
    fields += [("words", pa.list_(pa.string())), *((n, pa.list_(pa.float32())) for n in ("scores", "probabilities"))]
    schema = pa.schema(fields)

    def write(rows: NDArray[np.int64], top: TopWords) -> None:
        # A row may have fewer words than were asked for.
        named = top.indices < len(vocabulary)
        offsets = pa.array(np.concatenate([[0], named.sum(axis=1).cumsum()]).astype(np.int32))

        def lists(values: Any) -> Any:
            return pa.ListArray.from_arrays(offsets, values)

        columns = [pa.array(rows)]
        if texts is not None:
            columns.append(pa.array([_clean(texts[row]) for row in rows.tolist()], type=pa.string()))
        columns.append(lists(vocabulary.take(pa.array(top.indices[named]))))
        columns.append(lists(pa.array(top.scores[named])))
        # NaN says that they were not asked for: null in the file.
        columns.append(lists(pa.array(top.probabilities[named], from_pandas=True)))
        writer.write_batch(pa.record_batch(columns, schema=schema))

    with pq.ParquetWriter(stream, schema) as writer:
        yield write


def _clean(text: str) -> str:
    """Return a text that UTF-8 can hold: half a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("writing Parquet", "parquet") from error
    return pyarrow, pyarrow.parquet


_FORMATS: dict[str, Callable[[IO[bytes], Extractor, Sequence[str] | None], AbstractContextManager[Write]]] = {
    ".jsonl": _jsonl,
    ".parquet": parquet_writer,
}
