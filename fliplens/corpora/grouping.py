"""Which rows say the same, and splits that share no sentence: arithmetic on hashes, a few numbers a row.

A sentence goes by a key of 128 bits, so that a corpus of any size is grouped in memory that holds none of its text;
that two different sentences of a billion share a key has a probability of 10^-21.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fliplens.errors import InputError

__all__ = [
    "DUPLICATES",
    "KEY_BYTES",
    "draw_rows",
    "duplicates",
    "groups",
    "held_apart",
    "numbered",
    "sentence_key",
    "split_groups",
    "targets",
]

KEY_BYTES = 16
DUPLICATES = ("keep", "row", "any")
"""What counts as said before: nothing; a row that has all sides of an earlier one; one that has any of them."""

Keys = NDArray[np.uint64]


def sentence_key(text: str) -> bytes:
    """Return 16 bytes that stand for a text, the same whatever its case."""
    return hashlib.blake2b(text.casefold().encode("utf-8"), digest_size=KEY_BYTES).digest()


def numbered(keys: Keys) -> NDArray[np.int64]:
    """Return a number for each key (m, 2), from 0, equal for equal keys: the key's rank among the distinct ones.

    Ranks depend on which keys there are, and not on their order.
    """
    order = np.lexsort((keys[:, 1], keys[:, 0]))
    ordered = keys[order]
    new = np.ones(len(keys), dtype=bool)
    new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    numbers = np.empty(len(keys), dtype=np.int64)
    numbers[order] = np.cumsum(new) - 1
    return numbers


def duplicates(sides: NDArray[np.int64], how: str) -> NDArray[np.bool_]:
    """Return which rows say what an earlier row that is kept has said.

    Args:
        sides: (n, sides), the number of each side's sentence.
        how: one of DUPLICATES.
    """
    repeated = np.zeros(len(sides), dtype=bool)
    if how == "row" and len(sides):
        order = np.lexsort(sides.T)  # stable: of equal rows the first comes first
        ordered = sides[order]
        repeated[order[1:]] = (ordered[1:] == ordered[:-1]).all(axis=1)
    elif how == "any":
        seen = bytearray(int(sides.max()) + 1 if sides.size else 0)
        for row, numbers in enumerate(sides.tolist()):
            if any(seen[number] for number in numbers):
                repeated[row] = True
            else:
                for number in numbers:
                    seen[number] = 1
    return repeated


def groups(sides: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each row (n, sides) the smallest sentence of its group.

    Rows that share a sentence, whichever side it is on, are of one group, and so are rows that are linked by
    others: the connected components of the graph in which every row links its sentences.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    size = int(sides.max()) + 1 if sides.size else 0
    first, others = sides[:, 0], sides[:, 1:]
    links = np.repeat(first, others.shape[1]), others.reshape(-1)
    graph = coo_array((np.ones(len(links[0]), dtype=np.int8), links), shape=(size, size))
    _, component = connected_components(graph, directed=False)
    smallest = np.full(size, size, dtype=np.int64)
    np.minimum.at(smallest, component, np.arange(size))
    found: NDArray[np.int64] = smallest[component[first]]
    return found


def targets(n: int, shares: Mapping[str, float]) -> NDArray[np.int64]:
    """Return how many of n rows each split should have: whole numbers that add up to n, each within 1 of its share.

    Raises:
        InputError: shares that are not positive, or do not add up to 1.
    """
    values = np.array(list(shares.values()), dtype=np.float64)
    if not len(values) or not (values > 0).all() or abs(values.sum() - 1) > 1e-3:
        raise InputError(
            "expected shares of splits above 0 that add up to 1, found "
            + (", ".join(f"{name}={share:g}" for name, share in shares.items()) or "none")
        )
    exact = n * values / values.sum()
    whole: NDArray[np.int64] = np.floor(exact).astype(np.int64)
    most_cut = np.argsort(whole - exact, kind="stable")
    whole[most_cut[: n - int(whole.sum())]] += 1
    return whole


def split_groups(
    group: NDArray[np.int64], keys: Keys, shares: Mapping[str, float], *, seed: int
) -> NDArray[np.int64]:
    """Return for each row the number of its split, in the order of `shares`; rows of one group stay together.

    The largest group goes first, always to the split that lacks most rows; groups of one row, by far the most in
    real text, fill up what is left, so that with enough of them sizes are those of `targets`. No split ends with
    more rows than its target and those of the largest group. Which group goes where is drawn by the seed and the keys
    of its sentences: the order of the rows makes no difference.

    Args:
        group: (n,), as `groups` gives it.
        keys: (sentences, 2), the key of each number in `group`.
        shares: split → share of the rows.
        seed: of the draw.
    """
    lacking = targets(len(group), shares)
    members, of_row, sizes = np.unique(group, return_inverse=True, return_counts=True)
    order = np.lexsort((_drawn(keys[members], seed), -sizes))
    chosen = np.empty(len(members), dtype=np.int64)
    single = int(np.searchsorted(-sizes[order], -1))
    for number in order[:single].tolist():
        best = int(lacking.argmax())
        chosen[number] = best
        lacking[best] -= sizes[number]
    # A split that has more than it should leaves the others less to share: what most is lacking shrinks first.
    rest = len(order) - single
    fill = np.maximum(lacking, 0)
    while fill.sum() > rest:
        fill[fill.argmax()] -= 1
    chosen[order[single:]] = np.repeat(np.arange(len(fill)), fill)
    found: NDArray[np.int64] = chosen[of_row]
    return found


def held_apart(sides: NDArray[np.int64], split: NDArray[np.integer[Any]], ranks: Sequence[int]) -> NDArray[np.bool_]:
    """Return which rows share a sentence with a split that comes before theirs in `ranks`, and so must go.

    Args:
        sides: (n, sides), sentences.
        split: (n,), of each row.
        ranks: all splits, the ones to be protected (tested on) first.
    """
    taken = np.zeros(int(sides.max()) + 1 if sides.size else 0, dtype=bool)
    out = np.zeros(len(sides), dtype=bool)
    for number in ranks:
        rows = np.flatnonzero(split == number)
        out[rows] = taken[sides[rows]].any(axis=1)
        taken[sides[rows[~out[rows]]]] = True
    return out


def draw_rows(keys: Keys, n: int, *, seed: int) -> NDArray[np.bool_]:
    """Return which n rows are drawn, by the seed and each row's key (rows, 2) alone."""
    drawn = np.zeros(len(keys), dtype=bool)
    drawn[np.argsort(_drawn(keys, seed), kind="stable")[:n]] = True
    return drawn


def _drawn(keys: Keys, seed: int) -> NDArray[np.uint64]:
    """Return 64 pseudorandom bits for each key: the finaliser of SplitMix64 over the key and the seed."""
    digest = hashlib.blake2b(str(seed).encode(), digest_size=8).digest()
    z = keys[:, 0] ^ np.uint64(int.from_bytes(digest, "little"))
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
