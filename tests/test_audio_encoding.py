"""Recordings to vectors on disk, by the library and by the command line."""

from __future__ import annotations

import json
import os
import signal
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import assert_one_line, call
from speech import SENTENCES, ToySpeech, convert, made_up, spoken, tiny_sonar_speech
from toys import ToyEncoder, toy_texts

from fliplens.embeddings import Embeddings, Manifest, manifest_path, open_embeddings
from fliplens.encoders import EncodedBatch, load_encoder
from fliplens.encoding.recordings import encode_audio, encode_audio_shard
from fliplens.encoding.shards import Shard, ShardDone, merge_shards
from fliplens.encoding.texts import bad_list
from fliplens.errors import FliplensError, FliplensWarning, InputError, InterruptedRunError
from fliplens.text.long_texts import open_texts
from fliplens.training.fitting import fit
from fliplens.training.recipes import TrainConfig

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("transformers")

pytestmark = pytest.mark.filterwarnings("ignore:the speech encoder in")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sonar_speech(tmp_path_factory.mktemp("sonar") / "eng")


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FliplensWarning)
        return load_encoder(f"sonar-speech:{folder}", device="cpu")


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder of seven recordings and the list of them."""
    (tmp_path / "clips").mkdir()
    names = [f"clips/{number}.wav" for number in range(7)]
    for number, name in enumerate(names):
        soundfile.write(tmp_path / name, made_up(number, 0.2 + 0.1 * number), 16_000)
    (tmp_path / "list.txt").write_text("\n".join(names) + "\n")
    return tmp_path


def lines(clips: Path) -> list[str]:
    return (clips / "list.txt").read_text().splitlines()


def run(clips: Path, encoder: Any, out: str = "v.npy", **options: Any) -> Embeddings:
    options = {"rows_per_part": 2, "name": "list.txt", **options}
    return encode_audio(lines(clips), encoder, clips / out, folder=clips, **options)


class Counting:
    """Passes everything on to a speech encoder and remembers which recordings it was asked for."""

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    # What a protocol looks for must be there without being asked for by name.
    spec = property(lambda self: self._encoder.spec)
    modality = "speech"

    def encode(self, inputs: Any, *, show_progress: bool = False) -> Any:
        return self._encoder.encode(inputs, show_progress=show_progress)

    def batches(self, inputs: Any, *, on_bad: Any = None) -> Any:
        self.asked += [Path(one).name for one in inputs]
        return self._encoder.batches(inputs, on_bad=on_bad)


@pytest.mark.parametrize("out", ["v.npy", "shards"])
def test_a_list_becomes_one_vector_a_line(clips: Path, encoder: Any, out: str) -> None:
    done = run(clips, encoder, out)
    np.testing.assert_allclose(done.to_numpy(), encoder.encode([clips / line for line in lines(clips)]), atol=2e-5)
    manifest = done.manifest
    assert manifest is not None and manifest.encoder == encoder.spec and manifest.complete
    source = manifest.source
    assert (source["name"], source["rows"], source["modality"], len(source["files"])) == ("list.txt", 7, "speech", 4)
    assert "bad" not in source and not bad_list(clips / out).exists()
    counting = Counting(encoder)
    run(clips, counting, out)
    assert counting.asked == []
    open_embeddings(clips / out, verify=True)


def test_a_file_that_cannot_be_read_stops_the_job_where_it_goes_on(clips: Path, encoder: Any) -> None:
    good = (clips / "clips/4.wav").read_bytes()
    (clips / "clips/4.wav").write_bytes(good[:300])
    counting = Counting(encoder)
    match = (
        r"^line 5 of list\.txt: expected all of the audio in .*4\.wav, found a file that is cut off.*; mend it, or "
        r"pass --skip-bad .*; the rows before are kept in .*, the same command goes on at row 4 of list\.txt"
    )
    with pytest.raises(InputError, match=match) as caught:
        run(clips, counting)
    assert "\n" not in str(caught.value)
    (clips / "clips/4.wav").write_bytes(good)
    counting.asked.clear()
    done = run(clips, counting)
    assert counting.asked == ["4.wav", "5.wav", "6.wav"]
    assert np.isfinite(done.to_numpy()).all()


@pytest.mark.parametrize("out", ["v.npy", "shards"])
def test_bad_files_are_rows_of_nan_and_listed(clips: Path, encoder: Any, out: str) -> None:
    (clips / "clips/1.wav").write_bytes(b"nothing to hear")
    (clips / "clips/5.wav").unlink()
    text = (clips / "list.txt").read_text()
    (clips / "list.txt").write_text(text + "\n")  # an empty line is still a row
    with pytest.raises(InputError, match=r"line 2 of list\.txt"):
        run(clips, encoder, out)
    done = run(clips, encoder, out, skip_bad=True)
    assert done.bad_rows().tolist() == [1, 5, 7] and len(done) == 8
    listed = [json.loads(line) for line in bad_list(clips / out).read_text().splitlines()]
    assert [(one["row"], one["input"]) for one in listed] == [(1, "clips/1.wav"), (5, "clips/5.wav"), (7, "")]
    assert "expected audio" in listed[0]["error"] and "found none" in listed[1]["error"]
    assert done.manifest is not None and done.manifest.source["bad"] == 3
    # The same job, done: nothing is asked for again.
    counting = Counting(encoder)
    run(clips, counting, out, skip_bad=True)
    assert counting.asked == []
    # A job without bad files in the same place takes the list with it.
    (clips / "list.txt").write_text("clips/0.wav\n")
    run(clips, encoder, out, overwrite=True)
    assert not bad_list(clips / out).exists()


def test_a_killed_job_keeps_its_list_of_bad_files(clips: Path, encoder: Any) -> None:
    class Killed(Counting):
        def batches(self, inputs: Any, *, on_bad: Any = None) -> Any:
            if len(self.asked) >= 4:
                raise KeyboardInterrupt
            return super().batches(inputs, on_bad=on_bad)

    for name in ("clips/0.wav", "clips/6.wav"):
        (clips / name).write_bytes(b"nothing to hear")
    with pytest.raises(KeyboardInterrupt):
        run(clips, Killed(encoder), skip_bad=True)
    parts = clips / "v.npy.parts"
    assert len((parts / "bad.jsonl").read_text().splitlines()) == 1
    # A list that ran ahead of the manifest is cut to it.
    with (parts / "bad.jsonl").open("a") as stream:
        stream.write('{"row": 5, "input": "x", "error": "y"}\n')
    counting = Counting(encoder)
    done = run(clips, counting, skip_bad=True)
    assert counting.asked == ["4.wav", "5.wav", "6.wav"]
    assert done.bad_rows().tolist() == [0, 6]
    listed = [json.loads(line)["row"] for line in bad_list(clips / "v.npy").read_text().splitlines()]
    assert listed == [0, 6] and done.manifest is not None and done.manifest.source["bad"] == 2


def test_the_list_of_bad_files_forgets_those_that_were_mended(clips: Path, encoder: Any) -> None:
    good = (clips / "clips/2.wav").read_bytes()
    (clips / "clips/2.wav").write_bytes(b"nothing to hear")
    with pytest.raises(InterruptedRunError, match=r"interrupted; 4 of 7 rows are kept"):
        run(clips, encoder, "shards", skip_bad=True, stop=iter([False, False, True]).__next__)
    assert len(bad_list(clips / "shards").read_text().splitlines()) == 1
    (clips / "clips/2.wav").write_bytes(good)
    counting = Counting(encoder)
    done = run(clips, counting, "shards", skip_bad=True)
    assert counting.asked == ["2.wav", "3.wav", "4.wav", "5.wav", "6.wav"]
    assert not bad_list(clips / "shards").exists() and done.bad_rows().tolist() == []
    assert done.manifest is not None and "bad" not in done.manifest.source
    np.testing.assert_array_equal(done.to_numpy(), run(clips, encoder, "whole").to_numpy())


def test_what_an_encoder_fails_with_says_where_the_job_goes_on(clips: Path, encoder: Any) -> None:
    class Failing(Counting):
        def batches(self, inputs: Any, *, on_bad: Any = None) -> Any:
            if len(self.asked) >= 4:
                raise RuntimeError("out of\nmemory")
            return super().batches(inputs, on_bad=on_bad)

    match = r"RuntimeError: out of memory; the rows before are kept in .*at row 4 of list\.txt \(from 0\)$"
    with pytest.raises(FliplensError, match=match):
        run(clips, Failing(encoder))
    counting = Counting(encoder)
    run(clips, counting)
    assert counting.asked == ["4.wav", "5.wav", "6.wav"]


def test_lists_that_stay_on_disk_are_the_same_job(clips: Path, encoder: Any) -> None:
    whole = run(clips, encoder)
    counting = Counting(encoder)
    options: dict[str, Any] = {"rows_per_part": 2, "name": "list.txt", "folder": clips}
    encode_audio(open_texts(clips / "list.txt"), counting, clips / "v.npy", **options)
    assert counting.asked == []
    again = encode_audio(open_texts(clips / "list.txt"), counting, clips / "w.npy", **options)
    np.testing.assert_array_equal(again.to_numpy(), whole.to_numpy())


def test_files_that_change_are_encoded_again(clips: Path, encoder: Any) -> None:
    (clips / "clips/6.wav").rename(clips / "away.wav")
    with pytest.raises(InputError, match="line 7"):
        run(clips, encoder)
    (clips / "away.wav").rename(clips / "clips/6.wav")
    soundfile.write(clips / "clips/3.wav", made_up(9, 0.9), 16_000)
    counting = Counting(encoder)
    done = run(clips, counting)
    assert counting.asked == ["2.wav", "3.wav", "4.wav", "5.wav", "6.wav"]
    np.testing.assert_allclose(done.to_numpy()[3], encoder.encode([clips / "clips/3.wav"])[0], atol=2e-5)
    # Of a finished job they are told.
    os.utime(clips / "clips/3.wav", ns=(0, 12345))
    with pytest.raises(InputError, match=r"found some that have changed since: .*--overwrite"):
        run(clips, encoder)
    run(clips, encoder, overwrite=True)


def test_data_may_be_moved_as_a_whole(clips: Path, encoder: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    run(clips, encoder)
    there = tmp_path_factory.mktemp("there") / "moved"
    clips.rename(there)
    counting = Counting(encoder)
    run(there, counting)
    assert counting.asked == []
    (there / "list.txt").write_text("clips/0.wav\n")
    with pytest.raises(InputError, match="found other vectors"):
        run(there, encoder)


def test_only_speech_encoders_take_recordings(clips: Path, encoder: Any) -> None:
    with pytest.raises(InputError, match=r"expected an encoder of speech for list\.txt, found toy, of text"):
        run(clips, ToyEncoder())
    with pytest.raises(InputError, match="expected recordings to encode in recordings, found none"):
        encode_audio([], encoder, clips / "v.npy")


def test_vectors_that_are_not_finite_are_no_bad_files(clips: Path, folder: Path) -> None:
    import torch

    broken: Any = load_encoder(f"sonar-speech:{folder}", device="cpu")
    with torch.no_grad():
        broken.model.pooler.projection.weight[0, 0] = float("nan")
    with pytest.raises(FliplensError, match=r"NaN or infinite values for row 0 of list\.txt"):
        run(clips, broken, skip_bad=True)


def test_speech_in_any_format_goes_through(tmp_path: Path, encoder: Any) -> None:
    paths = spoken(tmp_path / "wav")
    flac = [convert(path, tmp_path / f"{path.stem}.flac", rate=16_000) for path in paths]
    done = encode_audio([str(path) for path in paths], encoder, tmp_path / "wav.npy")
    other = encode_audio([path.name for path in flac], encoder, tmp_path / "flac.npy", folder=tmp_path)
    a, b = done.to_numpy(), other.to_numpy()
    cosines = (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T
    assert np.diag(cosines).min() > 0.9 and (cosines.argmax(axis=1) == np.arange(4)).all()


def test_damaged_parts_are_made_again_with_their_bad_files(clips: Path, encoder: Any) -> None:
    (clips / "clips/1.wav").write_bytes(b"nothing to hear")
    (clips / "clips/5.wav").write_bytes(b"nor here")
    run(clips, encoder, "f", skip_bad=True)
    whole = contents(clips / "f")
    assert len(whole["bad.jsonl"].splitlines()) == 2
    (clips / "f/part-00000.npy").unlink()
    (clips / "f/part-00003.npy").write_bytes(b"garbage")
    counting = Counting(encoder)
    with pytest.warns(FliplensWarning, match=r"part-00000\.npy missing, part-00003\.npy damaged of the 4 parts"):
        run(clips, counting, "f", skip_bad=True)
    assert counting.asked == ["0.wav", "1.wav", "6.wav"] and contents(clips / "f") == whole
    # Of files that have changed since, the parts that are there would be no neighbours.
    (clips / "f/part-00003.npy").unlink()
    os.utime(clips / "clips/2.wav", ns=(0, 12345))
    with pytest.raises(InputError, match="found some that have changed since: .*--overwrite"):
        run(clips, encoder, "f", skip_bad=True)


@pytest.mark.parametrize("blank", ["", "  "])
@pytest.mark.parametrize("base", [True, False])
def test_a_blank_line_is_said_to_be_one(
    clips: Path, encoder: Any, blank: str, base: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clips)
    names = ["clips/0.wav", "clips/1.wav", blank, "clips/2.wav"]
    options: dict[str, Any] = {"folder": clips if base else ".", "name": "list.txt"}
    match = "^line 3 of list.txt: expected the path of a recording, found a blank line; "
    with pytest.raises(InputError, match=match):
        encode_audio(names, encoder, clips / "v.npy", **options)
    encode_audio(names, encoder, clips / "v.npy", skip_bad=True, **options)
    listed = json.loads(bad_list(clips / "v.npy").read_text())
    assert (listed["row"], listed["input"], "blank line" in listed["error"]) == (2, blank, True)


# --- the command line ----------------------------------------------------------------------------------------------


def test_encode_takes_a_list_of_recordings(clips: Path, folder: Path, encoder: Any) -> None:
    argv = ["encode", str(clips / "list.txt"), "-e", f"sonar-speech:{folder}", "-o", str(clips / "v.npy"), "--quiet"]
    done = call(*argv, "--json")
    assert done.status == 0 and json.loads(done.out)["source"]["modality"] == "speech"
    expected = encoder.encode([clips / line for line in lines(clips)])
    np.testing.assert_allclose(open_embeddings(clips / "v.npy").to_numpy(), expected, atol=2e-5)
    (clips / "clips/2.wav").write_bytes(b"")
    argv[5] = str(clips / "again.npy")
    failed = call(*argv)
    assert failed.status == 2 and "line 3 of list.txt" in failed.err.splitlines()[-1] and failed.out == ""
    skipped = call(*argv, "--skip-bad")
    assert skipped.status == 0 and "1 of them NaN, listed in" in skipped.out and "again.bad.jsonl" in skipped.out
    assert json.loads((clips / "again.bad.jsonl").read_text())["row"] == 2


def test_an_interrupted_list_of_recordings_goes_on(
    clips: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fliplens.cli.encode

    class Instant(Counting):
        signals = [signal.SIGTERM]  # noqa: RUF012 - one, for all of the test

        def batches(self, inputs: Any, *, on_bad: Any = None) -> Any:
            self.asked.extend(path.name for path in inputs)
            if self.signals:
                os.kill(os.getpid(), self.signals.pop())
            yield EncodedBatch(np.arange(len(inputs)), np.ones((len(inputs), self.dim), np.float32), 0)

    instant = Instant(encoder)
    monkeypatch.setattr(fliplens.cli.encode, "load_encoder", lambda *_, **__: instant)
    (clips / "list.txt").write_text("clips/0.wav\n" * 512 + "clips/1.wav\n")
    argv = ["encode", str(clips / "list.txt"), "-e", "speech", "-o", str(clips / "v.npy"), "--quiet"]
    assert_one_line(call(*argv), 143, "interrupted; 512 of 513 rows are kept in")
    instant.asked.clear()
    assert call(*argv).status == 0 and instant.asked == ["1.wav"]
    assert open_embeddings(clips / "v.npy").shape == (513, encoder.dim)


def shard_of(clips: Path, encoder: Any, out: str, text: str, **options: Any) -> ShardDone:
    options = {"rows_per_part": 2, "name": "list.txt", "folder": clips, **options}
    return encode_audio_shard(lines(clips), encoder, clips / out, Shard.parse(text), **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("bad", [[], [0], [5], [0, 3, 5]])
def test_shards_of_recordings_are_the_unbroken_run_once_all_are_there(clips: Path, bad: list[int]) -> None:
    for row in bad:
        (clips / f"clips/{row}.wav").write_bytes(b"nothing to hear")
    encoder = ToySpeech()
    run(clips, encoder, "whole", skip_bad=True)
    run(clips, encoder, "whole.npy", skip_bad=True)
    # On one disk, in whatever order; and in folders of their own.
    last = [shard_of(clips, encoder, "f", text, skip_bad=True) for text in ("3/3", "1/3", "2/3")][-1]
    assert last.waiting == () and last.manifest.source.get("bad", 0) == len(bad)
    assert last.bad_list.exists() == bool(bad)
    assert contents(clips / "f") == contents(clips / "whole")
    for number, name in enumerate("abc", 1):
        done = shard_of(clips, encoder, name, f"{number}/3", skip_bad=True)
        assert done.waiting and done.bad_list.exists() == bool(done.manifest.source.get("bad"))
    folders = [clips / name for name in "cab"]
    merge_shards(folders, clips / "merged")
    merge_shards(folders, clips / "merged.npy")
    assert contents(clips / "merged") == contents(clips / "whole")
    for suffix in (".npy", ".manifest.json", *([".bad.jsonl"] if bad else [])):
        assert (clips / f"merged{suffix}").read_bytes() == (clips / f"whole{suffix}").read_bytes()
    # Either is the other's finished job.
    for again in (lambda e: shard_of(clips, e, "merged", "2/3", skip_bad=True), lambda e: run(clips, e, "f")):
        again(counting := Counting(encoder))
        assert counting.asked == []


def test_a_shard_looks_at_its_own_files_alone(clips: Path) -> None:
    """Machines that do not share a disk need not hold the other shards' recordings."""
    encoder = ToySpeech()
    away = [(clips / f"clips/{row}.wav") for row in (4, 5, 6)]
    sounds = [path.read_bytes() for path in away]
    for path in away:
        path.unlink()
    shard_of(clips, encoder, "a", "1/2")
    with pytest.raises(InputError, match=r"line 5 of list\.txt: .*the same command goes on at row 4 of list\.txt"):
        shard_of(clips, encoder, "b", "2/2")
    for path, sound in zip(away, sounds, strict=True):
        path.write_bytes(sound)
    shard_of(clips, encoder, "b", "2/2")
    soundfile.write(clips / "clips/5.wav", made_up(99, 0.4), 16_000)
    counting = Counting(encoder)
    shard_of(clips, counting, "a", "1/2")
    assert counting.asked == []
    shard_of(clips, counting, "b", "2/2")  # 4 and 5 are one part; what follows it is encoded again too
    assert counting.asked == ["4.wav", "5.wav", "6.wav"]
    made = merge_shards([clips / "a", clips / "b"], clips / "m")
    np.testing.assert_array_equal(made.to_numpy(), encoder.encode([clips / line for line in lines(clips)]))
    soundfile.write(clips / "clips/5.wav", made_up(98, 0.4), 16_000)
    shard_of(clips, encoder, "m", "1/2")
    with pytest.raises(InputError, match="found some that have changed since"):
        shard_of(clips, encoder, "m", "2/2")
    with pytest.raises(InputError, match="to overwrite one of, found all of them put together"):
        shard_of(clips, encoder, "m", "2/2", overwrite=True)


def test_a_list_of_bad_rows_that_is_lost_is_not_merged_over(clips: Path) -> None:
    (clips / "clips/0.wav").unlink()
    for number, name in enumerate("ab", 1):
        shard_of(clips, ToySpeech(), name, f"{number}/2", skip_bad=True)
    listed = clips / "a" / "shard-00001-of-00002.bad.jsonl"
    listed.rename(clips / "away")
    with pytest.raises(InputError, match=r"expected 1 bad rows of shard 1/2 listed in .*bad\.jsonl, found 0"):
        merge_shards([clips / "a", clips / "b"], clips / "m")
    assert not (clips / "m").exists()
    (clips / "away").rename(listed)
    assert merge_shards([clips / "a", clips / "b"], clips / "m").bad_rows().tolist() == [0]
    # Encoded anew, a shard lists anew.
    soundfile.write(clips / "clips/0.wav", made_up(0, 0.3), 16_000)
    assert not shard_of(clips, ToySpeech(), "a", "1/2", overwrite=True).bad_list.exists()


def test_shards_of_spoken_sentences_by_the_command(
    tmp_path: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real speech, of espeak-ng, through a SONAR network in two shards, one of which is interrupted."""
    import fliplens.cli.encode

    names = [path.name for path in spoken(tmp_path / "said")]
    (tmp_path / "said" / "list.txt").write_text("".join(f"{name}\n" for name in [*names, "absent.wav"]))
    monkeypatch.setattr(fliplens.cli.encode, "load_encoder", lambda *_, **__: encoder)
    base = ["encode", str(tmp_path / "said" / "list.txt"), "-e", "sonar-speech", "--quiet", "--skip-bad", "-o"]

    def by(command: Any) -> Any:
        return lambda *args, **options: command(*args, rows_per_part=2, **options)

    monkeypatch.setattr(fliplens.cli.encode, "encode_audio", by(encode_audio))
    monkeypatch.setattr(fliplens.cli.encode, "encode_audio_shard", by(encode_audio_shard))
    assert call(*base, tmp_path / "whole").status == 0
    first = call(*base, tmp_path / "a", "--shard", "1/2")
    assert first.status == 0 and "rows 0 to 2 (shard 1/2" in first.out and "shard 2/2 still to come" in first.out
    second = call(*base, tmp_path / "b", "--shard", "2/2")
    assert second.status == 0 and "1 of them NaN, listed in" in second.out
    assert "shard-00002-of-00002.bad.jsonl" in second.out
    merged = call("encode", "--merge", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "m")
    assert merged.status == 0 and f"1 of them NaN, listed in {tmp_path / 'm' / 'bad.jsonl'}" in merged.out
    assert contents(tmp_path / "m") == contents(tmp_path / "whole")
    merge = ["encode", "--merge", str(tmp_path / "a"), "-o", str(tmp_path / "v"), "--skip-bad"]
    assert_one_line(call(*merge), 2, "with --merge, found skip-bad too")


@pytest.mark.parametrize(
    ("place", "kind"),
    [("clips/0.wav", "a file that is no text"), ("0.mp3", "a file that is no text"), ("clips", "a folder")],
)
def test_a_recording_in_place_of_a_list_is_said_to_be_one(clips: Path, folder: Path, place: str, kind: str) -> None:
    (clips / "0.mp3").write_bytes(b"\xff\xfb\x90\x64" + b"\x55" * 400)
    argv = ["encode", str(clips / place), "-e", f"sonar-speech:{folder}", "-o", str(clips / "v"), "--quiet"]
    assert_one_line(call(*argv), 2, "expected a text file with the path of one recording a line", f"{place}, {kind}")
    # Text in another encoding is told what it lacks.
    for number, encoding in enumerate(("latin-1", "utf-16")):
        (clips / f"{number}.txt").write_text("clips/ä.wav\n", encoding=encoding)
        argv[1] = str(clips / f"{number}.txt")
        assert_one_line(call(*argv), 2, "expected UTF-8 text")
    assert not (clips / "v").exists()


def test_skip_bad_is_for_recordings(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fliplens.cli.encode

    monkeypatch.setattr(fliplens.cli.encode, "load_encoder", lambda *_, **__: ToyEncoder())
    argv = ["encode", str(clips / "list.txt"), "-e", "toy", "-o", str(clips / "v.npy"), "--skip-bad"]
    assert_one_line(call(*argv), 2, "expected an encoder of speech with --skip-bad")


@pytest.fixture
def lens(clips: Path, encoder: Any) -> Path:
    """A lens of the speech encoder's space, of words that have nothing to do with it."""
    sounds = [made_up(seed, 0.3) for seed in range(40)]
    made = Manifest(encoder=encoder.spec, revision=None, dim=encoder.dim, dtype="float32", normalised=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FliplensWarning)
        vectors = Embeddings([encoder.encode(sounds)], manifest=made)
        fit(toy_texts(40), vectors, config=TrainConfig(passes=1, batch_size=16), explain_away=False).save(
            clips / "lens"
        )
    return clips / "lens"


def test_explain_reads_recordings(clips: Path, lens: Path, encoder: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from fliplens import Lens

    paths = [str(clips / line) for line in lines(clips)[:3]]
    done = call("explain", str(lens), "--audio", *paths, "-n", "3", "--json")
    items = json.loads(done.out)
    assert done.status == 0 and [item["input"] for item in items] == paths
    expected = Lens.load(lens).top(encoder.encode(paths), 3)
    assert [[word["word"] for word in item["words"]] for item in items] == [[w.word for w in one] for one in expected]
    monkeypatch.chdir(clips)
    shown = call("explain", str(lens), "--audio", "clips/0.wav", "-n", "3", "--quiet")
    assert shown.status == 0 and "clips/0.wav" in shown.out
    written = call("explain", str(lens), "--audio", *paths, "-n", "3", "-o", str(clips / "w.jsonl"), "--quiet")
    assert written.status == 0
    assert [json.loads(line)["input"] for line in (clips / "w.jsonl").read_text().splitlines()] == paths


def test_explain_says_what_cannot_be_read(clips: Path, lens: Path) -> None:
    def last(*argv: str) -> str:
        done = call("explain", str(lens), *argv, "--json")
        assert done.status == 2 and done.out == ""
        return done.err.splitlines()[-1]

    assert "recording 2 of 2: expected a file of audio" in last("--audio", str(clips / "clips/0.wav"), "absent.wav")
    assert "found several or none" in last("a text", "--audio", str(clips / "clips/0.wav"))
    assert "expected an encoder of text, found sonar-speech" in last("a text")
    assert "expected an encoder of speech, found minilm" in last(
        "--audio", str(clips / "clips/0.wav"), "-e", "minilm"
    )


def test_a_manifest_of_speech_is_as_documented(clips: Path, encoder: Any) -> None:
    run(clips, encoder)
    written = json.loads(manifest_path(clips / "v.npy").read_text())
    assert set(written["source"]) == {"name", "rows", "modality", "sha256", "rows_per_part", "files"}
    assert len(SENTENCES) == 4
