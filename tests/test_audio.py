"""Reading speech: real files in every format, and whatever else lies about under such names."""

from __future__ import annotations

import os
import struct
import sys
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from speech import convert, speak

from fliplens.audio import audio_info, check_samples, quieten_this_thread, read_audio
from fliplens.errors import InputError, MissingExtraError

soundfile = pytest.importorskip("soundfile")
pytest.importorskip("soxr")

TEXT = "The cat sat on the mat, and nobody expected rain."


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return speak(TEXT, tmp_path_factory.mktemp("spoken") / "spoken.wav")


def tone(seconds: float, rate: int, hertz: float = 440.0) -> NDArray[np.float64]:
    wave: NDArray[np.float64] = 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return wave


def wav(path: Path, samples: NDArray[np.floating], rate: int = 16_000, subtype: str = "PCM_16") -> Path:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


# --- what is read --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (22050, 2), (48000, 1), (44100, 2)])
def test_speech_is_the_same_in_every_format(
    spoken: Path, tmp_path: Path, suffix: str, rate: int, channels: int
) -> None:
    plain, plain_rate = soundfile.read(spoken)
    if suffix == "mp3":  # sox is often built without it
        between = convert(spoken, tmp_path / "between.wav", rate=rate, channels=channels)
        file = tmp_path / "file.mp3"
        soundfile.write(file, soundfile.read(between)[0], rate, format="MP3")
    else:
        file = convert(spoken, tmp_path / f"file.{suffix}", rate=rate, channels=channels)
    info = audio_info(file)
    assert (info.rate, info.channels) == (rate, channels)
    assert info.seconds == pytest.approx(len(plain) / plain_rate, abs=0.11 if suffix == "mp3" else 0.01)
    samples = read_audio(file)
    assert samples.dtype == np.float32 and samples.ndim == 1
    assert len(samples) == pytest.approx(16_000 * info.seconds, abs=0.03 * 16_000)
    # The loudness of every 20 ms, which no codec may change much, against that of the original.
    expected = loudness(plain, plain_rate)
    found = loudness(samples, 16_000)
    shifts = [np.corrcoef(expected[: len(found) - s][:100], found[s:][:100])[0, 1] for s in range(5)]
    assert max(shifts) > 0.97


def loudness(samples: NDArray[np.floating], rate: int) -> NDArray[np.float64]:
    size = rate // 50
    whole = len(samples) // size * size
    frames = np.asarray(samples[:whole], dtype=np.float64).reshape(-1, size)
    spectrum = np.abs(np.fft.rfft(frames, axis=1))[:, : round(3500 * size / rate)]
    level: NDArray[np.float64] = np.sqrt((spectrum**2).sum(axis=1)) / size
    return level


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000])
def test_a_tone_keeps_its_pitch_length_and_loudness(tmp_path: Path, rate: int) -> None:
    samples = read_audio(wav(tmp_path / "tone.wav", tone(2.0, rate), rate))
    assert abs(len(samples) - 32_000) <= 1
    # Away from the ends, where there is nothing to resample from, it is the tone itself.
    np.testing.assert_allclose(samples[2000:-2000], tone(2.0, 16_000)[: len(samples)][2000:-2000], atol=2e-3)


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = tone(0.5, 16_000, 300), tone(0.5, 16_000, 700)
    samples = read_audio(wav(tmp_path / "two.wav", np.stack([left, right], axis=1), subtype="FLOAT"))
    np.testing.assert_allclose(samples, (left + right) / 2, atol=1e-6)


def test_nothing_is_done_to_what_is_as_wanted(tmp_path: Path) -> None:
    wave = tone(0.3, 16_000).astype(np.float32)
    assert np.array_equal(read_audio(wav(tmp_path / "as-is.wav", wave, subtype="FLOAT")), wave)


def test_blocks_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).normal(size=(50_000, 2)) * 0.1
    file = wav(tmp_path / "noise.flac", noise, 44_100)
    whole = read_audio(file)
    monkeypatch.setattr("fliplens.audio.BLOCK", 777)
    np.testing.assert_allclose(read_audio(file), whole, atol=1e-6)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW"])
def test_every_kind_of_sample_has_one_scale(tmp_path: Path, subtype: str) -> None:
    wave = tone(0.2, 16_000)
    np.testing.assert_allclose(read_audio(wav(tmp_path / "x.wav", wave, subtype=subtype)), wave, atol=0.02)


@pytest.mark.parametrize("name", ["silence", "noise"])
def test_silence_and_noise_are_audio(tmp_path: Path, name: str) -> None:
    scale = 0.0 if name == "silence" else 0.3
    file = wav(tmp_path / "x.wav", scale * np.random.default_rng(0).normal(size=22_050), 22_050)
    samples = read_audio(file)
    assert abs(len(samples) - 16_000) <= 1
    assert (np.abs(samples).max() > 0.1) == (name == "noise")


def test_headers_cost_no_memory_and_no_decoding(tmp_path: Path) -> None:
    file = wav(tmp_path / "long.wav", np.zeros(16_000 * 300))
    tracemalloc.start()
    info = audio_info(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert info.seconds == 300 and (info.frames, info.format) == (4_800_000, "WAV")
    assert peak < 500_000


# --- what is refused -----------------------------------------------------------------------------------------------


def refused(path: Path, match: str) -> None:
    with pytest.raises(InputError, match=match) as caught:
        read_audio(path)
    assert "\n" not in str(caught.value) and path.name in str(caught.value)


def test_files_that_are_not_there_are_named(tmp_path: Path) -> None:
    refused(tmp_path / "none.wav", "found none: check the path")
    refused(tmp_path, "could not read it")
    with pytest.raises(InputError, match="found none"):
        audio_info(tmp_path / "none.wav")


@pytest.mark.parametrize("suffix", ["wav", "mp3", "flac", "ogg", "raw", "txt", "ÿ.mp3"])
@pytest.mark.parametrize(
    "content", [b"just some text, nothing else\n" * 50, b"\0" * 4000, b"ID3", b"RIFF", b"RIFF\0\0\0\0WAVE", b"fLaC"]
)
def test_what_is_no_audio_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    file = tmp_path / f"file.{suffix}"
    file.write_bytes(content)
    refused(file, "expected (audio|all of the audio|0.05 s)")


def test_empty_files_and_empty_sound_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.mp3").touch()
    refused(tmp_path / "empty.mp3", "found an empty file")
    refused(wav(tmp_path / "nothing.wav", np.zeros(0)), "found a header without any sound")


def test_a_single_sample_is_too_short(tmp_path: Path) -> None:
    for suffix in ("wav", "flac"):
        refused(wav(tmp_path / f"one.{suffix}", np.zeros(1)), r"expected 0\.05 s of audio or more in .*, found")
    assert audio_info(tmp_path / "one.wav").frames == 1


def test_lengths_are_bounded(tmp_path: Path) -> None:
    file = wav(tmp_path / "x.wav", np.zeros(32_000))
    assert len(read_audio(file, shortest=2.0, longest=2.0)) == 32_000
    with pytest.raises(InputError, match=r"expected 1 s of audio or less in .*, found 2 s: cut it into sentences"):
        read_audio(file, longest=1.0)
    with pytest.raises(InputError, match="expected 3 s of audio or more"):
        read_audio(file, shortest=3.0)
    with pytest.raises(InputError, match="expected a rate"):
        read_audio(file, rate=0)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
def test_files_that_are_cut_off_are_refused(spoken: Path, tmp_path: Path, suffix: str, share: float) -> None:
    samples, rate = soundfile.read(spoken)
    whole = tmp_path / f"whole.{suffix}"
    soundfile.write(whole, np.tile(samples, 3), rate)
    assert len(read_audio(whole)) > 16_000
    data = whole.read_bytes()
    file = tmp_path / f"cut.{suffix}"
    file.write_bytes(data[: int(len(data) * share)])
    refused(file, "cut off|could not read it")


@pytest.mark.parametrize("suffix", ["flac", "ogg"])
def test_files_broken_in_the_middle_are_refused(spoken: Path, tmp_path: Path, suffix: str) -> None:
    samples, rate = soundfile.read(spoken)
    whole = tmp_path / f"whole.{suffix}"
    soundfile.write(whole, np.tile(samples, 3), rate)
    data = bytearray(whole.read_bytes())
    data[len(data) // 3 : 2 * len(data) // 3] = bytes(len(data) // 3 + 2)[: 2 * len(data) // 3 - len(data) // 3]
    file = tmp_path / f"broken.{suffix}"
    file.write_bytes(data)
    refused(file, "cut off|could not read it")


@pytest.mark.parametrize("length", [0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_wavs_out_of_a_pipe_are_whole(tmp_path: Path, length: int) -> None:
    file = wav(tmp_path / "piped.wav", tone(0.5, 16_000))
    data = bytearray(file.read_bytes())
    at = data.index(b"data")
    data[4:8] = data[at + 4 : at + 8] = struct.pack("<I", length)
    file.write_bytes(data)
    if length == 0:  # libsndfile believes a length of nothing
        refused(file, "header without any sound")
    else:
        assert len(read_audio(file)) == 8000


def test_samples_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    wave = tone(0.5, 16_000)
    wave[1000] = np.nan
    refused(wav(tmp_path / "nan.wav", wave, subtype="FLOAT"), "expected finite samples")


def test_samples_in_memory_are_checked_alike() -> None:
    good = tone(0.5, 16_000)
    assert check_samples(good, name="x").dtype == np.float32
    for bad, match in (
        (np.zeros((2, 8000)), "one channel"),
        (np.zeros(8000, dtype=np.int16), "found int16"),
        (np.zeros(1), "0.05 s of audio or more in input 3"),
        (np.zeros(16_000 * 601, dtype=np.float32), "600 s of audio or less"),
        (np.full(8000, np.inf), "expected finite samples in input 3"),
    ):
        with pytest.raises(InputError, match=match):
            check_samples(bad, name="input 3")


def test_a_quiet_thread_reads_and_leaves_the_others_alone(tmp_path: Path) -> None:
    file = wav(tmp_path / "x.wav", tone(0.5, 16_000))
    reading, writing = os.pipe()
    start, end = threading.Event(), threading.Event()
    found: dict[str, Any] = {}

    def work() -> None:
        found["quiet"] = quieten_this_thread()
        start.set()
        found["samples"] = read_audio(file)
        found["null"] = os.fstat(2).st_rdev == Path(os.devnull).stat().st_rdev
        end.wait(30)

    def stderr() -> tuple[int, int]:
        return os.fstat(2).st_dev, os.fstat(2).st_ino

    before = stderr()
    thread = threading.Thread(target=work)
    thread.start()
    try:
        assert start.wait(30)
        assert stderr() == before and len(read_audio(file)) == 8000
        os.write(writing, b"x")
        os.close(writing)
        # Were the pipe open in the other thread still, its end would not come before the thread's.
        assert os.read(reading, 9) == b"x" and os.read(reading, 9) == b""
    finally:
        end.set()
        thread.join()
        os.close(reading)
    np.testing.assert_array_equal(found["samples"], read_audio(file))
    if not found["quiet"]:
        pytest.skip("this system gives no thread descriptors of its own")
    assert found["null"]
    assert not quieten_this_thread() and stderr() == before  # the main thread is left as it is


@pytest.mark.parametrize("library", ["soundfile", "soxr"])
def test_a_missing_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    file = wav(tmp_path / "x.wav", np.zeros(8000), 8000)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'fliplens\[audio\]'"):
        read_audio(file)
