"""What several test modules share."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest
import torch

from benchmarks.registry import data_folder

# Without a GPU the Triton kernels run in Triton's interpreter. It is chosen when Triton is first imported, which
# torch itself does (its optimisers, where Triton is installed), so here is the one place that is early enough.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# The toys are too small to share between threads: waking a second one costs more than it does.
torch.set_num_threads(1)

# What is told of progress every half minute is told at once: tests wait for none of it.
os.environ["FLIPLENS_PROGRESS_SECONDS"] = "0"

# How long one example takes says more about the machine than about the code. Whoever works on the code meets new
# examples in every run; integration runs the same ones for the same test, so that what it refuses can be repeated.
hypothesis.settings.register_profile("fliplens", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("fliplens")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real text, named by FLIPLENS_DATA, else ../shared/data; without it a test skips."""
    folder = data_folder()
    if folder is None:
        pytest.skip("real text is absent: FLIPLENS_DATA names no folder of it")
    return folder
