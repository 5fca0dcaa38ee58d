"""What the documentation says is what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from toys import ToyEncoder, toy_corpus

import fliplens.encoders
from benchmarks.report import PAGES, with_results
from fliplens.cli.reference import reference
from fliplens.lenses.words import Words
from fliplens.training.fitting import fit
from fliplens.training.recipes import TrainConfig

ROOT = Path(__file__).resolve().parents[1]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_the_command_line_reference_is_fresh() -> None:
    written = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    assert written == reference(), "run `make reference`"


def test_the_readmes_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, vectors = toy_corpus(300)
    lens = fit(texts, vectors, encoder=ToyEncoder(), config=TrainConfig(passes=1))
    monkeypatch.chdir(tmp_path)
    lens.save("runs/demo/lens")
    monkeypatch.setattr(fliplens.encoders, "load_encoder", lambda spec: ToyEncoder())
    names: dict[str, Any] = {"texts": texts, "embeddings": vectors, "embedding": vectors[0]}
    found = blocks("python")
    assert len(found) == 2
    for block in found:
        exec(block, names)  # noqa: S102 - our own README
    assert isinstance(names["lens"].words(vectors[0]), Words)
    assert len(names["top"]) == 1


def test_the_readmes_commands_exist() -> None:
    shell = "\n".join(blocks("sh"))
    named = set(re.findall(r"^fliplens (\w+)", shell, re.MULTILINE))
    assert {"encode", "fit", "evaluate", "explain", "info"} <= named
    commands = set(re.findall(r"^## fliplens (\w+)", reference(), re.MULTILINE))
    assert named <= commands
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", shell, re.MULTILINE):
        assert f"\n{target}:" in makefile


def test_links_of_the_documentation_lead_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_the_readmes_figures_are_those_of_the_committed_benchmarks() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert with_results(text) == text, f"{page.name}: run python -m benchmarks, or restore the figures"
    assert "| FLiP rank 384 |" in PAGES[0].read_text(encoding="utf-8")


def test_every_module_has_its_place_on_the_architecture_page() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    package = ROOT / "fliplens"
    rows = {name: row for row in page.splitlines() for name in re.findall(r"^\| `(\w+)/` \|", row)}
    folders = {path.name for path in package.iterdir() if (path / "__init__.py").is_file()}
    assert set(rows) == folders
    for folder, row in {**rows, "": page}.items():
        modules = {path.stem for path in (package / folder).glob("*.py") if not path.stem.startswith("__")}
        missing = modules - set(re.findall(r"`(\w+)`", row))
        assert not missing, f"not on the page: {sorted(missing)} of fliplens/{folder}"
