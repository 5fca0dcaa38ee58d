"""What several test modules share."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest
import torch

# The toys are too small to share between threads: waking a second one costs more than it does.
torch.set_num_threads(1)

# How long one example takes says more about the machine than about the code.
hypothesis.settings.register_profile("fliplens", deadline=None)
hypothesis.settings.load_profile("fliplens")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real text, named by FLIPLENS_DATA, else ../shared/data; without it a test skips."""
    named = os.environ.get("FLIPLENS_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real text is absent: no folder {folder} (set FLIPLENS_DATA to name another)")
    return folder
