"""Training a lens: AdamW on the log-linear loss, from an anchor, with early stopping on dev recall."""

from __future__ import annotations

import time
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fliplens.anchoring import (
    Coordinates,
    anchored_factors,
    covariance,
    log_unigrams,
    random_factors,
    weighted_sentence_means,
)
from fliplens.devices import multiplies_bfloat16
from fliplens.embeddings import Embeddings
from fliplens.errors import FliplensError, FliplensWarning, InputError
from fliplens.metrics import accuracy, hits
from fliplens.objective import Bags, Factors, Precision, Workspace, accumulate, soft_threshold_
from fliplens.progress import Progress
from fliplens.reading import score_blocks, top_n
from fliplens.recipes import TrainConfig
from fliplens.views import Views, batch, batches, prefetch, prefetch_depth

__all__ = ["PassRecord", "TrainResult", "train"]

WHITENING_RIDGE = 0.1


@dataclass(frozen=True)
class PassRecord:
    """What one pass over the training rows did."""

    number: int
    """From 1; 0 is the anchor before training."""
    loss: float | None
    """Mean loss per word over the pass (weighted over views), natural logarithm; None before training."""
    dev: float | None
    """Dev score after the pass, where it was taken."""
    learning_rate: float
    """E1's rate at the end of the pass."""
    zeros: float
    """Share of exact zeros in E1 (E for LiP)."""
    seconds: float
    """Training time since the start, dev evaluations left out."""


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
    """Training time, dev evaluations left out."""
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
) -> TrainResult:
    """Train a lens's factors.

    Args:
        data: rows to train on.
        config: the recipe.
        dev: rows to stop on and to choose the best weights by; without them the last weights are kept.
        word_vectors: the encoder's vectors of the vocabulary words (V, d), for anchor words.
        device: where to train.
        show_progress: a bar on stderr.

    Raises:
        InputError: a rank above d, anchor words without vectors, views that do not fit together.
        FliplensError: the loss stopped being finite.
    """
    device = device or torch.device("cpu")
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
    views = data.weighted(config.alpha)
    coordinates, spread = _coordinates(views, config)

    def prepare(rows: NDArray[np.int64]) -> tuple[Tensor, Bags, Tensor | None]:
        return batch(data.counts, views, rows, coordinates, device)

    factors, anchor = _start(data, views, config, coordinates, spread, rank, word_vectors)
    factors = factors.map(lambda tensor: tensor.to(device))
    gradients = factors.map(torch.zeros_like)
    optimiser = _optimiser(factors, gradients, config)
    base_rates = [group["lr"] for group in optimiser.param_groups]
    workspace = Workspace()
    n_steps = config.passes * -(-len(data.primary) // config.batch_size)
    n_tokens = float(data.counts.sum())
    history: list[PassRecord] = []
    best_score, best_pass, best = -1.0, 0, factors
    drops = 0
    worse_since_best = worse_since_drop = 0
    spent, step = 0.0, 0

    def score() -> float | None:
        if dev is None:
            return None
        return _dev_score(factors, dev, config, coordinates)

    def record(number: int, loss: float | None, dev_score: float | None) -> None:
        zeros = float((factors.E1 == 0).float().mean())
        rate = optimiser.param_groups[0]["lr"]
        history.append(PassRecord(number, loss, dev_score, rate, zeros, spent))

    first = score()
    record(0, None, first)
    if first is not None:
        best_score, best = first, factors.map(Tensor.clone)
    with Progress("train", total=n_steps, unit="steps", show=show_progress) as bar:
        for number in range(1, config.passes + 1):
            started = time.perf_counter()
            loss = 0.0
            order = batches(len(data.primary), config.batch_size, seed=config.seed, number=number)
            for embeddings, bags, weights in prefetch(order, prepare, depth=prefetch_depth(device)):
                for gradient in gradients.tensors():
                    gradient.zero_()
                loss += accumulate(
                    factors, gradients, embeddings, bags, weights, workspace=workspace, precision=precision
                )
                if config.schedule == "linear":
                    for group, rate in zip(optimiser.param_groups, base_rates, strict=True):
                        group["lr"] = rate * (1 - step / n_steps)
                optimiser.step()
                soft_threshold_(factors.E1, optimiser.param_groups[0]["lr"] * config.l1)
                step += 1
                bar.update()
            if not np.isfinite(loss):
                raise FliplensError(
                    f"expected a finite loss, found {loss} in pass {number}: lower the learning rates"
                )
            spent += time.perf_counter() - started
            due = number % config.evaluate_every == 0 or number == config.passes
            dev_score = score() if due else None
            per_word = loss / n_tokens
            record(number, per_word, dev_score)
            shown = "" if dev_score is None else f" dev {dev_score:.4f}"
            bar.note(f"pass {number} loss {per_word:.3f}{shown}")
            if dev_score is None:
                continue
            if dev_score > best_score:
                best_score, best_pass, best = dev_score, number, factors.map(Tensor.clone)
                worse_since_best = worse_since_drop = 0
                continue
            worse_since_best += 1
            worse_since_drop += 1
            if config.schedule == "plateau" and worse_since_drop > config.plateau_patience:
                drops += 1
                worse_since_drop = 0
                for group, rate in zip(optimiser.param_groups, base_rates, strict=True):
                    group["lr"] = rate * config.plateau_factor**drops
            if worse_since_best > config.patience:
                break
    if dev is None:
        best, best_pass = factors, history[-1].number
    kept = best.map(lambda tensor: tensor.detach().cpu())
    return TrainResult(
        factors=coordinates.fold(kept),
        prior=kept.b,
        mean=coordinates.mean,
        history=history,
        best_pass=best_pass,
        seconds=spent,
        rank=rank,
        precision=precision,
        anchor=anchor,
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


def _coordinates(
    views: list[tuple[Embeddings, float]], config: TrainConfig
) -> tuple[Coordinates, NDArray[np.float64]]:
    """Return the training coordinates and the covariance of the sentences in them."""
    moments = [(*covariance(view), weight) for view, weight in views]
    mean = sum((m * weight for m, _, weight in moments), np.zeros(views[0][0].dim))
    spread = sum(
        ((c + np.outer(m - mean, m - mean)) * weight for m, c, weight in moments), np.zeros((len(mean),) * 2)
    )
    length = float(np.trace(spread))
    if not length > 0:
        raise InputError(f"expected embeddings that differ from row to row, found {views[0][0].name} all alike")
    if not config.centre:
        # Raw coordinates, as the paper trains; the second moment takes the covariance's place in an anchor.
        spread = spread + np.outer(mean, mean)
        mean = np.zeros_like(mean)
        scale = 1.0
    else:
        scale = float(1 / np.sqrt(length))
    transform: NDArray[np.float32] | float = scale
    if config.whiten:
        variances, axes = np.linalg.eigh(spread)
        variances = np.maximum(variances, 0) + WHITENING_RIDGE * variances.mean()
        root = (axes / np.sqrt(variances)) @ axes.T
        root /= np.sqrt(np.trace(root @ spread @ root))
        transform = root.astype(np.float32)
        spread = root @ spread @ root
    else:
        spread = spread * scale**2
    return Coordinates(mean.astype(np.float32), transform), spread


def _start(
    data: Views,
    views: list[tuple[Embeddings, float]],
    config: TrainConfig,
    coordinates: Coordinates,
    spread: NDArray[np.float64],
    rank: int | None,
    word_vectors: NDArray[np.float32] | None,
) -> tuple[Factors, str]:
    """Return starting factors and the name of their anchor."""
    n_words, dim = data.counts.shape[1], data.primary.dim
    anchor: str = config.anchor
    if anchor == "auto":
        anchor = "sentences" if word_vectors is None else "words"
    if anchor == "random":
        generator = torch.Generator().manual_seed(config.seed)
        # The published code draws its bias near zero; its log-unigram start never took effect.
        bias = log_unigrams(data.counts) if config.centre else _small_bias(n_words, generator)
        return random_factors(n_words, dim, bias, rank=rank, generator=generator), anchor
    if anchor == "words":
        if word_vectors is None:
            raise InputError(
                "expected an encoder for anchor=words, found none: name it with --encoder, or use anchor=sentences"
            )
        vectors = word_vectors
    else:
        vectors = weighted_sentence_means(views, data.counts)
    if vectors.shape != (n_words, dim):
        raise InputError(
            f"expected one vector of {dim} dimensions for each of {n_words} words, found {vectors.shape}: "
            "the encoder is not the one that made the embeddings"
        )
    return (
        anchored_factors(
            coordinates.apply(vectors, overwrite=anchor == "sentences"),
            torch.from_numpy(spread),
            log_unigrams(data.counts),
            rank=rank,
        ),
        anchor,
    )


def _small_bias(n_words: int, generator: torch.Generator) -> Tensor:
    """Return a Xavier-normal (V, 1) bias, as the published code starts with."""
    return torch.randn(n_words, generator=generator).mul_((2.0 / (n_words + 1)) ** 0.5)


def _optimiser(factors: Factors, gradients: Factors, config: TrainConfig) -> torch.optim.AdamW:
    for parameter, gradient in zip(factors.tensors(), gradients.tensors(), strict=True):
        parameter.grad = gradient
    first = config.first_rate(full=factors.E2 is None)
    groups: list[dict[str, Any]] = [{"params": [factors.E1], "lr": first}]
    if factors.E2 is not None:
        groups.append(
            {
                "params": [factors.E2],
                "lr": config.learning_rate_projection,
                "weight_decay": config.weight_decay,
            }
        )
    groups.append({"params": [factors.b], "lr": config.learning_rate_bias})
    return torch.optim.AdamW(groups, weight_decay=0.0, fused=True)


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
