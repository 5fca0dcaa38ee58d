"""Devices and threads: what is asked for is there, or one line says that it is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fliplens.devices import multiplies_bfloat16, resolve_device, set_threads
from fliplens.errors import InputError


def test_auto_is_the_best_there_is() -> None:
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("device", ["tpu", "", "cuda:x", "cpu:3", "cuda:99"])
def test_other_devices_are_refused(device: str) -> None:
    with pytest.raises(InputError, match="expected a device"):
        resolve_device(device)


def test_threads_are_set_and_checked() -> None:
    before = torch.get_num_threads()
    set_threads(None)
    assert torch.get_num_threads() == before
    set_threads(1)
    assert torch.get_num_threads() == 1
    set_threads(before)
    with pytest.raises(InputError, match="at least 1 thread"):
        set_threads(0)


def test_bfloat16_is_used_where_the_processor_has_it() -> None:
    flags = Path("/proc/cpuinfo")
    expected = flags.is_file() and ("avx512_bf16" in (text := flags.read_text()) or "amx_bf16" in text)
    assert multiplies_bfloat16("cpu") is expected
    assert multiplies_bfloat16("mps") is False
