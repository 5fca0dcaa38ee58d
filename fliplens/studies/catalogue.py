"""All studies, and the one call that carries one out."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import torch

import fliplens
from fliplens.devices import machine
from fliplens.errors import InputError
from fliplens.studies.config import StudyConfig
from fliplens.studies.data import StudyData
from fliplens.studies.drawing import check_drawing
from fliplens.studies.entities import ENTITIES
from fliplens.studies.layers import LAYERS
from fliplens.studies.page import Provenance, Study, forget_models, write_study
from fliplens.studies.plan import Evaluating, Plan, StudyKind, View
from fliplens.studies.rank import RANK
from fliplens.studies.runner import Runner
from fliplens.studies.splice import SPLICE
from fliplens.studies.sweep import SWEEP
from fliplens.studies.transfer import LANGUAGE, MODALITY
from fliplens.studies.vocabulary import ENCODERS, VOCABULARY

__all__ = ["KINDS", "StudyResult", "run_study"]

KINDS: dict[str, StudyKind] = {
    one.name: one for one in (RANK, MODALITY, LANGUAGE, VOCABULARY, ENCODERS, SPLICE, ENTITIES, LAYERS, SWEEP)
}
"""By name, in the order of `fliplens.studies.names`."""


@dataclass(frozen=True)
class StudyResult:
    """What a study found, and where it lies."""

    study: Study
    folder: Path

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "folder": str(self.folder),
            "title": self.study.title,
            "tables": {name: table.to_json() for name, table in self.study.tables.items()},
            "findings": list(self.study.findings),
        }


def run_study(
    name: str,
    config: str | Path,
    out: str | Path,
    *,
    data: str | Path | None = None,
    cache: str | Path | None = None,
    device: str = "auto",
    show_progress: bool = False,
    stop: Callable[[], bool] | None = None,
) -> StudyResult:
    """Carry out one study: fit, measure, write table, plots and page.

    What is there already of the same data and settings, by whatever earlier run, is used. The fitted models lie in
    the folder's `lenses`, each under its name.

    Args:
        name: one of `fliplens.studies.names`.
        config: its YAML file, see `fliplens.studies.config`.
        out: the folder that gets tables, plots and the page.
        data: where the paths of `config` are looked up; by default beside it.
        cache: keeps lenses, measurements and vectors, by default `out`/cache; several studies may share one.
        device: auto, cpu, cuda or mps.
        show_progress: bars on stderr.
        stop: asked in long work; once it is true the work ends, and the same call goes on with it.

    Raises:
        InputError: an unknown study, settings or data that do not fit; the message names the line.
        MissingExtraError: matplotlib is not installed.
        InterruptedRunError: `stop` was true.
    """
    if name not in KINDS:
        raise InputError(f"expected a study out of {', '.join(KINDS)}, found {name!r}")
    kind = KINDS[name]
    # Hours of work should not end in a page that cannot be drawn.
    check_drawing()
    settings = kind.adapt(StudyConfig.read(config, *kind.settings))
    out = Path(out)
    kept = out / "cache" if cache is None else Path(cache)
    for folder in (out, kept):
        if folder.exists() and not folder.is_dir():
            raise InputError(f"expected a folder to write at {folder}, found a file: name another place")
    plan = kind.plan(settings)
    read = StudyData(
        settings,
        folder=Path(config).parent if data is None else Path(data),
        cache=kept,
        device=device,
        show_progress=show_progress,
        stop=stop,
    )
    runner = Runner(settings, plan, read, cache=kept, device=device, show_progress=show_progress, stop=stop)
    found = runner.run()
    folders = runner.publish(out / "lenses")
    forget_models(out, {folder.name for folder in folders.values()})
    written = replace(
        kind.write_up(settings, plan, found),
        provenance=Provenance(
            config=settings.own.plain(),
            versions={
                "fliplens": fliplens.__version__,
                "python": platform.python_version(),
                "torch": torch.__version__,
                "numpy": numpy.__version__,
            },
            hashes=read.hashes(),
            models={
                label: {"folder": f"lenses/{folders[label].name}", **record}
                for label, record in runner.records().items()
            },
            data=tuple(_told(plan, read, found)),
            # Of paths, no more than what another machine has as well.
            command=f"fliplens study {name} {Path(config).name} --data DIR -o OUT",
            machine=machine(device),
        ),
    )
    write_study(out, written)
    return StudyResult(written, out)


def _told(plan: Plan, data: StudyData, found: Mapping[str, Any]) -> list[str]:
    """Return sentences that say how many sentences were measured, and how many of them training has seen."""
    counts: dict[tuple[View, str], set[tuple[int, int]]] = {}
    for name, one in plan.measurements.items():
        if isinstance(one, Evaluating):
            counts.setdefault((one.words, one.split), set()).add(
                (found[name]["n_evaluated"], found[name]["n_skipped"])
            )
    lines = []
    for (words, split), numbers in counts.items():
        for measured, skipped in sorted(numbers):
            lines.append(
                f"{words.corpus}, {split}, words of {words.side}: {measured:,} sentences measured, {skipped:,} "
                "without a word of the vocabulary left out."
            )
    for words in dict.fromkeys(words for words, _ in counts):
        again, n = data.repeated(words)
        told = f"test sentences of {words.corpus} ({words.side}) are training sentences too"
        lines.append(f"{again:,} of the {n:,} {told}.")
    return lines
