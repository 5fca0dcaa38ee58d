"""Names of splits: free, but for those that corpora call differently and mean the same by."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from fliplens.errors import InputError

__all__ = ["DEFAULT_SPLIT", "SPLIT_NAMES", "checked_shares", "named_split", "split_name"]

DEFAULT_SPLIT: Mapping[str, float] = {"train": 0.9, "dev": 0.05, "test": 0.05}
"""Of sources that have no splits of their own."""

SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "dev": "dev",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "test": "test",
    "testing": "test",
    "devtest": "test",
}
"""What corpora call their splits → what we do."""

# It starts the names of files, `NAME.LANGUAGE.txt`, on disks that know no capitals too.
_NAME = re.compile(r"[a-z][a-z0-9_]*", re.ASCII)


def split_name(name: str) -> str:
    """Return what we call a split: any word, `dev` for `valid` and the like.

    Raises:
        InputError: it is no word of small letters, digits and _.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            "expected a split's name of small letters, digits and _, such as train, dev, test or held_out, found "
            f"{name!r}: call it so"
        )
    return SPLIT_NAMES.get(name, name)


def checked_shares(shares: Mapping[str, float]) -> dict[str, float]:
    """Return split → share under our names for the splits.

    Raises:
        InputError: see `split_name`; or two names of one split.
    """
    found: dict[str, float] = {}
    for name, share in shares.items():
        ours = split_name(name)
        if ours in found:
            raise InputError(
                f"expected each split once, found {', '.join(shares)}, of which two are {ours}: leave one out"
            )
        found[ours] = share
    return found


def named_split(source: str) -> tuple[str, str]:
    """Return split and path of a source given as `SPLIT=PATH`; "" and the path where no split is named.

    A path that exists under the whole name is that path.

    Raises:
        InputError: see `split_name`.
    """
    name, equals, rest = source.partition("=")
    if equals and not re.search(r"[/\\]", name) and not Path(source).exists():
        return split_name(name), rest
    return "", source
