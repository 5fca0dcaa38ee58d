"""Any sentence-transformers model, once `loading` has it, as an encoder.

The model's own tokeniser, pooling and normalisation are used. What is added here is the order of work (batches
of similar length with a bounded number of tokens), bfloat16 where the hardware multiplies it fast, BERTs without
padding on a processor (`packed`), and checks on what goes in and comes out.
"""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fliplens.encoders.inputs import checked_texts
from fliplens.encoders.packed import PackedBert
from fliplens.encoders.protocol import EncodedBatch, over_long
from fliplens.errors import FliplensError, FliplensWarning
from fliplens.progress import Progress

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SentenceTransformersEncoder"]

CHUNK = 4096
"""Texts sorted by length together: enough for batches of even length, and few token ids in memory at once."""

TOKENS_A_BATCH_CPU = 1024
"""Tokens, padding included, that go through the model at once: past the processor's caches more is slower."""

TOKENS_A_BATCH_PACKED = 1024
"""The same for one thread of several, each with a batch of its own."""

TOKENS_A_BATCH_ACCELERATOR = 32_768
"""The same where there are thousands of cores to keep busy: what 128 texts of 256 tokens come to."""

_Done: TypeAlias = "tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.bool_]]"
"""Rows of a chunk, their vectors, and for each text of the chunk whether the model reads its start only."""


class SentenceTransformersEncoder:
    """A loaded sentence-transformers model behind the `Encoder` protocol. Made by the functions of `loading`.

    Args:
        model: a `sentence_transformers.SentenceTransformer`, on its device.
        spec: what `load_encoder` takes to get it again.
        name: the Hub id or the folder's name.
        revision: which version of the weights, if known.
        language: ISO 639-1 code, None for several or unknown.
        batch_size: texts in a batch; None bounds the batch's tokens instead.
        precision: "float32", or "bfloat16" for autocast around the model; vectors are float32 all the same.
    """

    modality = "text"

    def __init__(
        self,
        model: Any,
        *,
        spec: str,
        name: str,
        revision: str | None = None,
        language: str | None = None,
        batch_size: int | None = None,
        precision: str = "float32",
    ) -> None:
        self.model = model
        self.spec = spec
        self.name = name
        self.revision = revision
        self.language = language
        self.batch_size = batch_size
        # Asked of the vectors themselves: modules that cut or normalise them differ between versions.
        self.precision = "float32"
        probe = self._vectors(["A probe.", "Another one, of some more words."])
        self.dim = int(probe.shape[1])
        self.normalised = bool(np.allclose(np.linalg.norm(probe, axis=1), 1.0, atol=1e-3))
        self.precision = precision
        self._packed = PackedBert.of(model) if precision == "float32" else None

    def __repr__(self) -> str:
        return f"SentenceTransformersEncoder(spec={self.spec!r}, dim={self.dim}, precision={self.precision!r})"

    @property
    def max_tokens(self) -> int | None:
        """Tokens that the model reads of a text, None if it has no limit."""
        limit = getattr(self.model, "max_seq_length", None)
        # Tokenisers without a limit give infinity, or a number with thirty digits.
        return int(limit) if limit is not None and limit < 1_000_000 else None

    def encode(self, inputs: Sequence[str], *, show_progress: bool = False) -> NDArray[np.float32]:
        """Return one vector for each text; see `Encoder.encode`.

        Texts are taken in chunks, sorted by length within a chunk and put back in order, so that memory does
        not grow with their number beyond the result itself. A vector depends on the other texts of the call
        by rounding only (about 1e-7 in float32).
        """
        texts = checked_texts(inputs)
        vectors = np.empty((len(texts), self.dim), dtype=np.float32)
        cut = 0
        with Progress("encode", total=len(texts), unit="texts", show=show_progress) as bar:
            for batch in self.batches(texts):
                vectors[batch.rows] = batch.vectors
                cut += batch.cut
                bar.update(len(batch.rows))
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            raise FliplensError(
                f"expected finite vectors from {self.name}, found {int((~finite).sum())} that are not, the first "
                f"for text {int(np.argmin(finite)) + 1}: check the model's weights"
            )
        if cut:
            warnings.warn(over_long(self, cut, len(texts)), FliplensWarning, stacklevel=2)
        return vectors

    def batches(self, inputs: Sequence[str]) -> Iterator[EncodedBatch]:
        """Yield the vectors of batches of texts as they are done; see `BatchEncoder.batches`."""
        texts = checked_texts(inputs)
        for start in range(0, len(texts), CHUNK):
            chunk = texts[start : start + CHUNK]
            done = self._whole(chunk) if self._packed is None else self._in_threads(chunk, self._packed)
            for rows, vectors, cut in done:
                yield EncodedBatch(start + rows, vectors, int(cut[rows].sum()))

    def _whole(self, texts: list[str]) -> Iterator[_Done]:
        """Encode a chunk by `SentenceTransformer.encode`, one batch after the other."""
        lengths = self._lengths(texts)
        cut = np.zeros(len(texts), dtype=bool) if self.max_tokens is None else lengths > self.max_tokens
        device = str(getattr(self.model, "device", "cpu")).partition(":")[0]
        budget = TOKENS_A_BATCH_CPU if device == "cpu" else TOKENS_A_BATCH_ACCELERATOR
        for rows in self._batches(np.minimum(lengths, self.max_tokens or lengths), budget):
            yield rows, self._vectors([texts[i] for i in rows]), cut

    def _in_threads(self, texts: list[str], packed: PackedBert) -> Iterator[_Done]:
        """Encode a chunk without padding, a batch on each of torch's threads."""
        import torch

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tokens = packed.tokenise(texts)
        cut = np.zeros(len(texts), dtype=bool)
        if self.max_tokens is not None:
            full = np.flatnonzero(tokens.lengths >= self.max_tokens)
            if len(full):
                cut[full] = self._lengths([texts[i] for i in full]) > self.max_tokens
        workers = torch.get_num_threads()
        # Some four batches a thread, as they never end together; small ones are not worth it.
        budget = min(TOKENS_A_BATCH_PACKED, max(64, int(tokens.lengths.sum()) // (4 * workers)))
        batches = list(self._batches(tokens.lengths, budget))
        for rows, vectors in _each(lambda rows: packed.vectors(tokens, rows), batches, workers):
            yield rows, self._as_expected(vectors, len(rows)), cut

    def _vectors(self, texts: list[str]) -> NDArray[np.float32]:
        """Return (len(texts), d) float32: one batch through the model."""
        import torch

        autocast: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        if self.precision == "bfloat16":
            autocast = torch.autocast(torch.device(self.model.device).type, dtype=torch.bfloat16)
        with warnings.catch_warnings(), autocast:
            # Advice to its callers from inside torch and transformers is nothing that our caller can act on.
            warnings.simplefilter("ignore")
            output = self.model.encode(texts, batch_size=len(texts), show_progress_bar=False, convert_to_tensor=True)
        vectors = self._as_expected(output.detach().float().cpu().numpy(), len(texts))
        if self.precision == "bfloat16" and self.normalised:
            # Eight bits of a length are not enough to call it 1.
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
        return vectors

    def _as_expected(self, vectors: NDArray[np.float32], n: int) -> NDArray[np.float32]:
        """Return vectors once they are one for each of n texts."""
        vectors = np.ascontiguousarray(vectors)
        expected = (n, getattr(self, "dim", vectors.shape[-1]))
        if vectors.shape != expected:
            raise FliplensError(
                f"expected vectors of shape {expected} from {self.name}, found {vectors.shape}: "
                "this model does not give one vector a text"
            )
        return vectors

    def _lengths(self, texts: list[str]) -> NDArray[np.int64]:
        """Return the number of tokens of each text, beyond the model's limit too.

        All texts are counted: tokenising costs a hundredth of encoding, and no bound from the number of
        characters is safe (byte-level tokenisers give up to four tokens for one). Models without a
        transformers tokeniser are sorted by characters, and cut what they cut unnoticed.
        """
        from transformers import PreTrainedTokenizerBase

        tokenizer = getattr(self.model, "tokenizer", None)
        if not isinstance(tokenizer, PreTrainedTokenizerBase):
            lengths = np.array([len(text) for text in texts], dtype=np.int64)
            return np.minimum(lengths, self.max_tokens or lengths)
        prompt = self.model.prompts.get(self.model.default_prompt_name or "", "") or ""
        tokens = tokenizer(
            [prompt + text for text in texts] if prompt else texts,
            truncation=False,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        return np.array([len(row) for row in tokens], dtype=np.int64)

    def _batches(self, lengths: NDArray[np.int64], budget: int) -> Iterator[NDArray[np.int64]]:
        """Yield the positions of texts that go through the model together, the longest first.

        The longest come first so that a batch too large for the memory fails at once and not at the end.
        """
        order = np.argsort(-lengths, kind="stable")
        start = 0
        while start < len(order):
            longest = max(1, int(lengths[order[start]]))
            size = self.batch_size or max(1, budget // longest)
            yield order[start : start + size]
            start += size


def _each(
    work: Callable[[NDArray[np.int64]], NDArray[np.float32]], batches: list[NDArray[np.int64]], workers: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Yield each batch with what `work` makes of it, in order, several at once on threads of one core each."""
    import torch

    if workers == 1 or len(batches) == 1:
        for batch in batches:
            yield batch, work(batch)
        return
    threads = torch.get_num_threads()
    ready = threading.Barrier(workers + 1)

    def one_core() -> None:
        torch.set_num_threads(1)
        ready.wait()

    pool = ThreadPoolExecutor(workers, initializer=one_core, thread_name_prefix="fliplens-encode")
    try:
        # A thread of the pool starts with a piece of work; all of them start before the first one is free again.
        pending = [pool.submit(int) for _ in range(workers)]
        ready.wait()
        # torch keeps a number for each thread, and the last one set for those to come: that one is put back.
        torch.set_num_threads(threads)
        results = [pool.submit(work, batch) for batch in batches]
        for one in pending:
            one.result()
        for batch, result in zip(batches, results, strict=True):
            yield batch, result.result()
    finally:
        ready.abort()
        pool.shutdown(wait=True, cancel_futures=True)
