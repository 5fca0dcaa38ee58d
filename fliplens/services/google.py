"""The Gemini API by Google's own client, google-genai: its key, its address, and what its exceptions mean."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, TypeVar

from fliplens.errors import InputError, MissingExtraError
from fliplens.services.calls import (
    RETRIED,
    CallError,
    checked_url,
    key_from,
    one_line,
    seconds_told,
    transport_failure,
)

__all__ = ["API", "DEFAULT_URL", "KEYS", "GoogleApi", "check_model"]

API = "the Gemini API"

KEYS = ("GOOGLE_API_KEY", "GEMINI_API_KEY")
"""The first wins, as with Google's client."""

DEFAULT_URL = "https://generativelanguage.googleapis.com"

T = TypeVar("T")


class GoogleApi:
    """A client of the Gemini API that repeats nothing of its own accord and keeps its key to itself.

    The key is read from GOOGLE_API_KEY or GEMINI_API_KEY, is sent to the server alone, and stands in no message.

    Args:
        needed_for: what needs google-genai, for the message that says it is not installed.
        base_url: another server than Google's, a proxy say; None for what GOOGLE_GEMINI_BASE_URL names, or Google's.
        timeout: seconds for one answer.

    Raises:
        InputError: no key, or one that cannot be one; a base_url that is none.
        MissingExtraError: google-genai is not installed.
    """

    def __init__(self, needed_for: str, *, base_url: str | None = None, timeout: float = 120.0) -> None:
        where = "base_url" if base_url is not None else "GOOGLE_GEMINI_BASE_URL"
        address = base_url or os.environ.get("GOOGLE_GEMINI_BASE_URL") or DEFAULT_URL
        self.url = checked_url(address, where=where)
        if not _installed():
            raise MissingExtraError(needed_for, "gemini")
        from google import genai
        from google.genai import types

        key = key_from(KEYS, of=API)
        if key is None:
            raise InputError(
                f"expected a key of {API} in {KEYS[1]} or {KEYS[0]}, found neither set: get one from Google AI "
                f"Studio and set {KEYS[1]} to it"
            )
        self._key = key
        options = types.HttpOptions(
            base_url=self.url,
            # Where system instructions and response schemas were first, and the aliases of models are alone.
            api_version="v1beta",
            timeout=int(1000 * timeout),
        )
        with _quiet():
            # Not Vertex AI, whatever the environment says: it needs more than a key.
            self._client = genai.Client(vertexai=False, api_key=key.reveal(), http_options=options)

    def ask(self, call: Callable[[Any], T]) -> T:
        """Return what a call of the client's `models` returns.

        Raises:
            CallError: the server refused, was not reached, or did not answer as the API does. Its origin is cut off:
                the client's own exceptions hold whole requests.
        """
        from google.genai import errors
        from pydantic import ValidationError

        try:
            return call(self._client.models)
        except errors.APIError as error:
            reason = one_line(str(error.message or error.status or "no reason given"), [self._key])
            told = getattr(getattr(error, "response", None), "headers", None) or {}
            failure = CallError(
                reason,
                status=error.code,
                after=seconds_told(told.get("retry-after")) or _retry_delay(error.details),
                repeats=None if error.code in RETRIED else 0,
            )
        except (errors.UnknownApiResponseError, ValidationError, json.JSONDecodeError, RecursionError):
            failure = CallError("something else than the API's JSON", repeats=None, billed=True)
        except Exception as error:  # of either of the HTTP libraries that the client may use
            found = transport_failure(error, [self._key])
            if found is None:
                raise
            failure = found
        raise failure


def check_model(model: str, *, example: str) -> str:
    """Return a model's name, once it can be one.

    Raises:
        InputError: it cannot.
    """
    if not re.fullmatch(r"[\w.-]+(?:/[\w.-]+)*", model, re.ASCII) or ".." in model:
        raise InputError(f"expected the name of a Gemini model, found {model!r}: write it as {example}")
    return model


def _retry_delay(details: Any) -> float | None:
    """Return the seconds in a google.rpc.RetryInfo among an error's details."""
    error = details.get("error") if isinstance(details, dict) else None
    listed = error.get("details") if isinstance(error, dict) else None
    for item in listed if isinstance(listed, list) else ():
        delay = item.get("retryDelay") if isinstance(item, dict) else None
        if isinstance(delay, str) and re.fullmatch(r"\d+(\.\d+)?s", delay, re.ASCII):
            return float(delay[:-1])
    return None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the client's log line on two keys in the environment, which is no news; leave all as it was."""
    logger = logging.getLogger("google_genai")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _installed() -> bool:
    try:
        return find_spec("google.genai") is not None
    except ModuleNotFoundError:
        return False
