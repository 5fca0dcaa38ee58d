"""The stated order of operations, against whole numbers and against a plain fold."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from oracles import ordered_scores_of_row

from fliplens.arithmetic.objective import Factors
from fliplens.arithmetic.ordered import Prepared, ordered_scores, ordered_sum

F32 = NDArray[np.float32]


def draw(shape: tuple[int, ...], seed: int, spread: float) -> F32:
    """Return random numbers of very different sizes, some of them zero."""
    random = np.random.default_rng(seed)
    values = random.standard_normal(shape) * np.exp(spread * random.standard_normal(shape))
    return np.where(random.random(shape) < 0.1, 0, values).astype(np.float32)


def whole(values: F32, bits: int) -> tuple[list[Fraction], Fraction]:
    """Return values as multiples of 2^-bits of the power of two above the largest, and that power."""
    largest = max(abs(Fraction(float(value))) for value in values)
    power = Fraction(1)
    while largest and power <= largest:
        power *= 2
    while largest and power / 2 > largest:
        power /= 2
    return [Fraction(float(value)) / power * 2**bits for value in values], power


def latent_by_whole_numbers(s: F32, E2: F32) -> F32:
    """The first step of the order as its description has it, in exact arithmetic up to the last addition."""
    d = len(s)
    bits = 29 - max(1, (d - 1).bit_length())
    scaled, unit = whole(s, 24)
    numbers = [round(value) for value in scaled]
    out = []
    for row in E2:
        parts, above = whole(row, bits)
        coarse = [round(part) for part in parts]
        fine = [round((part - whole_part) * 2**bits) for part, whole_part in zip(parts, coarse, strict=True)]
        sums = [sum(a * b for a, b in zip(numbers, part, strict=True)) for part in (coarse, fine)]
        assert all(abs(total) <= 2**53 for total in sums)
        added = float(sums[0]) + float(Fraction(sums[1], 2**bits))
        out.append(np.float32(added * float(unit / 2**24) * float(above / 2**bits)))
    return np.array(out, dtype=np.float32)


@given(
    d=st.integers(1, 40),
    r=st.integers(1, 6),
    seed=st.integers(0, 2**20),
    spread=st.sampled_from([0.0, 1.0, 4.0, 12.0]),
)
def test_latents_are_sums_of_whole_numbers_rounded_once(d: int, r: int, seed: int, spread: float) -> None:
    E2, s = draw((r, d), seed, spread), draw((3, d), seed + 1, spread)
    prepared = Prepared(Factors(torch.zeros(2, r), torch.from_numpy(E2), torch.zeros(2)))
    found = prepared.latents(torch.from_numpy(s)).numpy()
    for row in range(3):
        np.testing.assert_array_equal(found[row], latent_by_whole_numbers(s[row], E2))


def test_latents_are_as_near_as_float32_allows() -> None:
    E2, s = draw((64, 1000), 0, 0.0), draw((50, 1000), 1, 0.0)
    prepared = Prepared(Factors(torch.zeros(2, 64), torch.from_numpy(E2), torch.zeros(2)))
    expected = s.astype(np.float64) @ E2.astype(np.float64).T
    ours = np.abs(prepared.latents(torch.from_numpy(s)).numpy() - expected).max()
    plain = np.abs((torch.from_numpy(s) @ torch.from_numpy(E2).T).numpy() - expected).max()
    assert ours < 2 * plain


@given(length=st.integers(1, 70), seed=st.integers(0, 1000))
def test_the_sum_is_by_halves(length: int, seed: int) -> None:
    terms = draw((4, length), seed, 3.0)
    expected = [
        ordered_scores_of_row(np.ones((1, length), np.float32), np.zeros(1, np.float32), row)[0] for row in terms
    ]
    assert ordered_sum(torch.from_numpy(terms.copy())).tolist() == expected


def test_scores_do_not_depend_on_the_company_of_a_pair() -> None:
    E1, b, z = draw((300, 33), 0, 1.0), draw((300,), 1, 1.0), draw((40, 33), 2, 1.0)
    random = np.random.default_rng(3)
    words, rows = random.integers(0, 300, 5000), random.integers(0, 40, 5000)
    tensors = [torch.from_numpy(array) for array in (E1, b, z, words, rows)]
    found = ordered_scores(tensors[0], tensors[1], tensors[2], tensors[3], tensors[4]).numpy()
    expected = np.stack([ordered_scores_of_row(E1, b, row) for row in z])
    np.testing.assert_array_equal(found, expected[rows, words])


def test_lengths_are_bounds_for_tiny_and_large_numbers() -> None:
    for scale in (1e-42, 1e-30, 1.0, 1e30):
        E1 = (draw((50, 20), 4, 2.0) * scale).astype(np.float32)
        lengths = Prepared(Factors(torch.from_numpy(E1), None, torch.zeros(50))).lengths.double().numpy()
        exact = np.linalg.norm(E1.astype(np.float64), axis=1)
        assert (lengths >= exact).all()
        assert scale == 1e-42 or (lengths <= 1.05 * exact + 1e-15 * exact.max()).all()
