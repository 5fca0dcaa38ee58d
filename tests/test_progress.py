"""Progress: a bar for a terminal, plain lines for a log, nothing where nobody asked."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator

import pytest

from fliplens.progress import SECONDS, Progress, say, track

LINE = re.compile(r"fliplens: \w[^\r\n]*\n")


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    monkeypatch.delenv("FLIPLENS_PROGRESS_SECONDS", raising=False)
    clock = Clock()
    monkeypatch.setattr("fliplens.progress.time.monotonic", clock)
    yield clock


def work(clock: Clock, *, units: int, seconds: float, total: int | None, done: int = 0, delay: float = 0.0) -> None:
    with Progress("train", total=total, unit="steps", show=True, done=done, delay=delay) as bar:
        for _ in range(units):
            clock.now += seconds
            bar.update()


def test_a_log_gets_whole_lines_now_and_then(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    work(clock, units=100, seconds=1.0, total=100)
    out, err = capsys.readouterr()
    assert out == "" and re.fullmatch(f"(?:{LINE.pattern})+", err)
    assert err.splitlines() == [
        "fliplens: train: 30%, 30/100 steps, 1 steps/s, 1:10 left",
        "fliplens: train: 60%, 60/100 steps, 1 steps/s, 0:40 left",
        "fliplens: train: 90%, 90/100 steps, 1 steps/s, 0:10 left",
        "fliplens: train: 100%, 100/100 steps, 1 steps/s",
    ]


def test_short_work_leaves_no_line(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    assert SECONDS == 30
    work(clock, units=29, seconds=1.0, total=29)
    assert list(track(range(1000), what="read", show=True)) == list(range(1000))
    assert capsys.readouterr() == ("", "")


def test_slow_steps_what_was_done_before_and_notes(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    work(clock, units=2, seconds=1900.0, total=12, done=8)
    assert capsys.readouterr().err.splitlines() == [
        "fliplens: train: 75%, 9/12 steps, 1900 s each, 1:35:00 left",
        "fliplens: train: 83%, 10/12 steps, 1900 s each, 1:03:20 left",
    ]
    with Progress("study", total=None, unit="steps", show=True) as bar:
        bar.note("rank 64")
        clock.now += 40
        bar.update(20)
        clock.now += 2
        bar.update(2)
    assert capsys.readouterr().err.splitlines() == [
        "fliplens: study: 20 steps, 2 s each, rank 64",
        "fliplens: study: 22 steps, 1.91 s each, rank 64",
    ]


@pytest.mark.parametrize(("given", "lines"), [("0", 5), ("2.5", 2), ("soon", 0)])
def test_how_often_is_the_environments(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, given: str, lines: int
) -> None:
    monkeypatch.setenv("FLIPLENS_PROGRESS_SECONDS", given)
    work(clock, units=5, seconds=1.0, total=None)
    # Every second; after 3 and at the end; never.
    assert len(capsys.readouterr().err.splitlines()) == lines


def test_a_delay_holds_in_a_log_too(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLIPLENS_PROGRESS_SECONDS", "0")
    work(clock, units=5, seconds=1.0, total=5, delay=10.0)
    assert capsys.readouterr().err == ""


def test_nothing_is_shown_unasked(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("train", total=3, unit="steps", show=False) as bar:
        clock.now += 100
        bar.note("x")
        bar.update()
    assert list(track([1, 2], what="read")) == [1, 2]
    assert capsys.readouterr() == ("", "")


class Terminal(io.StringIO):
    """What stderr is for somebody who looks at it."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_has_a_bar_and_other_lines_stand_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    with Progress("train", total=4, unit="steps", show=True) as bar:
        bar.update(2)
        say("warning: mind the gap")
        bar.update(2)
    shown = screen.getvalue()
    assert "\r" in shown and "4/4" in shown
    # The bar makes way: the line starts at the left, and ends.
    assert re.search(r"[\r\n]fliplens: warning: mind the gap\n", shown)
