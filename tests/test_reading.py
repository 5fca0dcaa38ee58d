"""Top words against brute force, ties included."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from commands import environment
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracles import brute_force_top, ordered_scores_of_row

import fliplens.arithmetic.top
from fliplens.arithmetic.objective import Factors
from fliplens.arithmetic.ordered import ordered_scores
from fliplens.arithmetic.top import Reader, folding_pays, score_blocks, sweep_precision, top_n
from fliplens.embeddings import Embeddings
from fliplens.errors import InputError


@given(
    # Few distinct values, so that most rows hold ties, also across the cut.
    scores=hnp.arrays(
        np.float32, st.tuples(st.integers(1, 5), st.integers(1, 30)), elements=st.sampled_from([0.0, 1.0, 2.0, -3.5])
    ),
    data=st.data(),
)
def test_top_n_equals_a_full_sort_with_ties_to_the_lower_index(scores: np.ndarray, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, scores.shape[1]))
    indices, values = top_n(torch.from_numpy(scores), n)
    for row in range(len(scores)):
        expected = brute_force_top(scores[row].astype(np.float64), n)
        assert indices[row].tolist() == expected
        assert values[row].tolist() == scores[row][expected].tolist()


def test_score_blocks_cover_every_row_once_within_their_memory() -> None:
    random = np.random.default_rng(0)
    embeddings = random.standard_normal((103, 5)).astype(np.float32)
    E1, E2 = (torch.from_numpy(random.standard_normal(s).astype(np.float32)) for s in ((40, 3), (3, 5)))
    factors = Factors(E1, E2, torch.zeros(40))
    out, blocks = np.zeros((103, 40), dtype=np.float32), 0
    for start, block in score_blocks(Embeddings([embeddings]), factors, block_bytes=4 * 40 * 10):
        assert len(block) <= 10
        out[start : start + len(block)] = block.numpy()
        blocks += 1
    assert blocks == 11
    np.testing.assert_allclose(out, embeddings @ E2.numpy().T @ E1.numpy().T, rtol=1e-4, atol=1e-5)
    assert all(len(block) <= 4 for _, block in score_blocks(Embeddings([embeddings]), factors, most_rows=4))


# Exact top words -----------------------------------------------------------------------------------------------

KINDS = ("spread", "ties", "near ties", "copies", "tiny", "large")


def made_up(kind: str, V: int, d: int, r: int | None, rows: int, seed: int) -> tuple[Factors, torch.Tensor]:
    """Return factors and vectors of a kind that makes trouble."""
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> Any:
        return random.standard_normal(shape)

    E1, E2, b, s = normal(V, r or d), None if r is None else normal(r, d), normal(V), normal(rows, d)
    if kind == "ties":
        E1, b, s = np.round(E1), np.round(b), np.round(s)
        E2 = None if E2 is None else np.round(E2)
    elif kind == "near ties":
        # Words that differ in the last bits of float32 alone: bfloat16 cannot tell them apart.
        E1 = E1[:1] * (1 + random.integers(-3, 4, (V, r or d)) * 2.0**-23)
        b = b[:1] + random.integers(-2, 3, V) * 2.0**-22
    elif kind == "copies":
        E1, b = E1[random.integers(0, min(4, V), V)], np.zeros(V)
    elif kind in ("tiny", "large"):
        size = 1e-22 if kind == "tiny" else 1e14
        E1, b, s = size * E1, size * b, size * s
    s[random.random(rows) < 0.2] = 0
    tensors = [None if a is None else torch.from_numpy(a.astype(np.float32)) for a in (E1, E2, b, s)]
    assert tensors[0] is not None and tensors[2] is not None and tensors[3] is not None
    return Factors(tensors[0], tensors[1], tensors[2]), tensors[3]


@settings(max_examples=400)
@given(
    kind=st.sampled_from(KINDS),
    V=st.integers(1, 200),
    d=st.integers(1, 12),
    r=st.one_of(st.none(), st.integers(1, 12)),
    rows=st.integers(1, 12),
    seed=st.integers(0, 2**20),
    precision=st.sampled_from(["float32", "bfloat16"]),
    folded=st.booleans(),
    tile_scores=st.sampled_from([1, 300, 2**20]),
    most_rows=st.sampled_from([1, 5, 256]),
    data=st.data(),
)
def test_the_reader_finds_the_exact_top_words_of_the_stated_order(
    kind: str,
    V: int,
    d: int,
    r: int | None,
    rows: int,
    seed: int,
    precision: Any,
    folded: bool,
    tile_scores: int,
    most_rows: int,
    data: st.DataObject,
) -> None:
    factors, s = made_up(kind, V, d, r, rows, seed)
    n = data.draw(st.sampled_from([1, V, min(V, 3), min(V, 40)]))
    reader = Reader(factors, precision=precision, folded=folded, tile_scores=tile_scores, most_rows=most_rows)
    best = reader.top(s, factors.b, n)
    assert best.normalisers is None
    latent = reader.prepared.latents(s).numpy()
    for row in range(rows):
        scores = ordered_scores_of_row(factors.E1.numpy(), factors.b.numpy(), latent[row])
        expected = brute_force_top(scores.astype(np.float64), n)
        assert best.indices[row].tolist() == expected
        assert best.scores[row].tolist() == scores[expected].tolist()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_the_sweep_is_within_its_reach_of_the_stated_order(kind: str, folded: bool, precision: Any) -> None:
    factors, s = made_up(kind, 500, 40, 30, 25, 7)
    reader = Reader(factors, precision=precision, folded=folded)
    sweep = fliplens.arithmetic.top._Sweep(reader, s, factors.b, 1, torch.empty(512, 25), False)
    swept = sweep._multiply(0, 500)[:500].double().numpy()
    latent = reader.prepared.latents(s).numpy()
    exact = np.stack([ordered_scores_of_row(factors.E1.numpy(), factors.b.numpy(), z) for z in latent], axis=1)
    reach = (torch.outer(reader.prepared.lengths, sweep.slack) + sweep.flat).double().numpy()
    off = np.abs(swept - exact)
    assert (off <= reach).all()
    if kind == "spread":
        # A bound that is never near would be no use.
        assert (off > reach / (20_000 if folded else 200)).any()
        lengths = np.linalg.norm(factors.E1.numpy(), axis=1)[:, None] * np.linalg.norm(latent, axis=1)
        assert np.median(reach / (lengths + 1e-9)) < (0.2 if precision == "bfloat16" else 2e-3)


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pairs each call scored again, in the order of the calls."""
    pairs: list[int] = []

    def counted(E1: Any, b: Any, latent: Any, words: Any, rows: Any) -> Any:
        pairs.append(len(words))
        return ordered_scores(E1, b, latent, words, rows)

    monkeypatch.setattr(fliplens.arithmetic.top, "ordered_scores", counted)
    return pairs


@pytest.mark.parametrize(("precision", "most"), [("float32", 60), ("bfloat16", 120)])
def test_few_words_are_scored_again(scored: list[int], precision: Any, most: int) -> None:
    factors, s = made_up("spread", 20_000, 48, 64, 32, 0)
    Reader(factors, precision=precision).top(s, factors.b, 10)
    assert 10 * 32 <= sum(scored) <= most * 32


def test_few_words_are_scored_again_where_the_best_stand_side_by_side(scored: list[int]) -> None:
    factors, s = made_up("spread", 20_000, 48, 64, 32, 0)
    # A vocabulary in order of frequency: most of the best are among its first words.
    bias = -torch.arange(1, 20_001).log()
    best = Reader(factors).top(s / 50, bias, 10)
    assert best.indices.float().quantile(0.5) < 100
    assert 10 * 32 <= sum(scored) <= 15 * 32


def test_a_zero_vector_reads_the_bias_without_scoring_every_word(
    monkeypatch: pytest.MonkeyPatch, scored: list[int]
) -> None:
    monkeypatch.setattr(fliplens.arithmetic.top, "MOST_WAITING", 2000)
    factors, s = made_up("spread", 20_000, 8, 8, 4, 0)
    best = Reader(factors, tile_scores=4000).top(torch.zeros_like(s), torch.zeros(20_000), 5)
    assert best.indices.tolist() == [[0, 1, 2, 3, 4]] * 4
    assert sum(scored) < 20_000


@given(seed=st.integers(0, 1000), tile_scores=st.sampled_from([1, 300, 2**20]), folded=st.booleans())
def test_normalisers_are_the_log_of_the_sum_of_exponentials(seed: int, tile_scores: int, folded: bool) -> None:
    factors, s = made_up("spread", 150, 9, 7, 6, seed)
    assert factors.E2 is not None
    best = Reader(factors, folded=folded, tile_scores=tile_scores).top(s, factors.b, 3, normalise=True)
    scores = s.double() @ factors.E2.double().T @ factors.E1.double().T + factors.b.double()
    assert best.normalisers is not None
    np.testing.assert_allclose(best.normalisers.numpy(), scores.logsumexp(dim=1).numpy(), rtol=1e-5, atol=1e-4)


def test_rows_read_alone_or_together_and_with_any_threads_are_the_same() -> None:
    factors, s = made_up("near ties", 3000, 60, 50, 300, 3)
    reader = Reader(factors)
    together = reader.top(s, factors.b, 10)
    alone = [reader.top(s[row : row + 1], factors.b, 10) for row in range(40)]
    assert torch.equal(together.indices[:40], torch.cat([one.indices for one in alone]))
    assert torch.equal(together.scores[:40], torch.cat([one.scores for one in alone]))
    torch.set_num_threads(2)
    try:
        again = Reader(factors).top(s, factors.b, 10)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(together.indices, again.indices) and torch.equal(together.scores, again.scores)


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("said", ["high", RuntimeError("set for one backend")])
def test_products_in_a_lower_precision_widen_the_reach(
    monkeypatch: pytest.MonkeyPatch, folded: bool, said: str | RuntimeError
) -> None:
    factors, s = made_up("spread", 100, 9, 7, 6, 0)

    def slack() -> torch.Tensor:
        reader = Reader(factors, folded=folded)
        return fliplens.arithmetic.top._Sweep(reader, s, factors.b, 1, torch.empty(128, 6), False).slack

    def precision() -> str:
        if isinstance(said, RuntimeError):
            raise said
        return said

    before = slack()
    monkeypatch.setattr(torch, "get_float32_matmul_precision", precision)
    assert (slack()[before > 0] > 100 * before[before > 0]).all()


def test_scores_beyond_float32_are_refused() -> None:
    factors, s = made_up("spread", 20, 5, 4, 3, 0)
    s[0] = 1
    with pytest.raises(InputError, match="scale them down"):
        Reader(factors).top(s * 1e37, factors.b, 2)
    with pytest.raises(ValueError, match="float32 sweep"):
        Reader(factors, precision="bfloat16").top(s, factors.b, 2, normalise=True)


def test_folding_is_chosen_where_it_costs_less() -> None:
    # At r = d the product costs V rows' worth of the 2·d² that it saves on each.
    assert not folding_pays(90, 100, 8, 8) and folding_pays(110, 100, 8, 8)
    assert folding_pays(50, 100, 8, 16)
    assert not folding_pays(10**9, 100_000, 1024, 512)
    assert not folding_pays(10**9, 100, 8, None)
    assert not folding_pays(10**9, 100, 8, 16, most_bytes=100)
    for rows, V, d, r in ((1, 5, 3, 9), (1000, 40, 6, 6), (1000, 40, 6, 5), (7, 40, 6, 60)):
        apart, folded = rows * 2 * r * (d + V), rows * 2 * d * V + 2 * V * d * r
        assert folding_pays(rows, V, d, r) == (folded < apart)


def test_the_sweep_is_in_bfloat16_only_where_that_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fliplens.arithmetic.top, "multiplies_bfloat16", lambda kind: kind == "cpu")
    assert sweep_precision("cpu", 10_000) == "bfloat16"
    assert sweep_precision("cpu", 1) == "float32"
    assert sweep_precision("mps", 10_000) == "float32"


MEMORY = """
import resource, torch
from fliplens.arithmetic.objective import Factors
from fliplens.arithmetic.top import Reader
torch.manual_seed(0)
E1 = torch.randn(200_000, 4)
reader = Reader(Factors(E1, torch.randn(4, 6), torch.zeros(len(E1))))
s = torch.randn(1024, 6)
reader.top(s[:64], torch.zeros(len(E1)), 10, normalise=True)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
reader.top(s, torch.zeros(len(E1)), 10, normalise=True)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="counts kilobytes as Linux does")
def test_rows_times_words_are_never_in_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], capture_output=True, text=True, env=environment(), check=True
    )
    # They would be 800 MB.
    assert int(done.stdout) < 60
