"""Batches: the order of the rows, what a batch holds, and the thread that prepares them."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from fliplens.embeddings import Embeddings
from fliplens.training.anchoring import Coordinates
from fliplens.training.views import batch, batches, prefetch, prefetch_depth

# Order ------------------------------------------------------------------------------------------------------


@given(
    n=st.integers(1, 700),
    size=st.integers(1, 150),
    window=st.integers(1, 200),
    run=st.integers(1, 40),
    number=st.integers(0, 3),
)
def test_a_pass_holds_every_row_once(n: int, size: int, window: int, run: int, number: int) -> None:
    steps = list(batches(n, size, seed=7, number=number, window=window, run=run))
    assert sorted(np.concatenate(steps).tolist()) == list(range(n))
    assert [len(step) for step in steps[:-1]] == [size] * (len(steps) - 1)
    assert len(steps) == -(-n // size)
    assert all((np.diff(step) > 0).all() for step in steps)


def test_the_order_is_a_function_of_seed_and_pass() -> None:
    for n in (1000, 5000):  # below and above the window

        def order(seed: int, number: int, n: int = n) -> list[int]:
            steps = batches(n, 100, seed=seed, number=number, window=2048, run=64)
            return [int(row) for step in steps for row in step]

        assert order(1, 1) == order(1, 1)
        assert len({tuple(order(seed, number)) for seed in (0, 1) for number in (1, 2, 3)}) == 6
    assert len(list(batches(10, 3, seed=2**63 - 1, number=100))) == 4


def test_up_to_the_window_every_order_is_as_likely() -> None:
    # The first step of 2 of 4 rows: each of the 6 pairs in a sixth of the passes.
    firsts = [tuple(next(batches(4, 2, seed=0, number=number))) for number in range(3000)]
    for pair in {(a, b) for a in range(4) for b in range(a + 1, 4)}:
        assert abs(firsts.count(pair) / 3000 - 1 / 6) < 5 * (1 / 6 * 5 / 6 / 3000) ** 0.5


def test_beyond_the_window_steps_still_mix_rows_from_all_over() -> None:
    n, size, window, run = 40_000, 100, 4096, 64
    steps = list(batches(n, size, seed=3, number=1, window=window, run=run))
    rows = np.stack(steps)
    # Neighbours in the file are far apart in the pass: as in a full shuffle of a window of steps.
    place = np.empty(n, dtype=np.int64)
    place[rows.ravel()] = np.repeat(np.arange(len(steps)), size)
    apart = np.abs(np.diff(place))[np.arange(n - 1) % run != run - 1]
    per_window = window / size
    assert apart.max() <= per_window + 2  # runs stay in one window ...
    assert apart.mean() == pytest.approx(per_window / 3, rel=0.1)  # ... where they are as far apart as by chance
    # A step's rows lie all over the file: their mean is that of a random sample, with its spread.
    means = (rows.mean(axis=1) - (n - 1) / 2) / (n / 12**0.5)
    assert abs(means.mean()) < 0.01
    # Rows of a step in one run: 64 · 100 / 4096 on average, 1 of them the row itself.
    same = np.mean([np.bincount(step // run).max() for step in rows])
    assert same < 8
    assert all(len(np.unique(step // run)) > 35 for step in rows)
    # No smaller window at the end of the pass.
    ends = list(batches(window + 1, size, seed=3, number=1, window=window, run=run))
    assert min(len(np.unique(step // run)) for step in ends[:-1]) > 20


def test_the_disk_is_read_run_by_run() -> None:
    n, run, window = 40_000, 64, 4096
    seen: dict[int, list[int]] = {}
    for number, step in enumerate(batches(n, 100, seed=0, number=0, window=window, run=run)):
        for row in step:
            seen.setdefault(int(row) // run, []).append(number)
    # All rows of a run are used within one window's steps, while it is in the cache.
    assert max(max(steps) - min(steps) for steps in seen.values()) <= window // 100 + 2


# Contents ---------------------------------------------------------------------------------------------------


@given(
    seed=st.integers(0, 100),
    dtypes=st.sampled_from([("float16",), ("float32",), ("float16", "float16"), ("float16", "float32")]),
    whiten=st.booleans(),
    indices=st.sampled_from([np.int32, np.int64]),
)
def test_a_batch_holds_what_its_rows_hold(
    seed: int, dtypes: tuple[str, ...], whiten: bool, indices: type[np.integer]
) -> None:
    random = np.random.default_rng(seed)
    dense = random.integers(0, 3, (30, 8)) * (random.random((30, 8)) < 0.4)
    counts = csr_matrix(dense.astype(np.float32))
    counts.indices, counts.indptr = counts.indices.astype(indices), counts.indptr.astype(indices)
    given_ = [random.standard_normal((30, 5)).astype(dtype) for dtype in dtypes]
    weights = [0.3, 0.7][: len(dtypes)] if len(dtypes) > 1 else [1.0]
    views = [(Embeddings([one[:11], one[11:]]), weight) for one, weight in zip(given_, weights, strict=True)]
    transform = random.standard_normal((5, 5)).astype(np.float32) if whiten else 1.3
    mean = random.standard_normal(5).astype(np.float32)
    rows = np.sort(random.choice(30, 9, replace=False))
    before = [one.copy() for one in given_]
    embeddings, bags, weighed, words = batch(counts, views, rows, Coordinates(mean, transform), torch.device("cpu"))
    matrix = transform if isinstance(transform, np.ndarray) else transform * np.eye(5)
    expected = np.concatenate([(one[rows].astype(np.float64) - mean) @ matrix.T for one in given_])
    np.testing.assert_allclose(embeddings.numpy(), expected, rtol=1e-5, atol=1e-5)
    assert embeddings.dtype == torch.float32
    found = np.zeros((9 * len(dtypes), 8))
    found[bags.rows.numpy(), bags.words.numpy()] += bags.values.numpy()
    np.testing.assert_array_equal(found, np.tile(dense[rows], (len(dtypes), 1)))
    assert words.tolist() == np.nonzero(dense[rows])[1].tolist()
    assert bags.n_rows == 9 * len(dtypes) and (bags.rows.diff() >= 0).all()
    assert (bags.rows.dtype, bags.words.dtype, bags.values.dtype) == (torch.int64, torch.int64, torch.float32)
    if weighed is None:
        assert len(dtypes) == 1
    else:
        np.testing.assert_allclose(weighed, np.repeat(weights, 9))
    for one, kept in zip(given_, before, strict=True):
        np.testing.assert_array_equal(one, kept)


# Prefetching ------------------------------------------------------------------------------------------------


def ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("fliplens-prefetch")]


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    gc.collect()
    assert not ours()


def slow_square(number: int) -> int:
    time.sleep(0.001 * (number % 3))
    return number * number


@pytest.mark.parametrize("depth", [0, 1, 2, 5])
def test_results_come_in_order(depth: int) -> None:
    assert list(prefetch(range(20), slow_square, depth=depth)) == [number * number for number in range(20)]
    assert list(prefetch([], slow_square, depth=depth)) == []


def test_work_is_done_ahead_in_another_thread_and_no_further_than_asked() -> None:
    done: list[int] = []
    threads = set()

    def note(number: int) -> int:
        threads.add(threading.current_thread())
        done.append(number)
        return number

    with contextlib.closing(prefetch(range(100), note, depth=3)) as results:
        assert next(results) == 0
        deadline = time.monotonic() + 10
        while len(done) < 4 and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        assert done == [0, 1, 2, 3]
    assert threading.main_thread() not in threads and len(threads) == 1
    assert len(done) == 4


def test_an_error_comes_at_its_items_turn() -> None:
    def refuse_three(number: int) -> int:
        if number == 3:
            raise OSError("the disk is gone")
        return number

    results = prefetch(range(10), refuse_three)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(OSError, match="disk is gone"):
        next(results)
    assert not ours()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_consumer_that_stops_ends_the_thread(error: type[BaseException]) -> None:
    for result in prefetch(range(1000), slow_square):
        if result > 10:
            break
    gc.collect()
    assert not ours()
    with pytest.raises(error), contextlib.closing(prefetch(range(1000), slow_square)) as results:
        for result in results:
            if result > 10:
                raise error
    assert not ours()


def test_only_a_device_of_its_own_is_prepared_for_ahead() -> None:
    assert prefetch_depth(torch.device("cpu")) == 0 < prefetch_depth(torch.device("cuda"))


def test_a_negative_depth_is_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        list(prefetch([1], slow_square, depth=-1))
