"""Numbers of things, in words."""

from __future__ import annotations

import pytest

from fliplens.wording import counted


@pytest.mark.parametrize(
    ("n", "words", "expected"),
    [
        (0, ("row",), "0 rows"),
        (1, ("row",), "1 row"),
        (2, ("row",), "2 rows"),
        (1, ("entry", "entries"), "1 entry"),
        (11, ("entry", "entries"), "11 entries"),
    ],
)
def test_one_is_one(n: int, words: tuple[str, ...], expected: str) -> None:
    assert counted(n, *words) == expected
