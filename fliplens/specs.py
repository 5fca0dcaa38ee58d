"""What the strings that name encoders and sources of vectors share: `...#option=value,option=value`."""

from __future__ import annotations

import re

from fliplens.errors import InputError

__all__ = ["parse_options"]

_NAME = re.compile(r"[a-z][a-z_-]*", re.ASCII)


def parse_options(text: str, whole: str, *, nested: str | None = None, secret: bool = False) -> dict[str, str]:
    """Take the options of a spec apart.

    Args:
        text: what stands behind `#`; "" has none.
        whole: how messages call the spec.
        nested: the option whose value is a spec itself: it comes last, and all that follows is its own.
        secret: whether `text` may be the end of a password with a # in it, which no message may show.

    Returns:
        Values by name, in the order of the spec.

    Raises:
        InputError: options that are not `name=value`, or one twice.
    """
    found: dict[str, str] = {}
    rest = text
    while rest:
        name, equals, value = rest.partition("=")
        if name == nested:
            rest = ""
        else:
            value, _, rest = value.partition(",")
        if not equals or not value or not _NAME.fullmatch(name):
            what = "something else" if secret else repr(text)
            raise InputError(f"expected options as name=value,name=value after #, found {what} in {whole}")
        if name in found:
            raise InputError(f"expected every option once, found {name} again in {whole}")
        found[name] = value
    return found
