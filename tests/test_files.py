"""Files appear whole or not at all."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fliplens.errors import InputError
from fliplens.files import (
    FolderKind,
    atomic_file,
    atomic_folder,
    check_free,
    check_free_file,
    is_empty,
    read_json,
    read_lines,
    sha256_of_file,
    sha256_of_lines,
    write_json,
    write_lines,
)

KIND = FolderKind("m", "m|left")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b.txt"
    with atomic_file(target) as stream:
        stream.write(b"old")
    with pytest.raises(RuntimeError), atomic_file(target) as stream:
        stream.write(b"half of the new")
        raise RuntimeError
    assert target.read_bytes() == b"old"
    assert names(target.parent) == ["b.txt"]


def test_a_folder_is_replaced_whole_and_only_if_it_is_of_its_kind(tmp_path: Path) -> None:
    target = tmp_path / "lens"
    with atomic_folder(target, kind=KIND) as folder:
        (folder / "m").write_text("1")
        (folder / "left").write_text("over")
    with pytest.raises(InputError, match="another run"), atomic_folder(target, kind=KIND):
        pass
    with pytest.raises(RuntimeError), atomic_folder(target, kind=KIND, overwrite=True) as folder:
        (folder / "m").write_text("2")
        raise RuntimeError
    assert (target / "m").read_text() == "1"
    with atomic_folder(target, kind=KIND, overwrite=True) as folder:
        (folder / "m").write_text("3")
    assert names(target) == ["m"]
    assert (target / "m").read_text() == "3"
    assert names(tmp_path) == ["lens"]


def test_overwrite_never_replaces_a_foreign_folder(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="other files"):
        check_free(tmp_path, kind=KIND, overwrite=True)
    with pytest.raises(InputError, match="found a file"):
        check_free(tmp_path / "thesis.txt", kind=KIND, overwrite=True)
    (tmp_path / "empty").mkdir()
    check_free(tmp_path / "empty", kind=KIND, overwrite=False)
    check_free(tmp_path / "absent", kind=KIND, overwrite=False)
    for place in (".", str(Path.cwd().parent)):
        with pytest.raises(InputError, match="where you are"):
            check_free(place, kind=KIND, overwrite=True)
    with pytest.raises(InputError, match="can be written to"):
        check_free(tmp_path / "thesis.txt" / "lens", kind=KIND, overwrite=False)
    # One foreign file among our own is enough to leave all of them alone.
    (tmp_path / "mixed").mkdir()
    for name in ("m", "thesis.txt"):
        (tmp_path / "mixed" / name).write_text("1")
    with pytest.raises(InputError, match=r"thesis\.txt"):
        check_free(tmp_path / "mixed", kind=KIND, overwrite=True)
    # What a kill -9 in the middle of a write leaves is nobody's work.
    (tmp_path / "empty" / ".manifest.json.0123456789ab.tmp").write_text("half")
    assert is_empty(tmp_path / "empty")
    check_free(tmp_path / "empty", kind=KIND, overwrite=False)


def test_lines_end_at_line_feeds_only(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes("\ufeffone\r\n\ntwo\u2028still two\x0bstill\nlast".encode())
    assert read_lines(path) == ["one", "", "two\u2028still two\x0bstill", "last"]


@given(lines=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\ufeff")), min_size=1))
def test_lines_survive_writing_and_reading(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = tmp_path_factory.mktemp("lines") / "t.txt"
    write_lines(path, lines)
    assert read_lines(path) == lines


def test_bad_text_files_are_named_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    with pytest.raises(InputError, match="found none"):
        read_lines(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match="empty file"):
        read_lines(path)
    path.write_bytes(b"good\nb\xff\xfed\n")
    with pytest.raises(InputError, match="byte 0xff in line 2"):
        read_lines(path)
    with pytest.raises(InputError, match="could not read"):
        read_lines(tmp_path)


def test_json_is_strict(tmp_path: Path) -> None:
    path = tmp_path / "v.json"
    write_json(path, {"wörd": [1, None]})
    assert read_json(path) == {"wörd": [1, None]}
    assert "wörd" in path.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, math.nan)
    assert json.loads(path.read_text()) == {"wörd": [1, None]}
    for content in (b"{", b"\xff", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(InputError, match="expected JSON"):
            read_json(path)


def test_hashes(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of_file(tmp_path / "abc").startswith("ba7816bf8f01cfea")
    assert sha256_of_lines(["ab", "c"]) != sha256_of_lines(["a", "bc"])
    assert sha256_of_lines(["ab", "c"]) == sha256_of_lines(iter(["ab", "c"]))


def test_packed_lines_are_unpacked(tmp_path: Path) -> None:
    packed = gzip.compress(b"eins\n\nzwei")
    (tmp_path / "a.txt.gz").write_bytes(packed)
    assert read_lines(tmp_path / "a.txt.gz") == ["eins", "", "zwei"]
    for bad in (packed[:-9], packed[:12], b"no gzip", packed[:-4] + b"0000"):
        (tmp_path / "bad.gz").write_bytes(bad)
        with pytest.raises(InputError, match="whole gzip file"):
            read_lines(tmp_path / "bad.gz")


def test_a_place_for_a_file_is_free_of_a_known_kind_or_ours_to_replace(tmp_path: Path) -> None:
    (tmp_path / "there.jsonl").write_text("kept")
    (tmp_path / "folder.jsonl").mkdir()
    assert check_free_file(tmp_path / "new.jsonl", (".jsonl",)) == tmp_path / "new.jsonl"
    assert check_free_file(str(tmp_path / "there.jsonl"), (".jsonl",), overwrite=True) == tmp_path / "there.jsonl"
    for name, overwrite, message in (
        ("new.txt", True, r"ends in \.jsonl or \.parquet, found .*new\.txt: rename it"),
        ("folder.jsonl", True, "found a folder: name another place"),
        ("there.jsonl", False, "found one: name another place, or pass --overwrite"),
    ):
        with pytest.raises(InputError, match=message):
            check_free_file(tmp_path / name, (".jsonl", ".parquet"), overwrite=overwrite)
    assert (tmp_path / "there.jsonl").read_text() == "kept"
