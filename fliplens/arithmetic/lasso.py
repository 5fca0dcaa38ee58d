"""The non-negative lasso for many targets over one dictionary: pure arithmetic.

For a target y (d,), atoms D (C, d) of length 1 and a penalty λ, the weights w (C,) that minimise

    P(w) = |y - Dᵀ w|² / 2 + λ · Σ_c w_c      over w ≥ 0

With the residual r = y - Dᵀ w, w is optimal where no atom has a correlation D_c·r above λ and all that have a
weight have λ. Any w tells how far it can be from the optimum: the residual, scaled down until no correlation is above
λ, is a feasible point of the dual problem, and

    P(w) - optimum ≤ gap = P(w) - (|y|² - |y - s·r|²) / 2,    s = min(1, λ / max_c D_c·r)

How it is solved, for a block of targets at once: one matrix product gives the correlations of all atoms with all
residuals, and with them the gaps. Targets whose gap is within the tolerance leave. To the atoms that have a weight,
each other one adds some that violate the condition most, a few dozen in all, and the problem among these few is
solved by block principal pivoting (Portugal, Júdice and Vicente 1994; Kim and Park 2011): guess which weights are
positive, solve the linear equations for them by Cholesky, swap those of the wrong sign. Then the next product. P
falls with every round, so that no set of atoms comes twice. This is the working-set method of celer and skglm, with
an exact inner solver in place of coordinate descent, since that one works on many small problems at a time.

Equal atoms, and more atoms than dimensions, make singular equations: a small multiple of the identity is added, and a
step of iterative refinement takes its effect away again. All runs in float32 on targets scaled to length 1. Those
whose gap float32 cannot bring within the tolerance are taken up in float64, where a small problem that pivoting does
not settle is given to a primal active-set method, one at a time (Lawson and Hanson 1974): slow, and seldom asked.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Atoms", "Solution", "non_negative_lasso"]

# Sizes at which 10,000 atoms of 384 dimensions ran fastest on the two cores of a Zen 3, of those tried.
PART_ROWS = 128
"""Targets whose small problems are solved together: what is gathered for them stays in the cache."""
FIRST = 24
"""Atoms that a target starts with, at most."""
NEXT = 16
"""Atoms that a round adds, at most."""
GROUP = 16
"""Of so many atoms only the one of the highest correlation can be added in a round, if there are enough groups."""
LEAST_GROUPS = 64

MOST_ROUNDS = 500
MOST_PIVOTS = 100
CHANCES = 3
"""Pivots of all wrong signs that may fail to make them fewer before signs are swapped one by one."""
STEPS = 10
"""Steps a candidate, at most, where one weight is let go at a time."""
LEAST = 1e-300


@dataclass(frozen=True)
class _Precision:
    """What rounding makes of a number that should be zero, for targets and atoms of length 1."""

    ridge: float
    """Added to the diagonal of the equations."""
    violation: float
    """How far above λ a correlation must be for its atom to be added."""
    sign: float
    """How far below 0 a weight or a slope must be to be of the wrong sign."""


_PRECISIONS = {
    torch.float32: _Precision(ridge=1e-5, violation=1e-6, sign=1e-7),
    torch.float64: _Precision(ridge=1e-11, violation=1e-13, sign=1e-13),
}


class Atoms:
    """The rows of a dictionary, laid out for `non_negative_lasso`.

    Args:
        rows: D (C, d), float32, each row of length 1 or zero. A zero row gets no weight.
    """

    def __init__(self, rows: Tensor) -> None:
        self.size, self.dim = rows.shape
        groups = -(-(self.size + 1) // GROUP)
        self.group = GROUP if groups >= LEAST_GROUPS else 1
        # At least one zero row lies behind them, for places in a block that no atom fills: no correlation, no weight.
        self.padded = rows.new_zeros(groups * GROUP if self.group > 1 else self.size + 1, self.dim)
        self.padded[: self.size] = rows
        self._double: Tensor | None = None

    @property
    def rows(self) -> Tensor:
        """D (C, d)."""
        return self.padded[: self.size]

    def of(self, dtype: torch.dtype) -> Tensor:
        """Return all rows, the zero rows behind them included, in float32 or float64."""
        if dtype == torch.float32:
            return self.padded
        if self._double is None:
            self._double = self.padded.double()
        return self._double


@dataclass(frozen=True)
class Solution:
    """Weights of n targets, in places of which each target fills the first few."""

    columns: Tensor
    """(n, places), int64: the atom in a place; C where there is none."""
    weights: Tensor
    """(n, places): its weight, above 0; 0 where there is none."""
    objective: Tensor
    """(n,), float64: P(w)."""
    gap: Tensor
    """(n,), float64: the duality gap over P(w), 0 where both are 0."""
    rounds: Tensor
    """(n,), int32: how often the problem among a few atoms was solved."""

    def of(self, rows: Tensor, dtype: torch.dtype) -> Solution:
        """Return the solution of some targets, (k,), its weights in a type."""
        return Solution(
            self.columns[rows], self.weights[rows].to(dtype), self.objective[rows], self.gap[rows], self.rounds[rows]
        )

    @classmethod
    def empty(cls, n: int, places: int, unused: int, dtype: torch.dtype) -> Solution:
        """Return a solution of n targets with nothing in any place."""
        return cls(
            torch.full((n, places), unused),
            torch.zeros(n, places, dtype=dtype),
            torch.zeros(n, dtype=torch.float64),
            torch.zeros(n, dtype=torch.float64),
            torch.zeros(n, dtype=torch.int32),
        )

    def put(self, rows: Tensor, part: Solution) -> None:
        """Write the solution of some targets, which has no more places, where nothing is yet.

        Args:
            rows: which targets these are, (k,).
            part: their solution, k targets.
        """
        places = part.columns.shape[1]
        self.columns[rows, :places], self.weights[rows, :places] = part.columns, part.weights.to(self.weights.dtype)
        self.objective[rows], self.gap[rows], self.rounds[rows] = part.objective, part.gap, part.rounds


def non_negative_lasso(targets: Tensor, penalties: Tensor, atoms: Atoms, *, tolerance: float) -> Solution:
    """Return the weights of minimal P(w), all w ≥ 0.

    Args:
        targets: y (n, d), float32, each row of length 1 or zero.
        penalties: λ (n,), float64, above 0.
        atoms: D.
        tolerance: how large the duality gap may be, as a share of P(w).

    Returns:
        The solution in float32. Its objective and gap are those of the weights before they are rounded to it.
    """
    # No atom has a correlation above 1, but for rounding: whatever is above 2 leaves nothing, and may overflow.
    penalties = penalties.clamp_max(2.0)
    solution = _solve(targets, penalties, atoms, tolerance)
    left = (solution.gap > tolerance).nonzero()[:, 0]
    if not len(left):
        return solution
    better = _solve(targets[left].double(), penalties[left], atoms, tolerance, solution.of(left, torch.float64))
    places = max(solution.columns.shape[1], better.columns.shape[1])
    both = Solution.empty(len(targets), places, atoms.size, torch.float32)
    reached = (solution.gap <= tolerance).nonzero()[:, 0]
    both.put(reached, solution.of(reached, torch.float32))
    both.put(left, better)
    return both


def _solve(
    targets: Tensor, penalties: Tensor, atoms: Atoms, tolerance: float, start: Solution | None = None
) -> Solution:
    """Do all rounds in the precision of the targets; from a solution in that precision, if there is one."""
    n, dtype, unused = len(targets), targets.dtype, atoms.size
    rows, limits = atoms.of(dtype), _PRECISIONS[dtype]
    start = start or Solution.empty(n, 0, unused, dtype)
    live, columns, weights, before = torch.arange(n), start.columns, start.weights, start.rounds
    failed, careful = torch.zeros(n, dtype=torch.bool), torch.zeros(n, dtype=torch.bool)
    least = torch.full((n,), torch.inf, dtype=torch.float64)
    residuals = _residuals(targets, columns, weights, rows)
    buffer = torch.empty(n, len(rows), dtype=dtype)
    left: list[tuple[Tensor, Solution]] = []
    for number in range(MOST_ROUNDS + 1):
        correlations = torch.mm(residuals, rows.T, out=buffer[: len(live)])
        objective, gap = _objective_and_gap(targets, residuals, penalties, weights, correlations.amax(dim=1))
        # What is in already comes no second time.
        correlations.scatter_(1, columns, -torch.inf)
        picked, values = _pick(correlations, atoms.group, NEXT if number else FIRST)
        new = values > (penalties + limits.violation)[:, None]
        if number == 0:
            # Nothing has a weight and nothing is to get one; a start from float32 is solved again in any case.
            idle = ~(new.any(dim=1) | (columns != unused).any(dim=1))
        else:
            # Rounding hides what is left to gain, or has the same atoms come and go.
            idle = ~new.any(dim=1) | (objective >= least)
        hopeless = idle & careful if dtype == torch.float64 and number else idle
        least, careful = torch.minimum(objective, least), careful | idle
        leaves = (gap <= tolerance) | failed | hopeless | (number == MOST_ROUNDS)
        if bool(leaves.any()):
            done = Solution(columns[leaves], weights[leaves], objective[leaves], gap[leaves], before[leaves] + number)
            left.append((live[leaves], done))
            stays = (~leaves).nonzero()[:, 0]
            if not len(stays):
                break
            live, targets, penalties, columns, weights, before, picked, new, least, careful = (
                one.index_select(0, stays)
                for one in (live, targets, penalties, columns, weights, before, picked, new, least, careful)
            )
        columns = torch.cat([columns, torch.where(new, picked, unused)], dim=1)
        weights = torch.cat([weights, weights.new_zeros(new.shape)], dim=1)
        columns, weights, counts = _moved_up(columns, weights, columns != unused)
        residuals = torch.empty_like(targets)
        failed = torch.zeros(len(live), dtype=torch.bool)
        # Targets of about as many atoms together, so that few places are empty.
        for part in torch.split(counts.argsort(descending=True, stable=True), PART_ROWS):
            places = int(counts[part[0]])
            chosen = rows.index_select(0, columns[part, :places].view(-1)).view(len(part), places, -1)
            target = targets[part]
            linear = torch.bmm(chosen, target[:, :, None])[:, :, 0] - penalties[part, None].to(dtype)
            gram, first = torch.bmm(chosen, chosen.mT), weights[part, :places]
            found, solved = _pivot(gram, linear, first, limits)
            if dtype == torch.float64:
                for row in (careful[part] | ~solved).nonzero()[:, 0].tolist():
                    found[row], solved[row] = _descend(gram[row], linear[row], first[row], limits)
            weights[part, :places] = found
            residuals[part] = target - torch.bmm(found[:, None, :], chosen)[:, 0]
            failed[part] = ~solved
        columns, weights, _ = _moved_up(columns, weights, weights > 0)
        columns = torch.where(weights > 0, columns, unused)
    solution = Solution.empty(n, max(part.columns.shape[1] for _, part in left), unused, dtype)
    for which, finished in left:
        solution.put(which, finished)
    return solution


def _residuals(targets: Tensor, columns: Tensor, weights: Tensor, rows: Tensor) -> Tensor:
    """Return y - Dᵀ w, (n, d)."""
    if not columns.shape[1]:
        return targets
    out = torch.empty_like(targets)
    for part in torch.split(torch.arange(len(targets)), PART_ROWS):
        out[part] = targets[part] - torch.bmm(weights[part, None, :], rows[columns[part]])[:, 0]
    return out


def _moved_up(columns: Tensor, weights: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return columns and weights with the kept places first, as many as any target keeps, and how many each keeps."""
    counts = kept.sum(dim=1)
    order = kept.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, : int(counts.max())]
    return columns.gather(1, order), weights.gather(1, order), counts


def _objective_and_gap(
    targets: Tensor, residuals: Tensor, penalties: Tensor, weights: Tensor, most: Tensor
) -> tuple[Tensor, Tensor]:
    """Return P(w) and its relative duality gap, both (n,) in float64.

    Args:
        targets: y (n, d).
        residuals: r (n, d).
        penalties: λ (n,).
        weights: (n, places).
        most: the highest correlation of any atom with r, (n,).
    """
    y, r = targets.double(), residuals.double()
    primal = r.square().sum(dim=1) / 2 + penalties * weights.sum(dim=1, dtype=torch.float64)
    shrink = (penalties / most.double().clamp_min(LEAST)).clamp_max(1.0)
    dual = (y.square().sum(dim=1) - (y - shrink[:, None] * r).square().sum(dim=1)) / 2
    return primal, (primal - dual).clamp_min(0.0) / primal.clamp_min(LEAST)


def _pick(correlations: Tensor, group: int, n: int) -> tuple[Tensor, Tensor]:
    """Return up to n columns of about the highest correlations, and those: (rows, n) each, in no order.

    With a group above 1 only the best of each group can be among them, which spares looking through all columns for
    the n best; the others' turn comes in a later round. A group is every so-many-th column, so that its maximum is
    that of whole stretches of memory.
    """
    rows, width = correlations.shape
    n_groups = width // group
    grouped = correlations.view(rows, group, n_groups)
    values, groups = grouped.amax(dim=1).topk(min(n, n_groups), dim=1, sorted=False)
    members = grouped.gather(2, groups[:, None, :].expand(-1, group, -1)).argmax(dim=1)
    return members * n_groups + groups, values


def _pivot(gram: Tensor, linear: Tensor, start: Tensor, limits: _Precision) -> tuple[Tensor, Tensor]:
    """Return the w ≥ 0 of minimal w·G·w / 2 - w·b for each of some small problems, and whether it was found.

    Args:
        gram: G (rows, k, k), positive semi-definite with a diagonal of ones and zeros; the ridge is added in place.
        linear: b (rows, k); below 0 where the diagonal is zero.
        start: weights that tell the first guess of those that are positive, (rows, k). Where no solution is found
            they are returned.
        limits: of the precision.

    Returns:
        w (rows, k), and (rows,) bool.
    """
    rows, k = linear.shape
    gram.diagonal(dim1=1, dim2=2).add_(limits.ridge)
    found, solved = start.clone(), torch.zeros(rows, dtype=torch.bool)
    live, places = torch.arange(rows), torch.arange(k)
    positive = (start > 0) | (linear > _times(gram, start))
    fewest, chances = torch.full((rows,), k + 1), torch.full((rows,), CHANCES)
    for _ in range(MOST_PIVOTS):
        # Equations of the positive weights; the others' rows and columns are those of the identity.
        equations = gram * (positive[:, :, None] & positive[:, None, :])
        equations.diagonal(dim1=1, dim2=2).add_(~positive)
        factor, singular = torch.linalg.cholesky_ex(equations)
        weights = torch.cholesky_solve((linear * positive)[:, :, None], factor)[:, :, 0]
        slopes = _times(gram, weights) - linear
        wrong = torch.where(positive, weights < -limits.sign, slopes < -limits.sign)
        count = wrong.sum(dim=1)
        possible = singular == 0
        right = possible & (count == 0)
        if bool(right.any()):
            # The equations without what was added to the diagonal: one step of iterative refinement.
            lack = (limits.ridge * weights - slopes) * positive
            weights = weights + torch.cholesky_solve(lack[:, :, None], factor)[:, :, 0]
            found[live[right]] = weights[right].clamp_min(0.0)
            solved[live[right]] = True
        stays = (possible & ~right).nonzero()[:, 0]
        if not len(stays):
            break
        fewer = count < fewest
        fewest = torch.where(fewer, count, fewest)
        chances = torch.where(fewer, CHANCES, chances - 1)
        # One at a time, always the last, ends for certain (Murty 1974).
        last = torch.where(wrong, places, -1).amax(dim=1, keepdim=True)
        positive = positive ^ torch.where((chances < 0)[:, None], places == last, wrong)
        live, gram, linear, positive, fewest, chances = (
            one.index_select(0, stays) for one in (live, gram, linear, positive, fewest, chances)
        )
    return found, solved


def _descend(gram: Tensor, linear: Tensor, start: Tensor, limits: _Precision) -> tuple[Tensor, bool]:
    """Return the same for one small problem in float64, by steps that never raise the objective.

    One weight after the other is let go from zero, the one of the steepest slope; then all that are not zero go to
    where their equations are solved, or as far as none of them falls below zero, which stays there.

    Args:
        gram: G (k, k) with the ridge.
        linear: b (k,).
        start: weights to begin with, (k,).
        limits: of the precision.

    Returns:
        w (k,), and whether no slope is left.
    """
    G, b, w = gram.numpy(), linear.numpy(), start.numpy().copy()
    free, barred = w > 0, np.zeros(len(w), dtype=np.bool_)
    best = 0
    for step in range(STEPS * len(w)):
        free = _to_the_minimum(G, b, w, free)
        # What rounding lets fall below zero at once is not tried again before something else has moved.
        if step and not free[best]:
            barred[best] = True
        else:
            barred[:] = False
        slopes = np.where(free | barred, -np.inf, b - G @ w)
        best = int(slopes.argmax())
        if slopes[best] <= limits.sign:
            return torch.from_numpy(w), True
        free[best] = True
    return torch.from_numpy(w), False


def _to_the_minimum(
    G: NDArray[np.float64], b: NDArray[np.float64], w: NDArray[np.float64], free: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Move the free weights, in place, to where the objective is least; return those that are then above zero."""
    free = free.copy()
    while free.any():
        goal = np.linalg.solve(G[np.ix_(free, free)], b[free])
        held = w[free]
        if (goal > 0).all():
            w[free] = goal
            break
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = np.where(goal > 0, np.inf, np.nan_to_num(held / (held - goal)))
        held = held + reach.min() * (goal - held)
        held[reach == reach.min()] = 0.0
        w[free] = np.maximum(held, 0.0)
        free = w > 0
    return free


def _times(matrices: Tensor, vectors: Tensor) -> Tensor:
    """Return the product of each matrix (rows, k, k) and vector (rows, k)."""
    return torch.bmm(matrices, vectors[:, :, None])[:, :, 0]
