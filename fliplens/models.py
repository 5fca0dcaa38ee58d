"""One call that makes whatever the settings name: a lens, or what it is compared with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fliplens.baselines.fitting import fit_baseline
from fliplens.embeddings import EmbeddingsLike
from fliplens.errors import InputError
from fliplens.lenses.extractor import Extractor
from fliplens.settings import FitSettings
from fliplens.training import Checkpoint, MetricsWriter
from fliplens.training.distributed import Group
from fliplens.training.fitting import fit

if TYPE_CHECKING:
    from fliplens.encoders import Encoder

__all__ = ["fit_model"]


def fit_model(
    settings: FitSettings,
    texts: Sequence[str] | str | Path,
    embeddings: EmbeddingsLike,
    *,
    paired: EmbeddingsLike | None = None,
    dev_texts: Sequence[str] | str | Path | None = None,
    dev_embeddings: EmbeddingsLike | None = None,
    dev_paired: EmbeddingsLike | None = None,
    encoder: Encoder | str | None = None,
    drop_bad_rows: bool = False,
    device: str = "auto",
    show_progress: bool = False,
    checkpoint: Checkpoint | None = None,
    metrics: MetricsWriter | None = None,
    stop: Callable[[], bool] | None = None,
    group: Group | None = None,
) -> Extractor:
    """Make the model that the settings name; see `fliplens.fit` for all else.

    Raises:
        InputError: see `fliplens.fit` and `fit_baseline`; metrics or several processes where nothing is trained in
            steps that could be logged or shared.
    """
    if settings.baseline is None:
        return fit(
            texts,
            embeddings,
            paired=paired,
            dev_texts=dev_texts,
            dev_embeddings=dev_embeddings,
            dev_paired=dev_paired,
            vocabulary=settings.vocabulary,
            encoder=encoder,
            config=settings.train,
            hold_out=settings.hold_out,
            explain_away=settings.explain_away,
            shuffled=settings.shuffled,
            drop_bad_rows=drop_bad_rows,
            device=device,
            show_progress=show_progress,
            checkpoint=checkpoint,
            metrics=metrics,
            stop=stop,
            group=group,
        )
    if metrics is not None or (group is not None and group.size > 1):
        raise InputError(
            f"expected neither --log nor torchrun with model={settings.model}, which only lenses can use"
        )
    return fit_baseline(
        settings.baseline,
        texts,
        embeddings,
        paired=paired,
        dev_texts=dev_texts,
        dev_embeddings=dev_embeddings,
        dev_paired=dev_paired,
        vocabulary=settings.vocabulary,
        encoder=encoder,
        alpha=settings.train.alpha,
        seed=settings.train.seed,
        hold_out=settings.hold_out,
        drop_bad_rows=drop_bad_rows,
        device=device,
        show_progress=show_progress,
        stop=stop,
    )
