"""Cells of tables out of measurements, which are the JSON of `evaluate` and `compare`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fliplens.studies.tables import Cell

__all__ = ["PRIORS", "accuracy", "difference", "estimate", "jaccard"]

PRIORS = {"with_prior": "", "without_prior": ", prior removed"}
"""Positions of the dial, and what titles say of them: the full bias, the paper's equation 5, goes without saying."""


def estimate(value: Mapping[str, Any], *, signed: bool = False) -> Cell:
    """Return the cell of an `Estimate` or `Difference` as JSON."""
    if value["mean"] is None:
        return Cell.nothing("nothing to average")
    return Cell(
        value["mean"],
        se=value["se"],
        ci95=None if value["ci95"][0] is None else tuple(value["ci95"]),
        p=value.get("p_value", value.get("p")),
        n=value.get("n"),
        signed=signed,
    )


def accuracy(evaluation: Mapping[str, Any], view: str = "primary", position: str = "with_prior") -> Cell:
    """Return the accuracy of one view at one position of the prior dial."""
    return estimate(evaluation["views"][view]["accuracy"][position])


def difference(comparison: Mapping[str, Any], position: str = "with_prior") -> Cell:
    """Return the first model's accuracy minus the second's, on the same sentences."""
    return estimate(comparison[position]["difference"], signed=True)


def jaccard(comparison: Mapping[str, Any], position: str = "with_prior") -> Cell:
    """Return the Jaccard index of the two models' hit sets."""
    return estimate(comparison[position]["jaccard"])
