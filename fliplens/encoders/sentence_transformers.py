"""Any sentence-transformers model, once `loading` has it, as an encoder.

The model's own tokeniser, pooling and normalisation are used. What is added here is the order of work (batches
of similar length with a bounded number of tokens), bfloat16 where the hardware multiplies it fast, BERTs without
padding on a processor (`packed`), and vectors cut to their first numbers where that is asked for.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from fliplens.encoders.batching import (
    Done,
    LocalTextEncoder,
    by_length,
    on_each_core,
    own_threads,
    tokens_a_batch,
    tokens_a_core,
)
from fliplens.encoders.collecting import check_shape
from fliplens.encoders.packed import PackedBert
from fliplens.errors import InputError
from fliplens.pretrained import quiet

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SentenceTransformersEncoder"]


class SentenceTransformersEncoder(LocalTextEncoder):
    """A loaded sentence-transformers model behind the `Encoder` protocol. Made by the functions of `loading`.

    Args:
        model: a `sentence_transformers.SentenceTransformer`, on its device.
        spec: what `load_encoder` takes to get it again.
        name: the Hub id or the folder's name.
        revision: which version of the weights, if known.
        language: ISO 639-1 code, None for several or unknown.
        batch_size: texts in a batch; None bounds the batch's tokens instead.
        precision: "float32", or "bfloat16" for autocast around the model; vectors are float32 all the same.
        dim: keep only the first so many numbers of a vector (of models trained for it), of unit length again
            where the model gives unit length; None keeps all.

    Raises:
        InputError: `dim` is more than the model gives.
    """

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
        dim: int | None = None,
    ) -> None:
        super().__init__(spec=spec, name=name, revision=revision, language=language, batch_size=batch_size)
        self.model = model
        # A tokeniser is told to cut or to pad in one call and not to in the next: no other thread may come between.
        self._lock = threading.Lock()
        # Asked of the vectors themselves: modules that cut or normalise them differ between versions.
        probe = self._of_model(["A probe.", "Another one, of some more words."])
        self.full_dim = int(probe.shape[1])
        self.normalised = bool(np.allclose(np.linalg.norm(probe, axis=1), 1.0, atol=1e-3))
        if dim is not None and not 1 <= dim <= self.full_dim:
            raise InputError(
                f"expected dim=1 to {self.full_dim} of {name}, found {dim}: name one of these, or leave dim out for "
                "all"
            )
        self.dim = dim or self.full_dim
        self.precision = precision
        self._packed = PackedBert.of(model) if precision == "float32" else None

    @property
    def max_tokens(self) -> int | None:
        """Tokens that the model reads of a text, None if it has no limit."""
        limit = getattr(self.model, "max_seq_length", None)
        # Tokenisers without a limit give infinity, or a number with thirty digits.
        return int(limit) if limit is not None and limit < 1_000_000 else None

    def _chunk(self, texts: list[str]) -> Iterator[Done]:
        return self._whole(texts) if self._packed is None else self._in_threads(texts, self._packed)

    def _whole(self, texts: list[str]) -> Iterator[Done]:
        """Encode a chunk by `SentenceTransformer.encode`, one batch after the other."""
        lengths = self._lengths(texts)
        cut = np.zeros(len(texts), dtype=bool) if self.max_tokens is None else lengths > self.max_tokens
        budget = tokens_a_batch(str(getattr(self.model, "device", "cpu")).partition(":")[0])
        for rows in by_length(np.minimum(lengths, self.max_tokens or lengths), budget, size=self.batch_size):
            yield rows, self._finished(self._of_model([texts[i] for i in rows]), len(rows)), cut

    def _in_threads(self, texts: list[str], packed: PackedBert) -> Iterator[Done]:
        """Encode a chunk without padding, a batch on each of torch's threads."""
        with self._lock, quiet():
            tokens = packed.tokenise(texts)
        cut = np.zeros(len(texts), dtype=bool)
        if self.max_tokens is not None:
            full = np.flatnonzero(tokens.lengths >= self.max_tokens)
            if len(full):
                cut[full] = self._lengths([texts[i] for i in full]) > self.max_tokens
        workers = own_threads()
        budget = tokens_a_core(int(tokens.lengths.sum()), workers)
        batches = list(by_length(tokens.lengths, budget, size=self.batch_size))
        for rows, vectors in on_each_core(lambda rows: packed.vectors(tokens, rows), batches, workers):
            yield rows, self._finished(vectors, len(rows)), cut

    def _of_model(self, texts: list[str]) -> NDArray[np.float32]:
        """Return what the model gives for texts, float32: one batch."""
        import torch

        autocast: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        if self.precision == "bfloat16":
            autocast = torch.autocast(torch.device(self.model.device).type, dtype=torch.bfloat16)
        # Advice to its callers from inside torch and transformers is nothing that our caller can act on.
        with self._lock, quiet(), autocast:
            output = self.model.encode(texts, batch_size=len(texts), show_progress_bar=False, convert_to_tensor=True)
        vectors: NDArray[np.float32] = output.detach().float().cpu().numpy()
        return vectors

    def _finished(self, vectors: NDArray[np.float32], n: int) -> NDArray[np.float32]:
        """Return (n, d) vectors from what the model gave: checked, cut to `dim`, and of unit length again."""
        check_shape(vectors, (n, self.full_dim), self)
        if self.dim < self.full_dim:
            vectors = np.ascontiguousarray(vectors[:, : self.dim])
        elif self.precision == "float32":
            return np.ascontiguousarray(vectors)
        if self.normalised:
            # Some numbers of a vector are shorter than all; and eight bits of a length are not enough to call it 1.
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
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
        with self._lock:
            tokens = tokenizer(
                [prompt + text for text in texts] if prompt else texts,
                truncation=False,
                padding=False,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,
            )["input_ids"]
        return np.array([len(row) for row in tokens], dtype=np.int64)
