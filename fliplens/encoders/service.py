"""Encoders that are services on the network: what they have in common, whichever service it is.

A text that was answered once is read from the cache; the others are sent once each, some a call and some calls at a
time, and kept the moment their answer is there.
"""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from fliplens.encoders.inputs import checked_texts
from fliplens.encoders.protocol import EncodedBatch, over_long
from fliplens.errors import FliplensError, FliplensWarning, InputError
from fliplens.progress import Progress
from fliplens.services.budget import Budget
from fliplens.services.calls import CallError, CallSettings, repeated
from fliplens.services.vector_cache import Kept, VectorCache, cache_folder, text_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BLANK", "EmbeddingService", "ServiceEncoder", "Usage", "check_precision", "size_option"]

WINDOW = 4096
"""Texts looked up, and held as vectors, at once."""

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


class ServiceEncoder:
    """A service behind the `BatchEncoder` protocol.

    Args:
        service: the model of a service.
        settings: repetition and calls at once; None for what the environment says.
        cache: where vectors are kept; None for the user's cache folder.
        budget: characters that may be sent; None for what the environment says.
        batch_size: texts a call; None for the service's number.
    """

    modality = "text"
    language = None
    revision = None
    """Services do not tell which weights are behind a name."""
    precision = "float32"
    """In which vectors are kept; what a service multiplies in is its own business."""
    keeps_answers = True
    """What was answered is kept by content: work may end after any call, and nothing is asked for again."""

    def __init__(
        self,
        service: EmbeddingService,
        *,
        settings: CallSettings | None = None,
        cache: VectorCache | None = None,
        budget: Budget | None = None,
        batch_size: int | None = None,
    ) -> None:
        self.usage = Usage()
        self._service = service
        self._settings = settings or CallSettings.from_environment()
        self._cache = cache or VectorCache(cache_folder(), service.space)
        self._budget = budget or Budget.from_environment()
        self.batch_size = batch_size or service.texts_a_call
        self._dim = service.dim
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"ServiceEncoder(spec={self.spec!r})"

    @property
    def spec(self) -> str:
        """See `Encoder`."""
        return self._service.spec

    @property
    def name(self) -> str:
        """The service's name for the model."""
        return self._service.model

    @property
    def dim(self) -> int:
        """See `Encoder`; where it is the model's own, one character is sent once, and its vector kept."""
        if self._dim is None:
            self._dim = len(self._probe)
        return self._dim

    @property
    def normalised(self) -> bool:
        """See `Encoder`; of a model that is not renormalised here, told from that same vector."""
        return self._service.renormalise or bool(abs(np.linalg.norm(self._probe.astype(np.float64)) - 1.0) < 1e-3)

    @property
    def max_tokens(self) -> int | None:
        """Tokens that the model reads of a text, None if that is not known."""
        return self._service.max_tokens

    def encode(self, inputs: Sequence[str], *, show_progress: bool = False) -> NDArray[np.float32]:
        """Return one vector for each text; see `Encoder.encode`.

        Raises:
            InputError: an input is not a text; or the service refused the key, the model or the call.
            FliplensError: it was not reached, answered with something else, or the budget is spent. What was answered
                is kept, and the same call goes on from there.
        """
        texts = checked_texts(inputs)
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        cut = 0
        with Progress("encode", total=len(texts), unit="texts", show=show_progress) as bar:
            for batch in self.batches(texts):
                vectors[batch.rows] = batch.vectors
                cut += batch.cut
                bar.update(len(batch.rows))
        if cut:
            warnings.warn(over_long(self, cut, len(texts)), FliplensWarning, stacklevel=2)
        return vectors

    def batches(self, inputs: Sequence[str]) -> Iterator[EncodedBatch]:
        """Yield vectors as they come, those of the cache first; see `BatchEncoder.batches` and `encode`."""
        texts = checked_texts(inputs)
        for start in range(0, len(texts), WINDOW):
            yield from self._window(texts[start : start + WINDOW], start)

    def _window(self, texts: list[str], start: int) -> Iterator[EncodedBatch]:
        """Yield the vectors of some texts, the first of which is row `start`."""
        wanted: dict[bytes, tuple[str, list[int]]] = {}
        for row, text in enumerate(texts, start):
            sent = text if text.strip() else BLANK
            wanted.setdefault(text_key(sent), (sent, []))[1].append(row)
        kept = {key: one for key, one in self._cache.get(list(wanted)).items() if self._fits(one.vector)}
        if kept:
            batch = self._batch([(wanted[key][1], one) for key, one in kept.items()])
            self.usage.cached += len(batch.rows)
            yield batch
        missing = [text for key, (text, _) in wanted.items() if key not in kept]
        for answered in self._answers(missing):
            yield self._batch([(wanted[text_key(text)][1], one) for text, one in answered])

    def _batch(self, found: list[tuple[list[int], Kept]]) -> EncodedBatch:
        """Return the batch of some vectors, each at all of its rows."""
        rows = np.array([row for rows, _ in found for row in rows], dtype=np.int64)
        vectors = np.repeat(np.stack([one.vector for _, one in found]), [len(rows) for rows, _ in found], axis=0)
        return EncodedBatch(rows, vectors, sum(len(rows) for rows, one in found if one.cut))

    def _answers(self, texts: list[str]) -> Iterator[list[tuple[str, Kept]]]:
        """Yield what the service answers, call by call, with a bounded number of calls under way."""
        if not texts:
            return
        stop = threading.Event()
        pool = ThreadPoolExecutor(self._settings.at_once, thread_name_prefix="fliplens-service")
        running: set[Future[list[tuple[str, Kept]]]] = set()
        calls = self._calls(texts)
        try:
            while True:
                while len(running) < self._settings.at_once and (call := next(calls, None)) is not None:
                    running.add(pool.submit(self._answer, call, stop))
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for one in done:
                    yield one.result()
        except CallError as error:
            failure = error
        finally:
            # Those under way are paid for: their answers are waited for, and kept, but none is repeated.
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
        raise self._service.error(failure)

    def _calls(self, texts: list[str]) -> Iterator[list[str]]:
        """Yield the texts of each call."""
        call: list[str] = []
        characters = 0
        for text in texts:
            size = len(text) + self._service.characters_around
            if call and (len(call) == self.batch_size or characters + size > CHARACTERS_A_CALL):
                yield call
                call, characters = [], 0
            call.append(text)
            characters += size
        if call:
            yield call

    def _answer(self, texts: list[str], stop: threading.Event) -> list[tuple[str, Kept]]:
        """Return the vectors of one call's texts, kept by now; of fewer and shorter ones where that is too much."""
        try:
            return self._keep(texts, self._ask(texts, stop), cut=len(texts) * [False])
        except CallError as error:
            failure = error
        if not _too_much(failure):
            raise failure
        if len(texts) > 1:
            half = len(texts) // 2
            return [*self._answer(texts[:half], stop), *self._answer(texts[half:], stop)]
        start = texts[0]
        while _too_much(failure) and len(start) > SHORTEST:
            start = start[: _shorter(len(start), failure.reason)].rstrip() or BLANK
            try:
                return self._keep(texts, self._ask([start], stop), cut=[True])
            except CallError as error:
                failure = error
        shown = " ".join(texts[0][:40].split())
        raise CallError(
            f"{failure.reason}, for the text of {len(texts[0])} characters that starts with {shown!r}",
            status=failure.status,
        )

    def _keep(
        self, texts: list[str], vectors: list[NDArray[np.float32]], *, cut: list[bool]
    ) -> list[tuple[str, Kept]]:
        silent = self._service.silent_after
        found = [
            (text, Kept(vector, known or (silent is not None and len(text) > silent)))
            for text, vector, known in zip(texts, vectors, cut, strict=True)
        ]
        self._cache.put((text_key(text), one) for text, one in found)
        return found

    def _ask(self, texts: list[str], stop: threading.Event) -> list[NDArray[np.float32]]:
        """Return the vectors of one call, made again where that may help.

        Raises:
            CallError: the last one.
            FliplensError: the budget does not allow it.
        """
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
            if self._dim is not None and vector.size != self._dim:
                reason = f"vectors of {vector.size} dimensions instead of {self._dim}"
                if self._service.dim is None:
                    reason += f", as before (if that is another model now, delete {self._cache.path})"
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

    def _fits(self, vector: NDArray[np.float32]) -> bool:
        """Tell whether a kept vector can be one of this model's: a server may have got another model meanwhile."""
        return self._dim is None or vector.shape == (self._dim,)

    @cached_property
    def _probe(self) -> NDArray[np.float32]:
        """One vector to tell size and length by, of the cache if it is there."""
        (batch,) = self._window([BLANK], 0)
        vector: NDArray[np.float32] = batch.vectors[0]
        return vector


def size_option(text: str | None, *, largest: int, spec: str) -> int | None:
    """Return the value of the option dim, None if it was not given.

    Raises:
        InputError: it is no number from 1 to `largest`.
    """
    if text is None:
        return None
    if not re.fullmatch(r"[1-9][0-9]{0,5}", text) or int(text) > largest:
        raise InputError(f"expected dim to be a number from 1 to {largest}, found {text} in {spec}")
    return int(text)


def check_precision(precision: str, *, spec: str) -> None:
    """Refuse to promise how a service multiplies.

    Raises:
        InputError: another precision than auto or float32.
    """
    if precision not in ("auto", "float32"):
        raise InputError(f"expected precision auto for {spec}, found {precision}: a service multiplies as it likes")


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
