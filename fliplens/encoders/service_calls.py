"""Calls to an embedding service: which texts go together, and how each of them gets its vector.

A call that fails in passing is made again, one that holds too much is halved, and of a text that is too long alone
the start is sent. What comes back is checked and counted. How many calls go at once and what is kept of them is the
business of `service`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from fliplens.errors import FliplensError
from fliplens.services.budget import Budget
from fliplens.services.calls import CallError, CallSettings, repeated

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BLANK", "UNUSABLE_REPEATS", "Answer", "EmbeddingService", "ServiceCalls", "Usage"]

CHARACTERS_A_CALL = 100_000
"""Some services limit the tokens of a call, at 300,000 say: more than this many characters ever are."""

BLANK = "."
"""Sent for a text without letters, which services refuse (a call with an empty text fails as a whole): a row stays a
row, and all such rows have one vector. It is also what a service is asked for its vectors' size by."""

SHORTEST = 16
"""Characters: what is refused as too long at this length is refused for something else."""

UNUSABLE_REPEATS = 2
"""How often a call whose answer cannot be used is repeated: it is paid all the same."""

_TOO_MUCH = re.compile(
    r"\btokens?\b|too (?:long|large|many|big)|(?:context|sequence|input) length|batch size|at most \d+"
    r"|payload|exceed",
    re.IGNORECASE,
)
"""What services say when a text is too long, or a call holds too many."""


class EmbeddingService(Protocol):
    """One model of one service: how to ask it, and what to call it."""

    @property
    def spec(self) -> str:
        """What `load_encoder` takes to get it again."""
        ...

    @property
    def model(self) -> str:
        """The service's name for the model."""
        ...

    @property
    def space(self) -> Mapping[str, str | None]:
        """What tells its vectors from all others: service, model, size, task. Without secrets."""
        ...

    @property
    def dim(self) -> int | None:
        """The size that was asked for; None for the model's own."""
        ...

    @property
    def renormalise(self) -> bool:
        """Whether vectors are brought to unit length here."""
        ...

    @property
    def max_tokens(self) -> int | None:
        """Tokens that the model reads of a text, as far as known."""
        ...

    @property
    def silent_after(self) -> int | None:
        """Characters from which on the service is taken to cut a text without saying so; None if it says so."""
        ...

    @property
    def texts_a_call(self) -> int:
        """How many texts go into a call."""
        ...

    @property
    def characters_around(self) -> int:
        """Characters that go with every text, an instruction say."""
        ...

    def ask(self, texts: Sequence[str]) -> list[Any]:
        """Make one call and return what came as vectors, unchecked, in the order of the texts.

        Raises:
            CallError: nothing came, or something else.
        """
        ...

    def error(self, failure: CallError) -> FliplensError:
        """Return the exception of one line for a failure that repeating did not mend."""
        ...


@dataclass
class Usage:
    """What an encoder cost so far."""

    calls: int = 0
    """Calls that were answered with vectors."""
    texts: int = 0
    """Texts in them."""
    characters: int = 0
    """Characters in them."""
    cached: int = 0
    """Texts that were answered from the cache."""


class Answer(NamedTuple):
    """Some texts of a call, answered."""

    texts: list[str]
    vectors: list[NDArray[np.float32]]
    """(d,) each."""
    cut: list[bool]
    """Of which of them the model read only the start."""


class ServiceCalls:
    """The calls of one encoder. Safe to use from several threads.

    Args:
        service: the model of a service.
        settings: how calls are repeated.
        budget: characters that may be sent.
        texts_a_call: at most.
        kept_in: where vectors of an older model under the same name would lie, for the message that says so.
    """

    def __init__(
        self,
        service: EmbeddingService,
        *,
        settings: CallSettings,
        budget: Budget,
        texts_a_call: int,
        kept_in: Path,
    ) -> None:
        self.usage = Usage()
        self.dim = service.dim
        """The size that vectors must have; None takes any."""
        self._service = service
        self._settings = settings
        self._budget = budget
        self._texts_a_call = texts_a_call
        self._kept_in = kept_in
        self._lock = threading.Lock()

    def count_cached(self, texts: int) -> None:
        """Count texts that needed no call."""
        with self._lock:
            self.usage.cached += texts

    def split(self, texts: Sequence[str]) -> Iterator[list[str]]:
        """Yield the texts of each call."""
        call: list[str] = []
        characters = 0
        for text in texts:
            size = len(text) + self._service.characters_around
            if call and (len(call) == self._texts_a_call or characters + size > CHARACTERS_A_CALL):
                yield call
                call, characters = [], 0
            call.append(text)
            characters += size
        if call:
            yield call

    def answers(self, texts: list[str], stop: threading.Event) -> Iterator[Answer]:
        """Yield the vectors of one call's texts as they come, in pieces where the call was too much.

        Args:
            texts: of `split`.
            stop: ends the wait for a repetition.

        Raises:
            CallError: the last one.
            FliplensError: the budget does not allow it.
        """
        try:
            vectors = self._ask(texts, stop)
        except CallError as error:
            failure = error
        else:
            yield self._answer(texts, vectors)
            return
        if not _too_much(failure):
            raise failure
        if len(texts) > 1:
            half = len(texts) // 2
            yield from self.answers(texts[:half], stop)
            yield from self.answers(texts[half:], stop)
            return
        start = texts[0]
        while _too_much(failure) and len(start) > SHORTEST:
            start = start[: _shorter(len(start), failure.reason)].rstrip() or BLANK
            try:
                vectors = self._ask([start], stop)
            except CallError as error:
                failure = error
            else:
                yield self._answer(texts, vectors, only_start=True)
                return
        shown = " ".join(texts[0][:40].split())
        raise CallError(
            f"{failure.reason}, for the text of {len(texts[0])} characters that starts with {shown!r}",
            status=failure.status,
        )

    def _answer(self, texts: list[str], vectors: list[NDArray[np.float32]], *, only_start: bool = False) -> Answer:
        silent = self._service.silent_after
        cut = [only_start or (silent is not None and len(text) > silent) for text in texts]
        return Answer(texts, vectors, cut)

    def _ask(self, texts: list[str], stop: threading.Event) -> list[NDArray[np.float32]]:
        """Return the vectors of one call, made again where that may help."""
        return repeated(partial(self._ask_once, texts), self._settings, wait=stop.wait)

    def _ask_once(self, texts: list[str]) -> list[NDArray[np.float32]]:
        characters = sum(map(len, texts)) + len(texts) * self._service.characters_around
        self._budget.reserve(characters)
        try:
            vectors = self._checked(self._service.ask(texts), len(texts))
        except CallError as failure:
            if not failure.billed:
                self._budget.release(characters)
            raise
        with self._lock:
            self.usage.calls += 1
            self.usage.texts += len(texts)
            self.usage.characters += characters
        return vectors

    def _checked(self, answer: list[Any], n: int) -> list[NDArray[np.float32]]:
        """Return an answer's vectors as float32, once they are n good ones."""
        if len(answer) != n:
            raise _unusable(f"{len(answer)} vectors for {n} texts")
        vectors = []
        for values in answer:
            try:
                vector = np.asarray(values, dtype=np.float64)
            except (TypeError, ValueError, OverflowError):
                raise _unusable("something else than numbers in a vector") from None
            if vector.ndim != 1 or not vector.size:
                raise _unusable("something else than a list of numbers for a vector")
            if self.dim is not None and vector.size != self.dim:
                reason = f"vectors of {vector.size} dimensions instead of {self.dim}"
                if self._service.dim is None:
                    reason += f", as before (if that is another model now, delete {self._kept_in})"
                # Asked again, it would be the same.
                raise _unusable(reason, repeats=0)
            if not np.isfinite(vector).all() or np.abs(vector).max() > np.finfo(np.float32).max:
                raise _unusable("NaN or infinite values in a vector")
            if self._service.renormalise:
                # One at a time, so that no bit of a vector depends on what else was in its call.
                length = float(np.sqrt(np.dot(vector, vector)))
                if length < np.finfo(np.float32).tiny:
                    raise _unusable("a vector of zeros")
                vector = vector / length
            vectors.append(vector.astype(np.float32))
        return vectors


def _unusable(reason: str, *, repeats: int = UNUSABLE_REPEATS) -> CallError:
    return CallError(reason, status=200, repeats=repeats, billed=True)


def _too_much(failure: CallError) -> bool:
    return failure.status == 413 or (failure.status in (400, 422) and _TOO_MUCH.search(failure.reason) is not None)


def _shorter(length: int, reason: str) -> int:
    """Return how many characters of a text to try next: by the two numbers of tokens in a refusal, else half."""
    numbers = [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", reason)]
    large = [number for number in numbers if number >= SHORTEST]
    if len(large) >= 2 and min(large) < max(large):
        return max(SHORTEST, min(length - 1, int(0.95 * length * min(large) / max(large))))
    return max(SHORTEST, length // 2)
