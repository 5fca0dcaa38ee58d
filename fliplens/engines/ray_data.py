"""Ray Data as an engine: a pool of actors, each of which holds the encoder or the lens."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fliplens.engines.protocol import Outcome, Piece, Work, attempted
from fliplens.errors import FliplensError, InputError, MissingExtraError, reason_of

__all__ = ["RayEngine"]

RESTARTS = 3
"""How often an actor that dies is started again, and its piece tried again."""


class RayEngine:
    """Runs work on the Ray that this process is connected to; else on the cluster that RAY_ADDRESS names, else here.

    A context manager, which ends a Ray that it has started. Files are read and written by the actors: on a cluster
    they lie on a disk that all its machines see under one name.

    Args:
        actors: how many at once; by default one a GPU, or one a core where there is none or it is not wanted.
        device: "cpu" leaves GPUs alone.
        cores: how many of this machine's to use, where Ray is started here; by default all.

    Raises:
        InputError: fewer than one actor.
        MissingExtraError: there is no Ray.
    """

    def __init__(self, *, actors: int | None = None, device: str = "auto", cores: int | None = None) -> None:
        if actors is not None and actors < 1:
            raise InputError(f"expected one actor or more, found {actors}")
        self._actors, self._device, self._cores = actors, device, cores
        # Nothing is reported to anyone unless somebody has asked for it.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        try:
            import ray.data
        except ImportError as error:
            raise MissingExtraError("running on Ray", "ray") from error
        self._ray = ray
        self._started = False

    def __enter__(self) -> RayEngine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._started:
            self._ray.shutdown()

    def run(self, work: Work, pieces: Sequence[Piece]) -> Iterator[Outcome]:
        """See `Engine.run`."""
        ray = self._ray
        try:
            self._connect()
            context = ray.data.DataContext.get_current()
            context.enable_progress_bars = False
            context.print_on_execution_start = False
            gpus = 0 if self._device == "cpu" else int(ray.cluster_resources().get("GPU", 0))
            actors = self._actors or gpus or int(ray.cluster_resources().get("CPU", 1))
            actors = max(1, min(actors, len(pieces)))
            # A block a piece: each is told of as soon as it is done.
            items = ray.data.from_items([piece._asdict() for piece in pieces], override_num_blocks=len(pieces))
            with warnings.catch_warnings():
                # There is no other way yet to say how often an actor may die.
                warnings.simplefilter("ignore")
                data = items.map_batches(
                    _Actor,
                    fn_constructor_args=(work,),
                    compute=ray.data.ActorPoolStrategy(size=actors),
                    batch_size=1,
                    num_cpus=None if gpus else 1,
                    num_gpus=gpus / actors if gpus else None,
                    max_restarts=RESTARTS,
                    max_task_retries=RESTARTS,
                )
            for row in data.iter_rows():
                yield Outcome(**row)
        except ray.exceptions.RayError as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = (lines[-1] if lines else type(error).__name__)[:300]
            raise FliplensError(f"expected Ray to do the work, found {type(error).__name__}: {reason}") from error
        except (ConnectionError, TimeoutError) as error:
            reason = reason_of(error)
            raise FliplensError(
                f"expected a Ray cluster at {os.environ.get('RAY_ADDRESS', 'this machine')}, found {reason}"
            ) from error

    def _connect(self) -> None:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        if self._ray.is_initialized():
            return
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        with _handlers_kept(), _silent():
            if os.environ.get("RAY_ADDRESS"):
                self._ray.init(**quiet)
            else:
                self._ray.init(num_cpus=self._cores, include_dashboard=False, **quiet)
        self._started = True


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Put the handlers of signals back that Ray replaces: with its own, SIGTERM ends the process on the spot."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep what Ray's own processes are started with off stderr: that it was told to be quiet, it writes there."""
    try:
        kept = os.dup(2)
    except OSError:  # a daemon has none
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


class _Actor:
    """What Ray Data holds in its pool."""

    def __init__(self, work: Work) -> None:
        self._work = work

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        rows = zip(*(batch[name].tolist() for name in Piece._fields), strict=True)
        outcomes = [dataclasses.asdict(attempted(self._work, Piece(*row))) for row in rows]
        return {name: [outcome[name] for outcome in outcomes] for name in outcomes[0]}
