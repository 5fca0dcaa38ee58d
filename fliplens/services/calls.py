"""One call to a service, repeated where that may help; keys that show nowhere; what to say when it all fails.

The clients' own repetition is switched off: one does not wait for as long as the server asks, the other knows no cut
connections, and neither can be stopped while it waits.
"""

from __future__ import annotations

import email.utils
import math
import os
import random
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar
from urllib.parse import urlsplit

from fliplens.errors import FliplensError, InputError, reason_of

__all__ = [
    "RETRIED",
    "CallError",
    "CallSettings",
    "Key",
    "ServiceWords",
    "checked_url",
    "key_from",
    "one_line",
    "repeated",
    "seconds_told",
    "transport_failure",
    "whole_number",
]

RETRIED = (408, 429, 500, 502, 503, 504)
"""Statuses that may go away."""

LONGEST_TOLD = 300.0
"""Seconds: who is told to wait for longer hears so at once, instead of seeing nothing happen."""

T = TypeVar("T")


@dataclass(frozen=True)
class CallSettings:
    """How calls are made. Each field says which variable of the environment sets it for the command line."""

    attempts: int = 7
    """How often a call is made in all before it is given up: FLIPLENS_API_ATTEMPTS."""
    initial_delay: float = 1.0
    """Seconds before the first repetition, twice as many before each further one: FLIPLENS_API_DELAY."""
    max_delay: float = 60.0
    """Seconds, at most, unless the server asks for more."""
    timeout: float = 120.0
    """Seconds for one answer: FLIPLENS_API_TIMEOUT."""
    at_once: int = 4
    """Calls under way at the same time: FLIPLENS_API_CALLS."""

    @classmethod
    def from_environment(cls) -> CallSettings:
        """Return the settings that the environment asks for.

        Raises:
            InputError: a variable holds something else than such a number.
        """
        return cls(
            attempts=whole_number("FLIPLENS_API_ATTEMPTS") or cls.attempts,
            initial_delay=_seconds("FLIPLENS_API_DELAY", cls.initial_delay),
            timeout=_seconds("FLIPLENS_API_TIMEOUT", cls.timeout),
            at_once=whole_number("FLIPLENS_API_CALLS") or cls.at_once,
        )


class Key:
    """A secret that shows in no message, log or traceback: only `reveal` gives it away."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def __repr__(self) -> str:
        return "Key(***)"

    def reveal(self) -> str:
        """Return the secret itself."""
        return self._value


class CallError(Exception):
    """A call that brought nothing of use. Never leaves this package and its callers: they make one line of it.

    Args:
        reason: in one short line, without the key.
        status: the HTTP status, if there was an answer.
        after: seconds that the server asks to wait.
        repeats: how often such a call is worth repeating; None for as often as the settings say.
        billed: whether the service may count what was sent.
    """

    def __init__(
        self,
        reason: str,
        *,
        status: int | None = None,
        after: float | None = None,
        repeats: int | None = 0,
        billed: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.after = after
        self.repeats = repeats
        self.billed = billed


class Waiter(Protocol):
    """Waits for some seconds, or until it is told to stop: then it returns True."""

    def __call__(self, seconds: float, /) -> bool | None:
        """Wait."""
        ...


def repeated(ask: Callable[[], T], settings: CallSettings, *, wait: Waiter = time.sleep) -> T:
    """Return what `ask` returns, asking again, later and later, while its failures may go away.

    Between two attempts lie `initial_delay` × 2^k seconds, of which up to a half is left to chance so that calls that
    failed together do not come back together; or as long as the server asked for, where that is longer.

    Args:
        ask: makes the call; raises `CallError`.
        settings: how often and how long.
        wait: `time.sleep`, or the `wait` of a `threading.Event` that ends it all.

    Raises:
        CallError: the last one.
    """
    chance = random.Random()  # noqa: S311 - spreads calls in time; the caller's random state stays as it is
    attempt, unwise = 0, 0
    while True:
        attempt += 1
        try:
            return ask()
        except CallError as error:
            failure = error
        unwise += failure.repeats is not None
        told = failure.after or 0.0
        given_up = failure.repeats is not None and unwise > failure.repeats
        if attempt >= settings.attempts or given_up or told > LONGEST_TOLD:
            raise failure
        delay = min(settings.max_delay, settings.initial_delay * 2.0 ** (attempt - 1))
        delay *= chance.uniform(0.5, 1.0)
        if wait(told + 0.1 * delay if told > delay else delay):
            raise failure


def seconds_told(value: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for: it holds seconds, or a date (RFC 9110, 10.2.3)."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def transport_failure(error: BaseException, keys: Iterable[Key]) -> CallError | None:
    """Return the failure that an exception of an HTTP library stands for; None for any other exception.

    Both of the libraries that clients may use have the same names. A request that reached nobody costs nothing; one
    whose answer was cut off, or took too long, may.
    """
    kinds = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    if not kinds & {"httpx.HTTPError", "httpx2.HTTPError"}:
        return None
    reached = not any(kind.endswith((".ConnectError", ".ConnectTimeout")) for kind in kinds)
    return CallError(one_line(str(error), keys) or type(error).__name__, repeats=None, billed=reached)


def one_line(text: str, keys: Iterable[Key]) -> str:
    """Return a service's words in one short line, without a key should they hold one."""
    for key in keys:
        text = text.replace(key.reveal(), "***")
    return reason_of(text)


def key_from(names: Sequence[str], *, of: str) -> Key | None:
    """Return the key in the first of these variables that is set, None if none is.

    Raises:
        InputError: what is there cannot be a key.
    """
    value = next((value for name in names if (value := os.environ.get(name, "").strip())), None)
    # An HTTP library would say the whole key in its complaint.
    if value is not None and not (value.isascii() and value.isprintable() and " " not in value):
        value = None
        raise InputError(
            f"expected a key of {of} in {' or '.join(reversed(names))}, found one with spaces, line breaks or "
            "letters that no key has: copy it again"
        )
    return None if value is None else Key(value)


def checked_url(url: str, *, where: str) -> str:
    """Return the address of a service, without a slash at its end.

    Args:
        url: the address.
        where: what holds it, for messages: a variable, "url= of a spec".

    Raises:
        InputError: it is none, or holds a user, a password or a query, where keys hide that would be recorded.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        # Not repeated in the message: it may hold a password.
        raise InputError(
            f"expected an address of scheme, host and path alone in {where}, found one with a user, password, query "
            "or fragment: leave these out; keys belong into variables of the environment"
        )
    if parts.scheme not in ("http", "https") or not host or not url.isprintable() or " " in url:
        raise InputError(
            f"expected an address that starts with https:// or http:// and names a host in {where}, found {url!r}: "
            "write it as http://localhost:8000/v1"
        )
    return url.rstrip("/")


@dataclass(frozen=True)
class ServiceWords:
    """What a service and its parts are called where a call failed for good."""

    spec: str
    """Of the encoder or tagger."""
    wanted: str
    """What was to come: "names", "vectors"."""
    model: str
    """The model's name."""
    api: str
    """Whose API: "the Gemini API", "http://localhost:8000/v1"."""
    keys: str
    """The variables with the key: "GOOGLE_API_KEY or GEMINI_API_KEY"."""
    hint: str = ""
    """What else to do about a refused key."""

    def error(self, failure: CallError) -> FliplensError:
        """Return the exception, of one line, for a failure that repeating did not mend."""
        reason = failure.reason
        again, kept = "run the same command again", "what was answered before is kept"
        if failure.status is None:
            return FliplensError(
                f"could not reach {self.spec} ({reason}): check the connection, then {again}; {kept}"
            )
        if failure.status in (401, 403) or (failure.status == 400 and "api key" in reason.lower()):
            return InputError(f"the key in {self.keys} was refused ({reason}): {self.hint or 'check it'}")
        if failure.status == 404:
            return InputError(
                f"expected a model {self.model} at {self.api}, found none ({reason}): check its name and the address"
            )
        if failure.status == 200:
            return FliplensError(
                f"expected {self.wanted} from {self.spec}, found {reason}: {again}, or name another model; {kept}"
            )
        told = "" if failure.after is None else f" {math.ceil(failure.after)} s"
        advice = f"wait{told}, then {again}; " if failure.status in RETRIED else ""
        return FliplensError(
            f"expected {self.wanted} from {self.spec}, found status {failure.status} ({reason}): {advice}{kept}"
        )


def whole_number(name: str) -> int | None:
    """Return the number of 1 or more in a variable of the environment; None where it is not set.

    Raises:
        InputError: it holds something else.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return None
    if not re.fullmatch(r"[0-9][0-9_]*", text) or int(text) < 1:
        raise InputError(
            f"expected a whole number of 1 or more in {name}, found {text!r}: set it to one, or unset it"
        )
    return int(text)


def _seconds(name: str, default: float) -> float:
    text = os.environ.get(name, "").strip()
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise InputError(
            f"expected a number of seconds above 0 in {name}, found {text!r}: set it to one, or unset it for "
            f"{default:g}"
        )
    return seconds
