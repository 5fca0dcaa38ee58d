"""Numbers of things, in words."""

from __future__ import annotations

__all__ = ["counted"]


def counted(n: int, one: str, many: str | None = None) -> str:
    """Return "1 row", "2 rows".

    Args:
        n: how many.
        one: what one of them is called.
        many: what several are called, if an s behind it does not do.
    """
    return f"{n} {one if n == 1 else many or one + 's'}"
