"""Duplicates and splits against brute force: no sentence in two splits, whatever the order of the rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fliplens.corpora.grouping import (
    draw_rows,
    duplicates,
    groups,
    held_apart,
    numbered,
    sentence_key,
    split_groups,
    targets,
)
from fliplens.errors import InputError

Rows = list[tuple[str, ...]]
SENTENCES = st.sampled_from([f"{letter}{number}" for letter in "abcdef" for number in range(6)])
PAIRS = st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=30)
SINGLES = st.lists(st.tuples(SENTENCES), min_size=1, max_size=30)
ROWS = st.one_of(PAIRS, SINGLES, st.lists(st.tuples(SENTENCES, SENTENCES, SENTENCES), min_size=1, max_size=20))
SHARES = st.sampled_from(
    [
        {"train": 0.5, "dev": 0.25, "test": 0.25},
        {"train": 0.9, "dev": 0.05, "test": 0.05},
        {"train": 0.7, "test": 0.3},
        {"all": 1.0},
    ]
)


def keyed(rows: Sequence[tuple[str, ...]]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return the key of each sentence's number, and the numbers of each row."""
    raw = b"".join(sentence_key(text) for row in rows for text in row)
    keys = np.frombuffer(raw, np.uint64).reshape(-1, 2)
    numbers = numbered(keys)
    of_number = np.empty((int(numbers.max()) + 1, 2), dtype=np.uint64)
    of_number[numbers] = keys
    return of_number, numbers.reshape(len(rows), -1)


def split(rows: Rows, shares: dict[str, float], seed: int) -> list[int]:
    keys, sides = keyed(rows)
    found: list[int] = split_groups(groups(sides), keys, shares, seed=seed).tolist()
    return found


def linked(rows: Rows) -> list[set[int]]:
    """Return the groups of rows, by joining any two that share a sentence until none do."""
    found = [({number}, set(row)) for number, row in enumerate(rows)]
    while True:
        for a, b in product(range(len(found)), repeat=2):
            if a < b and found[a][1] & found[b][1]:
                found[a] = (found[a][0] | found[b][0], found[a][1] | found[b][1])
                del found[b]
                break
        else:
            return [members for members, _ in found]


@given(ROWS)
def test_groups_are_those_of_brute_force(rows: Rows) -> None:
    _, sides = keyed(rows)
    group = groups(sides)
    found = {frozenset(np.flatnonzero(group == one).tolist()) for one in set(group.tolist())}
    assert found == {frozenset(one) for one in linked(rows)}


@given(ROWS, SHARES, st.integers(0, 3))
def test_no_sentence_is_in_two_splits(rows: Rows, shares: dict[str, float], seed: int) -> None:
    where: dict[str, set[int]] = {}
    for row, number in zip(rows, split(rows, shares, seed), strict=True):
        for text in row:
            where.setdefault(text, set()).add(number)
    assert all(len(one) == 1 for one in where.values())


@given(ROWS, SHARES, st.integers(0, 3), st.randoms())
def test_splits_do_not_depend_on_the_order_of_rows_or_of_sides(
    rows: Rows, shares: dict[str, float], seed: int, random: object
) -> None:
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[attr-defined]
    first = split(rows, shares, seed)
    moved = split([rows[number][::-1] for number in order], shares, seed)
    assert moved == [first[number] for number in order]
    assert split(rows, shares, seed) == first


@given(ROWS, SHARES, st.integers(0, 3))
def test_sizes_are_as_near_as_the_largest_group_lets_them(rows: Rows, shares: dict[str, float], seed: int) -> None:
    found = np.bincount(split(rows, shares, seed), minlength=len(shares))
    wanted = targets(len(rows), shares)
    sizes = sorted((len(one) for one in linked(rows)), reverse=True)
    assert (found - wanted).max() < sizes[0]
    # The best that any way of placing the groups could do, tried out where there are few.
    if len(shares) ** len(sizes) <= 3**7:
        best = min(
            int(np.abs(np.bincount(places, weights=sizes, minlength=len(shares)) - wanted).sum())
            for places in product(range(len(shares)), repeat=len(sizes))
        )
        assert np.abs(found - wanted).sum() <= best + 2 * (sizes[0] - 1)
        if sizes[0] == 1:
            assert best == 0
    if sizes.count(1) >= sum(sizes) / 2:
        # Enough rows stand alone to fill every gap.
        assert np.abs(found - wanted).sum() == 0 or sizes[0] > min(wanted)


def test_another_seed_is_another_split_and_shares_are_met() -> None:
    rows: Rows = [(f"sentence {number}", f"satz {number}") for number in range(2000)]
    shares = {"train": 0.9, "dev": 0.05, "test": 0.05}
    first, second = split(rows, shares, 0), split(rows, shares, 1)
    assert np.bincount(first).tolist() == np.bincount(second).tolist() == [1800, 100, 100]
    both_test = sum(a == b == 2 for a, b in zip(first, second, strict=True))
    assert both_test < 20  # 5 by chance
    # The draw has nothing to do with the place in the file.
    assert 0.4 < np.mean(np.flatnonzero(np.array(first) == 2)) / 2000 < 0.6


@given(st.integers(0, 1000), SHARES)
def test_targets_are_whole_and_within_one(n: int, shares: dict[str, float]) -> None:
    found = targets(n, shares)
    assert found.sum() == n
    assert (np.abs(found - n * np.array(list(shares.values()))) < 1 + 1e-9).all()


@pytest.mark.parametrize("shares", [{}, {"train": 0.5}, {"train": 1.5, "test": -0.5}, {"train": 1.0, "test": 0.0}])
def test_shares_that_are_none_are_refused(shares: dict[str, float]) -> None:
    with pytest.raises(InputError, match="add up to 1"):
        targets(10, shares)


@given(ROWS)
def test_duplicates_against_sets(rows: Rows) -> None:
    _, sides = keyed(rows)
    seen_rows: set[tuple[str, ...]] = set()
    seen_texts: set[str] = set()
    whole, any_side = [], []
    for row in rows:
        whole.append(row in seen_rows)
        seen_rows.add(row)
        any_side.append(bool(set(row) & seen_texts))
        if not any_side[-1]:
            seen_texts |= set(row)
    assert duplicates(sides, "row").tolist() == whole
    assert duplicates(sides, "any").tolist() == any_side
    assert not duplicates(sides, "keep").any()


@given(PAIRS, st.data())
def test_own_splits_give_up_what_they_share(rows: Rows, data: st.DataObject) -> None:
    _, sides = keyed(rows)
    own = np.array([data.draw(st.integers(0, 2)) for _ in rows])
    out = held_apart(sides, own, [2, 1, 0])
    taken: set[str] = set()
    expected = np.zeros(len(rows), dtype=bool)
    for number in (2, 1, 0):
        here = [row for row in range(len(rows)) if own[row] == number]
        for row in here:
            expected[row] = bool(set(rows[row]) & taken)
        for row in here:
            taken |= set() if expected[row] else set(rows[row])
    assert out.tolist() == expected.tolist()


def test_keys_know_no_case_and_no_two_are_equal() -> None:
    assert sentence_key("Straße") == sentence_key("STRASSE") != sentence_key("Strase")
    texts = [f"sentence {number}" for number in range(5000)]
    assert len({sentence_key(text) for text in texts}) == 5000


@given(st.lists(SENTENCES, min_size=1, max_size=36, unique=True), st.integers(0, 40), st.randoms())
def test_a_sample_is_of_the_size_asked_for_and_knows_no_order(texts: list[str], n: int, random: object) -> None:
    raw = np.frombuffer(b"".join(map(sentence_key, texts)), np.uint64).reshape(-1, 2)
    drawn = draw_rows(raw, n, seed=3)
    assert drawn.sum() == min(n, len(texts))
    order = list(range(len(texts)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert draw_rows(raw[order], n, seed=3).tolist() == [bool(drawn[number]) for number in order]
