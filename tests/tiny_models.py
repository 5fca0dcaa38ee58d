"""Random models of two or three layers, written in the layouts that are published, for tests of encoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

LETTERS = "abcdefghijklmnopqrstuvwxyz.!,-"
WORDS = ["the", "cat", "dog", "rain", "on", "of"]
LANGUAGES = ["eng_Latn", "fra_Latn", "hin_Deva", "zho_Hans"]
LIKE_BERT: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 128,
    "initializer_range": 0.5,
}
LIKE_BART: dict[str, Any] = {
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 128,
    "init_std": 0.4,
}


def wordpiece_tokenizer(folder: Path, *, cls: bool = True, sep: str = "[SEP]", limit: int | None = None) -> int:
    """Write a tokeniser of letters and a few words; return the size of its vocabulary."""
    from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
    from tokenizers.models import WordPiece
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", sep]
    vocab = {word: i for i, word in enumerate([*special, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)])}
    tokenizer = Tokenizer(WordPiece(vocab, unk_token="[UNK]"))  # noqa: S106 - a token of text
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"[CLS] $A {sep}" if cls else f"$A {sep}",
        special_tokens=[("[CLS]", vocab["[CLS]"]), (sep, vocab[sep])],
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",  # noqa: S106
        pad_token="[PAD]",  # noqa: S106
        cls_token="[CLS]",  # noqa: S106
        sep_token=sep,
        eos_token=sep,
        model_max_length=limit,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(folder)
    return len(vocab)


def byte_tokenizer(folder: Path, *, padding_side: str = "left") -> int:
    """Write GPT-2's kind of tokeniser: bytes, no special token around a text, none for padding."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    letters = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<|endoftext|>"]
    tokenizer = Tokenizer(BPE({letter: i for i, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|endoftext|>",  # noqa: S106
        eos_token="<|endoftext|>",  # noqa: S106
        padding_side=padding_side,
        truncation_side="left",
    ).save_pretrained(folder)
    return len(letters)


def save_random(kind: Any, config: Any, folder: Path) -> Path:
    """Write a model with random weights, the same each time, biases too; the caller's random state is kept.

    Returns:
        The folder.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = kind(config)
        with torch.no_grad():
            for weights in model.parameters():
                if weights.ndim == 1:
                    weights.add_(torch.randn_like(weights) / 5)
        model.save_pretrained(folder)
    return folder


def build_bert(folder: Path, *, limit: int | None = None) -> Path:
    """Write a two-layer BERT with its tokeniser."""
    from transformers import BertConfig, BertModel

    size = wordpiece_tokenizer(folder, limit=limit)
    return save_random(BertModel, BertConfig(vocab_size=size, num_attention_heads=2, **LIKE_BERT), folder)


def build_gpt2(folder: Path, *, padding_side: str = "left") -> Path:
    """Write a three-layer GPT-2, whose tokeniser pads on the left and gives nothing for an empty text."""
    from transformers import GPT2Config, GPT2LMHeadModel

    size = byte_tokenizer(folder, padding_side=padding_side)
    config = GPT2Config(
        vocab_size=size, n_embd=16, n_layer=3, n_head=2, n_positions=200, initializer_range=0.4, bos_token_id=size - 1
    )
    return save_random(GPT2LMHeadModel, config, folder)


def build_llama(folder: Path) -> Path:
    """Write a two-layer Llama."""
    from transformers import LlamaConfig, LlamaForCausalLM

    size = byte_tokenizer(folder)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        initializer_range=0.4,
        dtype="bfloat16",
    )
    return save_random(LlamaForCausalLM, config, folder)


def build_t5(folder: Path) -> Path:
    """Write a T5 with a two-layer encoder and a one-layer decoder."""
    from transformers import T5Config, T5ForConditionalGeneration

    size = wordpiece_tokenizer(folder, cls=False, sep="</s>")
    config = T5Config(
        vocab_size=size,
        d_model=16,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_decoder_layers=1,
        num_heads=2,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        initializer_factor=2.0,
        pad_token_id=0,
        eos_token_id=3,
        decoder_start_token_id=0,
    )
    return save_random(T5ForConditionalGeneration, config, folder)


def build_bart(folder: Path) -> Path:
    """Write a BART with a two-layer encoder and a one-layer decoder."""
    from transformers import BartConfig, BartForConditionalGeneration

    size = wordpiece_tokenizer(folder)
    config = BartConfig(
        vocab_size=size,
        decoder_layers=1,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
        decoder_start_token_id=3,
        forced_eos_token_id=None,
        **LIKE_BART,
    )
    return save_random(BartForConditionalGeneration, config, folder)


def build_roberta(folder: Path) -> Path:
    """Write a two-layer XLM-R, which counts positions from behind the padding's."""
    from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

    size = wordpiece_tokenizer(folder)
    sizes = {**LIKE_BERT, "num_attention_heads": 2, "max_position_embeddings": 66}
    config = XLMRobertaConfig(vocab_size=size, pad_token_id=0, bos_token_id=2, eos_token_id=3, **sizes)
    return save_random(XLMRobertaForMaskedLM, config, folder)


def build_albert(folder: Path) -> Path:
    """Write an ALBERT, whose layers are one layer three times: no list of modules tells them apart."""
    from transformers import AlbertConfig, AlbertModel

    size = wordpiece_tokenizer(folder)
    sizes = {**LIKE_BERT, "num_attention_heads": 2, "num_hidden_layers": 3}
    return save_random(AlbertModel, AlbertConfig(vocab_size=size, embedding_size=8, **sizes), folder)


def build_fnet(folder: Path) -> Path:
    """Write an FNet, which mixes all tokens of a batch's width, padding among them."""
    from transformers import FNetConfig, FNetModel

    size = wordpiece_tokenizer(folder)
    return save_random(FNetModel, FNetConfig(vocab_size=size, pad_token_id=0, **LIKE_BERT), folder)


def build_sonar_text(folder: Path) -> Path:
    """Write an NLLB encoder of two layers, as SONAR's port is published, with a tokeniser of four languages."""
    from transformers import M2M100Config, NllbTokenizer
    from transformers.models.m2m_100.modeling_m2m_100 import M2M100Encoder

    letters = ["<s>", "<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyzABCDEN.,!-çàï"]
    merges = [("▁", "c"), ("▁", "t")]
    vocab = {letter: i for i, letter in enumerate([*letters, *("".join(pair) for pair in merges)])}
    tokenizer = NllbTokenizer(vocab=vocab, merges=merges, extra_special_tokens=LANGUAGES, model_max_length=120)
    tokenizer.save_pretrained(folder)
    ids = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    config = M2M100Config(vocab_size=len(tokenizer), decoder_layers=2, **ids, **LIKE_BART)
    return save_random(M2M100Encoder, config, folder)


def build_sentence_transformer(
    folder: Path,
    *,
    max_seq_length: int = 100,
    normalise: bool = True,
    pooling: str = "mean_tokens",
    dense: bool = False,
    prompt: str | None = None,
) -> Path:
    """Write a random two-layer BERT in the layout that sentence-transformers publishes."""
    build_bert(folder)
    modules = [("0", "", "Transformer"), ("1", "1_Pooling", "Pooling")]
    if dense:
        modules.append(("2", "2_Dense", "Dense"))
    if normalise:
        modules.append((str(len(modules)), f"{len(modules)}_Normalize", "Normalize"))
    for _, path, _ in modules:
        (folder / path).mkdir(exist_ok=True)
    listing = [
        {"idx": int(name), "name": name, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for name, path, kind in modules
    ]
    (folder / "modules.json").write_text(json.dumps(listing))
    (folder / "sentence_bert_config.json").write_text(
        json.dumps({"max_seq_length": max_seq_length, "do_lower_case": False})
    )
    (folder / "1_Pooling" / "config.json").write_text(
        json.dumps(
            {
                "word_embedding_dimension": 16,
                "pooling_mode_mean_tokens": False,
                f"pooling_mode_{pooling}": True,
                "include_prompt": prompt is None,
            }
        )
    )
    if dense:
        _write_dense(folder / "2_Dense")
    if prompt is not None:
        (folder / "config_sentence_transformers.json").write_text(
            json.dumps({"prompts": {"query": prompt}, "default_prompt_name": "query"})
        )
    return folder


def _write_dense(folder: Path) -> None:
    """Write a random dense layer, 16 to 9, with tanh, as LaBSE has one."""
    from safetensors.numpy import save_file

    random = np.random.default_rng(5)
    save_file(
        {
            "linear.weight": random.standard_normal((9, 16)).astype(np.float32) / 4,
            "linear.bias": random.standard_normal(9).astype(np.float32),
        },
        folder / "model.safetensors",
    )
    settings = {"in_features": 16, "out_features": 9, "bias": True}
    (folder / "config.json").write_text(
        json.dumps({**settings, "activation_function": "torch.nn.modules.activation.Tanh"})
    )
