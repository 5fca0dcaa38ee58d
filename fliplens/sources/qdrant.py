"""A Qdrant collection of a server, through its client."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from fliplens.errors import FliplensError, InputError, MissingExtraError, reason_of
from fliplens.sources.specs import SourceSpec, listed
from fliplens.sources.stores import Page, Store

__all__ = ["KEY", "Collection", "chosen_vector", "connect", "page_of"]

KEY = "QDRANT_API_KEY"
"""The environment variable that holds a server's key."""
SECONDS = 60
"""To wait for an answer."""


def connect(source: SourceSpec) -> Store:
    """Open a collection of the server at a URL.

    A folder of the client's local mode is refused: it keeps points as pickles, which nothing here reads.

    The key of a server is read from QDRANT_API_KEY alone, and is never part of a message or a record.

    Raises:
        InputError: no such collection or vector, or several vectors to choose from.
        FliplensError: the server does not answer, or refuses.
        MissingExtraError: qdrant-client is not installed.
    """
    name = source.option("collection", needed_for="the collection")
    options = ",".join(f"{key}={value}" for key, value in source.options.items())
    address = urlsplit(source.place) if source.place.startswith(("http://", "https://")) else None
    if address is None:
        # What is there may hold a key, and is not shown.
        found, advice = "something else", "write http:// or https:// before the host"
        if source.path.is_dir():
            found = "a folder of its client's local mode, which holds pickles"
            advice = "start a server on its data"
        raise InputError(f"expected http://HOST:PORT of a Qdrant server behind qdrant:, found {found}: {advice}")
    if address.username or address.password or address.query:
        raise InputError(
            f"expected the key of a Qdrant server in {KEY}, found something like one in the URL: remove it"
        )
    try:
        import qdrant_client
    except ImportError as error:
        raise MissingExtraError("a Qdrant collection", "qdrant") from error

    client = qdrant_client.QdrantClient(
        url=source.place, api_key=os.environ.get(KEY) or None, timeout=SECONDS, check_compatibility=False
    )
    shown = f"qdrant:{address.scheme}://{address.netloc}{address.path}#{options}"
    try:
        return Collection(client, name, source.options.get("vector"), source.options.get("text"), shown)
    except BaseException:
        client.close()
        raise


class Collection:
    """One collection as a client gives it out, point by point in the order of their ids."""

    def __init__(self, client: Any, collection: str, vector: str | None, text: str | None, name: str) -> None:
        self.name = name
        self.dtype = "float32"
        self.state = None
        self._client = client
        self._collection = collection
        self._text = text
        described = self._ask("get_collection", collection)
        vectors = described.config.params.vectors
        self._vector = chosen_vector(vectors if isinstance(vectors, dict) else None, vector, name)
        params = vectors if self._vector is None else vectors[self._vector]
        if params is None:
            raise InputError(f"expected dense vectors in {name}, found none: name another collection")
        if getattr(params, "multivector_config", None) is not None:
            raise InputError(f"expected one vector a point in {name}, found several: choose another with vector=NAME")
        self.dim = int(params.size)
        self.rows = int(self._ask("count", collection, exact=True).count)
        if not self.rows:
            raise InputError(
                f"expected at least one vector in {name}, found an empty collection: name another by collection=NAME"
            )

    def _collections(self) -> str:
        """Return the names of some collections as a part of a message; none where the server does not tell them."""
        with contextlib.suppress(Exception):  # this is help for a message, and what failed before is told
            return listed(sorted(one.name for one in self._client.get_collections().collections))
        return "those of the server"

    def _ask(self, method: str, *args: Any, **given: Any) -> Any:
        from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

        try:
            return getattr(self._client, method)(*args, **given)
        except UnexpectedResponse as error:
            if error.status_code == 404:
                raise InputError(
                    f"expected a collection {self._collection!r}, found none in {self.name}: name one of "
                    f"{self._collections()} with collection=NAME"
                ) from None
            hint = "try again later, the same command goes on"
            if error.status_code in (401, 403):
                hint = f"check the key in {KEY}" if os.environ.get(KEY) else f"give the server's key in {KEY}"
            found = reason_of(f"{error.status_code} {error.reason_phrase}")
            raise FliplensError(f"expected an answer of {self.name}, found {found}: {hint}") from None
        except (ApiException, OSError) as error:
            raise FliplensError(
                f"expected an answer of {self.name}, had none ({reason_of(error)}): check host and port, and that "
                "the server runs; the same command goes on with what was cut off"
            ) from None

    def pages(self, start: Any, rows: int) -> Iterator[Page]:
        """Scroll through the points from the id `start` on."""
        following = start
        while True:
            points, following = self._ask(
                "scroll",
                self._collection,
                limit=rows,
                offset=following,
                with_payload=[self._text] if self._text else False,
                with_vectors=[self._vector] if self._vector else True,
            )
            if points:
                following = following if following is None or isinstance(following, int) else str(following)
                yield page_of(points, self._vector, self._text, self.dim, self.name, following)
            if following is None:
                return

    def close(self) -> None:
        """Close the client."""
        self._client.close()


def chosen_vector(named: Mapping[str, Any] | None, wanted: str | None, name: str) -> str | None:
    """Return which vector of the points to read.

    Args:
        named: a collection's vectors by name; None where its points have one without a name.
        wanted: the name asked for, if one was.
        name: how messages call the collection.

    Returns:
        A name; None for the one without.

    Raises:
        InputError: none of that name, or several to choose from.
    """
    if named is None:
        if wanted is not None:
            raise InputError(
                f"expected no vector=..., as points have one without a name, found {wanted!r} in {name}: leave it out"
            )
        return None
    if wanted is None and len(named) == 1:
        return next(iter(named))
    if wanted not in named:
        found = "none" if wanted is None else repr(wanted)
        raise InputError(f"expected vector=... out of {listed(named)} in {name}, found {found}: name one of these")
    return wanted


def page_of(points: Any, vector: str | None, text: str | None, dim: int, name: str, following: Any) -> Page:
    """Return points as a page.

    Args:
        points: each with `id`, `vector` and `payload`.
        vector: which of several vectors a point.
        text: the field of the payload to keep, if one was asked for.
        dim: d.
        name: how messages call the collection.
        following: the page's `next`.

    Raises:
        InputError: a point without such a vector or text.
    """
    vectors: list[NDArray[Any]] = []
    texts: list[str] = []
    for point in points:
        value = point.vector
        if vector is not None:
            value = value.get(vector) if isinstance(value, dict) else None
        found = None
        # Anything else than a list of numbers is told as no vector.
        with contextlib.suppress(TypeError, ValueError):
            found = None if value is None else np.asarray(value, dtype=np.float32)
        if found is None or found.shape != (dim,):
            shown = "none" if found is None else f"shape {found.shape}"
            raise InputError(
                f"expected a vector of {dim} numbers of each point of {name}, found {shown} at {point.id}: "
                "give it one, or delete it"
            )
        vectors.append(found)
        if text is not None:
            one = (point.payload or {}).get(text)
            if not isinstance(one, str):
                found_one = reason_of(repr(one), 40)
                raise InputError(
                    f"expected a text in {text} of each point of {name}, found {found_one} at {point.id}: name the "
                    "field of the text with text=FIELD, or none"
                )
            texts.append(one)
    ids = [point.id if isinstance(point.id, int) else str(point.id) for point in points]
    return Page(np.stack(vectors), ids, None if text is None else texts, following)
