"""The names of all studies, with what each is of and what it varies; light enough for `--help`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

__all__ = ["STUDIES", "StudyName"]


class StudyName(NamedTuple):
    """One table or figure of the paper."""

    source: str
    """Which one, in words."""
    varies: str
    """What it varies."""


STUDIES: Mapping[str, StudyName] = MappingProxyType(
    {
        "rank": StudyName("Table 1", "factorised or not, and rank"),
        "modality": StudyName("Table 2", "the view trained on (alpha 0 or 1) and the view read"),
        "language": StudyName("Table 3", "the language trained on and the one read, vocabulary fixed"),
        "vocabulary": StudyName("Table 4", "the language of the words and of the vectors"),
        "encoders": StudyName("Table 5", "the encoder"),
        "splice": StudyName("Table 6", "the method: SpLiCE or FLiP, on one concept vocabulary"),
        "entities": StudyName("Figure 1", "n, and the prior: strict and partial entity recall"),
        "layers": StudyName("beyond the paper", "the layer of a model that the vectors are taken from"),
        "sweep": StudyName("Section 3.5", "rank x L1 x weight decay x alpha, chosen on dev"),
    }
)
"""By name, in the order of the paper's tables."""
