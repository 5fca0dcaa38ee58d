"""The paper's recipe in ordinary PyTorch, as one would write it from section 3.5: what FLiPLens is compared with.

It shares FLiPLens's vocabulary, counts and metrics, so that both see the same data, and nothing else: the model is
a module, the gradients are autograd's, the logits of a batch come in chunks that the processor's caches and the
allocator handle well, and counts are gathered where they are, never made dense.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor, nn

from fliplens.arithmetic.metrics import accuracy, hits

CHUNK_ROWS = 256
"""Rows whose logits are held at once. Measured at V = 20,621: 64 take 5 times as long, 6,000 twice."""


class PlainLens(nn.Module):
    """Scores of words, E1 · E2 · s + b (equation 5), from Xavier's start."""

    def __init__(self, n_words: int, dim: int, rank: int) -> None:
        super().__init__()
        self.E1 = nn.Parameter(torch.empty(n_words, rank))
        self.E2 = nn.Parameter(torch.empty(rank, dim))
        self.b = nn.Parameter(torch.empty(n_words, 1))
        for parameter in self.parameters():
            nn.init.xavier_normal_(parameter)

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return the scores (n, V) of embeddings (n, d)."""
        return torch.addmm(self.b.T, embeddings @ self.E2.T, self.E1.T)


@dataclass
class PlainRun:
    """What a training run did."""

    model: PlainLens
    """With the best weights."""
    seconds: list[float] = field(default_factory=list)
    """Of each pass, evaluations left out."""
    scores: list[float] = field(default_factory=list)
    """What training stops on, at each evaluation."""
    curve: list[list[float]] = field(default_factory=list)
    """[seconds of training, what `watch` returned] at each evaluation."""


def loss(model: PlainLens, embeddings: Tensor, counts: csr_matrix) -> Tensor:
    """Return - Σ_n Σ_w x_nw · log softmax(E1 E2 s_n + b)_w (equations 1 and 2)."""
    log_probabilities = torch.log_softmax(model(embeddings), dim=1)
    rows = torch.from_numpy(np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr)))
    words = torch.from_numpy(counts.indices.astype(np.int64))
    return -(log_probabilities[rows, words] * torch.from_numpy(counts.data)).sum()


@torch.no_grad()
def recall(model: PlainLens, embeddings: Tensor, counts: csr_matrix, *, factor: float, bias: bool) -> float:
    """Return the mean share of a row's k distinct known words among its top k · factor."""
    n_known = np.diff(counts.indptr).astype(np.int64)
    depth = int(n_known.max() * factor)
    top = []
    for rows in torch.split(embeddings, CHUNK_ROWS):
        scores = model(rows)
        top.append(torch.topk(scores if bias else scores - model.b.T, depth).indices)
    found = hits(torch.cat(top).numpy(), counts)
    return float(np.nanmean(accuracy(found, n_known, topk_factor=factor)))


def train_plain(
    embeddings: Tensor,
    counts: csr_matrix,
    *,
    rank: int,
    held_out: tuple[Tensor, csr_matrix] | None = None,
    watch: Callable[[PlainLens], float] | None = None,
    passes: int = 100,
    batch_size: int = 6000,
    learning_rate: float = 5e-3,
    l1: float = 1e-4,
    evaluate_every: int = 3,
    patience: int = 5,
    seed: int = 0,
) -> PlainRun:
    """Train by the paper's recipe.

    Args:
        embeddings: float32 (n, d), as they are.
        counts: float32 (n, V).
        rank: r.
        held_out: rows to stop on, by their recall at 2k without the bias, as published; without them all passes
            run and the last weights are kept.
        watch: called at each evaluation for the curve; nothing depends on it.
        passes: over the rows, at most.
        batch_size: rows of a step.
        learning_rate: of all parameters, halved where the third evaluation in a row brings nothing better.
        l1: λ1 on E1, by a proximal step.
        evaluate_every: passes between two evaluations.
        patience: evaluations without a better score that are let pass.
        seed: of the start and of the order.
    """
    torch.manual_seed(seed)
    model = PlainLens(counts.shape[1], embeddings.shape[1], rank)
    optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.0, fused=True)
    halving = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, mode="max", factor=0.5, patience=2, threshold=0.0)
    run = PlainRun(model)
    best, best_score, worse = model.state_dict(), -1.0, 0
    for number in range(1, passes + 1):
        started = time.perf_counter()
        for rows in torch.split(torch.randperm(len(embeddings)), batch_size):
            optimiser.zero_grad()
            for chunk in torch.split(rows, CHUNK_ROWS):
                loss(model, embeddings[chunk], counts[chunk.numpy()]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            with torch.no_grad():
                model.E1.copy_(nn.functional.softshrink(model.E1, optimiser.param_groups[0]["lr"] * l1))
        run.seconds.append(time.perf_counter() - started)
        if number % evaluate_every and number < passes:
            continue
        if watch is not None:
            run.curve.append([round(sum(run.seconds), 2), watch(model)])
        if held_out is None:
            continue
        score = recall(model, *held_out, factor=2.0, bias=False)
        run.scores.append(score)
        print(f"pass {number}: recall {score:.4f} after {sum(run.seconds):.0f} s", flush=True)
        halving.step(score)
        if score > best_score:
            best, best_score, worse = {k: v.clone() for k, v in model.state_dict().items()}, score, 0
        else:
            worse += 1
            if worse > patience:
                break
    if held_out is not None:
        model.load_state_dict(best)
    return run
