"""The one way to the text of rows: a file of one sentence a line, a column of a table, what lies beside vectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fliplens.errors import InputError
from fliplens.files import read_lines
from fliplens.sources.registry import kind_of
from fliplens.sources.specs import SourceSpec

__all__ = ["is_text_file", "read_texts"]


def read_texts(source: str | Path) -> list[str]:
    """Read one text a row.

    A path is a text file, one sentence a line (`fliplens.files.read_lines`), unless it is a Parquet or Arrow file or
    a folder; these, and `hf-dataset:`, name a column as sources of vectors do: `F.parquet#column=text`. A folder that
    `fliplens import` wrote gives the texts that were imported with its vectors. Where memory may not hold all of
    them, `fliplens.text.long_texts.open_texts` takes the same sources.

    Raises:
        InputError: missing, unreadable, empty or not UTF-8; no such column, or null in a row.
        MissingExtraError: the library that reads it is not installed.
    """
    parsed = SourceSpec.parse(source)
    if is_text_file(parsed):
        return read_lines(parsed.path)
    kind = kind_of(parsed)
    if not kind.texts:
        raise InputError(
            f"expected text in {parsed}, found a source of vectors alone: name a text file, a table's column as "
            "FILE.parquet#column=NAME, or a folder imported with text=NAME"
        )
    texts: list[str] = kind.adapter().open_texts(parsed)
    return texts


def is_text_file(source: SourceSpec) -> bool:
    """Tell whether a source names a file of one sentence a line.

    Raises:
        InputError: it does, with options: such a file has none.
    """
    if source.scheme or source.path.is_dir():
        return False
    kind = kind_of(replace(source, options={}))
    if source.options and kind.manifest:
        raise InputError(f"expected a text file or FILE.parquet#column=NAME, found {source}: name one of these")
    return not source.options and (not kind.texts or kind.manifest)
