"""The training loop: AdamW on the log-linear loss, with early stopping on dev recall."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fliplens.arithmetic.metrics import accuracy, hits
from fliplens.arithmetic.objective import Bags, Factors, Precision, Workspace, accumulate, soft_threshold_
from fliplens.arithmetic.sampling import Sampler, share_for
from fliplens.arithmetic.top import score_blocks, top_n
from fliplens.errors import FliplensError
from fliplens.progress import Progress
from fliplens.training.anchoring import Coordinates
from fliplens.training.checkpoint import Checkpoint, interruption
from fliplens.training.distributed import Group
from fliplens.training.log import MetricsWriter
from fliplens.training.optimiser import Optimiser
from fliplens.training.recipes import TrainConfig
from fliplens.training.state import PassRecord, TrainState
from fliplens.training.views import Views, batch, batches, prefetch, prefetch_depth, words_of

__all__ = ["LOG_STEPS", "DivergedError", "Trainer", "sampler_of"]

LOG_STEPS = 20
"""Steps between two records of the loss."""
LARGEST_SCORE = 1e37
"""Scores up to here are exact in float32, and can still be added up."""


class DivergedError(FliplensError):
    """The loss or the weights left what float32 holds."""


@dataclass(frozen=True)
class _Batch:
    """The rows of one step, and what this process needs of its share of them."""

    rows: NDArray[np.int64]
    """All rows of the step, those of other processes included."""
    embeddings: Tensor
    bags: Bags
    """Their words are numbered within the sample, where there is one."""
    weights: Tensor | None
    words: Tensor | None
    """Vocabulary positions of the sample, (k,); None where the step looks at all words."""
    log_weights: Tensor | None
    """(k,), added to the logits of the sample."""


class Trainer:
    """Takes a state from where it is to the end of training.

    Args:
        data: rows to train on.
        config: the recipe.
        dev: rows to stop on and to choose the best weights by.
        state: where training is; changed as it goes on.
        device: where to train; the state is there.
        precision: of the large products.
        checkpoint: an open one, to keep the state in.
        metrics: open, takes records of the progress.
        stop: asked after every step.
        group: the processes that train together.
    """

    def __init__(
        self,
        data: Views,
        config: TrainConfig,
        dev: Views | None,
        state: TrainState,
        device: torch.device,
        precision: Precision,
        checkpoint: Checkpoint | None,
        metrics: MetricsWriter | None,
        stop: Callable[[], bool] | None,
        group: Group,
    ) -> None:
        self.data, self.config, self.dev, self.state = data, config, dev, state
        self.device, self.precision = device, precision
        self.checkpoint, self.metrics, self.stop, self.group = checkpoint, metrics, stop, group
        self.views = data.weighted(config.alpha)
        self.n_rows = len(data.primary)
        self.n_steps = config.passes * -(-self.n_rows // config.batch_size)
        self.sampler = sampler_of(data, config, self.n_steps)
        self.optimiser = Optimiser(state, config, sampled=self.sampler is not None)
        self.workspace = Workspace()
        self.words_of_row = np.asarray(data.counts.sum(axis=1), dtype=np.float64).ravel()
        self.clock = self.window_clock = time.perf_counter()
        self.window_rows = 0
        self._set_rates(max(0, state.step - 1))

    def run(self, *, show_progress: bool) -> None:
        """Train to the end.

        Raises:
            InterruptedRunError: asked to stop.
            DivergedError: the loss or the weights left what float32 holds.
        """
        state = self.state
        asked = False
        if not state.history:
            score = self._score()
            if score is not None:
                state.keep_best(score, 0)
            self._end_record(0, None, score)
        show = show_progress and self.group.is_first
        self.clock = self.window_clock = time.perf_counter()
        with Progress("train", total=self.n_steps, unit="steps", show=show, done=state.step) as bar:
            while not state.finished:
                order = batches(self.n_rows, self.config.batch_size, seed=self.config.seed, number=state.number)
                left = zip(count(state.step), islice(order, state.position, None), strict=False)
                with closing(prefetch(left, self._gather, depth=prefetch_depth(self.device))) as gathered:
                    for one in gathered:
                        asked = self.step(one)
                        bar.update()
                        # The last step of a pass is kept together with the end of the pass, whose record is of the
                        # same step: a run that goes on from between them would log it again.
                        if state.position * self.config.passes < self.n_steps:
                            self._keep(asked)
                bar.note(self._end_pass())
                self._keep(asked)

    def _gather(self, numbered: tuple[int, NDArray[np.int64]]) -> _Batch:
        """Return what a step on some rows needs of them; on CUDA a thread of its own calls this ahead of time."""
        step, rows = numbered
        counts, device = self.data.counts, self.device
        share = self.group.share(rows)
        embeddings, bags, weights, held = batch(counts, self.views, share, self.state.coordinates, device)
        if self.sampler is None:
            return _Batch(rows, embeddings, bags, weights, None, None)
        # All processes draw the same words: those of the whole step count as observed, not of their shares.
        sample = self.sampler.draw(held if share is rows else words_of(counts, rows)[0], step)
        words = torch.from_numpy(sample.words).to(device)
        bags = replace(bags, words=torch.searchsorted(words, bags.words))
        return _Batch(rows, embeddings, bags, weights, words, torch.from_numpy(sample.log_weights).to(device))

    def step(self, one: _Batch) -> bool:
        """Take one step; return whether one of the processes was asked to stop."""
        state = self.state
        factors = state.factors
        if one.words is not None and one.log_weights is not None:
            factors = Factors(factors.E1[one.words], factors.E2, factors.b[one.words] + one.log_weights)
        gradients = self.optimiser.zeros(one.words)
        loss = accumulate(
            factors,
            gradients,
            one.embeddings,
            one.bags,
            one.weights,
            workspace=self.workspace,
            precision=self.precision,
        )
        loss, asked = self.group.total(loss, float(self.stop is not None and self.stop()))
        self._set_rates(state.step)
        self.optimiser.step(gradients, one.words, self.group)
        soft_threshold_(state.factors.E1, self.optimiser.rate * self.config.l1)
        state.step += 1
        state.position += 1
        state.loss += loss
        self._count(loss, one.rows)
        return asked > 0

    def _count(self, loss: float, rows: NDArray[np.int64]) -> None:
        """Add a step to the time and to the window of the log; write a record where one is due."""
        state = self.state
        now = time.perf_counter()
        state.spent += now - self.clock
        self.clock = now
        state.window_loss += loss
        state.window_words += float(self.words_of_row[rows].sum())
        self.window_rows += len(rows)
        if state.step % LOG_STEPS:
            return
        if self.metrics is not None:
            record: dict[str, float | int] = {
                "step": state.step,
                "pass": state.number,
                "loss": state.window_loss / max(1.0, state.window_words),
                "learning_rate": self.optimiser.rate,
                "rows_per_second": self.window_rows / max(1e-9, now - self.window_clock),
                "seconds": state.spent,
            }
            self.metrics.write(record)
        state.window_loss = state.window_words = 0.0
        self.window_rows, self.window_clock = 0, now

    def _end_pass(self) -> str:
        """Evaluate where it is due, record the pass and decide what comes next; return a few words about it."""
        state, config = self.state, self.config
        self._check_finite()
        paused = time.perf_counter()
        state.spent += paused - self.clock
        number = state.number
        due = number % config.evaluate_every == 0 or number == config.passes
        score = self._score() if due else None
        per_word = state.loss / float(self.words_of_row.sum())
        self._end_record(number, per_word, score)
        if score is not None:
            self._judge(score)
        state.number, state.position, state.loss = number + 1, 0, 0.0
        state.finished = state.finished or number == config.passes
        self.clock = time.perf_counter()
        self.window_clock += self.clock - paused
        return f"pass {number} loss {per_word:.3f}" + ("" if score is None else f" dev {score:.4f}")

    def _judge(self, score: float) -> None:
        """Keep the best weights, lower the rates on a plateau, end training when patience is over."""
        state, config = self.state, self.config
        if score > state.best_score:
            state.keep_best(score, state.number)
            state.worse_since_best = state.worse_since_drop = 0
            return
        state.worse_since_best += 1
        state.worse_since_drop += 1
        if config.schedule == "plateau" and state.worse_since_drop > config.plateau_patience:
            state.drops += 1
            state.worse_since_drop = 0
        state.finished = state.worse_since_best > config.patience

    def _score(self) -> float | None:
        """Return the dev score, which process 0 takes and tells the others; None without dev data."""
        if self.dev is None:
            return None
        score = (
            _dev_score(self.state.factors, self.dev, self.config, self.state.coordinates)
            if self.group.is_first
            else 0.0
        )
        return self.group.total(score)[0]

    def _end_record(self, number: int, loss: float | None, score: float | None) -> None:
        state = self.state
        E1 = state.factors.E1
        zeros = 1 - int(torch.count_nonzero(E1)) / E1.numel()
        rate = self.optimiser.rate
        state.history.append(PassRecord(number, loss, score, rate, zeros, state.spent))
        if self.metrics is not None:
            record: dict[str, float | int] = {"step": state.step, "pass": number, "zeros": zeros}
            record |= {} if loss is None else {"pass_loss": loss}
            record |= {} if score is None else {"dev": score}
            self.metrics.write({**record, "learning_rate": rate, "seconds": state.spent})

    def _set_rates(self, step: int) -> None:
        """Set the learning rates of the step that follows `step` others: a function of the state alone."""
        if self.config.schedule == "linear":
            factor = 1 - step / self.n_steps
        else:
            factor = self.config.plateau_factor**self.state.drops
        self.optimiser.set_factor(factor)

    def _check_finite(self) -> None:
        """Refuse a loss, or weights, that float32 does not hold: the loss is that from before the last update."""
        state = self.state
        if not np.isfinite(state.loss):
            raise DivergedError(
                f"expected a finite loss, found {state.loss} in pass {state.number}: lower the learning rates"
            )
        largest = _largest_score(state.factors)
        if not largest < LARGEST_SCORE:
            raise DivergedError(
                f"expected weights whose scores stay within float32's range, found some of up to {largest:.1e} in "
                f"pass {state.number}: lower the learning rates"
            )

    def _keep(self, asked: bool) -> None:
        """Write the state where it is time to, or training has ended; leave if one of the processes was asked to."""
        due = self.checkpoint is not None and (self.state.finished or self.checkpoint.is_due())
        if not (asked or due):
            return
        self._check_finite()
        if self.checkpoint is not None:
            self.checkpoint.save(self.state)
        if asked:
            done = f"interrupted after step {self.state.step} of {self.n_steps}"
            raise interruption(done, self.checkpoint, self.group)


def _largest_score(factors: Factors) -> float:
    """Return an upper bound of the score of any word for any vector of length 1; NaN if a weight is."""
    last = factors.E1 if factors.E2 is None else factors.E2
    bound = _largest(last) * math.sqrt(last.shape[1])
    if factors.E2 is not None:
        bound *= _largest(factors.E1) * factors.E1.shape[1]
    return bound + _largest(factors.b)


def _largest(tensor: Tensor) -> float:
    """Return the largest magnitude in a tensor, without a copy of it; NaN if one is in it."""
    return max(abs(float(value)) for value in tensor.aminmax())


def sampler_of(data: Views, config: TrainConfig, n_steps: int) -> Sampler | None:
    """Return what draws the words of each step; None where steps look at the whole vocabulary."""
    if config.softmax == "full":
        return None
    frequencies = np.asarray(data.counts.sum(axis=0), dtype=np.float64).ravel()
    share = share_for(n_steps) if config.share is None else config.share
    sampler = Sampler(frequencies, head=config.head, share=share, seed=config.seed)
    return sampler if sampler.pays else None


def _dev_score(factors: Factors, dev: Views, config: TrainConfig, coordinates: Coordinates) -> float:
    """Return the mean over all views and rows of the share of known words among the top k · factor.

    All views count alike whatever alpha is, as in the published code's `recall_avg`.
    """
    folded = coordinates.fold(factors.map(lambda tensor: tensor.cpu()))
    bias = folded.b + (config.stop_prior - 1.0) * factors.b.cpu()
    n_known = np.diff(dev.counts.indptr).astype(np.int64)
    depth = max(1, min(int(n_known.max(initial=1) * config.stop_topk_factor), folded.E1.shape[0]))
    device = factors.E1.device
    folded = folded.map(lambda tensor: tensor.to(device))
    bias = bias.to(device)
    scores = []
    for view in [dev.primary] if dev.paired is None else [dev.primary, dev.paired]:
        values = []
        for start, block in score_blocks(view, folded):
            top, _ = top_n(block.add_(bias), depth)
            stop = start + len(block)
            found = hits(top.cpu().numpy(), dev.counts[start:stop])
            values.append(accuracy(found, n_known[start:stop], topk_factor=config.stop_topk_factor))
        scores.append(np.nanmean(np.concatenate(values)))
    return float(np.mean(scores))
