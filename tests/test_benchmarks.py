"""The benchmarks' own parts: the plain version computes the paper's loss, memory is seen, charts are stable."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from benchmarks import __main__ as command
from benchmarks import paper_scale, reading, registry, report
from benchmarks.chart import collect, draw, points
from benchmarks.paper_scale import _write_view
from benchmarks.plain import PlainLens, loss, recall, train_plain
from benchmarks.registry import AnonymousMemory, Benchmark, benchmarks, commit
from benchmarks.report import table, with_results
from fliplens.arithmetic.objective import Factors


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


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_paper_scale_in_small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"ROWS": 7000, "SHARD_ROWS": 4000, "DIM": 16, "VOCABULARY": 2000, "RANK": 8}.items():
        monkeypatch.setattr(paper_scale, name, value)
    monkeypatch.setattr(paper_scale, "matrix_product_peak", lambda *_: 1000.0)
    result = paper_scale._paper_scale(small_steps=2, large_steps=1, sampled_steps=3)
    small, large, sampled = (result[name] for name in ("steps_of_256", "steps_of_6000", "sampled_steps_of_256"))
    assert [one["softmax"] for one in (small, large, sampled)] == ["full", "full", "sampled"]
    assert [one["steps"] for one in (small, large, sampled)] == [2, 1, 3]
    assert "share_of_peak" not in sampled
    # Two views; three products of the scores' size and two of the projection's, multiply and add.
    flops = 2 * 2 * (3 * 2000 * 8 + 2 * 8 * 16) * large["rows_per_second"]
    assert large["gflops"] == pytest.approx(flops / 1e9, abs=0.06)
    assert result["explain_away"]["seconds"] > 0
    assert result["peak_anonymous_gb"] >= result["explain_away"]["peak_anonymous_gb"] > 0
    shown = [cell(result) for cell in benchmarks()["paper-scale"].columns.values()]
    assert all(shown)


@pytest.mark.parametrize(("rows", "ways"), [(1, 3), (8, 3), (70, 6)])
def test_plain_ways_read_the_best_words_of_few_rows_too(rows: int, ways: int) -> None:
    torch.manual_seed(0)
    E1, E2, b, s = torch.randn(50, 4), torch.randn(4, 6), torch.randn(50), torch.randn(rows, 6)
    found = reading.plain_ways(Factors(E1, E2, b), s, b)
    assert len(found) == ways
    scores = s.double() @ E2.double().T @ E1.double().T + b.double()
    expected = scores.argsort(dim=1, descending=True)[:, : reading.N]
    for way in found.values():
        assert torch.equal(way()[1], expected)


def test_what_is_short_is_timed_many_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LEAST_SECONDS", 0.02)
    calls: list[int] = []
    assert 0 < reading._seconds(lambda: calls.append(1)) < 0.01
    assert len(calls) > 1


# The command ------------------------------------------------------------------------------------------------


RAN = {"processor": "P", "threads": 2, "float32_gflops": 161, "versions": {"torch": "2"}, "commit": "c"}


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Benchmark:
    """A benchmark of two cases, the only one there is; its results go to tmp_path, and no page is written."""
    benchmark = Benchmark(
        name="toy",
        description="toys",
        cases={"plain": lambda: {"n": 1}, "with data": lambda: {"n": 2}},
        columns={"n": lambda result: str(result["n"])},
        needs_data=False,
        cases_with_data=frozenset({"with data"}),
    )
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(report, "benchmarks", lambda: {"toy": benchmark})
    monkeypatch.setattr(command, "benchmarks", lambda: {"toy": benchmark})
    monkeypatch.setattr(command, "run_case", lambda _, case: {**benchmark.cases[case](), "machine": RAN})
    monkeypatch.setattr(command, "data_folder", lambda: tmp_path)
    monkeypatch.setattr(command, "update_pages", lambda: None)
    monkeypatch.setattr(command, "draw", lambda: None)
    return benchmark


def results(folder: Path) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = json.loads((folder / "toy.json").read_text())["cases"]
    return found


def test_a_case_run_alone_leaves_the_machine_of_the_others(toy: Benchmark, tmp_path: Path) -> None:
    before = {**RAN, "float32_gflops": 173}
    old = {"machine": before, "cases": {"plain": {"n": 8}, "with data": {"n": 9}, "gone": {"n": 0}}}
    (tmp_path / "toy.json").write_text(json.dumps(old))
    assert command.main(["toy", "--case", "plain"]) == 0
    assert results(tmp_path) == {"plain": {"n": 1, "machine": RAN}, "with data": {"n": 9, "machine": before}}


def test_a_case_without_its_data_is_skipped_and_keeps_its_result(
    toy: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["toy"]) == 0
    both = results(tmp_path)
    monkeypatch.setattr(command, "data_folder", lambda: None)
    assert command.main(["toy"]) == 0
    assert results(tmp_path) == both == {"plain": {"n": 1, "machine": RAN}, "with data": {"n": 2, "machine": RAN}}
    assert "toy, with data: skipped" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["toy", "--case", "plian"], "expected cases plain; with data, found plian"),
        (["toy", "toy", "--case", "plain"], "expected one benchmark with --case, found 2"),
        (["tyo"], "expected toy, found tyo"),
    ],
)
def test_what_is_unknown_is_refused_and_nothing_written(
    toy: Benchmark, tmp_path: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        command.main(arguments)
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "toy.json").exists()


def test_the_caption_names_the_machines_of_the_cases_shown(toy: Benchmark) -> None:
    other = {**RAN, "processor": "Q", "float32_gflops": 173, "versions": {"torch": "3"}}
    same = {"plain": {"n": 1, "machine": RAN}, "with data": {"n": 2, "machine": RAN}}
    assert table(toy, {"cases": same}).endswith(
        "Toys. 2 cores of P, 161 GFLOP/s in a float32 matrix product, torch 2.\n"
    )
    differ = {**same, "with data": {"n": 2, "machine": other}, "gone": {"n": 3}}
    assert "2 cores of P and 2 cores of Q, 161-173 GFLOP/s" in table(toy, {"cases": differ})
    assert table(toy, {"cases": differ}).endswith("torch 2 and 3.\n")
    # One machine for all, as results of before have it, and none but for one case.
    old = {"machine": other, "cases": {"plain": {"n": 1, "machine": RAN}, "with data": {"n": 2}}}
    assert "161-173" in table(toy, old)
    assert "| plain | 1 |\n| with data | 2 |" in table(toy, old)


def test_the_block_of_an_absent_result_stays(toy: Benchmark, tmp_path: Path) -> None:
    page = "a\n<!-- benchmark toy -->\nnot run yet\n<!-- end -->\nb\n"
    assert with_results(page) == page
    (tmp_path / "toy.json").write_text(json.dumps({"cases": {"plain": {"n": 7, "machine": RAN}}}))
    assert "| plain | 7 |" in with_results(page) and "not run yet" not in with_results(page)


def test_cases_are_the_same_with_and_without_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the pages would lose rows where there is none."""
    script = "from benchmarks.registry import benchmarks; print({n: list(b.cases) for n, b in benchmarks().items()})"
    said = []
    for folder in ("nowhere", "."):
        monkeypatch.setenv("FLIPLENS_DATA", folder)
        said.append(
            subprocess.run([sys.executable, "-c", script], cwd=registry.ROOT, check=True, capture_output=True)
        )
    assert said[0].stdout == said[1].stdout
    for benchmark in benchmarks().values():
        assert benchmark.cases_with_data <= set(benchmark.cases)


def test_a_case_records_where_its_code_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@x", "-c", "commit.gpgsign=false"]
    monkeypatch.setattr(registry, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit() == "unknown"
    for folder in ("fliplens", "benchmarks/results"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "one").write_text("1")
    for arguments in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "m"]):
        subprocess.run([*git, *arguments], cwd=tmp_path, check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True)
    (tmp_path / "benchmarks" / "results" / "one").write_text("2")
    (tmp_path / "README.md").write_text("3")
    assert commit() == head.stdout.strip()
    (tmp_path / "fliplens" / "two.py").write_text("4")
    assert commit() == f"{head.stdout.strip()}-dirty"


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
