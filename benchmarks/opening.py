"""Opening vectors that are made already: seconds, memory, and how fast rows come in order and in training's order."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.registry import ROOT, AnonymousMemory, Benchmark

ROWS, DIM = 10_000_000, 64
BLOCK = 500_000
LEAST_SECONDS, MOST_SECONDS = 5.0, 120.0


def _blocks(rows: int, size: int = BLOCK) -> Iterator[NDArray[np.float16]]:
    random = np.random.default_rng(0)
    for start in range(0, rows, size):
        yield random.standard_normal((min(size, rows - start), DIM), dtype=np.float32).astype(np.float16)


def write_npy_file(path: Path, rows: int) -> None:
    """Write rows as one `.npy`."""
    from fliplens.embeddings import write_npy

    with path.open("wb") as stream:
        write_npy(stream, (rows, DIM), _blocks(rows), "float16")


def write_folder(path: Path, rows: int) -> None:
    """Write rows as the folder that encoding leaves: parts of 4,096 rows and their manifest."""
    from fliplens.embeddings import Manifest
    from fliplens.embeddings.manifest import part_name
    from fliplens.encoding.texts import ROWS_PER_PART
    from fliplens.files import sha256_of_file, write_json

    path.mkdir()
    manifest = Manifest(encoder=None, revision=None, dim=DIM, dtype="float16", normalised=False)
    for block in _blocks(rows, ROWS_PER_PART):
        part = path / part_name(len(manifest.rows))
        np.save(part, block)
        manifest.rows.append(len(block))
        manifest.sha256.append(sha256_of_file(part))
    write_json(path / "manifest.json", manifest.to_json())


def write_safetensors(path: Path, rows: int) -> None:
    """Write rows as one tensor, block by block: the library itself would need them all in memory."""
    header = json.dumps({"v": {"dtype": "F16", "shape": [rows, DIM], "data_offsets": [0, rows * DIM * 2]}}).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        for block in _blocks(rows):
            stream.write(block.tobytes())


def _tables(rows: int) -> Iterator[Any]:
    import pyarrow as pa

    for block in _blocks(rows):
        yield pa.record_batch({"vector": pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), DIM)})


def write_parquet(path: Path, rows: int) -> None:
    """Write rows as Parquet, with the library's own settings but for row groups of a block."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema({"vector": pa.list_(pa.float16(), DIM)})
    with pq.ParquetWriter(path, schema) as writer:
        for batch in _tables(rows):
            writer.write_batch(batch.cast(schema))


def write_arrow(path: Path, rows: int) -> None:
    """Write rows as an Arrow file that is not compressed."""
    import pyarrow as pa

    schema = pa.schema({"vector": pa.list_(pa.float16(), DIM)})
    with pa.OSFile(str(path), "wb") as stream, pa.ipc.new_file(stream, schema) as writer:
        for batch in _tables(rows):
            writer.write_batch(batch.cast(schema))


def _case(write: Callable[[Path, int], None], suffix: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        file, small = Path(folder) / f"v{suffix}", Path(folder) / f"small{suffix}"
        write(file, ROWS)
        write(small, 10)
        # Another process: what wrote the file has its library, and its memory, already.
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.opening", str(file), str(small)],
            cwd=ROOT, check=True, capture_output=True, text=True,
        )  # fmt: skip
        measured: dict[str, Any] = json.loads(done.stdout)
        size = sum(one.stat().st_size for one in [file, *file.glob("*")] if one.is_file())
        return {**measured, "file_gb": round(size / 1e9, 2)}


def _resident() -> dict[str, float]:
    """Return resident memory of this process, all and anonymous, MiB."""
    status = Path("/proc/self/status").read_text()
    return {name: int(status.partition(f"{name}:")[2].split()[0]) / 2**10 for name in ("VmRSS", "RssAnon")}


def measure(file: str, small: str) -> dict[str, Any]:
    """Open a file and read it, in a process that has opened nothing of the kind but a small one."""
    import warnings

    from fliplens import open_embeddings
    from fliplens.errors import FliplensWarning
    from fliplens.training.views import WINDOW_ROWS, batches

    started = time.perf_counter()
    open_embeddings(small).to_numpy()
    library = time.perf_counter() - started
    before = _resident()
    started = time.perf_counter()
    vectors = open_embeddings(file)
    opening = time.perf_counter() - started
    after = _resident()
    with AnonymousMemory() as memory:
        memory.restart()
        at_first = memory.peak_gb
        started = time.perf_counter()
        total = sum(float(block[0, 0]) for _, block in vectors.blocks())
        in_order = time.perf_counter() - started
        grown = memory.peak_gb - at_first
    if not np.isfinite(total):
        raise SystemExit("the rows read are not those written")
    rows, started = 0, time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FliplensWarning)  # of Parquet, in an order that does not suit it
        for step in batches(len(vectors), 256, seed=0, number=0):
            rows += len(vectors.rows(step))
            spent = time.perf_counter() - started
            # Training's order goes from window to window: what one costs to decode is shared by its rows.
            if spent > MOST_SECONDS or (spent > LEAST_SECONDS and rows >= WINDOW_ROWS):
                break
    return {
        "rows": len(vectors),
        "dim": vectors.dim,
        "library_seconds": round(library, 3),
        "open_seconds": round(opening, 4),
        "added_resident_mb": round(after["VmRSS"] - before["VmRSS"], 2),
        "added_anonymous_mb": round(after["RssAnon"] - before["RssAnon"], 2),
        "rows_per_second_in_order": round(len(vectors) / in_order),
        "anonymous_mb_in_order": round(grown * 2**10, 1),
        "rows_per_second_in_training": round(rows / (time.perf_counter() - started)),
    }


BENCHMARKS = [
    Benchmark(
        name="opening",
        description=(
            "10 million rows × 64 in float16, in a file (or the folder of parts that encoding leaves) that was just "
            "written and so lies in the system's cache: seconds to open, once the library is imported and has read a "
            "file of ten rows (seconds behind it); resident memory that opening adds; rows a second and anonymous "
            "memory added when all are read in order; and rows a second of steps of 256 in training's shuffled order"
        ),
        cases={
            ".npy": partial(_case, write_npy_file, ".npy"),
            "2,442 parts": partial(_case, write_folder, ""),
            ".safetensors": partial(_case, write_safetensors, ".safetensors"),
            "Arrow": partial(_case, write_arrow, ".arrow"),
            "Parquet": partial(_case, write_parquet, ".parquet"),
        },
        columns={
            "file, GB": lambda result: f"{result['file_gb']:.2f}",
            "open, s": lambda result: f"{result['open_seconds']:.4f}",
            "library, s": lambda result: f"{result['library_seconds']:.2f}",
            "resident, MB": lambda result: f"{result['added_resident_mb']:.1f}",
            "in order, rows/s": lambda result: f"{result['rows_per_second_in_order']:,}",
            "memory in order, MB": lambda result: f"{result['anonymous_mb_in_order']:.0f}",
            "in training's order, rows/s": lambda result: f"{result['rows_per_second_in_training']:,}",
        },
        needs_data=False,
    )
]

if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(*sys.argv[1:3])))
