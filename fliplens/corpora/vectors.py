"""Vectors of a corpus's views, how alike they are, and the rows whose views are alike enough."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fliplens.corpora.layout import Vectors, View, label_of, similarity_name
from fliplens.corpora.similarity import more_alike, write_similarities
from fliplens.embeddings import Embeddings, manifest_path, open_embeddings, write_npy
from fliplens.encoders import Encoder
from fliplens.encoding.recordings import encode_audio
from fliplens.encoding.texts import encode_texts
from fliplens.errors import InputError
from fliplens.files import atomic_file, read_lines, sha256_of_file, sha256_of_lines, write_json, write_lines
from fliplens.text.long_texts import open_texts

__all__ = ["EncoderSet", "encode_views", "encoder_sets", "pairs_of", "write_alike"]


@dataclass(frozen=True)
class EncoderSet:
    """An encoder of text and one of speech, either of which may be absent, whose vectors belong together."""

    label: str
    """Its part of file names."""
    by_modality: Mapping[str, Encoder]
    """By "text" and "speech"."""


def encoder_sets(encoders: Sequence[Encoder], *, spoken: bool) -> list[EncoderSet]:
    """Pair the first encoder of text with the first of speech, and so on.

    Raises:
        InputError: an encoder of speech for a corpus without, or of neither text nor speech.
    """
    kinds: dict[str, list[Encoder]] = {"text": [], "speech": []}
    for encoder in encoders:
        if encoder.modality not in kinds or (encoder.modality == "speech" and not spoken):
            raise InputError(
                f"expected encoders of {'text or speech' if spoken else 'text'} for this source, found "
                f"{encoder.spec}, which encodes {encoder.modality}"
            )
        kinds[encoder.modality].append(encoder)
    sets: list[EncoderSet] = []
    for number in range(max(map(len, kinds.values()))):
        chosen = {kind: several[number] for kind, several in kinds.items() if number < len(several)}
        label = label_of(next(iter(chosen.values())).spec)
        if any(label == one.label for one in sets):
            label = f"{label}-{number + 1}"
        sets.append(EncoderSet(label, chosen))
    return sets


def encode_views(
    one: EncoderSet,
    views: Sequence[View],
    splits: Sequence[str],
    folder: Path,
    *,
    clips: Path,
    dtype: str,
    show_progress: bool,
) -> Vectors:
    """Encode the views that a set of encoders can, and write how alike those of one space are.

    Args:
        one: the encoders.
        views: of the corpus.
        splits: names.
        folder: holds the views' texts, and gets the vectors; those of a killed job are gone on with.
        clips: the folder that relative paths in lists of clips start from.
        dtype: on disk.
        show_progress: bars on stderr.
    """
    chosen = tuple(view for view in views if view.modality in one.by_modality)
    for split in splits:
        for view in chosen:
            encode = partial(encode_audio, folder=clips) if view.speech else encode_texts
            encode(
                open_texts(folder / view.texts(split)),
                one.by_modality[view.modality],
                folder / view.vectors(split, one.label),
                name=view.texts(split),
                dtype=dtype,
                show_progress=show_progress,
            )
    pairs = pairs_of(one, chosen)
    for first, second in pairs:
        for split in splits:
            write_similarities(
                folder / first.vectors(split, one.label),
                folder / second.vectors(split, one.label),
                folder / similarity_name(split, (first, second), one.label),
            )
    return Vectors(one.label, next(iter(one.by_modality.values())).spec, chosen, pairs)


def pairs_of(one: EncoderSet, views: Sequence[View]) -> tuple[tuple[View, View], ...]:
    """Return the pairs of views whose vectors, by these encoders, are in one space."""
    dims = {modality: encoder.dim for modality, encoder in one.by_modality.items()}
    return tuple(
        (first, second)
        for first, second in combinations([view for view in views if view.modality in dims], 2)
        if dims[first.modality] == dims[second.modality]
    )


def write_alike(
    split: str, threshold: float, views: Sequence[View], vectors: Sequence[Vectors], source: Path, out: Path
) -> tuple[int, int]:
    """Write those rows of a split again of which all views, by the first encoders, are more alike than a threshold.

    The first encoders have pairs of views (`pairs_of`).

    Returns:
        Rows written, rows left out. Nothing is written where no row is left.
    """
    first = vectors[0]
    scores = [_scores(source, split, pair, first.label) for pair in first.pairs]
    rows = reduce(np.intersect1d, [more_alike(one, threshold) for one in scores])
    if len(rows):
        for view in views:
            lines = read_lines(source / view.texts(split))
            write_lines(out / view.texts(split), [lines[row] for row in rows])
        for one in vectors:
            for view in one.views:
                name = view.vectors(split, one.label)
                _write_subset(open_embeddings(source / name), rows, out / name, out / view.texts(split))
            for pair in one.pairs:
                with atomic_file(out / similarity_name(split, pair, one.label)) as stream:
                    np.save(stream, _scores(source, split, pair, one.label)[rows], allow_pickle=False)
    return len(rows), len(scores[0]) - len(rows)


def _scores(folder: Path, split: str, pair: tuple[View, View], label: str) -> NDArray[np.float32]:
    found: NDArray[np.float32] = np.load(folder / similarity_name(split, pair, label), allow_pickle=False)
    return found


def _write_subset(view: Embeddings, rows: NDArray[np.int64], out: Path, texts: Path) -> None:
    """Write some rows of a view, and the manifest that belongs to them."""
    chosen = view.subset(rows)
    with atomic_file(out) as stream:
        dtype = "float32" if view.manifest is None else view.manifest.dtype
        write_npy(stream, chosen.shape, (block for _, block in chosen.blocks()), dtype)
        stream.flush()
        # As in `encode_texts`: the old file goes before the new manifest comes.
        out.unlink(missing_ok=True)
        if view.manifest is not None:
            whole = dataclasses.replace(
                view.manifest,
                rows=[len(chosen)],
                sha256=[sha256_of_file(stream.name)],
                source={"name": texts.name, "rows": len(chosen), "sha256": sha256_of_lines(read_lines(texts))},
            )
            write_json(manifest_path(out), whole.to_json())
