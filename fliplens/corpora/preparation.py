"""From what users download to what a lens is trained and measured on: texts, clips and vectors, row for row.

A source's rows are cleaned as they are read, wait in files while hashes of them tell duplicates and splits, and are
written once it is known where each belongs. The same source and settings give the same bytes; a killed job goes on
when the same call is made again, with the encoding, which takes longest, from its last part.
"""

from __future__ import annotations

import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from fliplens.corpora.cleaning import clean_rows
from fliplens.corpora.clips import DroppedClips, checked_rows, converted_name, decoded
from fliplens.corpora.counting import Counts
from fliplens.corpora.folder import FORMAT_VERSION, PreparedCorpus, claim, described_files, leaving_nothing_unmade
from fliplens.corpora.layout import (
    AUDIO_FOLDER,
    DROPPED_CLIPS,
    REPORT,
    SPOOL,
    UNFILTERED,
    View,
    datasets_yaml,
    study_yaml,
    write_yaml,
)
from fliplens.corpora.rows import Row, RowSource
from fliplens.corpora.settings import PrepareConfig
from fliplens.corpora.sources import Wanted, open_source
from fliplens.corpora.splits import DEFAULT_SPLIT
from fliplens.corpora.spool import Spool
from fliplens.corpora.vectors import EncoderSet, encode_views, encoder_sets, pairs_of, write_alike
from fliplens.encoders import Encoder, load_encoder
from fliplens.errors import InputError
from fliplens.files import write_json
from fliplens.progress import Progress, track
from fliplens.wording import counted

__all__ = ["PrepareConfig", "PreparedCorpus", "prepare"]


def prepare(
    config: PrepareConfig,
    out: str | Path,
    *,
    device: str = "auto",
    overwrite: bool = False,
    show_progress: bool = False,
    load: Callable[[str], Encoder] | None = None,
) -> PreparedCorpus:
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
            no rows that are fit, or none for a split; a folder that holds something else. A job that ends before it
            has made anything leaves nothing behind.
        MissingExtraError: Parquet, data sets, audio or an encoder without the library that reads them.

    Warns:
        FliplensWarning: some rows or clips cannot be read: how many, and which is the first.
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
    with leaving_nothing_unmade(out):
        if claim(out, job, overwrite=overwrite):
            return PreparedCorpus.load(out)
        load = load or (lambda spec: load_encoder(spec, device=device))
        # Before the reading: an encoder that cannot be loaded should be known at once.
        sets = encoder_sets([load(spec) for spec in config.encoders], spoken=source.spoken)
        return _Job(config, out, source, sets, show_progress).run()


def _state(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_size, stat.st_mtime_ns


class _Job:
    """One corpus on its way from source to folder."""

    def __init__(
        self, config: PrepareConfig, out: Path, source: RowSource, sets: Sequence[EncoderSet], show_progress: bool
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
        if config.min_similarity is not None and not pairs_of(sets[0], self.views):
            raise InputError(
                "expected two views in one space with --min-similarity, two languages or text and speech, found "
                f"{' and '.join(view.identifier for view in self.views)} and {config.encoders[0]}: leave it out, or "
                "name the encoders that go together"
            )

    def run(self) -> PreparedCorpus:
        """Do all of it."""
        folder = self.out / SPOOL
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            spool = Spool(folder, len(self.texts), spoken=self.source.spoken)
            with DroppedClips(folder / DROPPED_CLIPS, self.counts) as dropped:
                try:
                    self._select(spool, dropped)
                except InputError:
                    # There may be no rows because there are no clips: the first one says why.
                    dropped.tell()
                    raise
                splits, sizes = spool.splits, spool.sizes()
                into = self.out if self.config.min_similarity is None else self.out / UNFILTERED
                self._write(spool, into)
                dropped.keep(self.out / DROPPED_CLIPS)
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
                sizes[split], unlike = write_alike(
                    split, self.config.min_similarity, self.views, vectors, into, self.out
                )
                self.counts.dissimilar += unlike
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
        done = PreparedCorpus(
            folder=self.out,
            name=self.name,
            languages=self.source.languages,
            spoken=self.source.spoken,
            counts=self.counts,
            splits=sizes,
            n_groups=spool.n_groups,
            largest_group=spool.largest_group,
            files=described_files(self.out),
        )
        write_json(self.out / REPORT, done.to_json())
        return done

    def _select(self, spool: Spool, dropped: DroppedClips) -> None:
        """Read the source and decide about every row."""
        config, counts = self.config, self.counts
        rows = clean_rows(self.source.rows(counts), config.cleaning, counts)
        if self.source.spoken:
            rows = checked_rows(rows, config.clips, dropped)
        spool.gather(self._told(rows))
        spool.drop_duplicates(config.duplicates, counts)
        spool.draw(config.limit, config.seed, counts)
        own = bool(spool.splits) and config.split is None
        spool.split(None if own else config.split or DEFAULT_SPLIT, config.seed, counts)
        if config.audio != "header":
            self._decode(spool, dropped)
        self._check_sizes(spool.sizes())

    def _told(self, rows: Iterator[Row]) -> Iterator[Row]:
        """Yield the rows, telling how many were read so far: those that are left out as well."""
        seen = 0
        with Progress("read", total=None, unit="rows", show=self.show) as bar:
            for row in rows:
                yield row
                bar.update(self.counts.read - seen)
                seen = self.counts.read
            bar.update(self.counts.read - seen)

    def _check_sizes(self, sizes: Mapping[str, int]) -> None:
        """Raise InputError unless every split has rows."""
        reasons = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in self.counts.dropped.items())
        told = f"{counted(self.counts.read, 'row')} read" + (f", of which were dropped: {reasons}" if reasons else "")
        if not any(sizes.values()):
            raise InputError(f"expected rows that are fit to keep, found none ({told}): check source and bounds")
        for split, n in sizes.items():
            if not n:
                raise InputError(
                    f"expected rows for {split}, found none ({told}): give it a larger share with --split, or take "
                    "more rows"
                )

    def _decode(self, spool: Spool, dropped: DroppedClips) -> None:
        """Decode the clips that are kept, convert them if asked to, and drop those that cannot be used."""
        kind, names = self.config.audio, {}
        taken: dict[str, str] = {}

        def jobs() -> Iterator[tuple[str, Path | None]]:
            for number, clip in spool.clips():
                waiting.append((number, clip))
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

        # Clips that were handed out and have not come back: few at a time, in one order.
        waiting: deque[tuple[int, str]] = deque()
        gone: list[int] = []
        results = track(decoded(jobs()), what="decode", total=len(spool.kept), unit="clips", show=self.show)
        for complaint in results:
            number, clip = waiting.popleft()
            if complaint is not None:
                dropped.add(clip, complaint)
                gone.append(number)
        spool.drop(np.array(gone, dtype=np.int64))
        self.converted = names

    def _write(self, spool: Spool, into: Path) -> None:
        """Write texts and lists of clips."""
        for side, view in enumerate(self.texts):
            spool.write_texts(side, [into / view.texts(split) for split in spool.splits])
        if self.source.spoken:
            spool.write_clips([into / self.views[-1].texts(split) for split in spool.splits], self.converted)
