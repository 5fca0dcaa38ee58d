"""Which encoder makes the vectors of the vocabulary's words: the one that made the embeddings, if it can be had."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from fliplens.embeddings import Embeddings
from fliplens.errors import EmbeddingSpaceWarning, FliplensError, FliplensWarning, InputError

if TYPE_CHECKING:
    from fliplens.encoders import Encoder

__all__ = ["word_encoder"]


def word_encoder(
    encoder: Encoder | str | None, embeddings: Embeddings, words: str, device: str
) -> tuple[Encoder | None, str | None]:
    """Return the encoder of the words' vectors (None where they come from elsewhere) and the spec to record.

    Args:
        encoder: the one that made the embeddings, or its spec; by default what their manifest says.
        embeddings: what training reads.
        words: "words": an encoder that cannot be loaded is an error; "auto": training then starts from elsewhere;
            anything else: it is not loaded.
        device: where it runs.

    Raises:
        InputError: vectors of another size than the embeddings'.
        FliplensError: it cannot be loaded, and `words` asks for it.

    Warns:
        EmbeddingSpaceWarning: the manifest names another encoder.
        FliplensWarning: it cannot be loaded, and training starts from sentence means.
    """
    made_by = None if embeddings.manifest is None else embeddings.manifest.encoder
    if encoder is None:
        encoder = made_by
    if encoder is None:
        return None, None
    from fliplens.encoders import canonical_spec, load_encoder, text_spec

    spec = canonical_spec(encoder) if isinstance(encoder, str) else encoder.spec
    if made_by is not None and made_by != spec:
        warnings.warn(
            f"{embeddings.name} says that {made_by} made its vectors, but the encoder named is {spec}: "
            "words of the one are no anchor in the space of the other",
            EmbeddingSpaceWarning,
            stacklevel=4,
        )
    if words not in ("auto", "words"):
        return None, spec
    # Words have vectors by text encoders only: of a cascade that is what follows the recogniser.
    of_text: Encoder | str | None
    if isinstance(encoder, str):
        of_text = text_spec(encoder)
    else:
        of_text = encoder if encoder.modality != "speech" else getattr(encoder, "text_encoder", None)
    if of_text is None:
        if words == "words":
            raise InputError(
                f"expected an encoder of text for the vectors of words, found {spec}, which encodes speech: choose "
                "another anchor than words"
            )
        warnings.warn(
            f"training starts from sentence means, as {spec} encodes speech and has no vectors of words",
            FliplensWarning,
            stacklevel=4,
        )
        return None, spec
    maker: Encoder
    if not isinstance(of_text, str):
        maker = of_text
    else:
        try:
            maker = load_encoder(of_text, device=device)
        except InputError:
            raise
        except FliplensError as error:
            if words == "words":
                raise
            warnings.warn(
                f"training starts from sentence means, as the encoder cannot be loaded here ({error})",
                FliplensWarning,
                stacklevel=4,
            )
            return None, spec
    if maker.dim != embeddings.dim:
        raise InputError(
            f"expected vectors of {maker.dim} dimensions, the encoder {maker.spec}'s, found "
            f"{embeddings.dim} in {embeddings.name}: name the encoder that made them"
        )
    return maker, spec
