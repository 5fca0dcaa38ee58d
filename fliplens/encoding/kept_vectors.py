"""An encoder whose vectors stay on disk: what was encoded once is read, and the model loaded only when it must be."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fliplens.embeddings import Embeddings, manifest_path, open_embeddings
from fliplens.encoders import canonical_spec, load_encoder
from fliplens.encoding.texts import encode_texts
from fliplens.errors import InputError
from fliplens.files import sha256_of_lines

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from fliplens.encoders import Encoder

__all__ = ["KeptEncoder"]

ROWS_PER_PART = 1024


class KeptEncoder:
    """An encoder as `fit` wants one, that encodes nothing twice.

    Args:
        spec: of the encoder.
        place: the `.npy` file for the vectors of a list of texts that `encode` is asked for.
        device: where the model runs.
        show_progress: bars on stderr.
        stop: asked while texts are encoded; once it is true that ends, and goes on when asked again.
    """

    modality = "text"

    def __init__(
        self,
        spec: str,
        place: Callable[[Sequence[str]], Path],
        *,
        device: str = "auto",
        show_progress: bool = False,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        self.spec = canonical_spec(spec)
        self._place, self._device, self._show, self._stop = place, device, show_progress, stop
        self._encoder: Encoder | None = None

    @property
    def loaded(self) -> Encoder:
        """The encoder itself."""
        if self._encoder is None:
            self._encoder = load_encoder(self.spec, device=self._device)
        return self._encoder

    @property
    def name(self) -> str:
        """See `Encoder`."""
        return self.loaded.name

    @property
    def revision(self) -> str | None:
        """See `Encoder`."""
        return self.loaded.revision

    @property
    def dim(self) -> int:
        """See `Encoder`."""
        return self.loaded.dim

    @property
    def language(self) -> str | None:
        """See `Encoder`."""
        return self.loaded.language

    @property
    def normalised(self) -> bool:
        """See `Encoder`."""
        return self.loaded.normalised

    def encode(self, inputs: Sequence[str], *, show_progress: bool = False) -> NDArray[np.float32]:
        """Return the vectors of texts, from their file if it is there."""
        del show_progress
        return self.vectors(inputs, self._place(inputs)).to_numpy()

    def vectors(self, texts: Sequence[str], path: Path) -> Embeddings:
        """Return the vectors of texts: what the file holds if it is of these very texts, else encoded there."""
        if path.is_file() and manifest_path(path).is_file():
            # A file that cannot be read any more is made again, like one that is not there.
            with contextlib.suppress(InputError):
                found = open_embeddings(path)
                made = (
                    None if found.manifest is None else (found.manifest.encoder, found.manifest.source.get("sha256"))
                )
                if made == (self.spec, sha256_of_lines(texts)):
                    return found
        path.parent.mkdir(parents=True, exist_ok=True)
        return encode_texts(
            texts,
            self.loaded,
            path,
            name=path.stem,
            rows_per_part=ROWS_PER_PART,
            overwrite=True,
            show_progress=self._show,
            stop=self._stop,
        )
