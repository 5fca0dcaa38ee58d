"""Several processes train the lens that one process trains."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import call, environment
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from toys import toy_corpus

from fliplens.errors import InputError
from fliplens.files import write_lines
from fliplens.training.distributed import Group, is_distributed, join, local_device

TOLERANCE = 1e-5
"""‖difference‖ / ‖weights‖ after the steps below: sums in another order, nothing else."""
SETTINGS = ["passes=3", "batch_size=33", "l1=0.1", "--threads", "1"]


def arguments(folder: Path, name: str) -> list[str]:
    return [
        *("fit", "--texts", str(folder / "t.txt"), "--embeddings", str(folder / "v.npy"), "-o", str(folder / name)),
        *SETTINGS,
    ]


def torchrun(argv: list[str], processes: int = 2) -> list[str]:
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "1", "--rdzv-backend", "c10d"),
        *("--rdzv-endpoint", "127.0.0.1:0", "--nproc-per-node", str(processes), "-m", "fliplens", *argv),
    ]


def loopback() -> dict[str, str]:
    return {**environment(), "GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1"}


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text, vectors of two views, and the lens of one process."""
    folder = tmp_path_factory.mktemp("job")
    texts, vectors = toy_corpus(401)
    write_lines(folder / "t.txt", texts)
    np.save(folder / "v.npy", vectors)
    assert call(*arguments(folder, "one"), "--quiet").status == 0
    return folder


def assert_same_weights(one: Path, two: Path) -> None:
    for file in ("model.safetensors", "lens.safetensors"):
        first, second = load_file(one / file), load_file(two / file)
        for name, tensor in first.items():
            assert float((tensor - second[name]).norm()) <= TOLERANCE * float(tensor.norm()), name


def test_two_processes_draw_the_same_words(job: Path) -> None:
    sampled = ["head=3", "share=0.05", "batch_size=12", "passes=2", "hold_out=0", "explain_away=false"]
    assert call(*arguments(job, "one-sampled"), *sampled, "--quiet").status == 0
    argv = [*arguments(job, "two-sampled"), *sampled, "--quiet"]
    done = subprocess.run(torchrun(argv), capture_output=True, text=True, env=loopback(), timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert_same_weights(job / "one-sampled", job / "two-sampled")
    whole = [*arguments(job, "one-full"), *sampled, "softmax=full", "--quiet"]
    assert call(*whole).status == 0
    full, part = (load_file(job / name / "model.safetensors") for name in ("one-full", "one-sampled"))
    assert any(not torch.equal(full[name], part[name]) for name in full)


def test_two_processes_give_the_lens_of_one(job: Path) -> None:
    argv = [*arguments(job, "two"), "--json", "--log-to", str(job / "log")]
    done = subprocess.run(torchrun(argv), capture_output=True, text=True, env=loopback(), timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    # Process 0 alone speaks.
    description = json.loads(done.stdout)
    assert "Traceback" not in done.stderr and done.stderr.count("train: 100%") <= 1
    one, two = (json.loads((job / name / "config.json").read_text())["training"] for name in ("one", "two"))
    assert description["training"]["best_pass"] == one["best_pass"]
    for first, second in zip(one["history"], two["history"], strict=True):
        assert first["dev"] == second["dev"] and first["zeros"] == pytest.approx(second["zeros"], abs=0.01)
        assert (first["loss"] or 0) == pytest.approx(second["loss"] or 0, rel=1e-6)
    assert_same_weights(job / "one", job / "two")
    steps = [json.loads(line)["step"] for line in (job / "log" / "metrics.jsonl").read_text().splitlines()[1:]]
    assert steps == [0, 12, 20, 24, 36]
    assert not (job / "two.checkpoint").exists()


def test_a_job_of_two_that_is_stopped_goes_on_as_one_or_two(job: Path) -> None:
    argv = [*arguments(job, "cut"), "passes=200", "patience=200", "schedule=plateau", "--checkpoint-every", "0.1"]
    state = job / "cut.checkpoint" / "state.safetensors"
    log = job / "stderr"
    with log.open("w") as stderr:
        process = subprocess.Popen(torchrun(argv), stdout=subprocess.PIPE, stderr=stderr, text=True, env=loopback())
        try:
            until = time.monotonic() + 60
            while not state.exists():
                assert process.poll() is None and time.monotonic() < until, log.read_text()
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
            # No process hangs: torchrun itself would wait for 30 seconds before it killed one.
            out, _ = process.communicate(timeout=25)
        finally:
            process.kill()
            process.wait()
    said = log.read_text()
    assert process.returncode != 0 and out == ""
    ours = [line for line in said.splitlines() if line.startswith("fliplens: ") and "interrupted" in line]
    assert len(ours) == 2, said
    kept = next(line for line in ours if "process 1" not in line)
    assert "interrupted after step" in kept and kept.endswith("run the same command again to go on")
    assert state.is_file() and not (job / "cut").exists()
    again = call(*argv, "--quiet")
    assert again.status == 0 and "going on from step" in again.err
    assert (job / "cut" / "model.safetensors").is_file() and not (job / "cut.checkpoint").exists()


def test_a_process_that_dies_ends_the_others_in_one_line(job: Path) -> None:
    code = (
        "import os, sys\n"
        "from fliplens.training.trainer import Trainer\n"
        "step = Trainer.step\n"
        "def dying(self, rows):\n"
        "    if self.state.step == 5 and self.group.rank == 1: os._exit(9)\n"
        "    return step(self, rows)\n"
        "Trainer.step = dying\n"
        "from fliplens.cli import main\n"
        "raise SystemExit(main(sys.argv[1:]))\n"
    )
    with socket_port() as port:
        names = {"WORLD_SIZE": "2", "MASTER_PORT": str(port)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, *arguments(job, "dead"), "--quiet"],
            env={**loopback(), **names, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        out, err = processes[0].communicate(timeout=60)
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert (processes[0].returncode, out) == (1, "")
    (line,) = [line for line in err.splitlines() if line.startswith("fliplens: ")]
    assert "expected the other processes to take part" in line and "Traceback" not in err


class socket_port:  # noqa: N801 - a context manager that reads like a function
    """A port of the loopback that nobody uses just now."""

    def __enter__(self) -> int:
        import socket

        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        port: int = self.socket.getsockname()[1]
        return port

    def __exit__(self, *_: object) -> None:
        self.socket.close()


@given(n=st.integers(0, 40), size=st.integers(1, 7))
def test_shares_hold_every_row_once(n: int, size: int) -> None:
    shares = [Group(rank, size).share(np.arange(n)) for rank in range(size)]
    assert sorted(np.concatenate(shares).tolist()) == list(range(n))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_nothing_is_exchanged() -> None:
    group = Group()
    tensor = torch.arange(3.0)
    group.add_up(tensor)
    assert tensor.tolist() == [0.0, 1.0, 2.0] and group.total(0.1, 2.0) == [0.1, 2.0]
    assert group.from_first(b"as it is") == b"as it is" and group.is_first
    with join(torch.device("cpu"), {}) as found:
        assert found.size == 1
    with join(torch.device("cpu"), dict.fromkeys(("RANK", "LOCAL_RANK"), "0") | NAMED) as found:
        assert found.size == 1


NAMED = {"WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


def test_an_environment_that_is_not_torchruns_is_told() -> None:
    assert is_distributed({"RANK": "0", "WORLD_SIZE": "2"}) and not is_distributed({})
    with pytest.raises(InputError, match="LOCAL_RANK missing"), join(torch.device("cpu"), {**NAMED, "RANK": "0"}):
        pass
    with (
        pytest.raises(InputError, match="whole numbers"),
        join(torch.device("cpu"), {**NAMED, "RANK": "first", "LOCAL_RANK": "0"}),
    ):
        pass
    with (
        pytest.raises(InputError, match="--device cpu"),
        join(torch.device("mps"), {**NAMED, "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}),
    ):
        pass
    assert local_device("cpu", {**os.environ, "RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}) == "cpu"
    assert local_device("cuda", {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}) == "cuda:1"
    assert local_device("cuda", {}) == "cuda"
