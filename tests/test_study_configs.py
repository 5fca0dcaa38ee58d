"""The configs that come with the project are read, and plan what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from fliplens.studies.catalogue import KINDS
from fliplens.studies.config import StudyConfig

CONFIGS = sorted((Path(__file__).parent.parent / "studies").glob("*/*.yaml"))


def test_there_is_a_config_of_both_kinds_for_every_study() -> None:
    for folder in ("paper", "offline"):
        assert {path.stem.split("-")[0] for path in CONFIGS if path.parent.name == folder} == set(KINDS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_config_makes_a_plan(path: Path) -> None:
    kind = KINDS[path.stem.split("-")[0]]
    config = kind.adapt(StudyConfig.read(path, *kind.settings))
    plan = kind.plan(config)
    assert plan.fittings and plan.measurements
    assert config.title
    for one in plan.measurements.values():
        models = (one.model,) if hasattr(one, "model") else one.models
        assert set(models) <= set(plan.fittings)
