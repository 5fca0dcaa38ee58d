"""Batches of similar length: every text once, bounded, the longest first."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fliplens.encoders.batching import by_length, on_each_core


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
