"""Interrupted training goes on bit by bit; checkpoints are whole, of one job, and never stop training."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import SLOW_LEARNING, assert_one_line, call, command, environment, interrupt
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toys import ToyEncoder, toy_corpus, toy_texts

import fliplens.training.fitting
from fliplens.arithmetic.objective import Factors
from fliplens.embeddings import Embeddings, as_embeddings, open_embeddings
from fliplens.encoding.texts import encode_texts
from fliplens.errors import FliplensError, FliplensWarning, InputError, InterruptedRunError
from fliplens.files import write_lines
from fliplens.text.vocabulary import Vocabulary
from fliplens.training import Checkpoint, TrainResult, TrainState, train
from fliplens.training.checkpoint import identity_of
from fliplens.training.fitting import VocabularyConfig, fit
from fliplens.training.recipes import TrainConfig
from fliplens.training.views import Views, batches

N = 90
# Twelve steps a pass, the last one short; some rates too high, so that scores fall and the schedules act.
BASE = TrainConfig(passes=5, batch_size=8, patience=2, rank=6)
VARIANTS = {
    "default": BASE,
    "lip": dataclasses.replace(BASE, rank="full"),
    "sparse": dataclasses.replace(BASE, l1=3.0),
    "plateau": dataclasses.replace(
        BASE, schedule="plateau", learning_rate=0.5, plateau_patience=1, patience=3, passes=12
    ),
    "seldom": dataclasses.replace(BASE, evaluate_every=2, anchor="random", centre=False, weight_decay=0.5),
    "white": dataclasses.replace(BASE, whiten=True),
    "pair": dataclasses.replace(BASE, alpha=0.3),
    "sampled": dataclasses.replace(BASE, head=3, share=0.05, batch_size=2),
    "sampled lip": dataclasses.replace(BASE, head=3, share=0.05, batch_size=2, rank="full"),
    "last": BASE,
}


@cache
def rows(n: int, seed: int, paired: bool) -> Views:
    texts, vectors = toy_corpus(n, seed=seed)
    vocabulary = Vocabulary.from_texts(toy_texts(400))
    second = Embeddings([ToyEncoder(noise=0.3).encode(texts)]) if paired else None
    return Views(vocabulary.counts(texts), Embeddings([vectors]), second)


def run(variant: str, **options: Any) -> TrainResult:
    paired = variant == "pair"
    dev = None if variant == "last" else rows(60, 9, paired)
    return train(rows(N, 0, paired), VARIANTS[variant], dev=dev, **options)


@cache
def unbroken(variant: str) -> TrainResult:
    return run(variant)


def assert_same(found: TrainResult, expected: TrainResult) -> None:
    """Compare everything but the time it took, bit by bit."""
    for one, other in zip(found.factors.tensors(), expected.factors.tensors(), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(found.prior, expected.prior)
    np.testing.assert_array_equal(found.mean, expected.mean)
    assert found.best_pass == expected.best_pass and found.anchor == expected.anchor
    without_time = [
        [dataclasses.replace(record, seconds=0.0) for record in result.history] for result in (found, expected)
    ]
    assert without_time[0] == without_time[1]


def after(steps: int) -> Callable[[], bool]:
    """Return what asks to stop once it was asked `steps` times."""
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked >= steps

    return stop


# The sampler ------------------------------------------------------------------------------------------------


@given(n=st.integers(1, 200), size=st.integers(1, 50), seed=st.integers(0, 2**63 - 1), number=st.integers(1, 99))
def test_batches_hold_every_row_once_and_depend_on_nothing_else(n: int, size: int, seed: int, number: int) -> None:
    found = list(batches(n, size, seed=seed, number=number))
    assert sorted(np.concatenate(found).tolist()) == list(range(n))
    assert all(len(one) == size for one in found[:-1])
    assert all((np.diff(one) > 0).all() for one in found)
    again = list(batches(n, size, seed=seed, number=number))
    assert all(np.array_equal(one, other) for one, other in zip(found, again, strict=True))


def test_passes_and_seeds_have_orders_of_their_own() -> None:
    orders = [next(batches(500, 20, seed=seed, number=number)) for seed in (0, 1, 2**62) for number in (1, 2, 3)]
    assert len({tuple(order.tolist()) for order in orders}) == len(orders)


# Going on ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", list(VARIANTS))
@given(data=st.data())
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_training_stopped_anywhere_ends_as_if_it_had_not_been(
    tmp_path_factory: pytest.TempPathFactory, variant: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("run") / "checkpoint"
    expected = unbroken(variant)
    steps = 12 * expected.history[-1].number
    # Several interruptions of one run, and what a kill loses: steps past the last checkpoint.
    left = data.draw(st.lists(st.integers(1, steps), max_size=3))
    for stop in left:
        try:
            assert_same(run(variant, checkpoint=folder, stop=after(stop)), expected)
            return
        except InterruptedRunError as error:
            assert str(folder) in str(error) and "same command" in str(error)
    assert_same(run(variant, checkpoint=folder), expected)


@pytest.mark.parametrize("step", [1, 11, 12, 13, 24])
@pytest.mark.parametrize("variant", ["default", "plateau"])
def test_every_kind_of_place_to_stop_at(tmp_path: Path, variant: str, step: int) -> None:
    # The first step, the last two of a pass, the first of the next, and a pass end with a drop or a new best.
    with pytest.raises(InterruptedRunError, match=f"after step {step} of"):
        run(variant, checkpoint=tmp_path / "c", stop=after(step))
    assert_same(run(variant, checkpoint=tmp_path / "c"), unbroken(variant))


def test_a_kill_loses_no_more_than_the_steps_since_the_last_checkpoint(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c", every_seconds=0.0)

    def killed() -> bool:
        killed.count += 1  # type: ignore[attr-defined]
        if killed.count == 17:  # type: ignore[attr-defined]
            raise MemoryError
        return False

    killed.count = 0  # type: ignore[attr-defined]
    with pytest.raises(MemoryError):
        run("default", checkpoint=checkpoint, stop=killed)
    told: list[str] = []
    again = Checkpoint(tmp_path / "c", notify=told.append)
    assert_same(run("default", checkpoint=again), unbroken("default"))
    assert len(told) == 1 and "going on from step 16 (pass 2)" in told[0]
    # It is for the caller, who has the result, to remove the folder.
    again.remove()
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("every", [0.0, 60.0])
def test_a_finished_run_is_told_again_without_a_step(tmp_path: Path, every: float) -> None:
    result = run("default", checkpoint=Checkpoint(tmp_path / "c", every_seconds=every))
    told: list[str] = []
    again = run("default", checkpoint=Checkpoint(tmp_path / "c", notify=told.append), stop=after(1))
    assert_same(again, result)
    assert told == [f"going on from the end of training, kept in {tmp_path / 'c'}"]


def test_a_stop_at_the_very_last_step_is_heeded_and_kept(tmp_path: Path) -> None:
    expected = unbroken("last")
    with pytest.raises(InterruptedRunError, match="after step 60 of 60; kept in"):
        run("last", checkpoint=tmp_path / "c", stop=after(60))
    assert_same(run("last", checkpoint=tmp_path / "c", stop=after(1)), expected)


# After the last step ----------------------------------------------------------------------------------------


def test_fit_heeds_a_stop_in_all_that_follows_training(tmp_path: Path) -> None:
    texts, vectors = toy_corpus(400)
    config = TrainConfig(passes=2, batch_size=16)
    asked = 0

    def never() -> bool:
        nonlocal asked
        asked += 1
        return False

    expected = fit(texts, vectors, config=config, stop=never)
    steps = 2 * -(-380 // 16)
    # Before and within the learning of explaining away, before the lens is made and measured, and at the very end.
    assert asked > steps + 10
    for moment in (steps + 1, steps + 2, steps + 5, (steps + asked) // 2, asked - 3, asked - 2, asked - 1, asked):
        with pytest.raises(InterruptedRunError, match="after the last step of training; nothing was kept"):
            fit(texts, vectors, config=config, stop=after(moment))
        folder = tmp_path / str(moment)
        with pytest.raises(InterruptedRunError, match=f"training; kept in {folder}: run the same command again"):
            fit(texts, vectors, config=config, checkpoint=folder, stop=after(moment))
        told: list[str] = []
        lens = fit(texts, vectors, config=config, checkpoint=Checkpoint(folder, notify=told.append))
        assert "the end of training" in told[0]
        for one, other in zip(lens.factors.tensors(), expected.factors.tensors(), strict=True):
            assert torch.equal(one, other)
        assert lens.away is not None and expected.away is not None
        assert torch.equal(lens.away.dictionary, expected.away.dictionary)
        assert lens.away.shares == expected.away.shares


def test_a_kill_after_training_loses_no_step_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, vectors = toy_corpus(300)
    config = TrainConfig(passes=2, batch_size=16)

    def killed(*_: Any, **__: Any) -> TrainResult:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(fliplens.training.fitting, "learn_decoding", killed)
        with pytest.raises(MemoryError):
            fit(texts, vectors, config=config, checkpoint=tmp_path / "c")
    told: list[str] = []
    lens = fit(texts, vectors, config=config, checkpoint=Checkpoint(tmp_path / "c", notify=told.append))
    assert len(told) == 1 and "going on from the end of training" in told[0]
    assert torch.equal(lens.factors.E1, fit(texts, vectors, config=config).factors.E1)


# The file ---------------------------------------------------------------------------------------------------


@given(
    n_words=st.integers(1, 7),
    rank=st.one_of(st.none(), st.integers(1, 4)),
    whiten=st.booleans(),
    best=st.booleans(),
    seed=st.integers(0, 9),
    floats=st.tuples(*[st.floats(allow_nan=False)] * 5),
)
def test_a_state_survives_writing_and_reading(
    n_words: int, rank: int | None, whiten: bool, best: bool, seed: int, floats: tuple[float, ...]
) -> None:
    state = made_up_state(n_words, rank, whiten, seed)
    state.loss, state.window_loss, state.spent, state.best_score, state.window_words = floats
    state.step, state.number, state.position, state.drops, state.finished = 7, 3, 2, 1, bool(seed % 2)
    if best:
        state.keep_best(0.25, 2)
    job = {"wörd": [1, None, {"a": 0.1}]}
    again, told = TrainState.from_bytes(state.to_bytes(job))
    assert told == job
    for one in dataclasses.fields(TrainState):
        expected, found = getattr(state, one.name), getattr(again, one.name)
        if isinstance(expected, Factors):
            assert isinstance(found, Factors)
            assert all(torch.equal(a, b) for a, b in zip(expected.tensors(), found.tensors(), strict=True))
        elif one.name == "steps":
            assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
        elif one.name == "coordinates":
            np.testing.assert_array_equal(expected.mean, found.mean)
            np.testing.assert_array_equal(expected.transform, found.transform)
        else:
            assert expected == found, one.name


def made_up_state(n_words: int, rank: int | None, whiten: bool, seed: int) -> TrainState:
    from fliplens.training.anchoring import Coordinates, random_factors

    generator = torch.Generator().manual_seed(seed)
    factors = random_factors(n_words, 3, torch.randn(n_words, generator=generator), rank=rank, generator=generator)
    random = np.random.default_rng(seed)
    transform = random.standard_normal((3, 3)).astype(np.float32) if whiten else float(random.standard_normal())
    state = TrainState.start(factors, Coordinates(np.arange(3, dtype=np.float32), transform), "random")
    for tensor in (*state.first.tensors(), *state.second.tensors(), *state.steps):
        tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return state


def test_the_file_is_what_safetensors_reads(tmp_path: Path) -> None:
    from safetensors import safe_open

    state = made_up_state(5, 2, True, 0)
    (tmp_path / "s").write_bytes(state.to_bytes({"a": 1}))
    with safe_open(tmp_path / "s", framework="pt") as file:
        assert torch.equal(file.get_tensor("factors.E1"), state.factors.E1)
        assert torch.equal(file.get_tensor("first.E2"), state.first.E2)  # type: ignore[arg-type]
        assert file.get_tensor("steps").shape == (3,)
        assert json.loads(file.metadata()["fliplens"])["job"] == {"a": 1}


def test_damage_is_one_line_and_overwrite_starts_anew(tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        run("default", checkpoint=tmp_path / "c", stop=after(20))
    path = tmp_path / "c" / "state.safetensors"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-40] ^= 1
    for damaged in (b"", whole[:5], whole[:400], whole[:-1], bytes(flipped), b"{}" * 500, whole + b"more"):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="cannot be read .*--overwrite"):
            run("default", checkpoint=tmp_path / "c")
        assert path.read_bytes() == damaged
    assert_same(run("default", checkpoint=Checkpoint(tmp_path / "c", overwrite=True)), unbroken("default"))
    newer = whole.replace(b'\\"format_version\\": 1, \\"job', b'\\"format_version\\": 9, \\"job')
    assert newer != whole
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(newer)
    with pytest.raises(InputError, match="newer FLiPLens"):
        run("default", checkpoint=tmp_path / "c")


def test_another_job_is_refused_by_what_differs(tmp_path: Path) -> None:
    texts, vectors = toy_corpus(300)
    given_: dict[str, Any] = {"config": TrainConfig(passes=3, batch_size=16), "encoder": ToyEncoder()}
    with pytest.raises(InterruptedRunError):
        fit(texts, vectors, checkpoint=tmp_path / "c", stop=after(5), **given_)
    before = (tmp_path / "c" / "state.safetensors").read_bytes()
    moved = vectors.copy()
    moved[0, 0] += 1
    other = ToyEncoder()
    other.revision = "2"
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: fit(texts, vectors, checkpoint=tmp_path / "c", encoder=ToyEncoder()), "recipe"),
        (lambda: fit([*texts[1:], "river"], vectors, checkpoint=tmp_path / "c", **given_), "training data"),
        (lambda: fit(texts, moved, checkpoint=tmp_path / "c", **given_), "training data"),
        (lambda: fit(texts, vectors, checkpoint=tmp_path / "c", hold_out=0.1, **given_), "dev data"),
        (
            lambda: fit(texts, vectors, checkpoint=tmp_path / "c", vocabulary=Vocabulary(("river",)), **given_),
            "vocabulary",
        ),
        (
            lambda: fit(texts, vectors, checkpoint=tmp_path / "c", config=given_["config"], encoder=other),
            "encoder",
        ),
    ]
    for attempt, reason in calls:
        with pytest.raises(InputError, match=rf"another \(it differs in {reason}\).*--overwrite"):
            attempt()
        assert (tmp_path / "c" / "state.safetensors").read_bytes() == before
    with pytest.raises(InputError, match="differs in"):
        run("default", checkpoint=tmp_path / "c")
    fit(texts, vectors, checkpoint=Checkpoint(tmp_path / "c", overwrite=True))


def test_only_our_own_files_are_ever_deleted(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("years of work")
    with pytest.raises(InputError, match=r"found thesis\.txt"):
        run("default", checkpoint=Checkpoint(tmp_path / "c", overwrite=True))
    with pytest.raises(InputError, match="found a file"):
        run("default", checkpoint=Checkpoint(tmp_path / "file", overwrite=True))
    Checkpoint(tmp_path / "c").remove()
    assert (tmp_path / "c" / "thesis.txt").exists()
    with pytest.raises(InputError, match="at least 0"):
        Checkpoint(tmp_path / "d", every_seconds=float("nan"))


def test_equal_numbers_of_different_meaning_are_different_jobs(tmp_path: Path) -> None:
    texts, vectors = toy_corpus(300)
    config = TrainConfig(passes=2, batch_size=16)
    # Terms of at most all texts; terms of at most one text. In Python, 1.0 == 1.
    share, number = VocabularyConfig(max_df=1.0), VocabularyConfig(max_df=1)
    with pytest.raises(InterruptedRunError):
        fit(texts, vectors, vocabulary=share, config=config, checkpoint=tmp_path / "c", stop=after(5))
    with pytest.raises(InputError, match=r"differs in vocabulary\)"):
        fit(texts, vectors, vocabulary=number, config=config, checkpoint=tmp_path / "c")
    fit(texts, vectors, vocabulary=share, config=config, checkpoint=tmp_path / "c")


def test_one_other_row_anywhere_makes_another_job(tmp_path: Path) -> None:
    texts, vectors = toy_corpus(2000)
    config = TrainConfig(passes=1, batch_size=200)
    with pytest.raises(InterruptedRunError):
        fit(texts, vectors, config=config, checkpoint=tmp_path / "c", stop=after(2))
    for row in (1, 2, 997, 1998):
        other = vectors.copy()
        other[row] = other[row][::-1]
        with pytest.raises(InputError, match=r"differs in training data\)"):
            fit(texts, other, config=config, checkpoint=tmp_path / "c")
    fit(texts, vectors.copy(), config=config, checkpoint=tmp_path / "c")


def test_identities_of_vectors(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((1000, 4)).astype(np.float32)
    other = vectors.copy()
    other[501, 2] += 1
    turned = np.asfortranarray(vectors)
    assert identity_of(Embeddings([vectors])) == identity_of(Embeddings([turned]))
    assert identity_of(Embeddings([vectors])) != identity_of(Embeddings([other]))
    # Which rows, and whether they are scaled as they are read; of two parts, the later one as well.
    some = np.arange(1000)
    swapped = some.copy()
    swapped[[501, 502]] = 502, 501
    whole = Embeddings([vectors[:600], vectors[600:]])
    versions = [
        whole,
        whole.normalised(),
        whole.subset(some),
        whole.subset(swapped),
        Embeddings([vectors[:600], np.concatenate([vectors[600:-2], vectors[-1:], vectors[-2:-1]])]),
    ]
    identities = [json.dumps(identity_of(one)) for one in versions]
    assert len(set(identities)) == len(versions)
    # A file is not read once more: its size and time tell. A manifest's hashes tell more than the time.
    path = tmp_path / "v.npy"
    np.save(path, vectors)
    before = identity_of(open_embeddings(path))
    assert before == identity_of(open_embeddings(path)) == identity_of(as_embeddings(np.load(path, mmap_mode="r")))
    stat = path.stat()
    np.save(path, other)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))
    assert identity_of(open_embeddings(path)) != before
    encode_texts(["river"] * 300, ToyEncoder(), tmp_path / "e.npy")
    before = identity_of(open_embeddings(tmp_path / "e.npy"))
    os.utime(tmp_path / "e.npy", ns=(0, 0))
    assert identity_of(open_embeddings(tmp_path / "e.npy")) == before


@pytest.mark.parametrize("rank", [6, "full"])
def test_a_state_of_other_shapes_is_refused(tmp_path: Path, rank: Any) -> None:
    # Whoever opens a checkpoint on its own may call two jobs by one name.
    def one(data: Views, config: TrainConfig) -> None:
        checkpoint = Checkpoint(tmp_path / "c", every_seconds=0.0)
        checkpoint.open({"name": "job"})
        train(data, config, checkpoint=checkpoint)

    config = dataclasses.replace(BASE, rank=rank, passes=1)
    data = rows(N, 0, False)
    one(data, config)
    fewer = Views(data.counts[:, :-1].tocsr(), data.primary)
    narrow = Views(data.counts, Embeddings([data.primary.to_numpy()[:, :9]]))
    other = dataclasses.replace(config, rank="full" if rank == 6 else 6)
    for views, settings_ in ((fewer, config), (narrow, config), (data, other)):
        with pytest.raises(InputError, match="expected a checkpoint of .* words, rank .* found weights of .*delete"):
            one(views, settings_)
    one(data, config)


@pytest.mark.parametrize("every", [0.0, 60.0])
def test_diverged_training_leaves_no_checkpoint(tmp_path: Path, every: float) -> None:
    config = dataclasses.replace(BASE, learning_rate=1e30, learning_rate_projection=1e30)
    with pytest.raises(FliplensError, match="lower the learning rates"):
        train(rows(N, 0, False), config, checkpoint=Checkpoint(tmp_path / "c", every_seconds=every))
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("rank", [6, "full"])
def test_weights_that_overflow_in_the_last_step_are_told_as_divergence(rank: Any) -> None:
    # One step in all: its loss is that of the weights before it.
    rate: dict[str, Any] = {"learning_rate_projection" if rank == 6 else "learning_rate": 1e38}
    config = dataclasses.replace(BASE, rank=rank, batch_size=N, passes=1, **rate)
    with pytest.raises(FliplensError, match="expected weights .* in pass 1: lower the learning rates"):
        train(rows(N, 0, False), config)


# Word vectors -----------------------------------------------------------------------------------------------


class Breaking(ToyEncoder):
    """Fails at its second call."""

    def encode(self, inputs: Any, *, show_progress: bool = False) -> Any:
        if self.calls:
            raise KeyboardInterrupt
        return super().encode(inputs, show_progress=show_progress)


def test_the_words_are_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, vectors = toy_corpus(300)
    config = TrainConfig(passes=3, batch_size=16)
    expected = fit(texts, vectors, encoder=ToyEncoder(), config=config)

    def killed(*_: Any, **__: Any) -> TrainResult:
        raise KeyboardInterrupt

    first, second, third = ToyEncoder(), ToyEncoder(), ToyEncoder()
    with monkeypatch.context() as patch:
        patch.setattr(fliplens.training.fitting, "train", killed)
        with pytest.raises(KeyboardInterrupt):
            fit(texts, vectors, encoder=first, config=config, checkpoint=tmp_path / "c")
    with pytest.raises(InterruptedRunError):
        fit(texts, vectors, encoder=second, config=config, checkpoint=tmp_path / "c", stop=after(3))
    lens = fit(texts, vectors, encoder=third, config=config, checkpoint=tmp_path / "c")
    assert (first.calls, second.calls, third.calls) == ([30], [], [])
    assert torch.equal(lens.factors.E1, expected.factors.E1)
    # Vectors of other words, or damaged ones, are made again.
    Checkpoint(tmp_path / "c").remove()
    (tmp_path / "c").mkdir()
    for content in (b"damage", b""):
        (tmp_path / "c" / "words.npy").write_bytes(content)
        (tmp_path / "c" / "state.safetensors").unlink(missing_ok=True)
        encoder = ToyEncoder()
        again = fit(texts, vectors, encoder=encoder, config=config, checkpoint=tmp_path / "c")
        assert encoder.calls == [30]
        assert torch.equal(again.factors.E1, expected.factors.E1)


# Disks that fill --------------------------------------------------------------------------------------------


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_fills_warns_once_and_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InterruptedRunError):
        run("default", checkpoint=tmp_path / "c", stop=after(5))
    before = (tmp_path / "c" / "state.safetensors").read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(FliplensWarning, match="No space left") as caught:
        result = run("default", checkpoint=Checkpoint(tmp_path / "c", every_seconds=0.0))
    assert len(caught) == 1
    assert_same(result, unbroken("default"))
    # What was kept before the disk filled is still there, and nothing beside it.
    assert (tmp_path / "c" / "state.safetensors").read_bytes() == before
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["state.safetensors"]
    with pytest.warns(FliplensWarning), pytest.raises(InterruptedRunError, match="last checkpoint, if there is one"):
        run("default", checkpoint=tmp_path / "d", stop=after(5))
    assert not (tmp_path / "d").exists()


def test_words_are_encoded_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, vectors = toy_corpus(300)
    config = TrainConfig(passes=1)
    expected = fit(texts, vectors, encoder=ToyEncoder(), config=config)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(FliplensWarning, match="No space left"):
        lens = fit(texts, vectors, encoder=ToyEncoder(), config=config, checkpoint=tmp_path / "c")
    assert torch.equal(lens.factors.E1, expected.factors.E1)


def test_a_small_file_system_that_fills(tmp_path: Path) -> None:
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip("no file system can be mounted here: the test above injects the same error")
    try:
        with pytest.raises(InterruptedRunError):
            run("default", checkpoint=mount / "c", stop=after(5))
        before = (mount / "c" / "state.safetensors").read_bytes()
        left = os.statvfs(mount)
        (mount / "filler").write_bytes(b"x" * (left.f_bavail * left.f_frsize - len(before) // 2))
        with pytest.warns(FliplensWarning, match="No space left") as caught:
            result = run("default", checkpoint=Checkpoint(mount / "c", every_seconds=0.0))
        assert len(caught) == 1
        assert_same(result, unbroken("default"))
        assert (mount / "c" / "state.safetensors").read_bytes() == before
    finally:
        subprocess.run(["umount", str(mount)], check=True)


# The command ------------------------------------------------------------------------------------------------

# With so small a head, a step looks at a sample of the thirty words.
SLOW = ["passes=8", "batch_size=1", "learning_rate=0.01", "schedule=plateau", "plateau_patience=1", "patience=8"]
SLOW += ["head=3", "share=0.05"]


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text, vectors, and the lens of an unbroken run."""
    folder = tmp_path_factory.mktemp("job")
    texts, vectors = toy_corpus(400)
    write_lines(folder / "t.txt", texts)
    np.save(folder / "v.npy", vectors)
    run = call(*arguments(folder, "whole"))
    assert run.status == 0, run.err
    return folder


def arguments(folder: Path, name: str) -> list[str]:
    return [
        *("fit", "--texts", str(folder / "t.txt"), "--embeddings", str(folder / "v.npy"), "-o", str(folder / name)),
        *("--checkpoint-every", "0.05", "--threads", "1", *SLOW),
    ]


def assert_same_lens(folder: Path, name: str) -> None:
    for file in ("model.safetensors", "lens.safetensors", "vocab.json"):
        assert (folder / name / file).read_bytes() == (folder / "whole" / file).read_bytes()
    descriptions = [json.loads((folder / one / "config.json").read_text()) for one in (name, "whole")]
    for description in descriptions:
        del description["training"]["seconds"], description["training"]["decoding_seconds"]
        for record in description["training"]["history"]:
            del record["seconds"]
    assert descriptions[0] == descriptions[1]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_fit_in_one_line_and_the_same_command_goes_on(
    job: Path, number: signal.Signals, status: int
) -> None:
    name = number.name
    state = job / f"{name}.checkpoint" / "state.safetensors"
    run = interrupt(*arguments(job, name), number=number, once=lambda _: state.exists(), log=job / f"{name}.log")
    assert (run.status, run.out) == (status, "")
    assert run.err.splitlines()[-1].startswith("fliplens: interrupted after step ")
    assert run.err.splitlines()[-1].endswith("run the same command again to go on")
    assert "Traceback" not in run.err
    assert not (job / name).exists()
    assert [path.name for path in (job / f"{name}.checkpoint").iterdir()] == ["state.safetensors"]
    other = call(*arguments(job, name), "--seed", 3)
    assert_one_line(other, 2, "another (it differs in recipe)", "--overwrite")
    again = call(*arguments(job, name), "--quiet")
    assert again.status == 0
    assert len(again.err.splitlines()) == 1 and again.err.startswith("fliplens: going on from step ")
    assert_same_lens(job, name)
    assert not (job / f"{name}.checkpoint").exists()


def test_a_fit_killed_at_random_moments_ends_as_if_it_had_not_been(job: Path) -> None:
    random = np.random.default_rng()
    state = job / "killed.checkpoint" / "state.safetensors"
    for _ in range(3):
        written = state.stat().st_mtime_ns if state.exists() else 0
        process = subprocess.Popen(
            command([*arguments(job, "killed"), "--quiet"]),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        until = time.monotonic() + 60
        # Starting takes seconds: count from the first checkpoint of this process.
        while process.poll() is None and time.monotonic() < until:
            if state.exists() and state.stat().st_mtime_ns > written:
                time.sleep(random.uniform(0, 0.5))
                break
            time.sleep(0.005)
        process.kill()
        _, err = process.communicate(timeout=60)
        assert "Traceback" not in err and "cannot be read" not in err
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, err
    assert state.exists() or (job / "killed").exists()
    if not (job / "killed").exists():
        assert call(*arguments(job, "killed"), "--quiet").status == 0
    assert_same_lens(job, "killed")
    assert not (job / "killed.checkpoint").exists()


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_fit_ended_after_training_learns_nothing_twice(job: Path, number: signal.Signals, status: int) -> None:
    name = f"after-{number.name}"
    run = interrupt(
        *arguments(job, name),
        number=number,
        once=lambda said: "learning" in said,
        log=job / f"{name}.log",
        script=SLOW_LEARNING,
    )
    assert (run.status, run.out) == (status, "")
    assert "Traceback" not in run.err and not (job / name).exists()
    if number != signal.SIGKILL:
        assert run.err.splitlines()[-1].startswith("fliplens: interrupted after the last step of training; kept in ")
    again = call(*arguments(job, name), "--quiet")
    assert again.status == 0
    assert len(again.err.splitlines()) == 1 and "going on from the end of training" in again.err
    assert_same_lens(job, name)
    assert not (job / f"{name}.checkpoint").exists()


def test_overwriting_a_lens_goes_on_as_well(job: Path) -> None:
    shutil.copytree(job / "whole", job / "over")
    argv = [*arguments(job, "over"), "--overwrite"]
    state = job / "over.checkpoint" / "state.safetensors"
    run = interrupt(*argv, number=signal.SIGINT, once=lambda _: state.exists(), log=job / "over.log")
    assert run.status == 130
    assert (job / "over" / "model.safetensors").read_bytes() == (job / "whole" / "model.safetensors").read_bytes()
    again = call(*argv, "--quiet")
    assert again.status == 0 and "going on from step" in again.err
    assert_same_lens(job, "over")
