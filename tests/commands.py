"""Running the command line from tests: in this process where speed matters, in one of its own where signals do."""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fliplens.cli import main

ROOT = Path(__file__).resolve().parents[1]

_SLOW_ENCODER = """
import sys, time
import numpy as np
sys.path.insert(0, {tests!r})
import fliplens.encoders
from toys import ToyEncoder

class Slow(ToyEncoder):
    def encode(self, inputs, *, show_progress=False):
        time.sleep({seconds})
        return np.ones((len(inputs), self.dim), dtype=np.float32)

fliplens.encoders.load_encoder = lambda spec, **_: Slow()
from fliplens.cli import main
raise SystemExit(main(sys.argv[1:]))
"""


# A process that is started through this says when training is over, and goes on once a signal has come.
SLOW_LEARNING = """
import signal, socket, sys
import fliplens.training.fitting

learn = fliplens.training.fitting.learn_decoding

def slow(*args, **options):
    told, woken = socket.socketpair()
    told.settimeout(60)
    woken.setblocking(False)
    signal.set_wakeup_fd(woken.fileno())
    print("learning", file=sys.stderr, flush=True)
    told.recv(1)
    return learn(*args, **options)

fliplens.training.fitting.learn_decoding = slow
from fliplens.cli import main
raise SystemExit(main(sys.argv[1:]))
"""


@dataclass(frozen=True)
class Run:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on stdout; json refuses anything before or behind it."""
        return json.loads(self.out)


def call(*argv: object, file_size: int | None = None, encoding: str = "utf-8") -> Run:
    """Run a command in this process, if asked for with a limit on the bytes of any file it writes."""
    raw = io.BytesIO()
    out, err = io.TextIOWrapper(raw, encoding=encoding, newline=""), io.StringIO()
    before = signal.getsignal(signal.SIGTERM)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, limits[1]))
    try:
        with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
            # As outside of tests, where a warning is a line and no exception.
            warnings.simplefilter("ignore")
            warnings.simplefilter("always", UserWarning)
            status = main([str(item) for item in argv])
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    finally:
        signal.signal(signal.SIGTERM, before)
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    out.flush()
    return Run(status, raw.getvalue().decode(encoding), err.getvalue())


def command(argv: Sequence[object], *, script: str | None = None) -> list[str]:
    """Return the command line of a process of its own, if asked for started by a script."""
    start = ["-m", "fliplens"] if script is None else ["-c", script]
    return [sys.executable, *start, *map(str, argv)]


def environment() -> Mapping[str, str]:
    """Return the environment of such a process: this package, no network, one thread."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def start(*argv: object, file_size: int | None = None, cwd: Path | None = None) -> Run:
    """Run a command in a process of its own, if asked for with a limit on the bytes of any file it writes."""

    def limit() -> None:
        if file_size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))

    done = subprocess.run(
        command(argv),
        capture_output=True,
        text=True,
        env=environment(),
        cwd=cwd,
        preexec_fn=limit,
        timeout=120,
        check=False,
    )
    return Run(done.returncode, done.stdout, done.stderr)


def slow_encoder(seconds: float) -> str:
    """Return a script that starts a command with an encoder that takes its time, and is always of one opinion."""
    return _SLOW_ENCODER.format(tests=str(ROOT / "tests"), seconds=seconds)


def interrupt(
    *argv: object, number: signal.Signals, once: Callable[[str], bool], log: Path, script: str | None = None
) -> Run:
    """Start a `command`, send it a signal once `once` is true (of its stderr so far), and wait for its end."""

    def heed() -> None:
        # A shell's background job is born deaf to SIGINT.
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with log.open("w+", encoding="utf-8") as stderr:
        process = subprocess.Popen(
            command(argv, script=script),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=environment(),
            preexec_fn=heed,
        )
        try:
            until = time.monotonic() + 60
            while not once(log.read_text(encoding="utf-8")):
                assert process.poll() is None and time.monotonic() < until, log.read_text(encoding="utf-8")
                time.sleep(0.02)
            process.send_signal(number)
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
    return Run(process.returncode, out, log.read_text(encoding="utf-8"))


def assert_one_line(run: Run, status: int, *fragments: str) -> None:
    """Check that a command ended with one line that says why, and nothing else."""
    assert run.status == status, run
    assert run.out == ""
    lines = run.err.splitlines()
    assert len(lines) == 1, run.err
    assert lines[0].startswith("fliplens: "), run.err
    for fragment in fragments:
        assert fragment in lines[0], run.err
