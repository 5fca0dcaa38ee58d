"""What goes into an encoder, checked."""

from __future__ import annotations

from collections.abc import Sequence

from fliplens.errors import InputError

__all__ = ["checked_texts"]


def checked_texts(inputs: Sequence[str]) -> list[str]:
    """Return the inputs as a list once all of them are texts that a tokeniser can take.

    Raises:
        InputError: one string instead of a list, something that is no text, or half a character (a lone surrogate).
    """
    if isinstance(inputs, str | bytes):
        raise InputError(f"expected a list of texts, found one {type(inputs).__name__}: put it in a list")
    texts = list(inputs)
    for position, text in enumerate(texts, 1):
        if not isinstance(text, str):
            raise InputError(f"expected texts, found {type(text).__name__} as number {position} of {len(texts)}")
        if not text.isascii():
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                raise InputError(
                    f"expected texts, found a lone surrogate, half a character, in number {position} of "
                    f"{len(texts)}: decode the source as UTF-8 again"
                ) from error
    return texts
