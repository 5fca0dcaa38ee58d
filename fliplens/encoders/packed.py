"""BERT without padding: sentences of any length side by side in one row of tokens.

sentence-transformers pads the sentences of a batch to one length and masks the padding. Here the tokens of a
batch lie end to end, so that no product touches padding, and attention runs over the sentences of each length
together, which need no mask. The model's own modules do the rest, pooling included: what comes out differs from
`SentenceTransformer.encode` by rounding only (about 1e-7). Nothing is shared between batches, so several threads
can each take one; that uses a processor better than several threads in one product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

__all__ = ["PackedBert", "Tokens"]

LONG = 64
"""Tokens from which attention by blocks (`scaled_dot_product_attention`) beats whole matrices of scores."""

PER_TOKEN = ("input_ids", "token_type_ids")


@dataclass(frozen=True)
class Tokens:
    """Texts as a model's own tokeniser cuts them, end to end: text i is `starts[i]` to `starts[i + 1]`."""

    per_token: Mapping[str, NDArray[np.int64]]
    """`input_ids` and, if the model has them, `token_type_ids`; each (t,)."""
    starts: NDArray[np.int64]
    """(n + 1,)."""
    constants: Mapping[str, Any]
    """What else the model's modules are told, the same for every text."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text, (n,)."""
        lengths: NDArray[np.int64] = np.diff(self.starts)
        return lengths


class PackedBert:
    """A sentence-transformers model on a BERT, run without padding. Made by `PackedBert.of`.

    Args:
        model: a `sentence_transformers.SentenceTransformer` that `of` accepts.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._bert = model[0].model
        self._after = list(model)[1:]
        attention = self._bert.encoder.layer[0].attention.self
        self._heads, self._size = attention.num_attention_heads, attention.attention_head_size

    @classmethod
    def of(cls, model: Any) -> PackedBert | None:
        """Return the packed form of a model, None for one of which it is not known that both are the same.

        Taken are float32 models on the processor whose first module is a plain BERT read as token vectors
        (MiniLM, LaBSE, BGE, E5 and GTE among them), followed by pooling, dense layers and normalisation.
        Other modules, hooks, compiled models and other precisions are left to sentence-transformers, and so is a
        model whose vectors of a few probes are not the same both ways.
        """
        import torch

        try:
            from sentence_transformers import SentenceTransformer
            from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
            from transformers.models.bert import modeling_bert as bert
        except ImportError:  # an older sentence-transformers
            return None

        modules = list(model) if type(model) is SentenceTransformer else []
        if len(modules) < 2 or type(modules[0]) is not Transformer or type(modules[0].model) is not bert.BertModel:
            return None
        first, config = modules[0], modules[0].model.config
        as_published = (
            all(type(module) in (Pooling, Dense, Normalize) for module in modules[1:])
            and first.modality_config.get("text") == {"method": "forward", "method_output_name": "last_hidden_state"}
            and first.module_output_name == "token_embeddings"
            and model.truncate_dim is None
            and model.tokenizer.padding_side == "right"
            and not (config.is_decoder or config.add_cross_attention)
            and getattr(config, "position_embedding_type", None) in (None, "absolute")
            # What runs below in place of these three is their arithmetic and no more.
            and all(
                (type(layer), type(layer.attention), type(layer.attention.self))
                == (bert.BertLayer, bert.BertAttention, bert.BertSelfAttention)
                for layer in first.model.encoder.layer
            )
        )
        if not (
            as_published
            and all(one.dtype == torch.float32 and one.device.type == "cpu" for one in model.parameters())
            and not any(
                one._forward_hooks or one._forward_pre_hooks or "forward" in vars(one) or one._compiled_call_impl
                for one in model.modules()
            )
        ):
            return None
        packed = cls(model)
        return packed if packed._agrees() else None

    def tokenise(self, texts: Sequence[str]) -> Tokens:
        """Cut texts into the tokens that the model reads, prompt included, over-long ones cut off."""
        model = self._model
        prompt = model.prompts.get(model.default_prompt_name) if model.default_prompt_name is not None else None
        features = model.preprocess(list(texts), prompt=prompt)
        mask = features["attention_mask"].bool().numpy()
        per_token = {name: features[name].numpy()[mask] for name in PER_TOKEN if name in features}
        constants = {name: value for name, value in features.items() if name not in (*PER_TOKEN, "attention_mask")}
        if any(getattr(value, "ndim", 0) for value in constants.values()):
            raise TypeError(
                f"expected tokens and constants, found one more value a text among {', '.join(constants)}"
            )
        return Tokens(per_token, np.concatenate([[0], np.cumsum(mask.sum(axis=1))]), constants)

    def vectors(self, tokens: Tokens, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the vectors of some texts, (k, d): one batch through the model.

        Args:
            tokens: of `tokenise`.
            rows: which texts, those of one length next to each other.
        """
        import torch

        lengths = tokens.lengths[rows]
        where = np.concatenate([np.arange(tokens.starts[row], tokens.starts[row + 1]) for row in rows])
        per_token = {name: torch.from_numpy(values[where]) for name, values in tokens.per_token.items()}
        first = np.flatnonzero(np.diff(lengths, prepend=-1))
        groups = [
            (int(lengths[i]), int(count)) for i, count in zip(first, np.diff(first, append=len(rows)), strict=True)
        ]
        with torch.inference_mode():
            hidden = self._token_vectors(per_token, groups)
            found, start = [], 0
            for length, count in groups:
                here = slice(start, start := start + length * count)
                features = {
                    **tokens.constants,
                    **{name: values[here].view(count, length) for name, values in per_token.items()},
                    "attention_mask": torch.ones((count, length), dtype=torch.int64),
                    "token_embeddings": hidden[here].view(count, length, -1),
                }
                for module in self._after:
                    features = module(features)
                found.append(features["sentence_embedding"])
            vectors: NDArray[np.float32] = torch.cat(found).numpy()
        return vectors

    def _token_vectors(self, per_token: Mapping[str, torch.Tensor], groups: list[tuple[int, int]]) -> torch.Tensor:
        """Return BERT's last hidden state of packed tokens, (t, d), for groups of (length, how many texts)."""
        import torch

        positions = torch.cat([torch.arange(length).repeat(count) for length, count in groups])
        types = per_token.get("token_type_ids")
        hidden: torch.Tensor = self._bert.embeddings(
            input_ids=per_token["input_ids"][None],
            token_type_ids=torch.zeros_like(positions)[None] if types is None else types[None],
            position_ids=positions[None],
        )[0]
        for layer in self._bert.encoder.layer:
            attention = layer.attention.self
            packed = [project(hidden) for project in (attention.query, attention.key, attention.value)]
            context = torch.empty_like(packed[0])
            start = 0
            for length, count in groups:
                here = slice(start, start := start + length * count)
                shape = (count, length, self._heads, self._size)
                query, key, value = (one[here].view(shape).transpose(1, 2) for one in packed)
                if length < LONG:
                    scores = (query * attention.scaling) @ key.transpose(-1, -2)
                    mixed = torch.softmax(scores, dim=-1) @ value
                else:
                    mixed = torch.nn.functional.scaled_dot_product_attention(
                        query, key, value, scale=attention.scaling
                    )
                context[here].view(shape).copy_(mixed.transpose(1, 2))
            hidden = layer.attention.output(context, hidden)
            hidden = layer.output(layer.intermediate(hidden), hidden)
        return hidden

    def _agrees(self) -> bool:
        """Tell whether a few texts get the vectors that sentence-transformers gives them."""
        texts = ["", "A probe.", "Another one, of some more words than the first.", "word " * 100]
        try:
            tokens = self.tokenise(texts)
            mine = self.vectors(tokens, np.argsort(-tokens.lengths, kind="stable"))
        except (KeyError, TypeError, AttributeError, ValueError, RuntimeError):
            # Another version of these libraries names or shapes something differently.
            return False
        theirs = self._model.encode(texts, show_progress_bar=False)
        theirs = theirs[np.argsort(-tokens.lengths, kind="stable")]
        return mine.shape == theirs.shape and bool(
            np.allclose(mine, theirs, atol=1e-5 * max(1.0, np.abs(theirs).max()))
        )
