"""The one string that names vectors: `PATH`, or `KIND:PLACE`, either with `#option=value,option=value` behind it.

The kinds and their options are those of `fliplens.sources.registry`; here a source is only taken apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from fliplens.errors import InputError

__all__ = ["SCHEMES", "Source"]

SCHEMES = ("faiss", "hf-dataset", "qdrant", "pgvector")
"""Kinds that a source names itself; of a path, the file or folder tells."""
SECRET = ("qdrant", "pgvector")
"""Kinds whose place may hold a password: it is never shown."""
_OPTION = re.compile(r"[a-z][a-z_-]*", re.ASCII)


@dataclass(frozen=True)
class Source:
    """The name of vectors, taken apart."""

    scheme: str
    """One of `SCHEMES`; "" for a path."""
    place: str = field(repr=False)
    """A path, an address, a Hub id; what lies between scheme and options."""
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """In the order of the source."""

    @classmethod
    def parse(cls, text: str | Path) -> Source:
        """Take a source apart.

        A file or folder that exists under the whole name is that one, whatever signs its name holds. Options begin
        at the last `#`.

        Raises:
            InputError: options that are not `name=value`, or one twice.
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
        shown = f"{scheme}: source" if scheme in SECRET else repr(whole)
        return cls(scheme, place, MappingProxyType(_options(tail, shown, quoted=scheme not in SECRET)))

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


def _exists(text: str) -> bool:
    try:
        return bool(text) and Path(text).exists()
    except (OSError, ValueError):  # too long for a name, or with a null byte: no path
        return False


def _options(text: str, shown: str, *, quoted: bool) -> dict[str, str]:
    found: dict[str, str] = {}
    for item in text.split(",") if text else ():
        name, equals, value = item.partition("=")
        if not equals or not value or not _OPTION.fullmatch(name):
            # What stands behind # may be the end of a password with a # in it.
            what = f", found {text!r}" if quoted else ", found something else"
            raise InputError(f"expected options as name=value,name=value after #{what} in {shown}")
        if name in found:
            raise InputError(f"expected every option once, found {name} again in {shown}")
        found[name] = value
    return found
