"""Speech for tests (by espeak-ng and sox; where they are absent, a test skips) and tiny speech models."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fliplens.encoders.speech import LocalSpeechEncoder, Samples


def speak(text: str, path: Path, *, voice: str = "en", speed: int = 160) -> Path:
    """Write a text, spoken, as a WAV of 22,050 samples a second and one channel."""
    if shutil.which("espeak-ng") is None:
        pytest.skip("espeak-ng is not installed: nothing can be spoken")
    subprocess.run(
        ["espeak-ng", "-v", voice, "-s", str(speed), "-w", str(path), "--", text], check=True, capture_output=True
    )
    return path


def convert(source: Path, path: Path, *effects: str, rate: int | None = None, channels: int | None = None) -> Path:
    """Write a file of audio in the format that a name ends in, by sox."""
    if shutil.which("sox") is None:
        pytest.skip("sox is not installed: formats cannot be converted")
    options = [*(["-r", str(rate)] if rate else []), *(["-c", str(channels)] if channels else [])]
    subprocess.run(["sox", "-D", str(source), *options, str(path), *effects], check=True, capture_output=True)
    return path


SENTENCES = (
    "The cat sat on the mat.",
    "Nobody expected rain in the middle of the long dry summer of that year.",
    "Yes.",
    "White smoke came from the plant, and people ran.",
)


def spoken(folder: Path, sentences: Sequence[str] = SENTENCES) -> list[Path]:
    """Write sentences, spoken, each to a WAV of its own, and return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    return [speak(text, folder / f"{number}.wav") for number, text in enumerate(sentences)]


def made_up(seed: int, seconds: float) -> NDArray[np.float32]:
    """Return sound that varies as speech does, without being any: for tests that need no espeak-ng."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * 16_000)) / 16_000
    pitch = 120 + 60 * np.sin(2 * np.pi * random.uniform(0.5, 3) * time)
    envelope = 0.5 + 0.5 * np.sin(2 * np.pi * random.uniform(2, 6) * time + random.uniform(0, 6))
    sound = envelope * np.sin(2 * np.pi * np.cumsum(pitch) / 16_000) + 0.05 * random.standard_normal(len(time))
    return (0.4 * sound).astype(np.float32)


class ToySpeech(LocalSpeechEncoder):
    """An encoder that reads recordings as any other does, and tells how loud each eighth of one is."""

    def __init__(self) -> None:
        super().__init__(
            spec="toy-speech",
            name="toy speech encoder",
            revision="1",
            language="en",
            dim=8,
            normalised=False,
            precision="float32",
            device="cpu",
        )

    def _vectors(self, sounds: list[Samples]) -> tuple[NDArray[np.float32], int]:
        eighths = [[np.log(np.square(one).mean() + 1e-9) for one in np.array_split(sound, 8)] for sound in sounds]
        return np.array(eighths, dtype=np.float32), 0


# --- tiny encoders -------------------------------------------------------------------------------------------------


def tiny_sonar_speech(folder: Path, *, language: str = "eng", seed: int = 0, **sizes: int) -> Path:
    """Write a converted folder of a random little SONAR speech encoder, by way of a checkpoint as published."""
    import torch

    from fliplens.encoders.sonar_conversion import convert, fairseq_name

    config = tiny_sonar_config(**sizes)
    tensors = tiny_sonar_tensors(config, seed=seed)
    folder.parent.mkdir(parents=True, exist_ok=True)
    checkpoint = folder.with_name(f"{folder.name}.pt")
    torch.save({"model": {fairseq_name(name): one for name, one in tensors.items()}}, checkpoint)
    return convert(checkpoint, folder, language=language, config=config)


def tiny_sonar_config(**sizes: int) -> Any:
    from fliplens.encoders.sonar_speech_model import SonarSpeechConfig

    given = {
        "hidden_size": 16,
        "layers": 2,
        "heads": 2,
        "intermediate_size": 24,
        "kernel_size": 5,
        "pooler_layers": 2,
        "pooler_heads": 4,
        "pooler_intermediate_size": 20,
        "pooler_tokens": 6,
    }
    return SonarSpeechConfig(**{**given, **sizes})


def tiny_sonar_tensors(config: Any, *, seed: int = 0) -> dict[str, Any]:
    """Return random tensors of the network by our names, none at a value that would hide a mistake."""
    import torch

    from fliplens.encoders.sonar_speech_model import empty_model

    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in empty_model(config).state_dict().items():
        if not shape.is_floating_point():
            tensors[name] = torch.tensor(7)
            continue
        one = torch.randn(shape.shape, generator=generator) * 0.3
        if name.endswith(("norm.weight", "running_var")):
            one = 1 + one.abs()
        tensors[name] = one
    return tensors


UNKNOWN = "[UNK]"
LETTERS = "abcdefghijklmnopqrstuvwxyz'"


def tiny_whisper(folder: Path, *, seed: int = 0, languages: Sequence[str] = ()) -> Path:
    """Write a random little Whisper with its feature extractor and a tokeniser of letters."""
    import torch
    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    special = ["<|endoftext|>", "<|startoftranscript|>", *(f"<|{code}|>" for code in languages)]
    special += ["<|transcribe|>", "<|translate|>", "<|notimestamps|>"]
    tokenizer = letter_tokenizer(special)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in special}
    torch.manual_seed(seed)
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=8,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        max_target_positions=40,
        init_std=1.0,
        pad_token_id=ids["<|endoftext|>"],
        bos_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|endoftext|>"],
        decoder_start_token_id=ids["<|startoftranscript|>"],
        begin_suppress_tokens=None,
    )
    model = WhisperForConditionalGeneration(config)
    settings = model.generation_config
    settings._from_model_config = False
    settings.no_timestamps_token_id = ids["<|notimestamps|>"]
    settings.max_length = 24
    settings.is_multilingual = bool(languages)
    if languages:
        settings.lang_to_id = {f"<|{code}|>": ids[f"<|{code}|>"] for code in languages}
        settings.task_to_id = {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")}
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=8).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_wav2vec2(folder: Path, *, seed: int = 0, masked: bool = True) -> Path:
    """Write a random little wav2vec2 with CTC; unless `masked`, one that must not see padding."""
    import json

    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC

    folder.mkdir(parents=True, exist_ok=True)
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *LETTERS]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    torch.manual_seed(seed)
    config = Wav2Vec2Config(
        vocab_size=len(tokens),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        conv_dim=(8, 8, 8),
        conv_stride=(5, 8, 8),
        conv_kernel=(10, 8, 8),
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        feat_extract_norm="layer" if masked else "group",
        do_stable_layer_norm=masked,
        initializer_range=0.5,
        mask_time_prob=0.0,
        pad_token_id=0,
    )
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=masked).save_pretrained(folder)
    Wav2Vec2CTCTokenizer(str(folder / "vocab.json")).save_pretrained(folder)
    return folder


def letter_tokenizer(special: Sequence[str]) -> Any:
    """Return a tokeniser whose tokens are letters and the space."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = {token: number for number, token in enumerate([*LETTERS, "▁", UNKNOWN, *special])}
    tokenizer = Tokenizer(WordLevel(words, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Split("", "isolated")]
    )
    tokenizer.decoder = decoders.Sequence([decoders.Fuse(), decoders.Replace("▁", " ")])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNKNOWN,
        pad_token=special[0],
        eos_token=special[0],
        additional_special_tokens=list(special),
    )


def tiny_cascade(folder: Path, *, recogniser: str = "wav2vec2", encoder: str | None = None) -> str:
    """Write a tiny recogniser and, unless an encoder is named, a tiny text encoder; return the cascade's spec."""
    from tiny_models import build_sentence_transformer

    made = tiny_whisper(folder / "asr") if recogniser == "whisper" else tiny_wav2vec2(folder / "asr")
    return f"cascade:{made}#encoder={encoder or 'st:' + str(build_sentence_transformer(folder / 'text'))}"
