"""`fliplens evaluate --against OTHER`: what the other lens reads, and the comparison."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fliplens.cli.output import print_comparisons
from fliplens.devices import resolve_device
from fliplens.embeddings import open_embeddings
from fliplens.errors import InputError
from fliplens.evaluation.comparison import Comparison, compare_views
from fliplens.evaluation.evaluating import EvaluationResult, evaluate
from fliplens.lenses.extractor import Extractor
from fliplens.training.views import Rows

__all__ = ["Against"]


@dataclass(frozen=True)
class Against:
    """The other lens of a comparison and what it reads."""

    name: str
    """OTHER, as it was given."""
    lens: Extractor
    """The same object as LENS where OTHER is LENS."""
    rows: Rows | None
    """Vectors that only it reads; None where those of LENS serve both."""
    embeddings: str | None
    """Where its vectors come from; None where it reads each view that LENS reads."""

    @classmethod
    def of(cls, args: argparse.Namespace, lens: Extractor, given: Rows) -> Against | None:
        """Return what the call asks for; None where it asks for no comparison.

        Raises:
            InputError: options that do not go together, or files that are not what they should be.
        """
        if args.against is None:
            if args.against_embeddings is not None:
                raise InputError("expected --against OTHER with --against-embeddings, found none: name another lens")
            return None
        if args.metrics == "pr":
            raise InputError("expected --metrics accuracy or all with --against, found pr: it compares accuracies")
        itself = Path(args.against).resolve() == Path(args.lens).resolve()
        other = lens if itself else Extractor.load(args.against).to(resolve_device(args.device))
        if args.against_embeddings is not None:
            vectors = open_embeddings(args.against_embeddings, verify=args.verify)
            vectors.check_dim(other.dim, made_for=f"those of {args.against}")
            return cls(args.against, other, Rows.of(given.texts, vectors, None, "other"), args.against_embeddings)
        if itself and given.paired is None:
            raise InputError(
                "expected a second view to compare LENS with itself, found none: give --paired F.npy, or another lens"
            )
        return cls(args.against, other, None, args.paired if itself else None)

    def finite(self, given: Rows) -> tuple[Rows, Against]:
        """Return the rows that are finite both in what LENS reads and in what this reads.

        Raises:
            InputError: there are none.
        """
        if self.rows is None:
            return given.finite(drop=True)[0], self
        kept = np.arange(len(given.texts))
        for rows in (given, self.rows):
            good = rows.finite(drop=True)[0]
            kept = kept if good.kept is None else np.intersect1d(kept, good.kept)
        if not len(kept):
            raise InputError("expected rows that are finite in all vectors, found none")
        return replace(given.subset(kept), kept=kept), replace(self, rows=self.rows.subset(kept))

    def compare(self, args: argparse.Namespace, lens: Extractor, result: EvaluationResult, rows: Rows) -> Compared:
        """Compare every view of LENS that has a counterpart.

        Args:
            args: the call.
            lens: LENS.
            result: its evaluation, with hits.
            rows: what it was evaluated on.
        """
        if self.rows is None and self.lens is lens:
            theirs = {"primary": result.views["paired"]}
        else:
            read = rows if self.rows is None else self.rows
            theirs = evaluate(
                self.lens,
                read.texts,
                read.primary,
                paired=read.paired,
                prior=args.prior,
                metrics="accuracy",
                decoding=args.decoding,
                keep_hits=True,
            ).views
        comparisons = {
            name: compare_views(result.views[name], view, lens.vocabulary, self.lens.vocabulary)
            for name, view in theirs.items()
        }
        return Compared(self, comparisons)


@dataclass(frozen=True)
class Compared:
    """What the comparison found."""

    against: Against
    views: dict[str, Comparison]
    """View of LENS → how OTHER compares with it."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values: `"against"` of `evaluate --json`."""
        views = {name: comparison.to_json() for name, comparison in self.views.items()}
        return {"lens": self.against.name, "embeddings": self.against.embeddings, "views": views}

    def print(self, args: argparse.Namespace) -> None:
        """Write tables to stdout."""
        read = self.against.embeddings or "the same vectors"
        title = f"LENS {args.lens} against OTHER {self.against.name} on {read}"
        print_comparisons(title, self.views, prior=args.prior)
