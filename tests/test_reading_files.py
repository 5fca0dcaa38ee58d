"""Words of whole files: what is written is what the lens reads, whole or not at all, in constant memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from commands import environment
from test_lens import random_lens

import fliplens.lenses.extractor
from fliplens.embeddings import Embeddings, open_embeddings
from fliplens.errors import InputError, MissingExtraError
from fliplens.lenses.reading_files import Written, write_top_words

ROWS = 50


@pytest.fixture
def vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of vectors, read in blocks of which the last is short; rows 3 and 49 are bad in `bad.npy`."""
    monkeypatch.setattr(fliplens.lenses.extractor, "BLOCK_ROWS", 8)
    rows = np.random.default_rng(0).standard_normal((ROWS, 5)).astype(np.float32)
    np.save(tmp_path / "vectors.npy", rows)
    rows[[3, 49], [0, 4]] = [np.nan, np.inf]
    np.save(tmp_path / "bad.npy", rows)
    return tmp_path / "vectors.npy"


def read(path: Path) -> list[dict[str, Any]]:
    """Return what a file holds in one shape, whatever its format."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    table = pyarrow.parquet.read_table(path)
    return [
        {
            "input": one.get("text", one["row"]),
            "words": [
                {"word": word, "score": score, "probability": probability}
                for word, score, probability in zip(one["words"], one["scores"], one["probabilities"], strict=True)
            ],
        }
        for one in table.to_pylist()
    ]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("texts", [None, [f"a\n“text” {row}" for row in range(ROWS)]])
def test_a_file_holds_what_the_lens_reads(vectors: Path, suffix: str, texts: list[str] | None) -> None:
    lens, out = random_lens(), vectors.with_suffix(suffix)
    assert write_top_words(lens, vectors, out, 4, prior=0.25, texts=texts) == Written(ROWS, 0)
    expected = lens.top(np.load(vectors), 4, prior=0.25)
    found = read(out)
    assert [one["input"] for one in found] == (list(range(ROWS)) if texts is None else texts)
    for one, words in zip(found, expected, strict=True):
        assert [word["word"] for word in one["words"]] == [word.word for word in words]
        assert [word["score"] for word in one["words"]] == [word.score for word in words]
        shares = [word.probability for word in words]
        assert [word["probability"] for word in one["words"]] == pytest.approx(shares, rel=1e-5)
    assert not [path for path in out.parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_probabilities_not_asked_for_are_null(vectors: Path, suffix: str) -> None:
    out = vectors.with_suffix(suffix)
    write_top_words(random_lens(), vectors, out, 4, probabilities=False)
    assert {word["probability"] for one in read(out) for word in one["words"]} == {None}


def test_parquet_columns_are_typed(vectors: Path) -> None:
    out = vectors.with_suffix(".parquet")
    write_top_words(random_lens(), vectors, out, texts=["half \ud800"] * ROWS)
    schema = pyarrow.parquet.read_schema(out)
    assert [(field.name, str(field.type).replace("element", "item")) for field in schema] == [
        ("row", "int64"),
        ("text", "string"),
        ("words", "list<item: string>"),
        ("scores", "list<item: float>"),
        ("probabilities", "list<item: float>"),
    ]
    assert read(out)[0]["input"] == "half ?"


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_bad_rows_stop_the_work_or_are_left_out(vectors: Path, suffix: str) -> None:
    lens, bad, out = random_lens(), vectors.with_name("bad.npy"), vectors.with_suffix(suffix)
    out.write_text("an earlier file")
    with pytest.raises(InputError, match=r"rows .counted from 0: 3\).*--drop-bad-rows"):
        write_top_words(lens, bad, out, 4, overwrite=True)
    assert out.read_text() == "an earlier file"
    assert write_top_words(lens, bad, out, 4, overwrite=True, drop_bad_rows=True) == Written(ROWS - 2, 2)
    rows = [row for row in range(ROWS) if row not in (3, 49)]
    assert [one["input"] for one in read(out)] == rows
    np.save(bad, np.full((20, 5), np.nan, dtype=np.float32))
    with pytest.raises(InputError, match="some finite vectors"):
        write_top_words(lens, bad, vectors.with_name(f"none{suffix}"), drop_bad_rows=True)
    assert sorted(path.name for path in out.parent.iterdir()) == sorted(["bad.npy", "vectors.npy", out.name])


def test_what_cannot_be_written_is_known_before_anything_is_read(
    vectors: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lens, folder = random_lens(), vectors.parent
    for name in ("words.csv", "words", "words.json"):
        with pytest.raises(InputError, match=r"ends in \.jsonl or \.parquet"):
            write_top_words(lens, vectors, folder / name)
    (folder / "there.jsonl").write_text("work of somebody's")
    with pytest.raises(InputError, match="--overwrite"):
        write_top_words(lens, vectors, folder / "there.jsonl")
    (folder / "folder.jsonl").mkdir()
    with pytest.raises(InputError, match="found a folder"):
        write_top_words(lens, vectors, folder / "folder.jsonl", overwrite=True)
    with pytest.raises(InputError, match="50 vectors"):
        write_top_words(lens, vectors, folder / "out.jsonl", texts=["one"])
    with pytest.raises(InputError, match="n from 1 to 12"):
        write_top_words(lens, vectors, folder / "out.jsonl", 13)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fliplens\[parquet\]'"):
        write_top_words(lens, vectors, folder / "out.parquet")
    assert not (folder / "out.jsonl").exists() and not (folder / "out.parquet").exists()
    assert write_top_words(lens, vectors, folder / "out.jsonl").rows == ROWS


def test_shards_are_read_across_their_borders(vectors: Path) -> None:
    lens, rows, out = random_lens(), np.load(vectors), vectors.with_suffix(".jsonl")
    write_top_words(lens, Embeddings([rows[:13], rows[13:]]), out, 3)
    assert [one["words"][0]["word"] for one in read(out)] == [words[0].word for words in lens.top(rows, 3)]
    assert len(open_embeddings(vectors)) == len(read(out))


STREAM = """
import sys, threading, time
from pathlib import Path
import numpy as np
sys.path.insert(0, {tests!r})
from test_lens import random_lens
import fliplens.lenses.reading_files

def own() -> int:
    # The file's pages, which the system takes back when it needs them, are not the process's own.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

folder, most, done = Path(sys.argv[1]), 0, False

def watch() -> None:
    global most
    while not done:
        most = max(most, own())
        time.sleep(0.002)

lens = random_lens(V=40, d=2048, r=4)
fliplens.lenses.reading_files.write_top_words(lens, folder / "small.npy", folder / f"warm{{sys.argv[2]}}", 3)
before = own()
watcher = threading.Thread(target=watch)
watcher.start()
written = fliplens.lenses.reading_files.write_top_words(lens, folder / "large.npy", folder / f"out{{sys.argv[2]}}", 3)
done = True
watcher.join()
print(written.rows, (most - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, suffix: str) -> None:
    # 400 MB that no disk holds: the rows between the first and the last are a hole.
    for name, rows in (("small.npy", 5000), ("large.npy", 50_000)):
        mapped = np.lib.format.open_memmap(tmp_path / name, mode="w+", dtype=np.float32, shape=(rows, 2048))
        mapped[0], mapped[-1] = 1, 2
        del mapped
    code = STREAM.format(tests=str(Path(__file__).parent))
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), suffix],
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
    )
    rows, grown = map(int, done.stdout.split())
    assert rows == 50_000
    # A block of vectors is 34 MB in float32, and a few copies of a part of it in float64.
    assert grown < 150
