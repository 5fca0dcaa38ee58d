"""All studies, and the one call that carries one out."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import torch

import fliplens
from fliplens.errors import InputError
from fliplens.studies.config import StudyConfig
from fliplens.studies.drawing import check_drawing
from fliplens.studies.entities import ENTITIES
from fliplens.studies.page import Provenance, Study, write_study
from fliplens.studies.plan import StudyKind
from fliplens.studies.rank import RANK
from fliplens.studies.runner import Runner
from fliplens.studies.splice import SPLICE
from fliplens.studies.sweep import SWEEP
from fliplens.studies.transfer import LANGUAGE, MODALITY
from fliplens.studies.vocabulary import ENCODERS, VOCABULARY

__all__ = ["STUDIES", "StudyResult", "run_study"]

STUDIES: dict[str, StudyKind] = {
    one.name: one for one in (RANK, MODALITY, LANGUAGE, VOCABULARY, ENCODERS, SPLICE, ENTITIES, SWEEP)
}
"""By name, in the order of the paper's tables."""


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

    What is there already of the same data and settings, by whatever earlier run, is used.

    Args:
        name: one of STUDIES.
        config: its YAML file, see `fliplens.studies.config`.
        out: the folder that gets tables, plots and the page.
        data: where the paths of `config` are looked up; by default beside it.
        cache: keeps lenses, measurements and vectors, by default `out`; several studies may share one.
        device: auto, cpu, cuda or mps.
        show_progress: bars on stderr.
        stop: asked in long work; once it is true the work ends, and the same call goes on with it.

    Raises:
        InputError: an unknown study, settings or data that do not fit; the message names the line.
        MissingExtraError: matplotlib is not installed.
        InterruptedRunError: `stop` was true.
    """
    if name not in STUDIES:
        raise InputError(f"expected a study out of {', '.join(STUDIES)}, found {name!r}")
    kind = STUDIES[name]
    # Hours of work should not end in a page that cannot be drawn.
    check_drawing()
    settings = StudyConfig.read(config, *kind.settings)
    out = Path(out)
    kept = out if cache is None else Path(cache)
    for folder in (out, kept):
        if folder.exists() and not folder.is_dir():
            raise InputError(f"expected a folder to write at {folder}, found a file: name another place")
    plan = kind.plan(settings)
    runner = Runner(
        settings,
        plan,
        data=Path(config).parent if data is None else Path(data),
        cache=kept,
        device=device,
        show_progress=show_progress,
        stop=stop,
    )
    found = runner.run()
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
            hashes=runner.hashes(),
            command=f"fliplens study {name} {Path(config).name}",
        ),
    )
    write_study(out, written)
    return StudyResult(written, out)
