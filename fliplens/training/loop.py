"""Training from data and a recipe to a lens's parameters; the steps themselves are the trainer's."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fliplens.arithmetic.objective import Factors, Precision
from fliplens.devices import multiplies_bfloat16
from fliplens.errors import FliplensError, FliplensWarning, InputError
from fliplens.training.checkpoint import Checkpoint, job_of
from fliplens.training.distributed import Group
from fliplens.training.log import MetricsWriter
from fliplens.training.recipes import TrainConfig
from fliplens.training.start import starting_state
from fliplens.training.state import PassRecord, TrainState
from fliplens.training.trainer import DivergedError, Trainer
from fliplens.training.views import Views

__all__ = ["TrainResult", "train"]


@dataclass(frozen=True)
class TrainResult:
    """A trained lens's parameters, in the coordinates of the raw embeddings, and how they came about."""

    factors: Factors
    """E1, E2 and b = prior - W · m, on the processor."""
    prior: Tensor
    """The trained bias (V,), before centring was folded in."""
    mean: NDArray[np.float32]
    """m (d,), zeros where training did not centre."""
    history: list[PassRecord]
    """One record a pass, the anchor's first."""
    best_pass: int
    """The pass whose weights these are."""
    seconds: float
    """Training time, the anchor's making included, dev evaluations left out."""
    rank: int | None
    """r; None for the full-rank baseline."""
    precision: Precision
    """Of the large products."""
    anchor: str
    """words, sentences or random."""

    def history_json(self) -> list[dict[str, Any]]:
        """Return the history as plain JSON values."""
        return [asdict(record) for record in self.history]


def train(
    data: Views,
    config: TrainConfig,
    *,
    dev: Views | None = None,
    word_vectors: NDArray[np.float32] | None = None,
    device: torch.device | None = None,
    show_progress: bool = False,
    checkpoint: Checkpoint | str | Path | None = None,
    checkpoint_every_seconds: float = 60.0,
    metrics: MetricsWriter | None = None,
    stop: Callable[[], bool] | None = None,
    group: Group | None = None,
) -> TrainResult:
    """Train a lens's factors.

    Args:
        data: rows to train on.
        config: the recipe.
        dev: rows to stop on and to choose the best weights by; without them the last weights are kept.
        word_vectors: the encoder's vectors of the vocabulary words (V, d), for anchor words. Not needed where a
            checkpoint goes on.
        device: where to train.
        show_progress: a bar on stderr.
        checkpoint: a folder to keep the state in, and to go on from if it holds this job's. It stays there when
            training ends: whoever keeps the result removes it (`Checkpoint.remove`).
        checkpoint_every_seconds: how often, where `checkpoint` is a path.
        metrics: takes records of the progress.
        stop: asked after every step; once it is true the state is written and training ends.
        group: the processes that train together; by default this one alone. Process 0 makes the starting state
            (or reads it from the checkpoint) and hands it to the others, evaluates, logs and writes.

    Raises:
        InputError: a rank above d, anchor words without vectors, views that do not fit together, a checkpoint or
            metrics of another job.
        InterruptedRunError: `stop` was true, here or in another process of the group.
        FliplensError: the loss or the weights left what float32 holds.
    """
    device = device or torch.device("cpu")
    group = group or Group()
    dim = data.primary.dim
    if data.counts.nnz == 0:
        raise InputError("expected training text with words of the vocabulary, found none in any row")
    for view in (data, dev):
        if view is not None and view.paired is not None and view.paired.dim != view.primary.dim:
            raise InputError(
                f"expected both views in one space, found {view.primary.dim} dimensions in "
                f"{view.primary.name} and {view.paired.dim} in {view.paired.name}"
            )
    rank = _rank(config, dim)
    if rank is None and config.weight_decay:
        warnings.warn(
            "weight_decay has no effect with rank=full: it is on the projection, which one matrix does not have",
            FliplensWarning,
            stacklevel=2,
        )
    precision: Precision
    if config.precision == "auto":
        precision = "bfloat16" if multiplies_bfloat16(device.type) else "float32"
    else:
        precision = config.precision
    if not group.is_first:
        checkpoint = metrics = None
    elif isinstance(checkpoint, str | Path):
        checkpoint = Checkpoint(checkpoint, every_seconds=checkpoint_every_seconds)
    job: dict[str, Any] = {}
    if checkpoint is not None and checkpoint.is_open:
        job = checkpoint.job
    elif checkpoint is not None or metrics is not None:
        job = job_of(data, config, dev, word_vectors)
        if checkpoint is not None:
            checkpoint.open(job)
    if group.is_first:
        found = None if checkpoint is None else checkpoint.take_state()
        if found is not None and checkpoint is not None:
            _check_shapes(found, data.counts.shape[1], rank, dim, checkpoint)
        started = time.perf_counter()
        state = found or starting_state(data, config, rank, word_vectors, show_progress=show_progress)
        state.spent += 0.0 if found else time.perf_counter() - started
        word_vectors = None
        if group.size > 1:
            group.from_first(state.to_bytes())
    else:
        state, _ = TrainState.from_bytes(group.from_first(None))
    trainer = Trainer(data, config, dev, state.to(device), device, precision, checkpoint, metrics, stop, group)
    if metrics is not None:
        metrics.open(job, state.step)
    try:
        trainer.run(show_progress=show_progress)
    except FliplensError as error:
        if checkpoint is not None and isinstance(error, DivergedError):
            # Going on from it would only diverge again.
            checkpoint.remove()
        raise
    finally:
        if metrics is not None:
            metrics.close()
    best = state.factors if dev is None or state.best is None else state.best
    kept = best.map(lambda tensor: tensor.detach().cpu())
    return TrainResult(
        factors=state.coordinates.fold(kept),
        prior=kept.b,
        mean=state.coordinates.mean,
        history=state.history,
        best_pass=state.history[-1].number if dev is None else state.best_pass,
        seconds=state.spent,
        rank=rank,
        precision=precision,
        anchor=state.anchor,
    )


def _check_shapes(state: TrainState, n_words: int, rank: int | None, dim: int, checkpoint: Checkpoint) -> None:
    """Refuse a state of other data, if ever a checkpoint's description lets one through."""
    width = dim if rank is None else rank
    expected = [(n_words, width), *([] if rank is None else [(width, dim)]), (n_words,), (dim,)]
    found = [tuple(tensor.shape) for tensor in state.factors.tensors()] + [state.coordinates.mean.shape]
    if found != expected:
        raise InputError(
            f"expected a checkpoint of {n_words} words, rank {rank or 'full'} and {dim} dimensions in "
            f"{checkpoint.folder}, found weights of {' and '.join(map(str, found))}: delete that folder to start anew"
        )


def _rank(config: TrainConfig, dim: int) -> int | None:
    if config.rank == "full":
        return None
    if config.rank is None:
        return min(512, dim)
    if config.rank > dim:
        raise InputError(
            f"expected a rank of at most {dim}, the embeddings' dimensions, found {config.rank}: "
            f"rank={dim} loses nothing, rank=full is one matrix"
        )
    return config.rank
