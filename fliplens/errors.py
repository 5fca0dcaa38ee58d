"""The exceptions and warnings of FLiPLens, drawn as one tree.

```
FliplensError                the work failed                     exit status 1
├── MissingExtraError        an optional dependency is absent    exit status 1
├── InterruptedRunError      the caller asked to stop            exit status 130 (SIGINT), 143 (SIGTERM)
└── InputError (ValueError)  the call or its input is wrong      exit status 2
    └── EmbeddingSpaceError  vectors and lens do not fit together

FliplensWarning              worth telling, not worth stopping for
└── EmbeddingSpaceWarning    vectors look like those of another encoder
```

Every message is one line that says what was expected, what was found and what to do; the command line
prints it as it is and leaves with `exit_status`. What a file or another library brings into a message is part of
that line: line breaks in it become spaces.
"""

from __future__ import annotations

import re

__all__ = [
    "EmbeddingSpaceError",
    "EmbeddingSpaceWarning",
    "FliplensError",
    "FliplensWarning",
    "InputError",
    "InterruptedRunError",
    "MissingExtraError",
    "reason_of",
]

_LINE_BREAKS = re.compile(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*")


class FliplensError(Exception):
    """The work failed. Base of every exception that FLiPLens raises on purpose."""

    exit_status: int = 1

    def __init__(self, message: str) -> None:
        super().__init__(_LINE_BREAKS.sub(" ", message))


class MissingExtraError(FliplensError):
    """An optional dependency is not installed; the message names the pip command."""

    def __init__(self, needed_for: str, extra: str) -> None:
        super().__init__(f"{needed_for} needs an extra that is not installed: pip install 'fliplens[{extra}]'")


class InterruptedRunError(FliplensError):
    """The caller asked long work to stop; the message says what was kept and how to go on."""

    exit_status = 130


class InputError(FliplensError, ValueError):
    """The call, or the data handed in, is wrong: nothing was computed."""

    exit_status = 2


class EmbeddingSpaceError(InputError):
    """Vectors do not have the size that the lens (or another file) was made for."""


class FliplensWarning(UserWarning):
    """Base of the warnings that FLiPLens gives."""


class EmbeddingSpaceWarning(FliplensWarning):
    """Vectors fit the lens in size, but their statistics say another encoder made them."""


def reason_of(error: BaseException | str, longest: int = 200) -> str:
    """Return what another library says went wrong, as part of a message: one line, cut where it is long.

    Args:
        error: what it raised, or its words. An error without words is told by the name of its class.
        longest: characters kept.
    """
    words = " ".join(str(error).split()).rstrip(".:") or type(error).__name__
    return words if len(words) <= longest else f"{words[:longest]}..."
