"""Loading models quietly, from several threads too."""

from __future__ import annotations

import logging
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fliplens.errors import FliplensWarning

pytest.importorskip("transformers")

from fliplens.pretrained import quiet


def state() -> list[Any]:
    from transformers.utils import logging as transformers_logging

    names = ("transformers", "sentence_transformers", "huggingface_hub")
    return [
        list(warnings.filters),
        [logging.getLogger(name).level for name in names],
        transformers_logging.is_progress_bar_enabled(),
    ]


def test_warnings_of_others_are_not_heard_and_ours_are() -> None:
    with quiet():
        warnings.warn("advice", UserWarning, stacklevel=1)  # an error in tests, were it heard
        warnings.warn("advice", DeprecationWarning, stacklevel=1)
        with pytest.warns(FliplensWarning, match="ours"):
            warnings.warn("ours", FliplensWarning, stacklevel=1)
    with pytest.warns(UserWarning, match="advice"):
        warnings.warn("advice", UserWarning, stacklevel=1)


@pytest.mark.parametrize("action", ["error", "ignore", "always"])
@pytest.mark.parametrize("category", [Warning, UserWarning, FliplensWarning])
def test_ours_are_treated_as_the_caller_says(action: Any, category: type[Warning]) -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter(action, category)
        with quiet():
            if action == "error":
                with pytest.raises(FliplensWarning):
                    warnings.warn("ours", FliplensWarning, stacklevel=1)
            else:
                warnings.warn("ours", FliplensWarning, stacklevel=1)
    assert len(heard) == (action == "always")


def test_threads_that_leave_in_any_order_leave_all_as_it_was() -> None:
    # A enters, B enters, A leaves, B leaves: each for itself, B would put back what A had made.
    before = state()
    steps = [threading.Event() for _ in range(3)]

    def first() -> None:
        with quiet():
            steps[0].set()
            steps[1].wait(10)
        steps[2].set()

    def second() -> None:
        steps[0].wait(10)
        with quiet():
            steps[1].set()
            steps[2].wait(10)
            warnings.warn("advice", UserWarning, stacklevel=1)

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(first), pool.submit(second)]:
            done.result()
    assert state() == before


def test_a_caller_who_catches_warnings_meanwhile_gets_its_own_back() -> None:
    before = state()
    entered, leave, left = (threading.Event() for _ in range(3))

    def other() -> None:
        with quiet():
            entered.set()
            leave.wait(10)
        left.set()

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait(10)
    with warnings.catch_warnings():
        leave.set()
        left.wait(10)
    thread.join()
    assert state() == before


def test_many_threads_at_once() -> None:
    before = state()

    def work(_: int) -> None:
        with quiet():
            warnings.warn("advice", UserWarning, stacklevel=1)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(400)))
    assert state() == before


def test_what_fails_inside_leaves_all_as_it_was() -> None:
    before = state()
    with pytest.raises(ValueError, match="broken"), quiet():
        raise ValueError("broken")
    assert state() == before
