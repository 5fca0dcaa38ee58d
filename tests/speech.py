"""Real speech for tests, spoken by espeak-ng and converted by sox; where they are absent, a test skips."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


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
