"""OpenAI's embedding models, and any server that speaks as its API does: `openai:MODEL[#url=...,dim=N]`.

vLLM, text-embeddings-inference, Ollama, llama.cpp and many others do. The client is OpenAI's own.
"""

from __future__ import annotations

import ipaddress
import json
import os
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from fliplens.encoders.service import ServiceEncoder, check_precision, size_option
from fliplens.encoders.service_calls import UNUSABLE_REPEATS
from fliplens.encoders.specs import Spec
from fliplens.errors import FliplensError, InputError, MissingExtraError
from fliplens.services.calls import (
    RETRIED,
    CallError,
    CallSettings,
    Key,
    ServiceWords,
    checked_url,
    key_from,
    one_line,
    seconds_told,
    transport_failure,
)

__all__ = ["DEFAULT_URL", "OpenAIService", "load"]

DEFAULT_URL = "https://api.openai.com/v1"
KEY = "OPENAI_API_KEY"
ADDRESS = "OPENAI_BASE_URL"

LARGEST_DIM = 65536

TEXTS_A_CALL_OPENAI = 256
TEXTS_A_CALL = 32
"""What text-embeddings-inference takes unless told otherwise."""

MAX_TOKENS = 8192
"""Of each of OpenAI's own models."""


class OpenAIService:
    """An embedding model behind OpenAI's API; see `EmbeddingService`.

    The key in OPENAI_API_KEY goes to OpenAI, to the server that OPENAI_BASE_URL names and to this machine, and
    nowhere else: a spec comes with other people's lenses, and its `url` must not be able to fetch a key.

    Args:
        spec: with the options url and dim.
        timeout: seconds for one answer.

    Raises:
        InputError: no key for OpenAI itself, one that cannot be one, or an address that is none.
        MissingExtraError: openai is not installed.
    """

    renormalise = False
    silent_after = None
    characters_around = 0

    def __init__(self, spec: Spec, *, timeout: float = 120.0) -> None:
        self.spec = str(spec)
        self.model = spec.model
        if not self.model.isprintable() or self.model != self.model.strip():
            raise InputError(
                f"expected the name of a model in openai:MODEL, found {self.model!r}: leave out spaces around it and "
                "signs that cannot be seen"
            )
        self.dim = size_option(spec.options.get("dim"), largest=LARGEST_DIM, spec=self.spec)
        named, default = spec.options.get("url"), os.environ.get(ADDRESS, "").strip()
        self.url = checked_url(named or default or DEFAULT_URL, where="url= of the spec" if named else ADDRESS)
        if find_spec("openai") is None:
            raise MissingExtraError(f"the encoder {self.spec}", "openai")
        from openai import OpenAI

        key = key_from([KEY], of=self.url)
        self._trusted = _origin(self.url) in (_origin(default), _origin(DEFAULT_URL)) or _is_here(self.url)
        self._key = key if self._trusted else None
        own = _origin(self.url) == _origin(DEFAULT_URL)
        if own and key is None:
            raise InputError(
                f"expected a key of OpenAI in {KEY}, found none set: set it, or name another server as "
                f"url=http://... in the spec or in {ADDRESS}"
            )
        self.texts_a_call = TEXTS_A_CALL_OPENAI if own else TEXTS_A_CALL
        self.max_tokens = MAX_TOKENS if own else None
        # The client insists on a key; without one, `ask` leaves the header out. It also sends what the environment
        # says of the caller's organisation, and headers of the caller's own: not to strangers.
        self._withheld = [] if self._key else ["Authorization"]
        if not self._trusted:
            own_lines = os.environ.get("OPENAI_CUSTOM_HEADERS", "").splitlines()
            self._withheld += ["OpenAI-Organization", "OpenAI-Project"]
            self._withheld += [name for line in own_lines if (name := line.partition(":")[0].strip())]
        self._client = OpenAI(
            api_key=self._key.reveal() if self._key else "none", base_url=self.url, timeout=timeout, max_retries=0
        )

    @property
    def space(self) -> Mapping[str, str | None]:
        """See `EmbeddingService`."""
        size = None if self.dim is None else str(self.dim)
        return {"service": self.url, "model": self.model, "dim": size, "task": None}

    def ask(self, texts: Sequence[str]) -> list[Any]:
        """See `EmbeddingService`."""
        import openai

        keys: list[Key] = [self._key] if self._key else []
        try:
            # Not every server knows base64, which the client asks for unless told. The raw answer, as the client's
            # own reading of it takes a call of Python for each number.
            raw = self._client.embeddings.with_raw_response.create(
                model=self.model,
                input=list(texts),
                encoding_format="float",
                dimensions=openai.omit if self.dim is None else self.dim,
                extra_headers={name: openai.Omit() for name in self._withheld},
            )
            return _vectors(json.loads(raw.http_response.content))
        except openai.APIStatusError as error:
            reason = one_line(_said(error.body) or error.message or "no reason given", keys)
            # A quota that is used up comes back under the status of haste, which waiting does not help.
            final = error.code == "insufficient_quota" or error.status_code not in RETRIED
            failure = CallError(
                reason,
                status=error.status_code,
                after=seconds_told(error.response.headers.get("retry-after")),
                repeats=0 if final else None,
            )
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
            failure = CallError("something else than the API's JSON", repeats=None, billed=True)
        except openai.APIConnectionError as error:
            failure = transport_failure(error.__cause__ or error, keys) or CallError(
                one_line(str(error), keys), repeats=None, billed=True
            )
        raise failure

    def error(self, failure: CallError) -> FliplensError:
        """See `EmbeddingService`."""
        if not self._trusted:
            hint = f"the key in {KEY} is not sent there unless {ADDRESS} names that server too"
        elif self._key is None:
            hint = f"set {KEY}"
        else:
            hint = ""
        return ServiceWords(self.spec, "vectors", self.model, self.url, KEY, hint).error(failure)


def load(spec: Spec, *, device: str, batch_size: int | None, precision: str) -> ServiceEncoder:
    """Return the encoder of a spec; whether its server, key and model are right is known to the first call alone.

    Args:
        spec: `openai` with its model and options.
        device: of no meaning here: a lens that is trained on a GPU may well have such an encoder.
        batch_size: texts a call; None for 256 at OpenAI and 32 elsewhere.
        precision: auto or float32.

    Raises:
        InputError, MissingExtraError: see `OpenAIService`; a precision that cannot be.
    """
    del device
    check_precision(precision, spec=str(spec))
    settings = CallSettings.from_environment()
    return ServiceEncoder(OpenAIService(spec, timeout=settings.timeout), settings=settings, batch_size=batch_size)


def _vectors(answer: Any) -> list[Any]:
    """Return the vectors of an answer by their index."""
    data = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(data, list) or not all(isinstance(one, dict) for one in data):
        raise _odd("an answer without data")
    order = [one.get("index", place) for place, one in enumerate(data)]
    if any(isinstance(place, bool) or not isinstance(place, int) for place in order) or sorted(order) != list(
        range(len(data))
    ):
        raise _odd("vectors whose index does not number them")
    vectors: list[Any] = [None] * len(data)
    for place, one in zip(order, data, strict=True):
        vectors[place] = one.get("embedding")
    return vectors


def _odd(reason: str) -> CallError:
    return CallError(reason, status=200, repeats=UNUSABLE_REPEATS, billed=True)


def _said(body: object) -> str:
    """Return what a server said was wrong: under "message", or in a string "error" or "detail"."""
    if isinstance(body, dict):
        for name in ("message", "error", "detail"):
            if isinstance(body.get(name), str):
                return str(body[name])
    return body if isinstance(body, str) else ""


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _is_here(url: str) -> bool:
    """Tell whether an address is this machine's own."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
