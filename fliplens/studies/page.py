"""The folder of a study: a page in words with its plots and tables, and each of these as files of its own.

    README.md                  what was asked, what was found, plots, tables, how it was made
    study.json                 all of that but the plots, for programs; says which files belong to the study
    NAME.md .csv .tex .json    one set a table
    NAME.svg .png              one pair a plot

Everything is made before anything is written, each file is written aside and renamed, and the same study always gives
the same bytes. Nothing here is measured, and no clock is read.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fliplens.errors import InputError
from fliplens.files import atomic_file, read_json, sha256_of_file
from fliplens.studies.drawing import check_drawing
from fliplens.studies.plots import Plot, render
from fliplens.studies.rendering import escape_markdown, to_csv, to_latex, to_markdown
from fliplens.studies.tables import Column, Table, clean

__all__ = ["FORMAT", "FORMAT_VERSION", "Provenance", "Study", "render_study", "short_names", "write_study"]

FORMAT = "fliplens-study"
FORMAT_VERSION = 1
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]*[a-z0-9])?")
_FILE = re.compile(rf"{_NAME.pattern}\.(?:md|csv|tex|json|svg|png)")
_RESERVED = ("readme", "study")


@dataclass(frozen=True)
class Provenance:
    """How a study was made: enough to make it again."""

    config: Mapping[str, Any] = field(default_factory=dict)
    """Its settings, as plain JSON values."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of FLiPLens, torch and whatever else the numbers depend on."""
    hashes: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 of what was read, by its name."""
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Name of every fitted model → `folder` (relative to the study's) and what is told of its making."""
    data: tuple[str, ...] = ()
    """Sentences about what was measured on: how many sentences, how many of them left out and why."""
    command: str = ""
    """What was typed."""
    machine: str = ""
    """What it ran on, in words."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "command": self.command,
            "machine": self.machine,
            "data": list(self.data),
            "models": {name: dict(one) for name, one in self.models.items()},
            "config": dict(self.config),
            "versions": dict(self.versions),
            "hashes": dict(self.hashes),
        }


@dataclass(frozen=True)
class Study:
    """What a study has to show.

    All texts are plain: whatever looks like markup in them is shown as it is.

    Raises:
        InputError: a name of a table or plot that cannot be that of a file; neither tables nor plots.
    """

    title: str
    """What was studied, in one line."""
    description: str
    """What was asked and how, in words; an empty line parts paragraphs."""
    tables: Mapping[str, Table]
    """By the name of their files: "table", or a name each; small letters, digits, `-` and `_`."""
    plots: Mapping[str, Plot] = field(default_factory=dict)
    """Likewise: "plot"."""
    findings: tuple[str, ...] = ()
    """What was found, a paragraph each (`fliplens.studies.findings`)."""
    provenance: Provenance = field(default_factory=Provenance)
    """How it was made."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "findings", tuple(self.findings))
        if not self.tables and not self.plots:
            raise InputError(f"expected a table or a plot in {self.title!r}, found none: give at least one")
        for name in [*self.tables, *self.plots]:
            if not _NAME.fullmatch(name) or name in _RESERVED:
                raise InputError(
                    f"expected small letters, digits, - and _ as a name, and neither {' nor '.join(_RESERVED)}, "
                    f"found {name!r}: rename this table or plot"
                )


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Return name → a name that any disk and `Study` take for a file's, each another one."""
    short: dict[str, str] = {}
    for name in names:
        plain = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "unnamed"
        number, tried = 1, plain
        while tried in short.values():
            number += 1
            tried = f"{plain}-{number}"
        short[name] = tried
    return short


def write_study(folder: str | Path, study: Study) -> tuple[Path, ...]:
    """Write a study's folder and return its files' paths.

    A file that an earlier version of the study has written there, that nobody changed since, and that this one does
    not have is removed: a page should not lie beside plots that it no longer shows. All else in the folder stays.

    Raises:
        InputError: `folder` is a file.
        MissingExtraError: there are plots and matplotlib is not installed; nothing was written.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"expected a folder to write at {folder}, found a file: name another place")
    files = render_study(study)
    stale = _stale(folder, files)
    for name, content in files.items():
        with atomic_file(folder / name) as stream:
            stream.write(content)
    for path in stale:
        path.unlink(missing_ok=True)
    return tuple(folder / name for name in files)


def forget_models(folder: Path, kept: Collection[str]) -> None:
    """Remove models that an earlier version of the study has put into its `lenses`, and that this one does not have.

    Args:
        folder: the study's.
        kept: names of folders that stay.
    """
    from fliplens.lenses.files import LENS_FOLDER

    for name in _earlier(folder).get("models", []):
        place = folder / "lenses" / str(name)
        ours = _NAME.fullmatch(str(name)) and name not in kept and (place / LENS_FOLDER.marker).is_file()
        if ours and all(re.fullmatch(LENS_FOLDER.entries, entry.name) for entry in place.iterdir()):
            shutil.rmtree(place)


def render_study(study: Study) -> dict[str, bytes]:
    """Return the files of a study's folder, by name; `study.json`, which lists the others, is the last.

    Raises:
        MissingExtraError: there are plots and matplotlib is not installed.
    """
    if study.plots:
        check_drawing()
    files: dict[str, bytes] = {}
    for name, table in study.tables.items():
        files[f"{name}.md"] = _encoded(to_markdown(table))
        files[f"{name}.csv"] = _encoded(to_csv(table))
        files[f"{name}.tex"] = _encoded(to_latex(table, label=f"tab:{name}"))
        files[f"{name}.json"] = _json(table.to_json())
    for name, plot in study.plots.items():
        files[f"{name}.svg"] = render(plot, "svg")
        files[f"{name}.png"] = render(plot, "png")
    files["README.md"] = _encoded(_page(study))
    files["study.json"] = _json(
        {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "title": study.title,
            "description": study.description,
            "findings": list(study.findings),
            "tables": {name: table.to_json() for name, table in study.tables.items()},
            "plots": {name: plot.title for name, plot in study.plots.items()},
            "provenance": study.provenance.to_json(),
            "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        }
    )
    return files


def _page(study: Study) -> str:
    """Return the README: words first, then plots, tables and how they were made."""
    parts = [f"# {escape_markdown(study.title)}", *_paragraphs(study.description)]
    if study.findings:
        parts += ["## What was found", *(text for finding in study.findings for text in _paragraphs(finding))]
    for name, plot in study.plots.items():
        parts.append(f"![{escape_markdown(plot.title)}]({name}.svg)")
    for name, table in study.tables.items():
        files = ", ".join(f"[{kind}]({name}.{end})" for kind, end in _KINDS)
        parts += [to_markdown(table).rstrip("\n"), f"The same as {files}."]
    return "\n\n".join([*parts, *_made(study.provenance)]) + "\n"


_KINDS = (("CSV", "csv"), ("LaTeX", "tex"), ("JSON", "json"), ("Markdown", "md"))


def _made(provenance: Provenance) -> list[str]:
    """Return the paragraphs on how a study was made."""
    parts = []
    if provenance.command:
        parts.append(_fenced("sh", provenance.command))
    if provenance.machine:
        parts.append(f"Made on {escape_markdown(provenance.machine)}.")
    parts += [escape_markdown(sentence) for sentence in provenance.data]
    if provenance.models:
        table = Table.build(
            "The fitted models",
            [Column(name) for name in ("Model", "Folder", "Trained on", "Words", "Made with")],
            [_model_row(name, one) for name, one in provenance.models.items()],
        )
        parts.append(to_markdown(table).rstrip("\n"))
    for name, entries in (("Versions", provenance.versions), ("SHA-256 of what was read", provenance.hashes)):
        if entries:
            lines = [f"- {escape_markdown(key)}: {escape_markdown(str(value))}" for key, value in entries.items()]
            parts.append(f"{name}:\n\n" + "\n".join(lines))
    if provenance.config:
        parts += ["Settings:", _fenced("json", _json(dict(provenance.config)).decode("utf-8").rstrip("\n"))]
    return ["## How it was made", *parts] if parts else []


def _model_row(name: str, one: Mapping[str, Any]) -> list[str]:
    """Return what a page tells of a fitted model."""
    trained = "" if one.get("rows_trained") is None else f"{one['rows_trained']:,} rows"
    if one.get("dev_rows"):
        trained += f", {one['dev_rows']:,} held out"
    made = {**({"anchor": one["anchor"]} if one.get("anchor") else {}), **one.get("chosen", {})}
    said = ", ".join(
        f"{key} {value:.6g}" if isinstance(value, float) else f"{key} {value}" for key, value in made.items()
    )
    return [name, str(one.get("folder", "")), trained, f"{one.get('vocabulary', 0):,}", said]


def _paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a plain text as Markdown; a single line break is a space."""
    paragraphs = re.split(r"\n[ \t]*\n", clean(text).replace("\r\n", "\n"))
    return [escape_markdown(paragraph.strip()) for paragraph in paragraphs if paragraph.strip()]


def _fenced(language: str, text: str) -> str:
    """Return a block of code between fences longer than any in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _encoded(text: str) -> bytes:
    return clean(text).encode("utf-8")


def _json(value: Any) -> bytes:
    """Return a JSON document; what is not finite in it becomes null, as JSON has no such numbers."""
    try:
        text = json.dumps(_finite(value), ensure_ascii=False, indent=2, allow_nan=False)
    except TypeError as error:
        raise InputError(
            f"expected a study's settings as plain JSON values, found something else ({error}): "
            "give strings, numbers, lists and objects"
        ) from error
    return _encoded(text + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and value - value != 0 else value


def _stale(folder: Path, files: Mapping[str, bytes]) -> list[Path]:
    """Return the files of an earlier version of the study that this one has not, as far as they are unchanged."""
    written = _earlier(folder).get("files", {})
    paths = [folder / name for name in written if name not in files and _FILE.fullmatch(name)]
    return [path for path in paths if path.is_file() and sha256_of_file(path) == written[path.name]]


def _earlier(folder: Path) -> dict[str, Any]:
    """Return the files and models that an earlier version of the study lists; nothing of what others wrote."""
    if not (folder / "study.json").is_file():
        return {}
    try:
        earlier = read_json(folder / "study.json")
        if earlier["format"] != FORMAT:
            return {}
        models = [Path(one["folder"]).name for one in earlier["provenance"].get("models", {}).values()]
        return {"files": dict(earlier["files"]), "models": models}
    except (InputError, KeyError, TypeError, ValueError, AttributeError):
        return {}
