"""The log of training: JSON lines and TensorBoard events, also across interruptions and on full disks."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_checkpoint import after, rows, run, unbroken
from toys import toy_corpus

from fliplens.errors import FliplensWarning, InputError, InterruptedRunError, MissingExtraError
from fliplens.training import Checkpoint, FolderLog, JsonLines, TensorBoard, TrainResult, train
from fliplens.training.fitting import fit
from fliplens.training.recipes import TrainConfig
from fliplens.training.trainer import LOG_STEPS
from fliplens.training.views import batches

TIMES = ("seconds", "rows_per_second")


class Kept:
    """Keeps the records."""

    def __init__(self) -> None:
        self.records: list[dict[str, float | int]] = []
        self.opened: list[int] = []
        self.closed = 0

    def open(self, job: Mapping[str, Any], step: int) -> None:
        self.opened.append(step)

    def write(self, record: Mapping[str, float | int]) -> None:
        self.records.append(dict(record))

    def close(self) -> None:
        self.closed += 1


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def without_times(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in record.items() if name not in TIMES} for record in records]


def test_the_records_tell_what_the_history_tells() -> None:
    kept = Kept()
    result: TrainResult = run("plateau", metrics=kept)
    assert (kept.opened, kept.closed) == ([0], 1)
    ends = [record for record in kept.records if "zeros" in record]
    assert len(ends) == len(result.history)
    for record, end in zip(result.history, ends, strict=True):
        assert end["step"] == 12 * record.number and end["pass"] == record.number
        assert end.get("dev") == record.dev and end.get("pass_loss") == record.loss
        assert (end["learning_rate"], end["zeros"]) == (record.learning_rate, record.zeros)
    steps = [record for record in kept.records if "loss" in record]
    assert [record["step"] for record in steps] == list(range(LOG_STEPS, 12 * (len(ends) - 1) + 1, LOG_STEPS))
    assert all(record["rows_per_second"] > 0 and math.isfinite(record["loss"]) for record in steps)


def test_the_logged_loss_is_the_mean_over_the_words_of_its_window() -> None:
    # Five passes of twelve steps are three windows of twenty: weighted by words, they give the passes' losses.
    kept = Kept()
    result = run("last", metrics=kept)
    data = rows(90, 0, False)
    words = float(data.counts.sum())
    windows = [record["loss"] for record in kept.records if "loss" in record]
    passes = [record.loss for record in result.history[1:]]
    assert len(windows) == 3 and len(passes) == 5
    per_row = np.asarray(data.counts.sum(axis=1)).ravel()
    per_step = [per_row[step].sum() for number in range(1, 6) for step in batches(90, 8, seed=0, number=number)]
    weights = [sum(per_step[start : start + LOG_STEPS]) for start in (0, 20, 40)]
    assert sum(w * x for w, x in zip(weights, windows, strict=True)) == pytest.approx(
        words * sum(loss for loss in passes if loss is not None), rel=1e-9
    )


@pytest.mark.parametrize("stops", [(1,), (19, 2), (20,), (30, 17)])
def test_a_log_that_was_cut_off_goes_on_without_a_double_or_a_gap(tmp_path: Path, stops: tuple[int, ...]) -> None:
    whole = FolderLog(tmp_path / "whole")
    run("default", metrics=whole, checkpoint=tmp_path / "c1")
    for stop in stops:
        with pytest.raises(InterruptedRunError):
            run("default", metrics=FolderLog(tmp_path / "cut"), checkpoint=tmp_path / "c2", stop=after(stop))
    run("default", metrics=FolderLog(tmp_path / "cut"), checkpoint=tmp_path / "c2")
    found, expected = (lines(tmp_path / name / "metrics.jsonl") for name in ("cut", "whole"))
    assert without_times(found) == without_times(expected)
    assert set(found[0]) == {"job"} and len(found[0]["job"]) == 64


@pytest.mark.parametrize("killed_at", [2, 12, 13, 20, 21, 25])
def test_a_log_whose_run_was_killed_goes_on_without_a_double_or_a_gap(tmp_path: Path, killed_at: int) -> None:
    # With a checkpoint after every step, a record may be of the very step that the run goes on from.
    asked = 0

    def killed() -> bool:
        nonlocal asked
        asked += 1
        if asked == killed_at:
            raise MemoryError
        return False

    checkpoint = Checkpoint(tmp_path / "c", every_seconds=0.0)
    with pytest.raises(MemoryError):
        run("default", metrics=FolderLog(tmp_path / "cut"), checkpoint=checkpoint, stop=killed)
    run("default", metrics=FolderLog(tmp_path / "cut"), checkpoint=tmp_path / "c")
    run("default", metrics=FolderLog(tmp_path / "whole"), checkpoint=tmp_path / "d")
    found, expected = (lines(tmp_path / name / "metrics.jsonl") for name in ("cut", "whole"))
    assert without_times(found) == without_times(expected)


@pytest.mark.parametrize("first", [1, 19, 1000])
def test_a_run_that_starts_anew_begins_its_log_anew(tmp_path: Path, first: int) -> None:
    # Nothing was kept of the first run, be it stopped or done.
    with contextlib.suppress(InterruptedRunError):
        run("default", metrics=FolderLog(tmp_path / "log"), stop=after(first))
    run("default", metrics=FolderLog(tmp_path / "log"))
    run("default", metrics=FolderLog(tmp_path / "once"))
    found, expected = (lines(tmp_path / name / "metrics.jsonl") for name in ("log", "once"))
    assert without_times(found) == without_times(expected)


def test_lines_past_the_checkpoint_are_cut(tmp_path: Path) -> None:
    job = {"a": 1}
    path = tmp_path / "metrics.jsonl"
    for step, cut_at in ((0, 30), (20, 40), (0, 10)):
        log = JsonLines(path)
        log.open(job, step)
        for at in range(step + 10, cut_at + 1, 10):
            log.write({"step": at, "pass": 1, "loss": 0.5})
        log.close()
        assert [record["step"] for record in lines(path)[1:]] == list(range(10, cut_at + 1, 10))
    # A kill may cut the last line.
    path.write_text(path.read_text() + '{"step": 20, "lo')
    log = JsonLines(path)
    log.open(job, 10)
    log.close()
    assert [record["step"] for record in lines(path)[1:]] == [10]


@given(records=st.lists(st.dictionaries(st.sampled_from(["loss", "dev"]), st.floats(allow_nan=False)), max_size=5))
def test_every_line_is_one_object_as_soon_as_it_is_written(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, float]]
) -> None:
    path = tmp_path_factory.mktemp("log") / "m.jsonl"
    log = JsonLines(path)
    log.open({}, 0)
    for step, record in enumerate(records, 1):
        log.write({"step": step, **record})
        assert lines(path)[1:] == [{"step": at, **one} for at, one in enumerate(records[:step], 1)]
    log.close()


def test_another_jobs_metrics_are_refused(tmp_path: Path) -> None:
    texts, vectors = toy_corpus(300)
    config = TrainConfig(passes=1)
    fit(texts, vectors, config=config, metrics=tmp_path / "log", checkpoint=tmp_path / "c")
    before = (tmp_path / "log" / "metrics.jsonl").read_bytes()
    for checkpoint in (None, tmp_path / "d"):
        with pytest.raises(InputError, match=r"this job's lines at .*metrics\.jsonl.*--overwrite"):
            fit(texts, vectors, config=TrainConfig(passes=2), metrics=tmp_path / "log", checkpoint=checkpoint)
    assert (tmp_path / "log" / "metrics.jsonl").read_bytes() == before
    (tmp_path / "log" / "metrics.jsonl").unlink()
    with pytest.raises(InputError, match="event files in"):
        fit(texts, vectors, config=config, metrics=tmp_path / "log")
    fit(texts, vectors, config=config, metrics=FolderLog(tmp_path / "log", overwrite=True))
    (tmp_path / "log" / "metrics.jsonl").write_text("thesis\n")
    with pytest.raises(InputError, match="found others"):
        fit(texts, vectors, config=config, metrics=tmp_path / "log")


def test_a_disk_that_fills_warns_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(FliplensWarning, match=r"no more metrics .*m\.jsonl \(No space left") as caught:
        result = run("default", metrics=JsonLines(tmp_path / "m.jsonl"))
    assert len(caught) == 1 and result.history[-1].number == unbroken("default").history[-1].number
    monkeypatch.undo()
    # Linux's own full disk takes nothing that is flushed.
    log = JsonLines(tmp_path / "n.jsonl")
    log.open({}, 0)
    assert log._stream is not None
    log._stream.close()
    log._stream = Path("/dev/full").open("a", encoding="utf-8")  # noqa: SIM115 - the log closes it
    with pytest.warns(FliplensWarning, match="No space left") as caught:
        log.write({"step": 1})
        log.write({"step": 2})
        log.close()
    assert len(caught) == 1


def test_tensorboard_reads_the_events_back(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    checkpoint = Checkpoint(tmp_path / "c", every_seconds=0.0)
    count = 0

    def killed() -> bool:
        nonlocal count
        count += 1
        if count == 31:
            raise MemoryError
        return False

    with pytest.raises(MemoryError):
        run("default", metrics=FolderLog(tmp_path / "log"), checkpoint=checkpoint, stop=killed)
    # A checkpoint that is older than the log: the steps since then are logged again.
    with pytest.raises(InterruptedRunError):
        run("default", checkpoint=tmp_path / "old", stop=after(13))
    run("default", metrics=FolderLog(tmp_path / "log"), checkpoint=tmp_path / "old")
    accumulator = EventAccumulator(str(tmp_path / "log"))
    accumulator.Reload()
    kept = Kept()
    run("default", metrics=kept)
    names = {f"train/{name}" for record in kept.records for name in record} - {"train/step", "train/pass"}
    assert set(accumulator.Tags()["scalars"]) == names
    for name in names - {f"train/{time}" for time in TIMES}:
        found = [(event.step, event.value) for event in accumulator.Scalars(name)]
        short = name.removeprefix("train/")
        expected = [(record["step"], np.float32(record[short])) for record in kept.records if short in record]
        assert found == expected, name


def test_without_tensorboard_lines_are_written_and_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fliplens\[tensorboard\]'"):
        TensorBoard(tmp_path)
    log = FolderLog(tmp_path / "log")
    assert log.missing is not None and "fliplens[tensorboard]" in log.missing
    train(rows(90, 0, False), TrainConfig(passes=2, batch_size=8), metrics=log)
    assert [path.name for path in (tmp_path / "log").iterdir()] == ["metrics.jsonl"]
    assert len(lines(tmp_path / "log" / "metrics.jsonl")) == 1 + 3 + 1
