"""Vectors of recordings by SONAR's own code, as FLiPLens reads them.

SONAR's speech encoders run on fairseq2, which pins a torch of its own: this script runs in that environment, imports
nothing of FLiPLens, and writes a folder of `.npy` parts with the manifest that `fliplens fit`, `evaluate` and
`explain` take. Needs numpy and, but for `--help`, sonar-space (https://github.com/facebookresearch/SONAR).

    python encode_sonar_speech.py LIST.txt --language eng -o OUT [--batch-size 8] [--device cuda]

LIST.txt names one recording a line (16 kHz, one channel), relative to the list. A recording that the encoder cannot
read becomes a row of NaN, so that rows stay rows; `bad.jsonl` in OUT lists them, and `--drop-bad-rows` of FLiPLens
goes on without them. A job that was killed goes on with the part that it was at when the same call is given again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from pathlib import Path

import numpy as np

DIM = 1024


def write(encode, paths, out, *, language, name, folder=".", batch_size=8, rows_per_part=1024, dim=DIM):
    """Encode recordings to a folder of parts and a manifest.

    Args:
        encode: takes a list of paths (str), returns one vector each: an array, or a torch tensor, (k, dim).
        paths: the lines of the list, one recording each.
        out: the folder to write; one that holds this very job is gone on with, any other must be empty.
        language: ISO 639-3 code; the manifest names the encoder as sonar-speech-LANGUAGE.
        name: what the manifest calls the list.
        folder: where paths that are relative start.
        batch_size: recordings that `encode` is given at once.
        rows_per_part: rows a part; what a kill can lose.
        dim: the size of a vector.

    Returns:
        The number of rows that hold NaN.
    """
    out = Path(out)
    source = {"name": name, "rows": len(paths), "sha256": _sha256_of_lines(paths), "rows_per_part": rows_per_part}
    manifest = {
        "encoder": f"sonar-speech-{language}",
        "revision": None,
        "dim": dim,
        "dtype": "float32",
        "normalised": False,
        "precision": "float32",
        "rows": [],
        "sha256": [],
        "source": {**source, "modality": "speech"},
        "complete": False,
        "format_version": 1,
    }
    manifest = _begun(out, manifest)
    done = sum(manifest["rows"])
    listed = out / "bad.jsonl"
    bad = listed.read_text(encoding="utf-8").splitlines() if listed.is_file() else []
    bad = [line for line in bad if json.loads(line)["row"] < done]
    while done < len(paths):
        rows = paths[done : done + rows_per_part]
        vectors, failed = _encode([str(Path(folder) / row) for row in rows], encode, batch_size, dim)
        part = out / f"part-{len(manifest['rows']):05d}.npy"
        _rename(part, lambda stream, vectors=vectors: np.save(stream, vectors))
        if failed:
            bad += [
                json.dumps({"row": done + row, "input": rows[row], "error": why})
                for row, why in sorted(failed.items())
            ]
            text = "\n".join(bad) + "\n"
            _rename(listed, lambda stream, text=text: stream.write(text.encode("utf-8")))
            manifest["source"]["bad"] = len(bad)
        manifest["rows"].append(len(rows))
        manifest["sha256"].append(hashlib.sha256(part.read_bytes()).hexdigest())
        done += len(rows)
        manifest["complete"] = done == len(paths)
        _rename(out / "manifest.json", lambda stream: stream.write(json.dumps(manifest, indent=2).encode("utf-8")))
        sys.stderr.write(f"{done} of {len(paths)} recordings\n")
    return len(bad)


def _begun(out, manifest):
    """Return the manifest of what is done of this job; refuse a folder that holds something else."""
    path = out / "manifest.json"
    if path.is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        known = {key: value for key, value in found["source"].items() if key != "bad"}
        same = all(found[key] == manifest[key] for key in ("encoder", "dim", "dtype")) and known == manifest["source"]
        if same:
            return found
    if out.exists() and any(out.iterdir()):
        raise SystemExit(f"expected {out} to be free or to hold this job, found something else: name another folder")
    out.mkdir(parents=True, exist_ok=True)
    _rename(path, lambda stream: stream.write(json.dumps(manifest, indent=2).encode("utf-8")))
    return manifest


def _encode(paths, encode, batch_size, dim):
    """Return the vectors of some recordings, NaN for those that fail, and why these do."""
    vectors = np.full((len(paths), dim), np.nan, dtype=np.float32)
    failed = {}
    for start in range(0, len(paths), batch_size):
        batch = paths[start : start + batch_size]
        try:
            vectors[start : start + len(batch)] = _array(encode(batch), len(batch), dim)
        except Exception:
            for row, path in enumerate(batch, start):
                try:
                    vectors[row] = _array(encode([path]), 1, dim)[0]
                except Exception as error:
                    failed[row] = " ".join(str(error).split()) or type(error).__name__
    return vectors, failed


def _array(vectors, n, dim):
    if hasattr(vectors, "detach"):
        vectors = vectors.detach().float().cpu().numpy()
    vectors = np.asarray(vectors, dtype=np.float32)
    if vectors.shape != (n, dim):
        raise ValueError(f"expected vectors of shape {(n, dim)}, found {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise ValueError("expected finite vectors, found NaN or infinite values")
    return vectors


def _sha256_of_lines(lines):
    """Return the SHA-256 of texts, each prefixed by its length in eight bytes, as FLiPLens counts it."""
    digest = hashlib.sha256()
    for line in lines:
        encoded = line.encode("utf-8")
        digest.update(len(encoded).to_bytes(8, "little"))
        digest.update(encoded)
    return digest.hexdigest()


def _rename(path, write_to):
    """Write a file under another name first: either the old one or the whole new one is there."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("wb") as stream:
        write_to(stream)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def main(argv=None):
    """Encode the recordings of a list from the command line."""
    parser = argparse.ArgumentParser(description="Vectors of recordings by SONAR, as FLiPLens reads them.")
    parser.add_argument("list", metavar="LIST.txt", help="one recording a line, relative to the list")
    parser.add_argument(
        "--language", required=True, metavar="CODE", help="ISO 639-3, as SONAR names it: eng, fra, ..."
    )
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="the folder to write")
    parser.add_argument("--batch-size", type=int, default=8, metavar="N")
    parser.add_argument("--rows-per-part", type=int, default=1024, metavar="N")
    parser.add_argument("--device", default="cpu", metavar="cpu|cuda")
    args = parser.parse_args(argv)

    import torch
    from sonar.inference_pipelines.speech import SpeechToEmbeddingModelPipeline

    pipeline = SpeechToEmbeddingModelPipeline(
        encoder=f"sonar_speech_encoder_{args.language}", device=torch.device(args.device)
    )
    listed = Path(args.list)
    paths = listed.read_text(encoding="utf-8-sig").splitlines()
    bad = write(
        lambda batch: pipeline.predict(batch, batch_size=len(batch)),
        paths,
        args.output,
        language=args.language,
        name=listed.name,
        folder=listed.parent,
        batch_size=args.batch_size,
        rows_per_part=args.rows_per_part,
    )
    sys.stdout.write(f"{len(paths)} vectors in {args.output}, {bad} of them NaN\n")


if __name__ == "__main__":
    main()
