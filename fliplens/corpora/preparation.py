"""From what users download to what a lens is trained and measured on: texts, clips and vectors, row for row.

A source's rows are cleaned as they are read, wait in files while hashes of them tell duplicates and splits, and are
written once it is known where each belongs. The same source and settings give the same bytes; a killed job goes on
when the same call is made again, with the encoding, which takes longest, from its last part.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fliplens.corpora.cleaning import Cleaning, clean_rows
from fliplens.corpora.clips import AUDIO, ClipBounds, checked_rows, converted_name, decoded
from fliplens.corpora.counting import Counts
from fliplens.corpora.grouping import DUPLICATES, targets
from fliplens.corpora.layout import (
    AUDIO_FOLDER,
    MARKER,
    REPORT,
    SPOOL,
    UNFILTERED,
    View,
    datasets_yaml,
    folder_of,
    study_yaml,
    write_yaml,
)
from fliplens.corpora.rows import Source
from fliplens.corpora.sources import Wanted, open_source
from fliplens.corpora.spool import Spool
from fliplens.corpora.vectors import EncoderSet, encode_views, encoder_sets, write_alike
from fliplens.embeddings import FLOAT_TYPES
from fliplens.encoders import Encoder, load_encoder
from fliplens.errors import InputError
from fliplens.files import check_free, is_empty, read_json, sha256_of_file, write_json
from fliplens.progress import track

__all__ = ["DEFAULT_SPLIT", "PrepareConfig", "Prepared", "prepare"]

FORMAT_VERSION = 1
DEFAULT_SPLIT: Mapping[str, float] = {"train": 0.9, "dev": 0.05, "test": 0.05}
"""Of sources that have no splits of their own."""


@dataclass(frozen=True, kw_only=True)
class PrepareConfig:
    """What to read, what of it to keep, and what to make of it."""

    kind: str
    """One of `fliplens.corpora.sources.KINDS`."""
    sources: tuple[str, ...] = ()
    """Files, stems, folders or ids, as the kind has it."""
    languages: tuple[str, ...] | None = None
    """None: those that the files tell."""
    columns: tuple[str, ...] = ()
    """Columns of a table, one for each language."""
    name: str | None = None
    """What `datasets.yaml` calls the corpus; None: as the folder is called."""
    split: Mapping[str, float] | None = None
    """Split → share of the rows. None: the source's own splits, if it has some, else DEFAULT_SPLIT."""
    seed: int = 0
    """Of splits and samples."""
    cleaning: Cleaning = field(default_factory=Cleaning)
    """Bounds of a text."""
    clips: ClipBounds = field(default_factory=ClipBounds)
    """Bounds of a clip."""
    audio: str = "header"
    """One of `fliplens.corpora.clips.AUDIO`."""
    min_up_votes: int = 0
    """Of Common Voice."""
    max_down_votes: int | None = None
    """Of Common Voice."""
    duplicates: str = "row"
    """One of `fliplens.corpora.grouping.DUPLICATES`."""
    limit: int | None = None
    """Rows to keep at most, drawn from those that are fit; None: all."""
    encoders: tuple[str, ...] = ()
    """Specs. The first encoder of text goes with the first of speech, and so on."""
    dtype: str = "float32"
    """Of vectors on disk."""
    min_similarity: float | None = None
    """Rows go whose views are not more alike than this, by the vectors of the first encoder; None: all stay."""

    def __post_init__(self) -> None:
        for name, value, known in (
            ("duplicates", self.duplicates, DUPLICATES),
            ("audio", self.audio, AUDIO),
            ("dtype", self.dtype, FLOAT_TYPES),
        ):
            if value not in known:
                raise InputError(f"expected {name} out of {', '.join(known)}, found {value!r}")
        if self.limit is not None and self.limit < 1:
            raise InputError(f"expected a limit of 1 row or more, found {self.limit}")
        if self.split is not None:
            targets(1, self.split)
            for name in self.split:
                if not name.isidentifier():
                    raise InputError(f"expected names of splits such as train, dev and test, found {name!r}")
        if self.min_similarity is not None and not self.encoders:
            raise InputError("expected an encoder to tell how alike views are, found none: name one with --encoder")

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Prepared:
    """What a prepared corpus holds."""

    folder: Path
    name: str
    languages: tuple[str, ...]
    spoken: bool
    counts: Counts
    """Rows kept, and left out by reason."""
    splits: Mapping[str, int]
    """Split → rows."""
    n_groups: int
    """Groups of rows that share sentences, before splits and similarity left some out."""
    largest_group: int
    """Rows of the largest one; it is in one split, whatever the shares."""
    files: Mapping[str, Mapping[str, Any]]
    """Name → bytes and sha256, of all files but the report."""

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain JSON values; it does not say where the folder is."""
        return {
            "format_version": FORMAT_VERSION,
            "name": self.name,
            "languages": list(self.languages),
            "spoken": self.spoken,
            "rows": self.counts.to_json(),
            "splits": dict(self.splits),
            "groups": {"number": self.n_groups, "largest": self.largest_group},
            "files": {name: dict(one) for name, one in self.files.items()},
        }

    @classmethod
    def load(cls, folder: str | Path) -> Prepared:
        """Read the report of a folder.

        Raises:
            InputError: there is none, or it is not laid out as one.
        """
        folder = Path(folder)
        value = read_json(folder / REPORT)
        try:
            rows = value["rows"]
            return cls(
                folder=folder,
                name=value["name"],
                languages=tuple(value["languages"]),
                spoken=value["spoken"],
                counts=Counts(read=rows["read"], changed=rows["changed"], **rows["dropped"]),
                splits=value["splits"],
                n_groups=value["groups"]["number"],
                largest_group=value["groups"]["largest"],
                files=value["files"],
            )
        except (KeyError, TypeError) as error:
            raise InputError(
                f"expected the report of a prepared corpus in {folder / REPORT}, found something else ({error}): "
                "prepare it again with --overwrite"
            ) from error


def prepare(
    config: PrepareConfig,
    out: str | Path,
    *,
    device: str = "auto",
    overwrite: bool = False,
    show_progress: bool = False,
    load: Callable[[str], Encoder] | None = None,
) -> Prepared:
    """Read a source, keep what is fit, split it, and write texts, clips, vectors and the YAML files that use them.

    What an unfinished job of the same settings left in the folder is used; a finished one is left as it is, if
    sources and files are as they were.

    Args:
        config: see `PrepareConfig`.
        out: the folder to write.
        device: where to encode: auto, cpu, cuda or mps.
        overwrite: replace another corpus in the folder.
        show_progress: bars on stderr.
        load: gets an encoder by its spec; `load_encoder` on `device` by default.

    Raises:
        InputError: a source that is missing, broken or not laid out as its kind is; settings that mean nothing to it;
            no rows that are fit, or none for a split; a folder that holds something else.
        MissingExtraError: Parquet, data sets, audio or an encoder without the library that reads them.
    """
    out = Path(out)
    source = open_source(
        config.kind,
        config.sources,
        Wanted(
            languages=config.languages,
            columns=config.columns,
            resplit=config.split is not None,
            min_up_votes=config.min_up_votes,
            max_down_votes=config.max_down_votes,
            min_words=config.cleaning.min_words,
            max_words=config.cleaning.max_words,
            limit=config.limit,
            seed=config.seed,
        ),
    )
    if config.audio != "header" and not source.spoken:
        raise InputError(f"expected audio=header for a source without speech, found {config.audio}: leave it out")
    job = {
        "format_version": FORMAT_VERSION,
        "settings": config.to_json(),
        "sources": [[str(path.absolute()), *_state(path)] for path in source.files],
    }
    if _claim(out, job, overwrite=overwrite):
        return Prepared.load(out)
    load = load or (lambda spec: load_encoder(spec, device=device))
    # Before the reading: an encoder that cannot be loaded should be known at once.
    sets = encoder_sets([load(spec) for spec in config.encoders], spoken=source.spoken)
    return _Job(config, out, source, sets, show_progress).run()


def _state(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


def _claim(out: Path, job: Mapping[str, Any], *, overwrite: bool) -> bool:
    """Make the folder ours, and tell whether this very job is finished in it."""
    # As it will be read back: tuples become lists.
    wanted = _as_json(job)
    marker = out / MARKER
    found = read_json(marker) if marker.is_file() else None
    kind = folder_of(_splits_of(out, found))
    if found is not None and {entry.name for entry in out.iterdir()} <= {MARKER, SPOOL}:
        # Left by a job that ended before it had a row to write, over a mistyped column say: nothing to protect.
        shutil.rmtree(out / SPOOL, ignore_errors=True)
        marker.unlink()
        found = None
    if found is not None and not overwrite and found == wanted:
        for left in out.rglob(".*.tmp"):
            # Of a job that was killed while it wrote.
            left.unlink()
        return (out / REPORT).is_file() and _intact(out, Prepared.load(out))
    check_free(out, kind=kind, overwrite=overwrite)
    if out.is_dir() and not is_empty(out):
        shutil.rmtree(out)
    write_json(marker, wanted)
    return False


def _splits_of(out: Path, marker: Any) -> set[str]:
    """Return the splits that a folder's marker and report name, and the usual ones."""
    named = set(DEFAULT_SPLIT)
    with contextlib.suppress(InputError, KeyError, TypeError):
        named |= set(marker["settings"]["split"] or ())
        named |= set(Prepared.load(out).splits)
    return named


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _intact(out: Path, done: Prepared) -> bool:
    """Return whether all files of a finished job are what its report says."""
    return all(
        (out / name).is_file()
        and (out / name).stat().st_size == one.get("bytes")
        and sha256_of_file(out / name) == one.get("sha256")
        for name, one in done.files.items()
    )


class _Job:
    """One corpus on its way from source to folder."""

    def __init__(
        self, config: PrepareConfig, out: Path, source: Source, sets: Sequence[EncoderSet], show_progress: bool
    ) -> None:
        self.config = config
        self.out = out
        self.source = source
        self.sets = sets
        self.show = show_progress
        self.name = config.name or out.absolute().name
        self.counts = Counts()
        self.texts = [View(language, speech=False) for language in source.languages]
        self.views = [*self.texts, *([View(source.languages[0], speech=True)] if source.spoken else [])]
        self.converted: Mapping[int, str] | None = None
        """Row → its converted clip."""

    def run(self) -> Prepared:
        """Do all of it."""
        folder = self.out / SPOOL
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            spool = Spool(folder, len(self.texts), spoken=self.source.spoken)
            self._select(spool)
            splits, sizes = spool.splits, spool.sizes()
            into = self.out if self.config.min_similarity is None else self.out / UNFILTERED
            self._write(spool, into)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        vectors = [
            encode_views(
                one,
                self.views,
                splits,
                into,
                clips=self.out,
                dtype=self.config.dtype,
                show_progress=self.show,
            )
            for one in self.sets
        ]
        if self.config.min_similarity is not None:
            for split in splits:
                sizes[split], dropped = write_alike(
                    split, self.config.min_similarity, self.views, vectors, into, self.out
                )
                self.counts.dissimilar += dropped
            self._check_sizes(sizes)
        write_yaml(self.out / "datasets.yaml", datasets_yaml(self.name, splits, self.views, vectors))
        study = study_yaml(self.name, splits, self.views, vectors)
        if study is not None:
            missing = () if vectors else ("Add `encoders: [SPEC]`, and what the study varies.",)
            write_yaml(self.out / "study.yaml", study, "Settings of `fliplens study`.", *missing)
        if into != self.out:
            shutil.rmtree(into)
        if self.counts.kept != sum(sizes.values()):
            raise AssertionError(f"{self.counts} does not add up to {sizes}")
        done = Prepared(
            folder=self.out,
            name=self.name,
            languages=self.source.languages,
            spoken=self.source.spoken,
            counts=self.counts,
            splits=sizes,
            n_groups=spool.n_groups,
            largest_group=spool.largest_group,
            files=self._files(),
        )
        write_json(self.out / REPORT, done.to_json())
        return done

    def _select(self, spool: Spool) -> None:
        """Read the source and decide about every row."""
        config, counts = self.config, self.counts
        rows = clean_rows(self.source.rows(counts), config.cleaning, counts)
        if self.source.spoken:
            rows = checked_rows(rows, config.clips, counts)
        spool.gather(track(rows, what="read", unit="rows", show=self.show))
        spool.drop_duplicates(config.duplicates, counts)
        spool.draw(config.limit, config.seed, counts)
        own = bool(spool.splits) and config.split is None
        spool.split(None if own else config.split or DEFAULT_SPLIT, config.seed, counts)
        if config.audio != "header":
            self._decode(spool)
        self._check_sizes(spool.sizes())

    def _check_sizes(self, sizes: Mapping[str, int]) -> None:
        """Raise InputError unless every split has rows."""
        reasons = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in self.counts.dropped.items())
        told = f"{self.counts.read} rows read" + (f", of which were dropped: {reasons}" if reasons else "")
        if not any(sizes.values()):
            raise InputError(f"expected rows that are fit to keep, found none ({told}): check source and bounds")
        for split, n in sizes.items():
            if not n:
                raise InputError(
                    f"expected rows for {split}, found none ({told}): give it a larger share with --split, or take "
                    "more rows"
                )

    def _decode(self, spool: Spool) -> None:
        """Decode the clips that are kept, convert them if asked to, and drop those that cannot be used."""
        kind, names = self.config.audio, {}
        taken: dict[str, str] = {}

        def jobs() -> Iterator[tuple[str, Path | None]]:
            for number, clip in spool.clips():
                numbers.append(number)
                if kind == "decode":
                    yield clip, None
                    continue
                name = converted_name(clip, kind)
                if taken.setdefault(name.casefold(), clip) != clip:
                    raise InputError(
                        f"expected clips of different names, found {taken[name.casefold()]} and {clip}: prepare "
                        "their folders one by one"
                    )
                names[number] = f"{AUDIO_FOLDER}/{name}"
                yield clip, self.out / AUDIO_FOLDER / name

        numbers: list[int] = []
        dropped: list[int] = []
        results = decoded(jobs())
        for place, reason in enumerate(track(results, what="decode", unit="clips", show=self.show)):
            if reason is not None:
                setattr(self.counts, reason, getattr(self.counts, reason) + 1)
                dropped.append(numbers[place])
        spool.drop(np.array(dropped, dtype=np.int64))
        self.converted = names

    def _write(self, spool: Spool, into: Path) -> None:
        """Write texts and lists of clips."""
        for side, view in enumerate(self.texts):
            spool.write_texts(side, [into / view.texts(split) for split in spool.splits])
        if self.source.spoken:
            spool.write_clips([into / self.views[-1].texts(split) for split in spool.splits], self.converted)

    def _files(self) -> dict[str, dict[str, Any]]:
        """Return bytes and hash of everything in the folder but marker and report."""
        found = {}
        for path in sorted(self.out.rglob("*")):
            name = path.relative_to(self.out).as_posix()
            if path.is_file() and name not in (MARKER, REPORT) and not path.name.startswith("."):
                found[name] = {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}
        return found
