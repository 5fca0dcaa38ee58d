"""Pooled hidden states of a transformers text model as an encoder; `hf` and `sonar_text` load such models.

Texts are padded here, always on the right, and masked; what is pooled is the real tokens alone. That makes a vector
the same whatever a model's tokeniser would do, and whatever stands in the batch beside it. A model whose vectors
depend on padding all the same (one that mixes neighbours without a mask) is found by a probe, and given batches of
one length.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from fliplens.encoders.batching import (
    CHUNK,
    Done,
    LocalTextEncoder,
    by_length,
    on_each_core,
    own_threads,
    tokens_a_batch,
    tokens_a_core,
)
from fliplens.encoders.collecting import check_finite, warn_of_cut
from fliplens.encoders.inputs import checked_texts
from fliplens.encoders.layers import LayerReader
from fliplens.encoders.specs import Spec
from fliplens.errors import FliplensError, InputError
from fliplens.progress import Progress

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

__all__ = ["POOLINGS", "HiddenStateEncoder", "TextModel", "Tokens"]

POOLINGS = ("mean", "cls", "last")
"""How the states of a text's tokens become one vector: their mean, the first token's, the last one's."""

PROBES = ("A probe.", "Another one, of some more words than the first, and then a few more.", "One")

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Tokens:
    """Texts as a model's own tokeniser cuts them, over-long ones cut off."""

    per_text: Mapping[str, list[list[int]]]
    """`input_ids` and, if the model has them, `token_type_ids`; n lists each."""
    lengths: NDArray[np.int64]
    """Tokens of each text, (n,)."""
    cut: NDArray[np.bool_]
    """Which texts were cut off, (n,)."""


class TextModel:
    """A transformers model and its tokeniser: texts to padded batches, batches to hidden states.

    Args:
        model: a model without a head, or the encoder of one, on its device.
        tokenizer: its tokeniser.
        name: what messages call the model.

    Raises:
        InputError: the model gives no hidden states of its tokens.
    """

    def __init__(self, model: Any, tokenizer: Any, *, name: str) -> None:
        self.name = name
        self.model = model.eval()
        if hasattr(model.config, "use_cache"):
            # What a decoder keeps for the next word is of no use here.
            model.config.use_cache = False
        self.tokenizer = tokenizer
        self.tokenizer.truncation_side = "right"
        self._lock = threading.Lock()
        self.max_tokens = _longest(model, tokenizer)
        takes = inspect.signature(model.forward).parameters
        names = ["input_ids", *(one for one in tokenizer.model_input_names if one == "token_type_ids")]
        self._names = [one for one in names if one in takes]
        self.reader = LayerReader(model, self.batch(self.tokenise(PROBES[:1]), np.array([0])), name=name)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = next(self.model.parameters()).device
        return device

    def with_tokenizer(self, tokenizer: Any) -> TextModel:
        """Return the same model behind another tokeniser of the same tokens."""
        other = copy.copy(self)
        other.tokenizer = tokenizer
        other._lock = threading.Lock()
        return other

    def tokenise(self, texts: Sequence[str]) -> Tokens:
        """Cut texts into tokens, special ones included.

        A text without any token (an empty one, of a tokeniser that adds none) becomes the token that begins texts,
        or else one that ends or pads them.
        """
        # A tokeniser is told to cut in one call and not to in the next: no other thread may come between.
        with self._lock:
            per_text = self._cut_into_tokens(list(texts), truncation=False)
            lengths = np.array([len(row) for row in per_text["input_ids"]], dtype=np.int64)
            cut = np.zeros(len(texts), dtype=bool)
            if self.max_tokens is not None and (lengths > self.max_tokens).any():
                cut = lengths > self.max_tokens
                rows = np.flatnonzero(cut).tolist()
                shorter = self._cut_into_tokens([texts[i] for i in rows], truncation=True, max_length=self.max_tokens)
                for name, values in shorter.items():
                    for row, value in zip(rows, values, strict=True):
                        per_text[name][row] = value
                lengths[rows] = [len(row) for row in shorter["input_ids"]]
        for row in np.flatnonzero(lengths == 0).tolist():
            per_text["input_ids"][row] = [self._nothing()]
            if "token_type_ids" in per_text:
                per_text["token_type_ids"][row] = [0]
        return Tokens(per_text, np.maximum(lengths, 1), cut)

    def batch(self, tokens: Tokens, rows: NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """Return what the model's forward takes for some texts: (k, longest) each, padded on the right."""
        import torch

        lengths = tokens.lengths[rows]
        mask = np.arange(int(lengths.max())) < lengths[:, None]
        pads = {"input_ids": self.tokenizer.pad_token_id, "token_type_ids": self.tokenizer.pad_token_type_id}
        batch = {"attention_mask": mask.astype(np.int64)}
        for name in self._names:
            values = np.full(mask.shape, pads[name] or 0, dtype=np.int64)
            values[mask] = np.concatenate([tokens.per_text[name][row] for row in rows])
            batch[name] = values
        return {name: torch.from_numpy(values).to(self.device) for name, values in batch.items()}

    def _cut_into_tokens(self, texts: list[str], **settings: Any) -> dict[str, list[list[int]]]:
        found = self.tokenizer(
            texts,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids="token_type_ids" in self._names,
            verbose=False,
            **settings,
        )
        return {name: list(found[name]) for name in self._names}

    def _nothing(self) -> int:
        for kind in ("bos", "cls", "eos", "sep", "pad", "unk"):
            token = getattr(self.tokenizer, f"{kind}_token_id", None)
            if token is not None:
                return int(token)
        raise FliplensError(
            f"expected a token for an empty text, found none: the tokeniser of {self.name} has no special tokens"
        )


class HiddenStateEncoder(LocalTextEncoder):
    """One pooled hidden state of a text model behind the `Encoder` protocol. Made by `hf` and `sonar_text`.

    Args:
        model: the loaded model.
        spec: what `load_encoder` takes to get it again.
        layer: which hidden state: 0 the embeddings, negative from the end.
        pool: one of `POOLINGS`; `cls` and `last` are the first and the last real token.
        normalise: scale vectors to unit length.
        revision: which version of the weights, if known.
        batch_size: texts in a batch; None bounds the batch's tokens instead.
        precision: "float32", or "bfloat16" for autocast around the model; vectors are float32 all the same.

    Raises:
        InputError: the model has no such layer.
    """

    def __init__(
        self,
        model: TextModel,
        *,
        spec: Spec,
        layer: int = -1,
        pool: str = "mean",
        normalise: bool = False,
        revision: str | None = None,
        batch_size: int | None = None,
        precision: str = "float32",
    ) -> None:
        super().__init__(spec=str(spec), name=model.name, revision=revision, batch_size=batch_size)
        self.text_model = model
        self.pool = pool
        self.normalised = normalise
        self._parsed = spec
        self._set_layer(layer)
        self._even = self._depends_on_padding()
        self.precision = precision

    @property
    def max_tokens(self) -> int | None:
        """Tokens that the model reads of a text, None if it has no limit."""
        return self.text_model.max_tokens

    @property
    def n_layers(self) -> int:
        """How many layers the model has; it has one hidden state more, the embeddings."""
        return self.text_model.reader.layers

    def with_layer(self, layer: int) -> HiddenStateEncoder:
        """Return an encoder of another layer of the same model, which is neither loaded nor held a second time.

        Raises:
            InputError: the model has no such layer.
        """
        other = copy.copy(self)
        other._parsed = self._parsed.with_option("layer", str(layer))
        other.spec = str(other._parsed)
        other._set_layer(layer)
        return other

    def encode_layers(self, inputs: Sequence[str], *, show_progress: bool = False) -> NDArray[np.float32]:
        """Return the pooled hidden states of every layer, from a single pass over the texts.

        Args:
            inputs: n texts.
            show_progress: show a bar on stderr.

        Returns:
            (n_layers + 1, n, d) float32: what `encode` gives of layer 0, 1, ..., n_layers.

        Raises:
            InputError: an input is not a text, or the layers' states differ in size.
            FliplensError: vectors that are not finite.

        Warns:
            FliplensWarning: the model read only the start of some texts.
        """
        texts = checked_texts(inputs)
        if len(set(self.text_model.reader.dims)) > 1:
            sizes = ", ".join(map(str, self.text_model.reader.dims))
            raise InputError(
                f"expected layers of one size in {self.name}, found {sizes}: encode them one by one, with_layer(K)"
            )
        vectors = np.empty((self.n_layers + 1, len(texts), self.dim), dtype=np.float32)
        cut = 0
        layers = range(self.n_layers + 1)
        with Progress("encode", total=len(texts), unit="texts", show=show_progress) as bar:
            for start in range(0, len(texts), CHUNK):
                chunk = self.text_model.tokenise(texts[start : start + CHUNK])
                cut += int(chunk.cut.sum())
                for rows, pooled in self._batches(chunk, partial(self._pooled, chunk, layers=layers)):
                    for layer in layers:
                        vectors[layer, start + rows] = pooled[layer]
                    bar.update(len(rows))
        for of_one_layer in vectors:
            check_finite(of_one_layer, self)
        warn_of_cut(self, cut, len(texts))
        return vectors

    def _chunk(self, texts: list[str]) -> Iterator[Done]:
        tokens = self.text_model.tokenise(texts)
        layer = self.layer
        for rows, pooled in self._batches(tokens, partial(self._pooled, tokens, layers=[layer])):
            yield rows, pooled[layer], tokens.cut

    def _batches(
        self, tokens: Tokens, work: Callable[[NDArray[np.int64]], _Result]
    ) -> Iterator[tuple[NDArray[np.int64], _Result]]:
        """Yield what `work` makes of batches of texts, several of them at once on a processor."""
        kind = self.text_model.device.type
        workers = own_threads() if kind == "cpu" else 1
        budget = tokens_a_batch(kind) if workers == 1 else tokens_a_core(int(tokens.lengths.sum()), workers)
        batches = list(by_length(tokens.lengths, budget, size=self.batch_size, even=self._even))
        return on_each_core(work, batches, workers)

    def _pooled(
        self, tokens: Tokens, rows: NDArray[np.int64], layers: Sequence[int] | range
    ) -> dict[int, NDArray[np.float32]]:
        """Return layer → (k, its dimensions): one batch through the model, for the layers that are wanted."""
        import torch

        batch = self.text_model.batch(tokens, rows)
        # Autocast is a state of the thread, and this may run in any.
        autocast: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        if self.precision == "bfloat16":
            autocast = torch.autocast(self.text_model.device.type, dtype=torch.bfloat16)
        pooled: dict[int, torch.Tensor] = {}

        def keep(layer: int, states: torch.Tensor) -> None:
            pooled[layer] = self._pool(states, batch["attention_mask"])

        with torch.inference_mode(), autocast:
            self.text_model.reader.run(batch, layers, keep)
        return {layer: vectors.cpu().numpy() for layer, vectors in pooled.items()}

    def _pool(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return (k, d) float32 of hidden states, (k, t, d), whose real tokens `mask`, (k, t), tells."""
        import torch

        lengths = mask.sum(dim=1)
        if self.pool == "mean":
            # What stands under padding may be anything, NaN too: it is replaced, not multiplied by 0.
            vectors = states.float().masked_fill(mask[:, :, None] == 0, 0).sum(dim=1) / lengths[:, None]
        elif self.pool == "cls":
            vectors = states[:, 0].float()
        else:
            vectors = states[torch.arange(len(states), device=states.device), lengths - 1].float()
        return torch.nn.functional.normalize(vectors, dim=1) if self.normalised else vectors

    def _set_layer(self, layer: int) -> None:
        n = self.n_layers
        if not -n - 1 <= layer <= n:
            raise InputError(
                f"expected layer=0 (the embeddings) to {n} of {self.name}, or -1 (the last) to {-n - 1}, found "
                f"{layer}: name one of its {n + 1}"
            )
        self.layer = layer % (n + 1)
        self.dim = self.text_model.reader.dims[self.layer]

    def _depends_on_padding(self) -> bool:
        """Tell whether the vectors of a few texts change with the padding beside them."""
        tokens = self.text_model.tokenise(PROBES)
        last = [self.n_layers]
        together = self._pooled(tokens, np.arange(len(PROBES)), last)[self.n_layers]
        alone = np.concatenate(
            [self._pooled(tokens, np.array([row]), last)[self.n_layers] for row in range(len(PROBES))]
        )
        return not np.allclose(together, alone, rtol=1e-3, atol=1e-4 * max(1e-6, float(np.abs(alone).max())))


def _longest(model: Any, tokenizer: Any) -> int | None:
    """Return how many tokens model and tokeniser take, None if neither has a limit."""
    limits = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None)]
    for name, module in model.named_modules():
        # RoBERTa and its kin count positions from behind the padding's.
        table: Any = getattr(module, "position_embeddings", None)
        if "embed" in name and hasattr(table, "num_embeddings") and table.padding_idx is not None:
            limits.append(table.num_embeddings - table.padding_idx - 1)
    # Tokenisers without a limit give a number with thirty digits, models with relative positions -1 or none.
    known = [int(limit) for limit in limits if isinstance(limit, int) and 0 < limit < 1_000_000]
    return min(known, default=None)
