"""Encoders that are services on the network: what they have in common, whichever service it is.

A text that was answered once is read from the cache; the others are sent once each, some a call and some calls at a
time, and kept the moment their answer is there.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from fliplens.encoders.collecting import encode_all
from fliplens.encoders.inputs import checked_texts
from fliplens.encoders.protocol import EncodedBatch
from fliplens.encoders.service_calls import BLANK, EmbeddingService, ServiceCalls, Usage
from fliplens.errors import InputError
from fliplens.services.budget import Budget
from fliplens.services.calls import CallError, CallSettings
from fliplens.services.vector_cache import Kept, VectorCache, cache_folder, text_key

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ServiceEncoder", "check_precision", "size_option"]

WINDOW = 4096
"""Texts looked up, and held as vectors, at once."""


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
        self._service = service
        self._settings = settings or CallSettings.from_environment()
        self._cache = cache or VectorCache(cache_folder(), service.space)
        self.batch_size = batch_size or service.texts_a_call
        self._calls = ServiceCalls(
            service,
            settings=self._settings,
            budget=budget or Budget.from_environment(),
            texts_a_call=self.batch_size,
            kept_in=self._cache.path,
        )

    def __repr__(self) -> str:
        return f"ServiceEncoder(spec={self.spec!r})"

    @property
    def usage(self) -> Usage:
        """What it cost so far."""
        return self._calls.usage

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
        if self._calls.dim is None:
            self._calls.dim = len(self._probe)
        return self._calls.dim

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
        return encode_all(self, checked_texts(inputs), show_progress=show_progress)

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
            self._calls.count_cached(len(batch.rows))
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
        calls = self._calls.split(texts)
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

    def _answer(self, call: list[str], stop: threading.Event) -> list[tuple[str, Kept]]:
        """Return the vectors of one call's texts, each kept the moment it came."""
        found: list[tuple[str, Kept]] = []
        for answer in self._calls.answers(call, stop):
            kept = list(map(Kept, answer.vectors, answer.cut))
            self._cache.put(zip(map(text_key, answer.texts), kept, strict=True))
            found += zip(answer.texts, kept, strict=True)
        return found

    def _fits(self, vector: NDArray[np.float32]) -> bool:
        """Tell whether a kept vector can be one of this model's: a server may have got another model meanwhile."""
        return self._calls.dim is None or vector.shape == (self._calls.dim,)

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
        raise InputError(
            f"expected dim= as a number from 1 to {largest}, found {text} in {spec}: name one, or leave dim out"
        )
    return int(text)


def check_precision(precision: str, *, spec: str) -> None:
    """Refuse to promise how a service multiplies.

    Raises:
        InputError: another precision than auto or float32.
    """
    if precision not in ("auto", "float32"):
        raise InputError(
            f"expected the precision auto for {spec}, found {precision}: leave it out, as a service multiplies as it "
            "likes"
        )
