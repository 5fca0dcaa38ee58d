"""Texts that stay in their files: the same rows and hash as a list of them, wherever one starts to read."""

from __future__ import annotations

import gzip
import os
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fliplens.errors import InputError
from fliplens.files import read_lines, sha256_of_lines
from fliplens.text.long_texts import LongTexts, TextColumn, TextFile, hash_of_texts, open_texts

LINES = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"), max_size=12), min_size=1, max_size=40
)


def opened(path: str | Path) -> LongTexts:
    texts = open_texts(path)
    assert isinstance(texts, LongTexts)
    return texts


def write_parquet(path: Path, columns: dict[str, Any], rows_a_group: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=rows_a_group)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(LINES, st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans(), st.booleans(), st.data())
def test_lines_and_hash_are_those_of_the_whole_file_read_at_once(
    tmp_path: Path, lines: list[str], end: str, bom: bool, last: bool, packed: bool, data: st.DataObject
) -> None:
    path = tmp_path / ("t.txt.gz" if packed else "t.txt")
    raw = (b"\xef\xbb\xbf" if bom else b"") + (end.join(lines) + (end if last else "")).encode("utf-8")
    path.write_bytes(gzip.compress(raw) if packed else raw)
    if not raw.removeprefix(b"\xef\xbb\xbf"):
        with pytest.raises(InputError, match="found an empty file"):
            open_texts(path)
        return
    whole = read_lines(path)
    texts = opened(path)
    assert (list(texts), len(texts)) == (whole, len(whole))
    assert texts.sha256 == sha256_of_lines(whole) == hash_of_texts(whole)
    for _ in range(4):
        cut = slice(*data.draw(st.tuples(*[st.none() | st.integers(-45, 45)] * 2)))
        assert texts[cut] == whole[cut]
    assert texts[::3] == whole[::3] and texts[-1] == whole[-1]
    with pytest.raises(IndexError):
        texts[len(whole)]


def test_slices_start_anywhere_in_a_file_of_many_remembered_places(tmp_path: Path) -> None:
    whole = [f"row {number} {'é' * (number % 7)}" for number in range(20_000)]
    (tmp_path / "t.txt").write_text("\n".join(whole), encoding="utf-8")
    texts = opened(tmp_path / "t.txt")
    for start, stop in (
        (0, 5),
        (5, 9000),
        (9000, 9001),
        (4095, 4097),
        (19_999, 20_000),
        (8192, 8193),
        (12_288, 20_000),
    ):
        assert texts[start:stop] == whole[start:stop]
    # Another process reads the same.
    copy = pickle.loads(pickle.dumps(texts))  # noqa: S301
    assert copy[15_000:15_003] == whole[15_000:15_003] and copy.sha256 == texts.sha256


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.txt"
    path.write_text("one\ntwo\nthree\n")
    texts = opened(path)
    assert texts[:2] == ["one", "two"]
    path.write_text("one\ntwo\nTHREE and more\n")
    with pytest.raises(InputError, match="found it changed"):
        texts[2:]
    with pytest.raises(InputError, match="found it changed"):
        list(texts)
    path.unlink()
    with pytest.raises(InputError, match="found none"):
        texts[0]


def test_other_sources_of_text_come_as_read_texts_gives_them(tmp_path: Path) -> None:
    feather = pytest.importorskip("pyarrow.feather")
    pa = pytest.importorskip("pyarrow")
    feather.write_feather(pa.table({"id": [1, 2], "text": ["one", "two"]}), tmp_path / "t.feather")
    assert open_texts(f"{tmp_path}/t.feather#column=text") == ["one", "two"]
    with pytest.raises(InputError, match="source of vectors alone"):
        open_texts(f"{tmp_path}/v.safetensors#tensor=v")


@pytest.mark.parametrize("far", [0, 9000])
def test_what_is_no_text_is_refused_with_its_line(tmp_path: Path, far: int) -> None:
    path = tmp_path / "t.txt"
    path.write_bytes(b"fine\n" * far + b"also fine\n\xc4rger\n")
    with pytest.raises(InputError, match=rf"byte 0xc4 in line {far + 2}"):
        open_texts(path)
    path.with_name("bad.gz").write_bytes(gzip.compress(b"fine\n" * 5000)[:-9])
    with pytest.raises(InputError, match="whole gzip file"):
        open_texts(tmp_path / "bad.gz")
    with pytest.raises(InputError, match="found none"):
        open_texts(tmp_path / "absent.txt")
    with pytest.raises(InputError, match="expected a text file or"):
        open_texts(f"{path}#column=text")


def test_a_pipe_is_read_once(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_text("one\ntwo\n"))
    writer.start()
    assert open_texts(path) == ["one", "two"]
    writer.join()


def test_a_column_of_parquet_is_read_group_by_group(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    whole = [f"row {number}" if number % 11 else "" for number in range(1000)]
    write_parquet(tmp_path / "t.parquet", {"id": list(range(1000)), "text": whole, "title": whole}, 130)
    texts = opened(f"{tmp_path}/t.parquet#column=text")
    assert isinstance(texts, TextColumn)
    assert (len(texts), list(texts), texts.sha256) == (1000, whole, sha256_of_lines(whole))
    for start, stop in ((0, 1), (129, 131), (131, 700), (700, 1000), (3, 5)):
        assert texts[start:stop] == whole[start:stop]
    # The same rows in several files are the same texts.
    for number, start in enumerate(range(0, 1000, 300)):
        write_parquet(tmp_path / "lake" / f"{number}.parquet", {"text": whole[start : start + 300]}, 77)
    lake = opened(tmp_path / "lake")
    assert lake.sha256 == texts.sha256 and lake[299:301] == whole[299:301] and lake[900:] == whole[900:]
    copy = pickle.loads(pickle.dumps(lake))  # noqa: S301
    assert copy[100:500] == whole[100:500]


def test_columns_that_cannot_be_encoded_are_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    good = [f"row {number}" for number in range(300)]
    write_parquet(tmp_path / "t.parquet", {"text": [*good, None], "title": [*good, "x"], "n": list(range(301))}, 100)
    for source, found in (
        ("t.parquet#column=text", "null in row 300"),
        ("t.parquet", r"found 2 \(text, title\)"),
        ("t.parquet#column=n", "found int64"),
        ("t.parquet#column=body", "expected one column 'body'"),
        ("absent.parquet", "found none"),
        ("t.parquet#column", "name=value"),
    ):
        with pytest.raises(InputError, match=found):
            open_texts(f"{tmp_path}/{source}")
    whole = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="truncated, damaged"):
        open_texts(tmp_path / "cut.parquet")
    write_parquet(tmp_path / "none.parquet", {"text": good}, 100)
    import pyarrow as pa

    write_parquet(tmp_path / "none.parquet", {"text": pa.array([], type=pa.string())}, 100)
    with pytest.raises(InputError, match="found no row"):
        open_texts(tmp_path / "none.parquet")


def test_only_regular_text_files_are_text_files(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        TextFile(tmp_path)
