"""Batches of similar length: every text once, bounded, the longest first."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fliplens.encoders.batching import by_length, on_each_core, own_threads


@given(
    lengths=st.lists(st.integers(0, 50), max_size=60),
    budget=st.integers(1, 200),
    size=st.none() | st.integers(1, 7),
    even=st.booleans(),
)
def test_batches_hold_every_text_once_within_the_bound(
    lengths: list[int], budget: int, size: int | None, even: bool
) -> None:
    batches = list(by_length(np.array(lengths, dtype=np.int64), budget, size=size, even=even))
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(len(lengths)))
    of_batches = [[lengths[row] for row in batch] for batch in batches]
    assert [one for batch in of_batches for one in batch] == sorted(lengths, reverse=True)
    for batch in of_batches:
        assert batch, "no batch is empty"
        assert len(batch) <= size if size else len(batch) == 1 or len(batch) * batch[0] <= budget or batch[0] == 0
        assert not even or len(set(batch)) == 1


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order(workers: int) -> None:
    batches = [np.array([i, i + 1]) for i in range(20)]
    done = list(on_each_core(lambda rows: int(rows.sum()), batches, workers))
    assert [result for _, result in done] == [2 * i + 1 for i in range(20)]
    assert all(batch is given for (batch, _), given in zip(done, batches, strict=True))


def test_threads_that_wake_up_late_do_not_hold_the_others_up() -> None:
    # Many more threads than work: some have not woken up yet when all is done. In a process of its own, as what this
    # looks for is a wait for ever.
    code = (
        "import numpy as np\nfrom fliplens.encoders.batching import on_each_core\n"
        "batches = [np.array([number]) for number in range(3)]\n"
        "for _ in range(200):\n"
        "    assert [int(found) for _, found in on_each_core(lambda one: 2 * int(one[0]), batches, 16)] == [0, 2, 4]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_a_thread_that_starts_meanwhile_gets_the_callers_number_of_threads() -> None:
    import torch

    before = torch.get_num_threads()
    seen: list[int] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            newcomer = threading.Thread(target=lambda: seen.append(own_threads()))
            newcomer.start()
            newcomer.join()

    try:
        torch.set_num_threads(3)
        looking = threading.Thread(target=look)
        looking.start()
        for _ in range(30):
            list(on_each_core(lambda rows: 0, [np.array([0]), np.array([1])], 3))
        done.set()
        looking.join()
        assert torch.get_num_threads() == 3
    finally:
        done.set()
        torch.set_num_threads(before)
    assert seen and set(seen) == {3}
