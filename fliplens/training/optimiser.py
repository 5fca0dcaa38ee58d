"""AdamW over a lens's factors: all of them, or only the rows of the words that a step looked at."""

from __future__ import annotations

from itertools import accumulate as accumulated
from typing import Any

import torch
from torch import Tensor

from fliplens.arithmetic.objective import Factors
from fliplens.training.distributed import Group
from fliplens.training.recipes import TrainConfig
from fliplens.training.state import TrainState

__all__ = ["Optimiser"]

BETAS = (0.9, 0.999)
EPSILON = 1e-8
ALIGNED = 64
"""Numbers between two places in memory where a part of the gradients may start."""


class Optimiser:
    """AdamW with a rate for each factor; parameters, moments and counts are the state's own tensors.

    Where steps see a sample of the words, E1 and b take "lazy" steps as in `torch.optim.SparseAdam`: moments of words
    that a step did not see stay as they are.

    Args:
        state: where training stands.
        config: the recipe.
        sampled: whether steps see a sample of the words.
    """

    def __init__(self, state: TrainState, config: TrainConfig, *, sampled: bool) -> None:
        self.state, self.sampled = state, sampled
        factors = state.factors
        self._rates = {"E1": config.first_rate(full=factors.E2 is None), "b": config.learning_rate_bias}
        names = [name for name in ("E1", "E2", "b") if getattr(factors, name) is not None]
        self._counts = dict(zip(names, state.steps, strict=True))
        dense = [name for name in names if name == "E2" or not sampled]
        self._sum, self._gradients = _one_piece({name: getattr(factors, name) for name in dense})
        groups: list[dict[str, Any]] = []
        for name in dense:
            parameter = getattr(factors, name)
            parameter.grad = self._gradients[name]
            projection = {"lr": config.learning_rate_projection, "weight_decay": config.weight_decay}
            groups.append({"params": [parameter], **(projection if name == "E2" else {"lr": self._rates[name]})})
        self._dense: torch.optim.AdamW | None = None
        if groups:
            self._dense = torch.optim.AdamW(groups, betas=BETAS, eps=EPSILON, weight_decay=0.0, fused=True)
            for name in dense:
                # What AdamW itself would make at its first step, where these are zeros.
                moments = {"exp_avg": getattr(state.first, name), "exp_avg_sq": getattr(state.second, name)}
                self._dense.state[getattr(factors, name)] = {"step": self._counts[name], **moments}
        self._base_rates = [group["lr"] for group in groups]
        self.factor = 1.0

    @property
    def rate(self) -> float:
        """The learning rate of E1 now."""
        return self._rates["E1"] * self.factor

    def set_factor(self, factor: float) -> None:
        """Set what all rates are multiplied by."""
        self.factor = factor
        if self._dense is not None:
            for group, rate in zip(self._dense.param_groups, self._base_rates, strict=True):
                group["lr"] = rate * factor

    def zeros(self, words: Tensor | None) -> Factors:
        """Return gradients to add to, zeros: of all words, or of those of a sample."""
        self._sum.zero_()
        factors = self.state.factors
        if words is None:
            return Factors(self._gradients["E1"], self._gradients.get("E2"), self._gradients["b"])
        E1, b = (torch.zeros(len(words), *whole.shape[1:], device=whole.device) for whole in (factors.E1, factors.b))
        return Factors(E1, self._gradients.get("E2"), b)

    def step(self, gradients: Factors, words: Tensor | None, group: Group) -> None:
        """Add the gradients up over all processes and take a step with them."""
        group.add_up(self._sum)
        if self._dense is not None:
            self._dense.step()
        if words is not None:
            for name in ("E1", "b"):
                gradient = getattr(gradients, name)
                group.add_up(gradient)
                self._step_rows(name, words, gradient)

    def _step_rows(self, name: str, rows: Tensor, gradient: Tensor) -> None:
        parameter, first, second = (
            getattr(one, name) for one in (self.state.factors, self.state.first, self.state.second)
        )
        count = self._counts[name]
        count += 1
        steps = float(count)
        mean = first[rows].lerp_(gradient, 1 - BETAS[0])
        square = second[rows].mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        first.index_copy_(0, rows, mean)
        second.index_copy_(0, rows, square)
        root = square.sqrt_().div_((1 - BETAS[1] ** steps) ** 0.5).add_(EPSILON)
        rate = self._rates[name] * self.factor / (1 - BETAS[0] ** steps)
        parameter.index_add_(0, rows, mean.div_(root), alpha=-rate)


def _one_piece(parameters: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return memory for gradients in one piece, which processes add up in one message, and its parts."""
    # Each part starts where torch would have put a tensor of its own.
    sizes = [-(-parameter.numel() // ALIGNED) * ALIGNED for parameter in parameters.values()]
    device = next((parameter.device for parameter in parameters.values()), torch.device("cpu"))
    whole = torch.zeros(sum(sizes), dtype=torch.float32, device=device)
    starts = accumulated([0, *sizes])
    return whole, {
        name: whole[start : start + parameter.numel()].view(parameter.shape)
        for (name, parameter), start in zip(parameters.items(), starts, strict=False)
    }
