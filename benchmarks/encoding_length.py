"""What encoding costs besides the encoder: reading lines, hashing them, writing parts, hashing these, manifests.

The encoder gives the same numbers for any text and takes next to no time, so what is left is ours. The least that any
such job must do is timed beside it: the same bytes written to the same disk in one file.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.registry import ROOT, Benchmark

ROUNDS = 5
ROWS = 200_000
DIM = 384


class Instant:
    """An encoder that has nothing to think about."""

    spec = name = "instant"
    revision = None
    dim = DIM
    modality = "text"
    language = None
    normalised = False

    def __init__(self) -> None:
        import numpy as np

        self._vectors = np.random.default_rng(0).standard_normal((4096, DIM)).astype(np.float32)

    def encode(self, inputs: Sequence[str], *, show_progress: bool = False) -> Any:  # noqa: ARG002
        """Return as many vectors as there are inputs."""
        return self._vectors[: len(inputs)]


@contextmanager
def _place() -> Iterator[Path]:
    """A folder on the disk of the repository: a temporary one may be memory."""
    (ROOT / "runs").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=ROOT / "runs") as folder:
        yield Path(folder)


def _write_bare(folder: Path) -> None:
    block = Instant().encode(["x"] * 4096).tobytes()
    with (folder / "bare").open("wb") as stream:
        left = ROWS * DIM * 4
        while left > 0:
            left -= stream.write(block[:left])
        stream.flush()
        os.fsync(stream.fileno())


def _overhead(out: str) -> dict[str, Any]:
    from fliplens.encoding.texts import encode_texts
    from fliplens.text.long_texts import open_texts

    seconds: dict[str, list[float]] = {"write": [], "open": [], "encode": [], "go on": []}
    with _place() as folder:
        source = folder / "texts.txt"
        source.write_text(
            "".join(f"{row} a sentence of about sixty characters, as sentences are\n" for row in range(ROWS))
        )

        def timed(what: str, work: Callable[[], Any]) -> Any:
            started = time.perf_counter()
            result = work()
            seconds[what].append(time.perf_counter() - started)
            return result

        for turn in range(ROUNDS):
            place = folder / str(turn)
            place.mkdir()
            timed("write", partial(_write_bare, place))
            texts = timed("open", partial(open_texts, source))
            encode = partial(encode_texts, texts, Instant(), place / out)
            timed("encode", encode)
            if out == "folder":
                # As if it had been killed at its last step: every part is compared with its hash.
                manifest = place / out / "manifest.json"
                manifest.write_text(manifest.read_text().replace('"complete": true', '"complete": false'))
                timed("go on", encode)
            for file in sorted(place.rglob("*"), reverse=True):
                if file.is_file():
                    file.unlink()
        size = source.stat().st_size
    median = {name: statistics.median(taken) for name, taken in seconds.items() if taken}
    gigabytes = ROWS * DIM * 4 / 1e9
    return {
        "rows": ROWS,
        "dim": DIM,
        "text_bytes": size,
        "seconds": {name: [round(one, 3) for one in taken] for name, taken in seconds.items()},
        "rows_per_second": round(ROWS / (median["open"] + median["encode"])),
        "text_mb_per_second": round(size / median["open"] / 1e6),
        "gb_per_second": {
            name: round(gigabytes / median[name], 2) for name in ("write", "encode", "go on") if name in median
        },
    }


def _speed(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda result: f"{result['gb_per_second'][name]:.2f}" if name in result["gb_per_second"] else ""


BENCHMARKS = [
    Benchmark(
        name="encoding-length",
        description="What encoding costs besides the encoder: opening a text file (hashing every line) and writing "
        f"the vectors of an encoder that takes no time, {ROWS:,} rows of {DIM} float32, with hashes and manifests, "
        "beside the same bytes in one bare file on the same disk; going on compares every part with its hash. "
        f"Medians of {ROUNDS} rounds",
        cases={"a folder of parts": partial(_overhead, "folder"), "one .npy": partial(_overhead, "v.npy")},
        columns={
            "rows": lambda result: f"{result['rows']:,}",
            "opening text, MB/s": lambda result: str(result["text_mb_per_second"]),
            "encode, GB/s": _speed("encode"),
            "bare file, GB/s": _speed("write"),
            "going on, GB/s": _speed("go on"),
            "rows/s in all": lambda result: f"{result['rows_per_second']:,}",
        },
        needs_data=False,
    )
]
