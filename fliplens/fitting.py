"""From sentences and their vectors to a lens: vocabulary, held-out rows, anchor, training, folding."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import fliplens
from fliplens.choosing import VocabularyChoice, VocabularyConfig, choice_of
from fliplens.decoding import ExplainingAway
from fliplens.decoding import learn as learn_decoding
from fliplens.devices import resolve_device
from fliplens.distributed import Group
from fliplens.embeddings import Embeddings, EmbeddingsLike
from fliplens.errors import EmbeddingSpaceWarning, FliplensError, FliplensWarning, InputError
from fliplens.evaluation import evaluate
from fliplens.files import sha256_of_lines
from fliplens.fingerprint import Fingerprint
from fliplens.lens import Lens
from fliplens.lens_files import format_version
from fliplens.progress import say
from fliplens.recipes import TrainConfig
from fliplens.training import Checkpoint, FolderLog, MetricsWriter, TrainResult, train
from fliplens.training.checkpoint import identity_of, interruption
from fliplens.views import Rows, Views
from fliplens.vocabulary import Vocabulary

if TYPE_CHECKING:
    from fliplens.encoders import Encoder

__all__ = ["VocabularyConfig", "fit"]

HELD_OUT_SHARE = 0.05
HELD_OUT_MOST = 4000
HELD_OUT_LEAST = 20


def fit(
    texts: Sequence[str] | str | Path,
    embeddings: EmbeddingsLike,
    *,
    paired: EmbeddingsLike | None = None,
    dev_texts: Sequence[str] | str | Path | None = None,
    dev_embeddings: EmbeddingsLike | None = None,
    dev_paired: EmbeddingsLike | None = None,
    vocabulary: Vocabulary | VocabularyChoice | None = None,
    encoder: Encoder | str | None = None,
    config: TrainConfig | None = None,
    hold_out: float = HELD_OUT_SHARE,
    explain_away: bool = True,
    drop_bad_rows: bool = False,
    device: str = "auto",
    show_progress: bool = False,
    checkpoint: Checkpoint | str | Path | None = None,
    metrics: MetricsWriter | str | Path | None = None,
    stop: Callable[[], bool] | None = None,
    group: Group | None = None,
) -> Lens:
    """Train a lens on sentences and their vectors.

    Args:
        texts: n sentences, or the path of a file with one a line.
        embeddings: their vectors (n, d): an array, a tensor, or a path.
        paired: vectors (n, d) of a second view of the same sentences (speech, another language).
        dev_texts: sentences to stop on; without them `hold_out` of the rows serve.
        dev_embeddings: their vectors.
        dev_paired: their second view; needed where `paired` is given.
        vocabulary: the words to read, or how to choose them from the training rows: `VocabularyConfig` (the
            default: the most frequent words), or `ConceptConfig` (words and word pairs, section 3.4).
        encoder: the encoder that made the vectors, or its spec. Recorded with the lens, so that it can read
            text; and, unless another anchor is asked for, asked for the vectors of the vocabulary's words. By
            default what the embeddings' manifest says.
        config: the recipe; `TrainConfig()` by default.
        hold_out: share of the rows, 0..0.5, held out to stop on where no dev data is given: a seeded draw,
            identical texts together, at most 4,000 rows. 0, or a share of fewer than 20 rows, trains on every
            row to the last pass.
        explain_away: also learn what `decoding="explain-away"` needs: some seconds on tens of thousands of rows, and
            half as much again on disk. Plain decoding is the same either way.
        drop_bad_rows: go on without rows that hold NaN or infinite values, instead of refusing them.
        device: auto, cpu, cuda or mps.
        show_progress: bars on stderr.
        checkpoint: a folder that keeps the state of training every minute, and from which the same call goes on
            after a kill; see `fliplens.training.Checkpoint` for more choice. Trained weights are kept as well,
            while what is made of them comes after. It stays there when the lens is returned: delete it once the
            lens is saved.
        metrics: a folder for `metrics.jsonl` and TensorBoard events, or whatever takes records of the progress.
        stop: asked after every step of training, and in what follows it; once it is true the state is written and the
            work ends.
        group: the processes that train together, see `fliplens.distributed`; by default this one alone.

    Returns:
        The lens with the best dev score; `lens.config` tells how it was made. In a group every process returns
        it, but only process 0's tells its metrics.

    Raises:
        InputError: what was handed in does not fit together, or a checkpoint or metrics of another job are there.
        InterruptedRunError: `stop` was true.
        FliplensError: training diverged.
    """
    config = config or TrainConfig()
    group = group or Group()
    where = resolve_device(device)
    if not 0 <= hold_out <= 0.5:
        raise InputError(f"expected hold_out from 0 to 0.5, found {hold_out}")
    rows, n_dropped = Rows.of(texts, embeddings, paired, "training").finite(
        drop=drop_bad_rows, show_progress=show_progress
    )
    dev = _dev_rows(dev_texts, dev_embeddings, dev_paired, paired is not None)
    if dev is not None:
        dev.primary.check_dim(rows.primary.dim, made_for="the training embeddings'")
        dev, _ = dev.finite(drop=drop_bad_rows)
    # An encoder that cannot be had is found out before the vocabulary is counted, not after.
    # Of several processes the first one asks it.
    maker, spec = _encoder(encoder, rows.primary, config, device) if group.is_first else (None, None)
    n_given = len(rows.texts)
    if isinstance(checkpoint, str | Path):
        checkpoint = Checkpoint(checkpoint, notify=say if show_progress else None)
    if isinstance(metrics, str | Path):
        metrics = FolderLog(metrics)
    if not group.is_first:
        checkpoint = metrics = None
    choice = choice_of(vocabulary)
    if checkpoint is not None:
        job = _job(rows, dev, choice, maker, spec, config, hold_out)
        checkpoint.open(job)
        if isinstance(metrics, FolderLog):
            metrics.check(checkpoint.job)
    if dev is None:
        rows, dev = _hold_out(rows, config.seed, hold_out)
    vocabulary = choice.build(rows.texts, show_progress=show_progress)
    counts = vocabulary.counts(rows.texts, show_progress=show_progress)
    useful = np.flatnonzero(np.diff(counts.indptr))
    if not len(useful):
        raise InputError(
            f"expected training text with words of the vocabulary, found none in {len(rows.texts)} rows: "
            "is the vocabulary of another language?"
        )
    trained = rows
    if len(useful) < len(rows.texts):
        trained, counts = rows.subset(useful), counts[useful]
    dev_views = None if dev is None else _dev_views(dev, vocabulary)
    vectors = None
    if maker is not None and checkpoint is None:
        vectors = maker.encode(vocabulary.words, show_progress=show_progress)
    elif maker is not None and checkpoint is not None and not checkpoint.has_state:
        vectors = checkpoint.word_vectors(maker, vocabulary.words, show_progress=show_progress)
    views = Views(counts, trained.primary, trained.paired)
    result = train(
        views,
        config,
        dev=dev_views,
        word_vectors=vectors,
        device=where,
        show_progress=show_progress,
        checkpoint=checkpoint,
        metrics=metrics,
        stop=stop,
        group=group,
    )
    heed = _heeding(stop, checkpoint, group)
    heed()
    started = time.perf_counter()
    away = _explaining_away(views, result, config, where, heed) if explain_away and group.is_first else None
    decoding_seconds = time.perf_counter() - started
    heed()
    lens = Lens(
        result.factors,
        vocabulary,
        prior=result.prior,
        mean=torch.from_numpy(result.mean),
        fingerprint=Fingerprint.of(rows.primary, show_progress=show_progress),
        config={
            "format_version": format_version(vocabulary),
            **_description(rows, dev, len(trained.texts), n_given, n_dropped, spec, maker, config, result),
        },
        away=away,
    )
    if away is not None:
        lens.config["training"]["decoding_seconds"] = round(decoding_seconds, 3)
    if dev is not None and dev_views is not None and group.is_first:
        heed()
        lens.config["metrics"] = {
            "dev": evaluate(lens, dev.texts, dev.primary, paired=dev.paired, metrics="accuracy").to_json()
        }
    heed()
    return lens


def _explaining_away(
    views: Views,
    result: TrainResult,
    config: TrainConfig,
    device: torch.device,
    stop: Callable[[], bool],
) -> ExplainingAway:
    """Learn the dictionary and shares of a trained lens on the device that trained it."""
    factors = result.factors.map(lambda tensor: tensor.to(device))
    prior = result.prior.to(device)
    return learn_decoding(views, factors, prior, alpha=config.alpha, stop=stop).to("cpu")


def _heeding(stop: Callable[[], bool] | None, checkpoint: Checkpoint | None, group: Group) -> Callable[[], bool]:
    """Return `stop` as what follows training asks it: instead of returning true it raises, saying what is kept."""

    def heed() -> bool:
        if stop is not None and stop():
            raise interruption("interrupted after the last step of training", checkpoint, group)
        return False

    return heed


def _dev_rows(
    texts: Sequence[str] | str | Path | None,
    primary: EmbeddingsLike | None,
    paired: EmbeddingsLike | None,
    wants_pair: bool,
) -> Rows | None:
    if texts is None and primary is None and paired is None:
        return None
    if texts is None or primary is None:
        raise InputError("expected dev texts and dev embeddings together, found one without the other")
    if wants_pair != (paired is not None):
        raise InputError(
            "expected a paired view in both training and dev data, or in neither, found it in one: "
            "give --paired and --dev-paired together"
        )
    return Rows.of(texts, primary, paired, "dev")


def _hold_out(rows: Rows, seed: int, share: float = HELD_OUT_SHARE) -> tuple[Rows, Rows | None]:
    """Split off a seeded share of the rows to stop on; rows of identical text stay on one side.

    Too few rows to learn anything from a held-out share are all trained on.
    """
    n = len(rows.texts)
    wanted = min(HELD_OUT_MOST, int(n * share))
    if wanted < HELD_OUT_LEAST:
        return rows, None
    numbers: dict[str, int] = {}
    group = np.fromiter((numbers.setdefault(text, len(numbers)) for text in rows.texts), np.int64, n)
    order = np.random.default_rng(seed).permutation(group.max() + 1)
    sizes = np.bincount(group)
    # Whole groups, in random order, until the share is reached; a text that fills it alone is never held out.
    order = order[sizes[order] <= wanted]
    taken = order[: int(np.searchsorted(np.cumsum(sizes[order]), wanted, side="right"))]
    if not len(taken):
        return rows, None
    held = np.isin(group, taken)
    return rows.subset(np.flatnonzero(~held)), rows.subset(np.flatnonzero(held))


def _dev_views(dev: Rows, vocabulary: Vocabulary) -> Views | None:
    """Return the dev rows with their reference words; None (and a warning) where no row has a known word."""
    counts = vocabulary.references(dev.texts).counts
    if not counts.nnz:
        warnings.warn(
            f"none of the {len(dev.texts)} dev sentences has a word of the vocabulary: "
            "training runs to its last pass, and the last weights are kept",
            FliplensWarning,
            stacklevel=3,
        )
        return None
    return Views(counts, dev.primary, dev.paired)


def _encoder(
    encoder: Encoder | str | None, embeddings: Embeddings, config: TrainConfig, device: str
) -> tuple[Encoder | None, str | None]:
    """Return the encoder to anchor with (None where the anchor needs none) and the spec to record."""
    made_by = None if embeddings.manifest is None else embeddings.manifest.encoder
    if encoder is None:
        encoder = made_by
    if encoder is None:
        return None, None
    from fliplens.encoders import canonical_spec, load_encoder

    spec = canonical_spec(encoder) if isinstance(encoder, str) else encoder.spec
    if made_by is not None and made_by != spec:
        warnings.warn(
            f"{embeddings.name} says that {made_by} made its vectors, but the encoder named is {spec}: "
            "words of the one are no anchor in the space of the other",
            EmbeddingSpaceWarning,
            stacklevel=3,
        )
    if config.anchor not in ("auto", "words"):
        return None, spec
    maker: Encoder
    if not isinstance(encoder, str):
        maker = encoder
    else:
        try:
            maker = load_encoder(encoder, device=device)
        except InputError:
            raise
        except FliplensError as error:
            if config.anchor == "words":
                raise
            warnings.warn(
                f"training starts from sentence means, as the encoder cannot be loaded here ({error})",
                FliplensWarning,
                stacklevel=3,
            )
            return None, spec
    if maker.dim != embeddings.dim:
        raise InputError(
            f"expected vectors of {maker.dim} dimensions, the encoder {maker.spec}'s, found "
            f"{embeddings.dim} in {embeddings.name}: name the encoder that made them"
        )
    return maker, spec


def _job(
    rows: Rows,
    dev: Rows | None,
    vocabulary: VocabularyChoice,
    encoder: Encoder | None,
    spec: str | None,
    config: TrainConfig,
    hold_out: float,
) -> dict[str, Any]:
    """Return what tells this run from others, as plain JSON values; known before the words are counted."""

    def identity(some: Rows | None) -> dict[str, Any] | None:
        if some is None:
            return None
        return {
            "texts": sha256_of_lines(some.texts),
            "primary": identity_of(some.primary),
            "paired": identity_of(some.paired),
        }

    return {
        "recipe": config.to_json(),
        "training data": identity(rows),
        "dev data": identity(dev) or {"hold_out": hold_out},
        "vocabulary": vocabulary.to_json(),
        "encoder": {"spec": spec, "revision": None if encoder is None else encoder.revision},
    }


def _description(
    rows: Rows,
    dev: Rows | None,
    n_trained: int,
    n_given: int,
    n_dropped: int,
    spec: str | None,
    encoder: Encoder | None,
    config: TrainConfig,
    result: TrainResult,
) -> dict[str, Any]:
    """Return the part of `config.json` that says how the lens was made."""
    manifest = rows.primary.manifest
    revision = encoder.revision if encoder is not None else manifest.revision if manifest else None
    return {
        "fliplens_version": fliplens.__version__,
        "encoder": {"spec": spec, "name": encoder.name if encoder else spec, "revision": revision},
        "data": {
            "rows": n_given,
            "rows_trained": n_trained,
            "rows_without_known_words": len(rows.texts) - n_trained,
            "rows_dropped_not_finite": n_dropped,
            "views": 1 if rows.paired is None else 2,
            "sha256": sha256_of_lines(rows.texts),
            "dev_rows": 0 if dev is None else len(dev.texts),
            "dev_sha256": None if dev is None else sha256_of_lines(dev.texts),
            "embeddings_sha256": manifest.sha256 if manifest else None,
        },
        "recipe": config.to_json(),
        "training": {
            "anchor": result.anchor,
            "precision": result.precision,
            "best_pass": result.best_pass,
            "seconds": round(result.seconds, 3),
            "history": result.history_json(),
        },
    }
