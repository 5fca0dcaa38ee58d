"""The package as its users get it: public names, cheap imports, layers, the wheel in an empty environment."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import tomllib
import venv
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from commands import ROOT, environment

import fliplens
from fliplens import embeddings
from fliplens.lenses import files as lens_files
from fliplens.text.vocabulary import Vocabulary

PUBLIC = [
    "AtPriors",
    "Checkpoint",
    "ComparedAt",
    "Comparison",
    "ConceptConfig",
    "Difference",
    "EmbeddingSpaceError",
    "EmbeddingSpaceWarning",
    "Embeddings",
    "Encoder",
    "Entities",
    "EntityRecall",
    "Estimate",
    "EvaluationResult",
    "Extractor",
    "FliplensError",
    "FliplensWarning",
    "FrequencyConfig",
    "InputError",
    "InterruptedRunError",
    "Lens",
    "Manifest",
    "MissingExtraError",
    "ProbeConfig",
    "References",
    "RidgeConfig",
    "SpliceConfig",
    "Tokeniser",
    "TopWords",
    "TrainConfig",
    "ViewResult",
    "Vocabulary",
    "VocabularyConfig",
    "Word",
    "Words",
    "__version__",
    "compare",
    "encode_texts",
    "evaluate",
    "fit",
    "fit_baseline",
    "load_encoder",
    "open_embeddings",
    "read_entities",
    "write_top_words",
]
COMMANDS = ("demo", "encode", "fit", "evaluate", "explain", "info")
HEAVY = ("numpy", "scipy", "torch", "transformers", "sentence_transformers", "safetensors", "sklearn", "rich", "yaml")


# Names ----------------------------------------------------------------------------------------------------------


def test_the_public_names_are_these() -> None:
    assert fliplens.__all__ == PUBLIC
    assert dir(fliplens) == sorted(PUBLIC)


@pytest.mark.parametrize("name", [name for name in PUBLIC if name != "__version__"])
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert (getattr(fliplens, name).__doc__ or "").strip()


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = fliplens.nonsense


def test_every_module_says_what_it_is_and_what_it_exports() -> None:
    for path in (ROOT / "fliplens").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), path
        exports = [
            ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]
        ]
        defined = {
            name.asname or name.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for name in node.names
        }
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                defined.add(node.name)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                defined.update(ast.unparse(target) for target in targets)
        assert set(*exports or [[]]) <= defined, path


# Imports --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code",
    [
        "import fliplens",
        "from fliplens.cli import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass",
        "from fliplens.cli import main\ntry:\n    main(['evaluate', '--help'])\nexcept SystemExit:\n    pass",
    ],
)
def test_importing_and_asking_for_help_load_nothing_heavy(code: str) -> None:
    code += f"\nimport sys, json\nprint(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_help_lists_every_command_and_each_has_help() -> None:
    def shown(*argv: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "fliplens", *argv, "--help"],
            capture_output=True,
            text=True,
            env=environment(),
            check=True,
        )
        assert done.stderr == ""
        return done.stdout

    listing = shown()
    for name in COMMANDS:
        assert f"\n    {name} " in listing
    assert "--norm" in shown("evaluate")


def imported(module: str) -> set[str]:
    """Return what a module of ours imports anywhere in it, typing aside."""
    tree = ast.parse((ROOT / "fliplens" / f"{module}.py").read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def test_listing_encoders_loads_no_model_library() -> None:
    code = (
        "import contextlib, io, sys\nfrom fliplens.cli import main\nwith contextlib.redirect_stdout(io.StringIO()):\n"
        "    main(['encoders', '--json'])\nprint([name for name in ('torch', 'transformers') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "module",
    [
        "training/anchoring",
        *(f"arithmetic/{path.stem}" for path in (ROOT / "fliplens" / "arithmetic").glob("[!_]*.py")),
    ],
)
def test_the_maths_imports_no_files_and_no_command_line(module: str) -> None:
    names = imported(module)
    assert names, module
    forbidden = {"fliplens.cli", "fliplens.lenses.files", "fliplens.files", "argparse", "json", "pathlib", "os", "io"}
    assert not names & forbidden
    assert not any(name.startswith("fliplens.cli") for name in names)


def test_no_module_but_the_command_line_imports_it() -> None:
    for path in (ROOT / "fliplens").rglob("*.py"):
        name = path.relative_to(ROOT / "fliplens").with_suffix("").as_posix()
        if not name.startswith("cli/") and name != "__main__":
            assert not any(other.startswith("fliplens.cli") for other in imported(name)), name


# Versions -------------------------------------------------------------------------------------------------------


def test_the_formats_on_disk_are_these() -> None:
    # Format 2 only where a reader of format 1 would go wrong.
    assert lens_files.FORMAT_VERSION == 2
    words = Vocabulary(("a", "a b"), ngram_range=(1, 2))
    assert lens_files.format_version(words) == 1
    assert lens_files.format_version(replace(words, spans="longest")) == 2
    assert embeddings.manifest.MANIFEST_VERSION == 1
    assert embeddings.Manifest.__dataclass_fields__["format_version"].default == 1


# The wheel ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("build")
    pytest.importorskip("hatchling")
    out = tmp_path_factory.mktemp("dist")
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_the_typed_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = next(archive.read(name).decode() for name in names if name.endswith("METADATA"))
    information = f"fliplens-{fliplens.__version__}.dist-info/"
    assert "fliplens/py.typed" in names
    assert {name.split("/")[0] + "/" for name in names} == {"fliplens/", information}
    assert not [name for name in names if "test" in name.split("/")]
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "fliplens").rglob("*.py")}
    assert sources <= set(names)
    assert f"\nVersion: {fliplens.__version__}\n" in metadata and "\nLicense-Expression: MIT\n" in metadata
    assert any(name.startswith(information) and name.endswith("LICENSE") for name in names)


def test_every_run_time_import_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    declared = [*project["dependencies"], *(item for extra in extras for item in extra)]
    names = {item.split(">=")[0].split("[")[0].lower().replace("-", "_") for item in declared}
    # pydantic comes with google-genai, whose answers it checks.
    called = {"yaml": "pyyaml", "sklearn": "scikit_learn", "google": "google_genai", "pydantic": "google_genai"}
    for path in (ROOT / "fliplens").rglob("*.py"):
        module = path.relative_to(ROOT / "fliplens").with_suffix("").as_posix()
        for name in imported(module):
            root = name.split(".")[0]
            if root not in sys.stdlib_module_names and root != "fliplens":
                assert called.get(root, root) in names, f"{module} imports {root}"


def test_the_wheel_installs_into_an_empty_environment_and_shows_its_help(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "empty", with_pip=False, symlinks=sys.platform != "win32")
    scripts = tmp_path / "empty" / ("Scripts" if sys.platform == "win32" else "bin")
    python = next(scripts.glob("python*"))
    # Our pip, their environment: installing another pip there would take longer than all the rest.
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", str(wheel)],
        capture_output=True,
        check=True,
    )

    def run(*argv: str) -> str:
        done = subprocess.run(
            [str(next(scripts.glob("fliplens*"))), *argv],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={},
            check=True,
        )
        assert done.stderr == ""
        return done.stdout

    assert run("--version") == f"fliplens {fliplens.__version__}\n"
    assert "commands:" in run("--help")
