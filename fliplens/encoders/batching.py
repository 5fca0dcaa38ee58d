"""What text encoders that run on the machine share, whatever library runs them.

Texts are taken in chunks and sorted by length within a chunk, so that batches hold texts of similar length and a
bounded number of tokens, and memory does not grow with the number of texts. Small batches go through a model on a
processor several at once, one on each core. What goes in and what comes out is checked.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from fliplens.encoders.collecting import encode_all
from fliplens.encoders.inputs import checked_texts
from fliplens.encoders.protocol import EncodedBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "CHUNK",
    "Done",
    "LocalTextEncoder",
    "by_length",
    "on_each_core",
    "own_threads",
    "tokens_a_batch",
    "tokens_a_core",
]

CHUNK = 4096
"""Texts sorted by length together: enough for batches of even length, and few token ids in memory at once."""

TOKENS_A_BATCH_CPU = 1024
"""Tokens, padding included, that go through the model at once: past the processor's caches more is slower."""

TOKENS_A_BATCH_CORE = 1024
"""The same for one thread of several, each with a batch of its own."""

TOKENS_A_BATCH_ACCELERATOR = 32_768
"""The same where there are thousands of cores to keep busy: what 128 texts of 256 tokens come to."""

Done: TypeAlias = "tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]"
"""Rows of a chunk, their vectors, and for each text of the chunk whether the model reads its start only."""

_Result = TypeVar("_Result")


class LocalTextEncoder(ABC):
    """A text encoder that runs here: the `BatchEncoder` protocol around a model's batches.

    A subclass sets `dim` and `normalised`, and says how one chunk of texts is encoded.

    Args:
        spec: what `load_encoder` takes to get it again.
        name: the Hub id or the folder's name.
        revision: which version of the weights, if known.
        language: ISO 639-1 code, None for several or unknown.
        batch_size: texts in a batch; None bounds the batch's tokens instead.
        precision: "float32", or "bfloat16" for autocast around the model; vectors are float32 all the same.
    """

    modality = "text"
    dim: int
    """d, the size of a vector."""
    normalised: bool
    """Whether vectors have unit length."""

    def __init__(
        self,
        *,
        spec: str,
        name: str,
        revision: str | None = None,
        language: str | None = None,
        batch_size: int | None = None,
        precision: str = "float32",
    ) -> None:
        self.spec = spec
        self.name = name
        self.revision = revision
        self.language = language
        self.batch_size = batch_size
        self.precision = precision

    def __repr__(self) -> str:
        return f"{type(self).__name__}(spec={self.spec!r}, dim={self.dim}, precision={self.precision!r})"

    @property
    @abstractmethod
    def max_tokens(self) -> int | None:
        """Tokens that the model reads of a text, None if it has no limit."""

    @abstractmethod
    def _chunk(self, texts: list[str]) -> Iterator[Done]:
        """Yield the vectors of some texts, at most `CHUNK`, batch by batch in any order."""

    def encode(self, inputs: Sequence[str], *, show_progress: bool = False) -> NDArray[np.float32]:
        """Return one vector for each text; see `Encoder.encode`.

        A vector depends on the other texts of the call by rounding only (about 1e-7 in float32).
        """
        return encode_all(self, checked_texts(inputs), show_progress=show_progress)

    def batches(self, inputs: Sequence[str]) -> Iterator[EncodedBatch]:
        """Yield the vectors of batches of texts as they are done; see `BatchEncoder.batches`."""
        texts = checked_texts(inputs)
        for start in range(0, len(texts), CHUNK):
            for rows, vectors, cut in self._chunk(texts[start : start + CHUNK]):
                yield EncodedBatch(start + rows, vectors, int(cut[rows].sum()))


def tokens_a_batch(device: str) -> int:
    """Return how many tokens go through a model at once on a device of this kind ("cpu", "cuda", "mps")."""
    return TOKENS_A_BATCH_CPU if device == "cpu" else TOKENS_A_BATCH_ACCELERATOR


def tokens_a_core(total: int, workers: int) -> int:
    """Return the same for each of several cores, of texts with `total` tokens."""
    # Some four batches a thread, as they never end together; small ones are not worth it.
    return min(TOKENS_A_BATCH_CORE, max(64, total // (4 * workers)))


def by_length(
    lengths: NDArray[np.int64], budget: int, *, size: int | None = None, even: bool = False
) -> Iterator[NDArray[np.int64]]:
    """Yield the positions of texts that go through the model together, the longest first.

    The longest come first so that a batch too large for the memory fails at once and not at the end.

    Args:
        lengths: tokens of each text, (n,).
        budget: tokens a batch, padding included; a single text may have more.
        size: texts a batch, instead of the budget.
        even: batches of one length only, which need no padding.
    """
    order = np.argsort(-lengths, kind="stable")
    ordered = lengths[order]
    start = 0
    while start < len(order):
        longest = max(1, int(ordered[start]))
        end = start + (size or max(1, budget // longest))
        if even:
            end = min(end, int(np.searchsorted(-ordered, -ordered[start], side="right")))
        yield order[start:end]
        start = end


_SETTING_THREADS = threading.Lock()
"""Held while the number of threads that torch gives to threads to come is not the caller's."""


def own_threads() -> int:
    """Return how many threads torch works on in the caller's thread."""
    import torch

    # A thread's number is that of the moment when it first asks: never in between.
    with _SETTING_THREADS:
        return torch.get_num_threads()


def on_each_core(
    work: Callable[[NDArray[np.int64]], _Result], batches: list[NDArray[np.int64]], workers: int
) -> Iterator[tuple[NDArray[np.int64], _Result]]:
    """Yield each batch with what `work` makes of it, in order, several at once on threads of one core each.

    Args:
        work: from a batch to its result; called from several threads.
        batches: what to work on.
        workers: how many at once; 1 works in the caller's thread with all of torch's own.
    """
    import torch

    if workers == 1 or len(batches) == 1:
        for batch in batches:
            yield batch, work(batch)
        return
    threads = own_threads()
    ready = threading.Barrier(workers + 1)

    def one_core() -> None:
        torch.set_num_threads(1)
        ready.wait()

    pool = ThreadPoolExecutor(workers, initializer=one_core, thread_name_prefix="fliplens-encode")
    met = False
    try:
        with _SETTING_THREADS:
            # A thread of the pool starts with a piece of work; all of them start before the first one is free again.
            pending: list[Any] = [pool.submit(int) for _ in range(workers)]
            ready.wait()
            met = True
            # torch keeps a number for each thread, and the last one set for those to come: that one is put back.
            torch.set_num_threads(threads)
        results = [pool.submit(work, batch) for batch in batches]
        for one in pending:
            one.result()
        for batch, result in zip(batches, results, strict=True):
            yield batch, result.result()
    finally:
        # Once all have met, a thread may still have to wake up: breaking the barrier then would fail it, and the pool
        # would wait for it for ever. Those that still wait for the others must be let go.
        if not met:
            ready.abort()
        pool.shutdown(wait=True, cancel_futures=True)
