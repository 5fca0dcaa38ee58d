"""A collection that Qdrant's client keeps in a folder (its local mode), read without running what lies in it.

The client writes points as pickles, which can call anything when they are loaded the usual way. Here they are read by
an unpickler that knows two names, both of records without behaviour, and refuses every other: what comes out are
numbers, strings, lists and mappings, or an error. The client itself is not needed.
"""

from __future__ import annotations

import base64
import binascii
import io
import pickle
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from fliplens.errors import InputError
from fliplens.files import read_json
from fliplens.sources.qdrant import chosen_vector, page_of
from fliplens.sources.stores import Page

__all__ = ["Folder"]

_POINT = ("PointStruct", "SparseVector")


class _Record:
    """What a pickled point becomes: its fields, and nothing that runs."""

    fields: Mapping[str, Any] = MappingProxyType({})

    def __setstate__(self, state: Any) -> None:
        fields = state.get("__dict__") if isinstance(state, dict) else None
        self.fields = fields if isinstance(fields, dict) else {}

    @property
    def id(self) -> Any:
        return self.fields.get("id")

    @property
    def vector(self) -> Any:
        return self.fields.get("vector")

    @property
    def payload(self) -> Any:
        return self.fields.get("payload")


class _PlainData(pickle.Unpickler):
    """An unpickler of numbers, strings, lists, mappings and points."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "qdrant_client.http.models.models" and name in _POINT:
            return _Record
        raise pickle.UnpicklingError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:  # noqa: ARG002 - the base class's name
        raise pickle.UnpicklingError("a persistent id")


def _plain(data: bytes, place: str) -> Any:
    try:
        return _PlainData(io.BytesIO(data)).load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise InputError(
            f"expected points of plain data in {place}, found something else ({error}): serve the collection and "
            "import it by its URL"
        ) from None


class Folder:
    """One collection of a folder, in the order of its ids: numbers, then UUIDs."""

    def __init__(self, folder: Path, collection: str, options: Mapping[str, str], name: str) -> None:
        self.name = name
        self.dtype = "float32"
        self._text = options.get("text")
        known = read_json(folder / "meta.json")
        collections = known.get("collections") if isinstance(known, dict) else None
        if not isinstance(collections, dict) or collection not in collections:
            shown = ", ".join(collections) if isinstance(collections, dict) and collections else "none"
            raise InputError(f"expected a collection {collection!r} in {folder}, found {shown}")
        described = collections[collection].get("vectors")
        # One vector without a name is described by its own fields, named ones each by theirs.
        one = isinstance(described, dict) and isinstance(described.get("size"), int)
        vectors = described if isinstance(described, dict) else {}
        self._vector = chosen_vector(None if one else vectors, options.get("vector"), name)
        params = vectors if self._vector is None else vectors[self._vector]
        if (
            not isinstance(params, dict)
            or not isinstance(params.get("size"), int)
            or params.get("multivector_config")
        ):
            raise InputError(f"expected one vector a point in {name}, found others: choose with vector=NAME")
        self.dim = int(params["size"])
        file = folder / "collection" / collection / "storage.sqlite"
        if Path(collection).name != collection or not file.is_file():
            raise InputError(f"expected the points of {collection!r} in {file}, found no such file")
        stat = file.stat()
        self.state = [stat.st_size, stat.st_mtime_ns]
        self._place = str(file)
        self._database = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)
        try:
            self._keys = self._ordered()
        except BaseException:
            self._database.close()
            raise
        self.rows = len(self._keys)
        if not self.rows:
            self._database.close()
            raise InputError(f"expected at least one vector in {name}, found an empty collection")

    def _ordered(self) -> list[int]:
        """Return the rows of the database in the order of ids; of several that hold one id, the newest."""
        newest: dict[tuple[bool, int | str], int] = {}
        try:
            for number, key in self._database.execute("SELECT rowid, id FROM points ORDER BY rowid"):
                one = _plain(base64.b64decode(key), self._place)
                if not isinstance(one, int | str):
                    raise InputError(
                        f"expected numbers and UUIDs as ids in {self._place}, found {type(one).__name__}"
                    )
                newest[(isinstance(one, str), one.lower() if isinstance(one, str) else one)] = number
        except (sqlite3.Error, binascii.Error, TypeError) as error:
            raise InputError(f"expected a database of points in {self._place}, found otherwise ({error})") from error
        return [newest[key] for key in sorted(newest)]

    def pages(self, start: Any, rows: int) -> Iterator[Page]:
        """Yield points from number `start` of the order on."""
        for first in range(start or 0, self.rows, rows):
            numbers = self._keys[first : first + rows]
            points = []
            for number in numbers:
                found = self._database.execute("SELECT point FROM points WHERE rowid = ?", [number]).fetchone()
                point = _plain(bytes(found[0]), self._place)
                if not isinstance(point, _Record):
                    raise InputError(f"expected points in {self._place}, found something else")
                points.append(point)
            stop = first + len(numbers)
            yield page_of(points, self._vector, self._text, self.dim, self.name, None if stop == self.rows else stop)

    def close(self) -> None:
        """Close the database."""
        self._database.close()
