"""The one string that names vectors: `PATH`, or `KIND:PLACE`, either with `#option=value,option=value` behind it.

The kinds and their options are those of `fliplens.sources.registry`; here a source is only taken apart.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import MappingProxyType

from fliplens.errors import InputError
from fliplens.specs import parse_options

__all__ = ["SCHEMES", "SourceSpec", "listed"]

SCHEMES = ("faiss", "hf-dataset", "qdrant", "pgvector")
"""Kinds that a source names itself; of a path, the file or folder tells."""
SECRET = ("qdrant", "pgvector")
"""Kinds whose place may hold a password: it is never shown."""
_KIND = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):", re.ASCII)
"""What begins as `KIND:PLACE` does, or as an address; a drive's letter is none."""


@dataclass(frozen=True)
class SourceSpec:
    """The name of vectors, taken apart."""

    scheme: str
    """One of `SCHEMES`; "" for a path."""
    place: str = field(repr=False)
    """A path, an address, a Hub id; what lies between scheme and options."""
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """In the order of the source."""

    @classmethod
    def parse(cls, text: str | Path) -> SourceSpec:
        """Take a source apart.

        A file or folder that exists under the whole name is that one, whatever signs its name holds. Options begin
        at the last `#`.

        Raises:
            InputError: a kind that there is not, or an address without one; options that are not `name=value`, or one
                twice. What is behind a kind's name may hold a password, and is not shown then.
        """
        whole = str(text)
        if _exists(whole):
            return cls("", whole)
        scheme, colon, rest = whole.partition(":")
        if not colon or scheme not in SCHEMES:
            scheme, rest = "", whole
        elif _exists(rest):
            return cls(scheme, rest)
        place, _, tail = rest.rpartition("#") if "#" in rest else (rest, "", "")
        if not scheme and isinstance(text, str) and (kind := _KIND.match(place)) and not _exists(place):
            raise InputError(
                f"expected a path, or KIND:PLACE with a kind out of {', '.join(SCHEMES)}, found {kind[1]}:...: check "
                "the path, write the kind before an address (pgvector:postgresql://..., qdrant:http://...), or "
                "download what lies elsewhere first"
            )
        secret = scheme in SECRET
        shown = f"{scheme}: source" if secret else repr(whole)
        return cls(scheme, place, MappingProxyType(parse_options(tail, shown, secret=secret)))

    @property
    def path(self) -> Path:
        """The place as a path."""
        return Path(self.place)

    def option(self, name: str, *, needed_for: str) -> str:
        """Return an option that the kind cannot do without.

        Raises:
            InputError: it is not there.
        """
        if name not in self.options:
            raise InputError(f"expected {name}=... behind # to name {needed_for}, found none in {self}")
        return self.options[name]

    def __str__(self) -> str:
        """Return the source as messages and records show it: without what may hold a password."""
        place = "..." if self.scheme in SECRET else self.place
        text = f"{self.scheme}:{place}" if self.scheme else place
        options = ",".join(f"{name}={value}" for name, value in self.options.items())
        return f"{text}#{options}" if options else text


def listed(names: Iterable[str], most: int = 8) -> str:
    """Return names as messages show them: the first few."""
    shown = list(islice(names, most + 1))
    return ", ".join([*shown[:most], "..."] if len(shown) > most else shown) or "none"


def _exists(text: str) -> bool:
    try:
        return bool(text) and Path(text).exists()
    except (OSError, ValueError):  # too long for a name, or with a null byte: no path
        return False
