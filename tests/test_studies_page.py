"""The folder of a study: the same bytes every time, whole or not there, and a page that shows what it should."""

from __future__ import annotations

import csv
import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from fliplens import files
from fliplens.errors import InputError, MissingExtraError
from fliplens.studies.page import Provenance, Study, render_study, write_study
from fliplens.studies.plots import BarPlot
from fliplens.studies.tables import Cell, Column, Table


def table(title: str = "Accuracy") -> Table:
    return Table.build(
        title, [Column("method"), Column.percent("text")], [["LiP", Cell(0.6, se=0.01)], ["FLiP", 0.7]]
    )


def study(*, plots: bool = False, findings: tuple[str, ...] = ("FLiP is *highest*.",)) -> Study:
    return Study(
        "Rank & factors",
        "What does a rank cost?\nOne lens each.\n\nAll on the same text.",
        {"table": table()},
        {"plot": BarPlot.of(table(), [1], y_label="accuracy")} if plots else {},
        findings,
        Provenance(
            config={"ranks": [32, "full"], "note": "```x```", "nothing": float("nan")},
            versions={"fliplens": "0.1.0"},
            hashes={"text_a": "ab" * 32},
            models={
                "LiP": {
                    "folder": "lenses/lip",
                    "rows_trained": 1234,
                    "dev_rows": 56,
                    "vocabulary": 7890,
                    "anchor": "words",
                    "chosen": {"penalty": 0.000123},
                }
            },
            data=("1,000 sentences measured, 3 left out.",),
            command="fliplens study rank rank.yaml",
            machine="2 cores",
        ),
    )


def test_the_folder_holds_the_page_and_each_part(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    written = write_study(tmp_path / "a" / "rank", study(plots=True))
    names = {path.name for path in written}
    assert names == {"README.md", "study.json"} | {
        f"{name}.{end}" for name, ends in (("table", "md csv tex json"), ("plot", "svg png")) for end in ends.split()
    }
    assert {path.name for path in (tmp_path / "a" / "rank").iterdir()} == names
    folder = tmp_path / "a" / "rank"
    with (folder / "table.csv").open(encoding="utf-8", newline="") as stream:
        assert [row["text_mean"] for row in csv.DictReader(stream)] == ["0.6", "0.7"]
    assert Table.from_json(json.loads((folder / "table.json").read_text(encoding="utf-8"))) == table()
    document = json.loads((folder / "study.json").read_text(encoding="utf-8"))
    assert document["tables"]["table"] == table().to_json() and document["findings"] == ["FLiP is *highest*."]
    assert document["provenance"]["config"] == {"ranks": [32, "full"], "note": "```x```", "nothing": None}
    assert document["files"] == {
        name: files.sha256_of_file(folder / name)
        for name in sorted(names - {"study.json"}, key=[*document["files"]].index)
    }


def test_the_page_says_and_shows_everything() -> None:
    pytest.importorskip("matplotlib")
    page = render_study(study(plots=True))["README.md"].decode()
    tokens = MarkdownIt("commonmark").enable("table").parse(page)
    headings = [tokens[n + 1].children or [] for n, token in enumerate(tokens) if token.type == "heading_open"]
    assert ["".join(child.content for child in one) for one in headings] == [
        "Rank & factors",
        "What was found",
        "Accuracy",
        "How it was made",
        "The fitted models",
    ]
    inline = [child for token in tokens for child in token.children or []]
    images = [child.attrs["src"] for child in inline if child.type == "image"]
    links = [child.attrs["href"] for child in inline if child.type == "link_open"]
    assert images == ["plot.svg"] and links == ["table.csv", "table.tex", "table.json", "table.md"]
    assert set(images + links) <= set(render_study(study(plots=True)))
    paragraphs = [
        "".join(child.content for child in token.children or []) for token in tokens if token.type == "inline"
    ]
    assert "What does a rank cost? One lens each." in paragraphs and "All on the same text." in paragraphs
    assert "FLiP is *highest*." in paragraphs and "Made on 2 cores." in paragraphs
    assert "1,000 sentences measured, 3 left out." in paragraphs
    made = [paragraphs[paragraphs.index("lenses/lip") + step] for step in (-1, 1, 2, 3)]
    assert made == ["LiP", "1,234 rows, 56 held out", "7,890", "anchor words, penalty 0.000123"]
    assert f"text_a: {'ab' * 32}" in paragraphs and "fliplens: 0.1.0" in paragraphs
    code = [token.content for token in tokens if token.type == "fence"]
    assert code[0] == "fliplens study rank rank.yaml\n" and json.loads(code[1])["note"] == "```x```"


def test_the_same_study_gives_the_same_bytes(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    first = write_study(tmp_path, study(plots=True))
    before = {path: path.read_bytes() for path in first}
    assert write_study(tmp_path, study(plots=True)) == first
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_what_an_earlier_version_left_goes_unless_somebody_changed_it(tmp_path: Path) -> None:
    two = Study("t", "", {"table": table(), "other": table("Other"), "kept": table("Kept")})
    write_study(tmp_path, two)
    (tmp_path / "kept.md").write_text("mine")
    (tmp_path / "notes.md").write_text("mine too")
    write_study(tmp_path, Study("t", "", {"table": table()}))
    assert {path.name for path in tmp_path.iterdir()} == {
        "README.md", "study.json", "table.md", "table.csv", "table.tex", "table.json", "kept.md", "notes.md",
    }  # fmt: skip


@pytest.mark.parametrize("found", ["[]", "{", '{"format": "other", "files": {"notes.md": "x"}}', '{"files": 3}'])
def test_a_file_of_somebody_else_named_like_ours_removes_nothing(tmp_path: Path, found: str) -> None:
    (tmp_path / "study.json").write_text(found)
    (tmp_path / "notes.md").write_text("mine")
    write_study(tmp_path, study())
    assert (tmp_path / "notes.md").read_text() == "mine"


def test_no_name_leads_out_of_the_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside.md"
    outside.write_text("mine")
    listed = {"../outside.md": files.sha256_of_file(outside), str(outside): files.sha256_of_file(outside)}
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "study.json").write_text(json.dumps({"format": "fliplens-study", "files": listed}))
    write_study(tmp_path / "in", study())
    assert outside.read_text() == "mine"


def test_a_fault_leaves_the_old_page_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_study(tmp_path, study())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    unfit = Study("t", "", {"table": table()}, provenance=Provenance(config={"x": object()}))
    with pytest.raises(InputError, match="plain JSON"):
        write_study(tmp_path, unfit)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match="plots"):
        write_study(tmp_path, study(plots=True, findings=("other",)))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_each_file_is_written_aside_and_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_study(tmp_path, study())
    before = (tmp_path / "table.md").read_bytes()

    def full(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_study(tmp_path, Study("t", "", {"table": table("Another")}))
    assert (tmp_path / "table.md").read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".tmp")]


@pytest.mark.parametrize("name", ["", "README", "readme", "study", "a/b", "..", "a b", "-a", "tablé", "a.b"])
def test_names_are_those_of_files(name: str) -> None:
    with pytest.raises(InputError, match="rename this"):
        Study("t", "", {name: table()})


def test_what_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one"):
        Study("t", "", {})
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="found a file"):
        write_study(tmp_path / "file", study())


@given(st.text(max_size=20), st.text(max_size=20))
def test_any_words_make_a_page(title: str, finding: str) -> None:
    made = render_study(Study(title, finding, {"table": table()}, findings=(finding,)))
    for name, content in made.items():
        assert content.decode("utf-8").endswith("\n"), name
    tokens = MarkdownIt("commonmark").enable("table").parse(made["README.md"].decode())
    kinds = {token.type for token in tokens if token.level == 0 and not token.type.endswith("_close")}
    assert kinds <= {"heading_open", "paragraph_open", "table_open"}
