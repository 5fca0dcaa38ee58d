"""Data sets of the library `datasets`: saved to a folder, or on the Hugging Face Hub."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fliplens.corpora.counting import BadRows, Counts
from fliplens.corpora.rows import Row
from fliplens.corpora.splits import SPLIT_NAMES
from fliplens.corpora.tables import inside, no_column, not_text, text_of
from fliplens.errors import FliplensError, InputError, MissingExtraError, reason_of

__all__ = ["HubDataset"]

BATCH = 1000
_WHOLE = "all"
"""What a data set without splits is called."""


@dataclass(frozen=True)
class HubDataset:
    """Columns of a data set."""

    languages: tuple[str, ...]
    name: str
    """A folder that `save_to_disk` wrote, or `OWNER/NAME[:CONFIG][@REVISION]` of the Hub, read as it comes."""
    columns: tuple[str, ...]
    """One for each language; a dot leads into an object, as in `translation.en`."""
    resplit: bool = False
    """Whether the data set's own splits are passed over."""
    spoken: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that a saved data set is described by."""
        folder = Path(self.name)
        return tuple(sorted(path for path in folder.rglob("*.json"))) if folder.is_dir() else ()

    def rows(self, counts: Counts) -> Iterator[Row]:
        """Yield the rows of all splits.

        Raises:
            InputError: no such folder or data set, no such column, none of its values is text.
            FliplensError: the Hub cannot be reached.
            MissingExtraError: `datasets` is not installed.
        """
        parts = self._load()
        named = {name: SPLIT_NAMES.get(name, "") for name in parts}
        # One split alone, or one whose name says nothing, is no way to split a corpus.
        own = not self.resplit and len(parts) > 1 and all(named.values())
        try:
            for name, part in parts.items():
                yield from self._part(
                    part, named[name] if own else "", self.name if name == _WHOLE else f"{self.name}, {name}", counts
                )
        except OSError as error:
            raise FliplensError(
                f"expected the data set {self.name}, could not read it ({reason_of(error)})"
            ) from error

    def _part(self, part: Any, split: str, place: str, counts: Counts) -> Iterator[Row]:
        there = list(part.column_names or [])
        tops = [column if column in there else column.split(".")[0] for column in self.columns]
        missing = [column for column, top in zip(self.columns, tops, strict=True) if there and top not in there]
        if missing:
            raise no_column(missing, there, place)
        names = [column.removeprefix(top).split(".")[1:] for column, top in zip(self.columns, tops, strict=True)]
        part = part.select_columns(list(dict.fromkeys(tops)))
        bad, number = BadRows(place, counts), 0
        seen = [False] * len(names)
        for batch in part.iter(batch_size=BATCH):
            for values in zip(*(batch[top] for top in tops), strict=True):
                counts.read += 1
                texts = []
                for side, (value, parts) in enumerate(zip(values, names, strict=True)):
                    value, found = inside(value, parts)
                    seen[side] = seen[side] or found
                    text = text_of(value)
                    if text is None:
                        bad.add(not_text(value, self.columns[side], f"row {number} of {place}"))
                        break
                    texts.append(text)
                else:
                    yield Row(tuple(texts), split)
                number += 1
        bad.end()
        missing = [column for column, found in zip(self.columns, seen, strict=True) if not found]
        if missing and number:
            raise no_column(missing, there, place)

    def _load(self) -> Mapping[str, Any]:
        """Return the splits of the data set, unread."""
        try:
            import datasets
        except ImportError as error:
            raise MissingExtraError("reading data sets", "datasets") from error
        # What they log of retries and caches is no business of who reads one line.
        loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub", "fsspec")]
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            if Path(self.name).is_dir():
                found = datasets.load_from_disk(self.name)
            else:
                name, _, revision = self.name.partition("@")
                name, _, config = name.partition(":")
                found = datasets.load_dataset(name, config or None, revision=revision or None, streaming=True)
        except (OSError, ValueError) as error:
            if Path(self.name).is_dir() and not isinstance(error, FileNotFoundError):
                raise InputError(
                    f"expected a data set saved to disk at {self.name}, could not read it ({reason_of(error)}): save "
                    "it again"
                ) from error
            if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
                # What `requests`, `httpx` and the offline mode raise is one.
                raise FliplensError(
                    f"expected the data set {self.name}, could not get it ({reason_of(error)}): check the name and "
                    "the connection"
                ) from error
            raise InputError(
                f"expected a data set saved to disk, or OWNER/NAME of the Hub, at {self.name}, found none "
                f"({reason_of(error)})"
            ) from error
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
        return found if isinstance(found, dict) else {_WHOLE: found}
