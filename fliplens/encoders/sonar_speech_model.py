"""The network of SONAR's speech encoders: a w2v-BERT conformer, and attention that pools it to one vector.

The conformer is that of the first SeamlessM4T (relative positions), as `transformers` has it. What follows is a small
transformer decoder, normalised after each step, that reads all frames for one query: the embedding of token 2 in the
first place of a sequence. A projection without bias gives the vector. Facts are those of SONAR's own code
(facebookresearch/SONAR, `sonar/models/sonar_speech`) and of fairseq2, on which it runs.

Only `sonar_speech` and `sonar_conversion` import this module, when a model is asked for: it needs torch and
transformers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fliplens.errors import InputError

__all__ = ["AttentionPooler", "SonarSpeechConfig", "SonarSpeechModel", "empty_model"]


@dataclass(frozen=True, kw_only=True)
class SonarSpeechConfig:
    """Sizes of the network; the defaults are those of the published English one."""

    hidden_size: int = 1024
    """d, also of the vector."""
    layers: int = 24
    """Conformer blocks."""
    heads: int = 16
    """Of the conformer's attention."""
    intermediate_size: int = 4096
    """Of the conformer's feed-forward steps."""
    kernel_size: int = 31
    """Frames that a conformer's convolution sees."""
    mel_bins: int = 80
    """Features of a frame of 10 ms; two frames go together."""
    pooler_layers: int = 3
    """Decoder layers: 3 for English, 6 for every other language."""
    pooler_heads: int = 16
    """Of the decoder's attention."""
    pooler_intermediate_size: int = 4096
    """Of the decoder's feed-forward steps."""
    pooler_tokens: int = 1024
    """Rows of the decoder's embedding table, of which one is used."""
    query_token: int = 2
    """Which."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, int) or value < (0 if name == "query_token" else 1):
                raise InputError(f"expected {name} to be a positive whole number, found {value!r}")
        if self.hidden_size % self.heads or self.hidden_size % self.pooler_heads or self.hidden_size % 2:
            raise InputError(f"expected an even hidden_size that heads divide, found {self.hidden_size}")
        if self.query_token >= self.pooler_tokens:
            raise InputError(f"expected query_token below {self.pooler_tokens}, found {self.query_token}")


class Attention(nn.Module):
    """Multi-head attention of some queries over some keys, with biases everywhere.

    Args:
        size: d.
        heads: how many.
    """

    def __init__(self, size: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj = nn.Linear(size, size)
        self.k_proj = nn.Linear(size, size)
        self.v_proj = nn.Linear(size, size)
        self.output_proj = nn.Linear(size, size)

    def forward(self, queries: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        """Return (n, q, d) of queries (n, q, d) over keys (n, k, d); `mask` (n, k) is true where there is a key."""
        n, size = len(queries), queries.shape[-1]

        def heads(states: Tensor) -> Tensor:
            return states.view(n, -1, self.heads, size // self.heads).transpose(1, 2)

        seen = torch.nn.functional.scaled_dot_product_attention(
            heads(self.q_proj(queries)),
            heads(self.k_proj(keys)),
            heads(self.v_proj(keys)),
            attn_mask=None if mask is None else mask[:, None, None, :],
        )
        projected: Tensor = self.output_proj(seen.transpose(1, 2).reshape(n, -1, size))
        return projected


class PoolerLayer(nn.Module):
    """One decoder layer: attention to itself, to the frames, then feed-forward (ReLU); each added, then normalised.

    Args:
        config: sizes.
    """

    def __init__(self, config: SonarSpeechConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.self_attn = Attention(size, config.pooler_heads)
        self.self_attn_layer_norm = nn.LayerNorm(size)
        self.cross_attn = Attention(size, config.pooler_heads)
        self.cross_attn_layer_norm = nn.LayerNorm(size)
        self.inner_proj = nn.Linear(size, config.pooler_intermediate_size)
        self.output_proj = nn.Linear(config.pooler_intermediate_size, size)
        self.ffn_layer_norm = nn.LayerNorm(size)

    def forward(self, states: Tensor, frames: Tensor, mask: Tensor) -> Tensor:
        """Return (n, 1, d) of states (n, 1, d) and frames (n, t, d), of which `mask` (n, t) says which there are."""
        states = self.self_attn_layer_norm(states + self.self_attn(states, states, None))
        states = self.cross_attn_layer_norm(states + self.cross_attn(states, frames, mask))
        inner = torch.nn.functional.relu(self.inner_proj(states))
        out: Tensor = self.ffn_layer_norm(states + self.output_proj(inner))
        return out


class AttentionPooler(nn.Module):
    """Frames to one vector, by a decoder of one query.

    Args:
        config: sizes.
    """

    def __init__(self, config: SonarSpeechConfig) -> None:
        super().__init__()
        self.query_token = config.query_token
        self.embed_tokens = nn.Embedding(config.pooler_tokens, config.hidden_size)
        self.layers = nn.ModuleList(PoolerLayer(config) for _ in range(config.pooler_layers))
        self.projection = nn.Linear(config.hidden_size, config.hidden_size, bias=False)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Return (n, d) of frames (n, t, d), of which `mask` (n, t, bool) says which there are."""
        size = frames.shape[-1]
        query = self.embed_tokens.weight[self.query_token] * size**0.5
        # Sinusoids of position 0, all sines before all cosines: zeros, then ones.
        query = query + (torch.arange(size, device=query.device) >= size // 2).to(query.dtype)
        states = query.expand(len(frames), 1, size)
        for layer in self.layers:
            states = layer(states, frames, mask)
        pooled: Tensor = self.projection(states)[:, 0]
        return pooled


class SonarSpeechModel(nn.Module):
    """Features of recordings to vectors.

    Args:
        config: sizes.
    """

    def __init__(self, config: SonarSpeechConfig) -> None:
        super().__init__()
        from transformers.models.seamless_m4t import modeling_seamless_m4t as seamless

        sizes = _seamless_config(config)
        self.feature_projection = seamless.SeamlessM4TConformerFeatureProjection(sizes)
        self.encoder = seamless.SeamlessM4TConformerEncoder(sizes)
        self.pooler = AttentionPooler(config)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Return (n, d) of features (n, t, 2 × mel bins), of which `mask` (n, t) says which frames there are."""
        mask = mask.bool()
        frames = self.encoder(self.feature_projection(features), attention_mask=mask)
        pooled: Tensor = self.pooler(frames, mask)
        return pooled


def empty_model(config: SonarSpeechConfig) -> SonarSpeechModel:
    """Return the network without memory for its weights, which `load_state_dict(..., assign=True)` brings."""
    from transformers.models.seamless_m4t import modeling_seamless_m4t as seamless

    with torch.device("meta"):
        model = SonarSpeechModel(config)
    # The table of positions is computed, not loaded.
    model.encoder.embed_positions = seamless.SeamlessM4TConformerRelPositionalEmbedding(_seamless_config(config))
    return model


def _seamless_config(config: SonarSpeechConfig) -> Any:
    from transformers import SeamlessM4TConfig

    sizes = SeamlessM4TConfig(
        hidden_size=config.hidden_size,
        speech_encoder_layers=config.layers,
        speech_encoder_attention_heads=config.heads,
        speech_encoder_intermediate_size=config.intermediate_size,
        conv_depthwise_kernel_size=config.kernel_size,
        feature_projection_input_dim=2 * config.mel_bins,
        speech_encoder_hidden_act="swish",
        speech_encoder_dropout=0.0,
        speech_encoder_layerdrop=0.0,
        position_embeddings_type="relative",
        add_adapter=False,
    )
    # Plain attention: it takes the relative positions' scores as they are.
    sizes._attn_implementation = "eager"
    return sizes
