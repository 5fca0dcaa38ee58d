"""From sentences and their vectors to a lens: vocabulary, held-out rows, anchor, training, folding."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from fliplens.arithmetic.decoding import ExplainingAway
from fliplens.devices import resolve_device
from fliplens.embeddings import EmbeddingsLike
from fliplens.lenses.fingerprint import Fingerprint
from fliplens.lenses.lens import Lens
from fliplens.progress import say
from fliplens.text.choosing import VocabularyChoice, VocabularyConfig, choice_of
from fliplens.text.vocabulary import Vocabulary
from fliplens.training import Checkpoint, FolderLog, MetricsWriter, TrainResult, train
from fliplens.training.checkpoint import interruption
from fliplens.training.distributed import Group
from fliplens.training.explaining_away import learn as learn_decoding
from fliplens.training.preparation import HELD_OUT_SHARE, Source, check_hold_out
from fliplens.training.recipes import TrainConfig
from fliplens.training.views import Views

if TYPE_CHECKING:
    from fliplens.encoders import Encoder

__all__ = ["VocabularyConfig", "fit"]


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
    shuffled: bool = False,
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
        shuffled: a control: every sentence gets another one's vector, and training starts from sentence means. Such a
            lens should read no more than the most frequent words; the encoder's word vectors are not used.
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
        group: the processes that train together, see `fliplens.training.distributed`; by default this one alone.

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
    check_hold_out(hold_out)
    if shuffled and config.anchor != "random":
        # The encoder's own word vectors would tell what the shuffled rows must not.
        config = replace(config, anchor="sentences")
    source = Source.gather(
        texts,
        embeddings,
        paired=paired,
        dev_texts=dev_texts,
        dev_embeddings=dev_embeddings,
        dev_paired=dev_paired,
        encoder=encoder,
        words=config.anchor,
        drop_bad_rows=drop_bad_rows,
        device=device,
        show_progress=show_progress,
        # Of several processes the first one asks it.
        load_encoder=group.is_first,
    )
    if shuffled:
        source = source.shuffled(config.seed)
    if isinstance(checkpoint, str | Path):
        checkpoint = Checkpoint(checkpoint, notify=say if show_progress else None)
    if isinstance(metrics, str | Path):
        metrics = FolderLog(metrics)
    if not group.is_first:
        checkpoint = metrics = None
    choice = choice_of(vocabulary)
    if checkpoint is not None:
        checkpoint.open(source.job(choice, config.to_json(), hold_out))
        if isinstance(metrics, FolderLog):
            metrics.check(checkpoint.job)
    prepared = source.prepare(choice, seed=config.seed, hold_out=hold_out, show_progress=show_progress)
    words = prepared.vocabulary.words
    vectors = None
    if source.encoder is not None and checkpoint is None:
        vectors = source.encoder.encode(words, show_progress=show_progress)
    elif source.encoder is not None and checkpoint is not None and not checkpoint.has_state:
        vectors = checkpoint.word_vectors(source.encoder, words, show_progress=show_progress)
    result = train(
        prepared.views,
        config,
        dev=prepared.dev_views,
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
    away = _explaining_away(prepared.views, result, config, where, heed) if explain_away and group.is_first else None
    decoding_seconds = time.perf_counter() - started
    heed()
    training = {
        "anchor": result.anchor,
        "precision": result.precision,
        "best_pass": result.best_pass,
        "seconds": round(result.seconds, 3),
        "history": result.history_json(),
    }
    if away is not None:
        training["decoding_seconds"] = round(decoding_seconds, 3)
    lens = Lens(
        result.factors,
        prepared.vocabulary,
        prior=result.prior,
        mean=torch.from_numpy(result.mean),
        fingerprint=Fingerprint.of(prepared.rows.primary, show_progress=show_progress),
        config={**prepared.description(), "recipe": config.to_json(), "training": training},
        away=away,
    )
    if shuffled:
        lens.config["data"]["shuffled"] = True
    if group.is_first:
        heed()
        lens.config.update(prepared.dev_metrics(lens))
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
