"""Top words against brute force, ties included."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from oracles import brute_force_top

from fliplens.embeddings import Embeddings
from fliplens.objective import Factors
from fliplens.reading import score_blocks, top_n


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
