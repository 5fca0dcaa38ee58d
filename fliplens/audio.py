"""Speech from files: one channel of float32 samples at one rate, whatever the file holds.

`soundfile` reads WAV, FLAC, Ogg (Vorbis, Opus), MP3 and whatever else libsndfile knows; `soxr` resamples. A file is
decoded block by block, so that no more of it is in memory than the samples that come out.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from fliplens.errors import InputError, MissingExtraError, reason_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "LONGEST",
    "RATE",
    "SHORTEST",
    "AudioInfo",
    "audio_info",
    "check_samples",
    "quieten_this_thread",
    "read_audio",
]

RATE = 16_000
"""Samples a second that speech encoders and recognisers are trained on."""

SHORTEST = 0.05
"""Seconds: less than this holds no speech, and hardly a frame of features."""

LONGEST = 600.0
"""Seconds: more than this is a recording to be cut into sentences, not a sentence."""

BLOCK = 1 << 16
"""Frames decoded at once."""


@dataclass(frozen=True)
class AudioInfo:
    """What a file's header says of its sound."""

    seconds: float
    """How long it is."""
    rate: int
    """Frames a second."""
    channels: int
    """Samples a frame."""
    frames: int
    """Its length in frames."""
    format: str
    """The container, as libsndfile calls it: WAV, FLAC, OGG, MP3."""


def audio_info(path: str | Path) -> AudioInfo:
    """Return length, rate and channels of a file of audio, without decoding it.

    Raises:
        InputError: there is no such file, it is empty or cut off, or it holds no audio.
        MissingExtraError: soundfile is not installed.
    """
    path = Path(path)
    with _opened(path) as sound:
        return _info(sound)


def read_audio(
    path: str | Path, *, rate: int = RATE, shortest: float = SHORTEST, longest: float = LONGEST
) -> NDArray[np.float32]:
    """Read a file of audio as one channel, the mean of its channels, at one rate.

    Silence and noise are audio like any other. A file that ends before its header says (WAV, FLAC, Ogg, MP3 with a
    count of its bytes) is refused; an MP3 without such a count tells nobody how long it was.

    Args:
        path: the file.
        rate: samples a second of what is returned.
        shortest: seconds that it must have.
        longest: seconds that it may have.

    Returns:
        (samples,) float32, full scale from -1 to 1.

    Raises:
        InputError: there is no such file; it is empty, cut off, too short or too long; it holds no audio, or samples
            that are not finite.
        MissingExtraError: soundfile or soxr is not installed.
    """
    if rate < 1:
        raise InputError(f"expected a rate of 1 sample a second or more, found {rate}")
    path = Path(path)
    with _opened(path) as sound:
        info = _info(sound)
        _check_length(info.seconds, str(path), shortest, longest)
        pieces = list(_resampled(_mono_blocks(sound, path, info.frames), info.rate, rate))
    samples = np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.float32)
    if not np.isfinite(samples).all():
        raise InputError(f"expected finite samples in {path}, found NaN or infinite ones: write the file again")
    return samples


def quieten_this_thread() -> bool:
    """Let nothing that this thread reads be commented on in the terminal, for as long as the thread lives.

    libmpg123, by which libsndfile reads MP3, writes lines of its own to file descriptor 2 that name no file
    (`Note: Illegal Audio-MPEG-Header`), and libsndfile has no switch for that (its issue 958). To redirect the
    descriptor would silence the whole process. Instead the thread gets a table of descriptors of its own, as Linux
    has it since 5.9 (`close_range`, CLOSE_RANGE_UNSHARE), with nothing in it but three that lead nowhere.

    For threads that do nothing but read and write files that they themselves open: those of others are closed to it,
    and whatever it prints is lost. Errors are raised as ever.

    Returns:
        Whether it could be done: elsewhere, and in the main thread, nothing changes, and the lines are to be seen.
    """
    if not sys.platform.startswith("linux") or threading.current_thread() is threading.main_thread():
        return False
    # Its number is the same on all machines; the C library has a name for it only since glibc 2.34.
    close_range, unshare, last = 436, 2, 0xFFFFFFFF
    call = ctypes.CDLL(None).syscall
    call.argtypes = [ctypes.c_long, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint]
    call.restype = ctypes.c_long
    # First a range that holds nothing: were the descriptors closed before there are others, a file that is opened
    # could become number 2, and get the lines.
    if call(close_range, last - 1, last, unshare) != 0:
        return False
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
    except OSError:
        return False
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    # Pipes among them: whoever waits for their end must not wait for this thread.
    call(close_range, 3, last, 0)
    return True


def check_samples(
    samples: NDArray[Any], *, name: str, rate: int = RATE, shortest: float = SHORTEST, longest: float = LONGEST
) -> NDArray[np.float32]:
    """Return samples that did not come from a file as float32, once they are speech as `read_audio` gives it.

    Args:
        samples: (samples,) floating point.
        name: what an error calls them.
        rate: samples a second.
        shortest: see `read_audio`.
        longest: see `read_audio`.

    Raises:
        InputError: not one channel of floating-point numbers, too short or too long, or not finite.
    """
    samples = np.asarray(samples)
    if samples.ndim != 1 or samples.dtype.kind != "f":
        raise InputError(
            f"expected one channel of floating-point samples at {rate} Hz in {name}, found {samples.dtype} of shape "
            f"{samples.shape}: average the channels, and scale whole numbers to -1..1"
        )
    _check_length(len(samples) / rate, name, shortest, longest)
    if not np.isfinite(samples).all():
        raise InputError(f"expected finite samples in {name}, found NaN or infinite ones")
    return np.ascontiguousarray(samples, dtype=np.float32)


def _check_length(seconds: float, name: str, shortest: float, longest: float) -> None:
    if seconds < shortest:
        raise InputError(f"expected {shortest:g} s of audio or more in {name}, found {seconds:.4g} s: leave it out")
    if seconds > longest:
        raise InputError(
            f"expected {longest:g} s of audio or less in {name}, found {seconds:.6g} s: cut it into sentences"
        )


def _info(sound: Any) -> AudioInfo:
    return AudioInfo(
        sound.frames / sound.samplerate, int(sound.samplerate), int(sound.channels), int(sound.frames), sound.format
    )


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Yield the open `soundfile.SoundFile` of a path, and say in one line what is wrong with it."""
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: the package without its libsndfile
        raise MissingExtraError("reading audio", "audio") from error
    try:
        with path.open("rb") as stream:
            size = path.stat().st_size
            if size == 0:
                raise InputError(f"expected audio in {path}, found an empty file: copy or download it again")
            cut = _cut_off(stream, size)
    except FileNotFoundError as error:
        raise InputError(f"expected a file of audio at {path}, found none: check the path") from error
    except OSError as error:
        raise InputError(f"expected a file of audio at {path}, could not read it ({error.strerror})") from error
    try:
        sound = soundfile.SoundFile(str(path))
    # TypeError: a name that ends in .raw, which says nothing of rate and channels.
    except (soundfile.SoundFileError, TypeError, OSError) as error:
        raise _not_audio(path, error) from error
    with sound:
        if cut:
            raise InputError(f"expected all of the audio in {path}, found a file that is cut off: copy it again")
        if sound.samplerate < 1 or sound.channels < 1 or sound.frames < 1:
            raise InputError(f"expected audio in {path}, found a header without any sound: write the file again")
        yield sound


def _not_audio(path: Path, error: Exception) -> InputError:
    reason = reason_of(getattr(error, "error_string", error))
    return InputError(
        f"expected audio (WAV, FLAC, Ogg or MP3) in {path}, could not read it ({reason}): the file is broken, or of "
        "another kind"
    )


def _mono_blocks(sound: Any, path: Path, frames: int) -> Iterator[NDArray[np.float32]]:
    """Yield the mean of the channels, block by block."""
    import soundfile

    read = 0
    while True:
        try:
            block = sound.read(BLOCK, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            raise _not_audio(path, error) from error
        if not len(block):
            break
        read += len(block)
        yield block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32)
    # Encoded formats may announce a few frames of padding that decoders leave out: a tenth of a second at most.
    if read < frames - sound.samplerate // 10:
        raise InputError(
            f"expected {frames} frames of audio in {path}, found {read}: the file is cut off or broken, copy it again"
        )


def _resampled(blocks: Iterator[NDArray[np.float32]], rate: int, wanted: int) -> Iterator[NDArray[np.float32]]:
    """Yield the same sound at another rate, block by block."""
    if rate == wanted:
        yield from blocks
        return
    try:
        import soxr
    except ImportError as error:
        raise MissingExtraError("resampling audio", "audio") from error
    stream = soxr.ResampleStream(rate, wanted, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block))
    yield stream.resample_chunk(np.zeros(0, dtype=np.float32), last=True)


def _cut_off(stream: IO[bytes], size: int) -> bool:
    """Tell from the container alone whether a file ends before what it announces.

    libsndfile takes such files for shorter ones: a copy that was interrupted would be encoded as if it were whole.
    """
    head = stream.read(16)
    if head[:4] in (b"RIFF", b"RIFX") and head[8:12] == b"WAVE":
        return _wav_cut_off(stream, size, "<I" if head[:4] == b"RIFF" else ">I")
    if head[:4] == b"OggS":
        return _ogg_cut_off(stream, size)
    start = 0
    if head[:3] == b"ID3" and len(head) > 9:
        # A tag's length has seven bits in each of four bytes, and counts neither its head nor its foot.
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        start += 10 if head[5] & 0x10 else 0
    elif len(head) < 2 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return False
    return _mp3_cut_off(stream, size, start)


def _wav_cut_off(stream: IO[bytes], size: int, number: str) -> bool:
    position = 12
    while position + 8 <= size:
        stream.seek(position)
        name, length = stream.read(4), struct.unpack(number, stream.read(4))[0]
        if name == b"data":
            # Whoever writes into a pipe cannot know the length, and says so with none or with one past 2 GiB.
            return bool(0 < length < 0x7FFF_0000 and position + 8 + length > size)
        position += 8 + length + length % 2
    return True


def _ogg_cut_off(stream: IO[bytes], size: int) -> bool:
    """Tell whether the last page is whole and marked as the last; a page has 65,307 bytes at most."""
    start = max(0, size - 2 * 65_307)
    stream.seek(start)
    tail = stream.read()
    # The four letters may also occur inside of a page: the last page is the last one that ends where the file does.
    at = tail.rfind(b"OggS")
    while at >= 0:
        page = tail[at:]
        segments = page[26] if len(page) > 26 else 0
        if segments and 27 + segments + sum(page[27 : 27 + segments]) == len(page):
            return not page[5] & 0x04
        at = tail.rfind(b"OggS", 0, at)
    return True


def _mp3_cut_off(stream: IO[bytes], size: int, start: int) -> bool:
    """Tell whether fewer bytes follow than the frame that LAME and ffmpeg put first counts, if there is one."""
    stream.seek(start)
    first = stream.read(256)
    at = max(first.find(b"Xing"), first.find(b"Info"))
    if at < 0 or len(first) < at + 16:
        return False
    flags = struct.unpack(">I", first[at + 4 : at + 8])[0]
    if not flags & 2:
        return False
    place = at + 8 + (4 if flags & 1 else 0)
    counted = struct.unpack(">I", first[place : place + 4])[0]
    return bool(start + counted > size)
