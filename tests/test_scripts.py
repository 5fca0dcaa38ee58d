"""The script for environments without FLiPLens writes what FLiPLens reads."""

from __future__ import annotations

import ast
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fliplens.embeddings import open_embeddings
from fliplens.encoding.texts import bad_list
from fliplens.files import sha256_of_lines

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "encode_sonar_speech.py"
PATHS = [f"clips/{number}.wav" for number in range(11)]


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("encode_sonar_speech", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Fake:
    """An encoder that fails with a whole batch where one of it is bad, as the real one does."""

    def __init__(self, bad: tuple[str, ...] = ()) -> None:
        self.bad = bad
        self.asked: list[list[str]] = []

    def __call__(self, paths: list[str]) -> torch.Tensor:
        self.asked.append(paths)
        if any(Path(path).name in self.bad for path in paths):
            raise RuntimeError("cannot\ndecode")
        return torch.tensor([self.vector(path) for path in paths], dtype=torch.float64)

    @staticmethod
    def vector(path: str) -> list[float]:
        return [float(Path(path).stem), 1.0, 0.5, -2.0]


def run(script: Any, encode: Any, out: Path, paths: list[str] | None = None, **options: Any) -> int:
    given = {"language": "eng", "name": "list.txt", "batch_size": 3, "rows_per_part": 4, "dim": 4, **options}
    bad: int = script.write(encode, PATHS if paths is None else paths, out, **given)
    return bad


def test_what_it_writes_is_opened(script: Any, tmp_path: Path) -> None:
    fake = Fake()
    assert run(script, fake, tmp_path / "out", folder="/somewhere") == 0
    found = open_embeddings(tmp_path / "out", verify=True)
    np.testing.assert_array_equal(found.to_numpy(), np.array([Fake.vector(path) for path in PATHS], dtype=np.float32))
    manifest = found.manifest
    assert manifest is not None and manifest.encoder == "sonar-speech-eng" and manifest.rows == [4, 4, 3]
    assert manifest.source["sha256"] == sha256_of_lines(PATHS) and not manifest.normalised
    assert fake.asked[0] == [f"/somewhere/{path}" for path in PATHS[:3]]
    assert not list((tmp_path / "out").glob(".*"))


def test_what_cannot_be_read_is_a_row_of_nan(script: Any, tmp_path: Path) -> None:
    assert run(script, Fake(bad=("4.wav", "10.wav")), tmp_path / "out") == 2
    found = open_embeddings(tmp_path / "out", verify=True)
    assert found.bad_rows().tolist() == [4, 10]
    listed = [json.loads(line) for line in bad_list(tmp_path / "out").read_text().splitlines()]
    assert listed == [
        {"row": 4, "input": "clips/4.wav", "error": "cannot decode"},
        {"row": 10, "input": "clips/10.wav", "error": "cannot decode"},
    ]


def test_a_killed_job_goes_on(script: Any, tmp_path: Path) -> None:
    class Killed(Fake):
        after = 0

        def __call__(self, paths: list[str]) -> torch.Tensor:
            if len(self.asked) >= self.after:
                raise KeyboardInterrupt
            return super().__call__(paths)

    # At once, and in the second part, of which each has two batches.
    for after in (0, 3):
        killed = Killed()
        killed.after = after
        with pytest.raises(KeyboardInterrupt):
            run(script, killed, tmp_path / "out")
    fake = Fake()
    run(script, fake, tmp_path / "out")
    assert Path(fake.asked[0][0]).name == "4.wav"
    again = Fake()
    run(script, again, tmp_path / "out")
    assert again.asked == []
    assert len(open_embeddings(tmp_path / "out", verify=True)) == 11
    with pytest.raises(SystemExit, match="found something else"):
        run(script, fake, tmp_path / "out", PATHS[:3])


def test_vectors_of_another_size_are_no_vectors(script: Any, tmp_path: Path) -> None:
    assert run(script, lambda paths: np.zeros((len(paths), 5)), tmp_path / "out", PATHS[:2]) == 2
    assert "expected vectors of shape (1, 4), found (1, 5)" in bad_list(tmp_path / "out").read_text()


def test_it_needs_nothing_of_ours() -> None:
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    roots = {name.split(".")[0] for name in names} - set(sys.stdlib_module_names)
    assert roots == {"numpy", "torch", "sonar"}
