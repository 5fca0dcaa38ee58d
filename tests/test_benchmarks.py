"""The benchmarks' own parts: the plain version computes the paper's loss, memory is seen, charts are stable."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from benchmarks.chart import collect, draw, points
from benchmarks.paper_scale import _write_view
from benchmarks.plain import PlainLens, loss, recall, train_plain
from benchmarks.registry import AnonymousMemory, benchmarks


def small(n: int = 60, n_words: int = 12, dim: int = 5) -> tuple[torch.Tensor, csr_matrix]:
    random = np.random.default_rng(0)
    directions = random.standard_normal((n_words, dim))
    counts = random.integers(0, 3, (n, n_words)) * (random.random((n, n_words)) < 0.2)
    counts[0] = 0
    rows = counts @ directions + 0.1 * random.standard_normal((n, dim))
    return torch.from_numpy(rows.astype(np.float32)), csr_matrix(counts.astype(np.float32))


def test_the_plain_loss_is_equation_2() -> None:
    torch.manual_seed(0)
    rows, counts = small()
    model = PlainLens(12, 5, 3)
    E1, E2, b = (one.detach().double().numpy() for one in (model.E1, model.E2, model.b))
    scores = rows.double().numpy() @ E2.T @ E1.T + b.T
    expected = -(counts.toarray() * (scores - np.log(np.exp(scores).sum(axis=1, keepdims=True)))).sum()
    assert loss(model, rows, counts).item() == pytest.approx(expected, rel=1e-5)


def test_the_plain_trainer_learns_and_keeps_its_best_weights() -> None:
    rows, counts = small()
    run = train_plain(
        rows, counts, rank=5, held_out=(rows, counts), passes=60, batch_size=16, learning_rate=0.05, patience=3,
        watch=lambda model: recall(model, rows, counts, factor=1.0, bias=True),
    )  # fmt: skip
    assert len(run.curve) == len(run.scores) == -(-len(run.seconds) // 3)
    assert recall(run.model, rows, counts, factor=2.0, bias=False) == pytest.approx(max(run.scores))
    assert recall(run.model, rows, counts, factor=1.0, bias=True) > 0.8
    zeros = [
        float((train_plain(rows, counts, rank=5, passes=9, batch_size=16, l1=l1).model.E1 == 0).float().mean())
        for l1 in (0.0, 2.0)
    ]
    assert zeros[0] == 0 < zeros[1]


def test_plain_recall_counts_known_words_among_the_top() -> None:
    torch.manual_seed(1)
    rows, counts = small()
    model = PlainLens(12, 5, 5)
    scores = model(rows).detach().numpy()
    known = [set(np.flatnonzero(row)) for row in counts.toarray()]
    for factor, bias in ((1.0, True), (2.0, False)):
        used = scores if bias else scores - model.b.detach().numpy().T
        shares = [
            len(words & set(np.argsort(-used[n])[: int(len(words) * factor)])) / len(words)
            for n, words in enumerate(known)
            if words
        ]
        assert recall(model, rows, counts, factor=factor, bias=bias) == pytest.approx(np.mean(shares))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_anonymous_memory_is_seen_and_mapped_files_are_not(tmp_path: Path) -> None:
    np.save(tmp_path / "mapped.npy", np.ones((64, 2**17)))
    with AnonymousMemory() as memory:
        before = memory.peak_gb
        assert np.load(tmp_path / "mapped.npy", mmap_mode="r").sum() == 64 * 2**17
        assert memory.peak_gb - before < 0.03
        held = np.ones((64, 2**17))
        memory._look()
        assert memory.peak_gb - before > 0.06
        del held
        memory.restart()
        assert memory.peak_gb - before < 0.03 < 0.06 < memory.highest_gb - before


def test_synthetic_shards_are_what_the_benchmark_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.paper_scale.ROWS", 25_000)
    monkeypatch.setattr("benchmarks.paper_scale.SHARD_ROWS", 20_000)
    monkeypatch.setattr("benchmarks.paper_scale.DIM", 8)
    parts = [np.load(path) for path in _write_view(tmp_path, 1)]
    assert [part.shape for part in parts] == [(20_000, 8), (5000, 8)]
    rows = np.concatenate(parts)
    assert rows.dtype == np.float16 and len(np.unique(rows, axis=0)) > 24_000


def test_every_benchmark_has_a_name_of_its_own() -> None:
    known = benchmarks()
    assert {"paper-scale", "training-speed", "plain-to-the-end"} <= set(known)
    assert known["paper-scale"].slow and not known["paper-scale"].needs_data


# Chart ------------------------------------------------------------------------------------------------------


def test_points_come_from_a_curve_or_from_the_end() -> None:
    assert points({"curve": [[20, 0.5], [10, 0.4], [0, 0.1]]}) == [(10, 0.4), (20, 0.5)]
    end = {"training_seconds": 80, "text": {"accuracy": {"with_prior": {"mean": 0.66}}}}
    assert points(end) == [(80, 0.66)]
    plain = {"training_seconds": 90, "accuracy": {"text": {"with_prior": 0.56}}}
    assert points(plain) == [(90, 0.56)]
    assert points({"training_seconds": 3}) == points({}) == []


def test_the_chart_is_the_same_every_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert not draw(tmp_path / "none.svg", tmp_path)
    case = {"curve": [[20, 0.5], [200, 0.6]]}
    (tmp_path / "common-voice.json").write_text(json.dumps({"cases": {"FLiP rank 384": case}}))
    assert [line.label for line, _ in collect(tmp_path)] == ["FLiPLens, default recipe"]
    for name in ("a.svg", "b.svg"):
        assert draw(tmp_path / name, tmp_path)
    drawn = (tmp_path / "a.svg").read_bytes()
    assert drawn == (tmp_path / "b.svg").read_bytes()
    assert b"FLiPLens, default recipe" in drawn and b"<dc:date>" not in drawn
