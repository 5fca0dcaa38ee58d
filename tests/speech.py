"""Speech for tests (spoken by espeak-ng, converted by sox; where they are absent, a test skips) and tiny speech models."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray


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
