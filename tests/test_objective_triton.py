"""The Triton kernels against the dense float64 oracle: on a GPU where there is one, else in Triton's interpreter."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from commands import ROOT, environment
from oracles import dense_loss_and_gradients
from test_objective import SHAPES, bags_of, problem
from torch.utils._python_dispatch import TorchDispatchMode

from fliplens import devices
from fliplens.arithmetic import objective
from fliplens.arithmetic.objective import Bags, Factors, Precision, Workspace

if find_spec("triton") is None:
    pytest.skip("Triton is not installed: pip install 'fliplens[triton]'", allow_module_level=True)

from fliplens.arithmetic import objective_triton  # isort: skip
from fliplens.arithmetic.objective_triton import Tiles, accumulate, default_skip  # isort: skip

GPU = torch.cuda.is_available()
DEVICE = torch.device("cuda" if GPU else "cpu")
SMALL = Tiles(rows=16, words=32, depth=16, warps=4, stages=2)


@pytest.fixture(autouse=True)
def _the_kernels_run_where_the_tests_think() -> None:
    assert objective_triton.INTERPRETED is not GPU, "Triton was imported before conftest.py chose its interpreter"


def moved(bags: Bags) -> Bags:
    return Bags(bags.rows.to(DEVICE), bags.words.to(DEVICE), bags.values.to(DEVICE), bags.n_rows)


def run(
    factors: Factors, embeddings: torch.Tensor, counts: np.ndarray, weights: torch.Tensor | None, **options: Any
) -> tuple[float, Factors]:
    """Return the loss and the gradients from zero, on the CPU."""
    gradients = factors.map(lambda tensor: torch.zeros_like(tensor, device=DEVICE))
    loss = accumulate(
        factors.map(lambda tensor: tensor.to(DEVICE)),
        gradients,
        embeddings.to(DEVICE),
        moved(bags_of(counts)),
        None if weights is None else weights.to(DEVICE),
        **{"tiles": SMALL, **options},
    )
    return loss, gradients.map(torch.Tensor.cpu)


def check_against_the_oracle(
    factors: Factors,
    embeddings: torch.Tensor,
    counts: np.ndarray,
    weights: torch.Tensor | None,
    budget: float,
    **options: Any,
) -> None:
    loss, gradients = run(factors, embeddings, counts, weights, **options)
    wanted = dense_loss_and_gradients(
        factors.E1.double().numpy(),
        None if factors.E2 is None else factors.E2.double().numpy(),
        factors.b.double().numpy(),
        embeddings.double().numpy(),
        counts,
        np.ones(len(counts)) if weights is None else weights.double().numpy(),
    )
    assert loss == pytest.approx(wanted[0], rel=budget, abs=budget)
    for found, expected in zip((gradients.E1, gradients.E2, gradients.b), wanted[1:], strict=True):
        if found is None or expected is None:
            assert found is None and expected is None
            continue
        size = max(float(np.linalg.norm(expected)), 1e-3)
        assert float(np.linalg.norm(found.double().numpy() - expected)) / size < budget


# Loss and gradients ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("shape", [*SHAPES, (3, 17, 5, 6), (19, 33, 40, 41)])
@pytest.mark.parametrize(("precision", "budget"), [("float32", 2e-5), ("bfloat16", 3e-2)])
def test_loss_and_gradients_equal_the_dense_oracle(
    shape: tuple[int, int, int, int], full: bool, precision: Precision, budget: float
) -> None:
    n, V, r, d = shape
    factors, embeddings, counts, weights = problem(n, V, None if full else r, d, seed=n + V)
    check_against_the_oracle(factors, embeddings, counts, weights, budget, precision=precision, programs=1)


@pytest.mark.parametrize(("precision", "budget"), [("float32", 2e-5), ("bfloat16", 3e-2)])
@pytest.mark.parametrize("programs", [2, 7, 1000])
def test_however_many_programs_share_the_work(programs: int, precision: Precision, budget: float) -> None:
    factors, embeddings, counts, weights = problem(50, 100, 5, 8, seed=0)
    check_against_the_oracle(factors, embeddings, counts, weights, budget, precision=precision, programs=programs)


@pytest.mark.parametrize(("precision", "budget"), [("float32", 2e-5), ("bfloat16", 3e-2)])
def test_the_default_tiles_may_be_larger_than_the_problem(precision: Precision, budget: float) -> None:
    factors, embeddings, counts, weights = problem(5, 150, 7, 9, seed=2)
    check_against_the_oracle(factors, embeddings, counts, weights, budget, precision=precision, tiles=None)


@pytest.mark.parametrize(("precision", "budget"), [("float32", 2e-5), ("bfloat16", 3e-2)])
def test_a_rank_of_a_thousand_is_taken_in_steps(precision: Precision, budget: float) -> None:
    factors, embeddings, counts, weights = problem(6, 40, 1000, 1024, seed=4, scale=0.03)
    tiles = Tiles(rows=16, words=32, depth=128)
    check_against_the_oracle(factors, embeddings, counts, weights, budget, precision=precision, tiles=tiles)


def test_rows_without_words_and_no_weights() -> None:
    factors, embeddings, counts, _ = problem(20, 30, 4, 6, seed=5)
    counts[3:9] = 0
    check_against_the_oracle(factors, embeddings, counts, None, 2e-5)
    check_against_the_oracle(factors, embeddings, np.zeros_like(counts), None, 2e-5)


def test_the_sparse_part_is_the_same_in_blocks() -> None:
    factors, embeddings, counts, weights = problem(20, 30, 4, 6, seed=5)
    check_against_the_oracle(factors, embeddings, counts, weights, 2e-5, workspace=Workspace(block_bytes=100))


def test_stacked_views_weigh_as_equation_4_says() -> None:
    factors, text, counts, _ = problem(9, 20, 4, 6, seed=3)
    speech = torch.randn(9, 6, generator=torch.Generator().manual_seed(1))
    alpha = 0.3
    weights = torch.tensor([alpha] * 9 + [1 - alpha] * 9)
    loss, both = run(factors, torch.cat([text, speech]), np.vstack([counts, counts]), weights)
    (first, primary), (second, paired) = (run(factors, view, counts, None) for view in (text, speech))
    assert loss == pytest.approx(alpha * first + (1 - alpha) * second, rel=1e-5)
    for found, one, other in zip(both.tensors(), primary.tensors(), paired.tensors(), strict=True):
        torch.testing.assert_close(found, alpha * one + (1 - alpha) * other, rtol=1e-4, atol=1e-4)


def test_a_row_of_extreme_logits_keeps_a_finite_loss() -> None:
    factors = Factors(torch.tensor([[1000.0], [0.0], [-1000.0]]), None, torch.zeros(3))
    loss, gradients = run(factors, torch.tensor([[1.0]]), np.array([[0.0, 0.0, 1.0]]), None)
    assert loss == pytest.approx(2000.0)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in gradients.tensors())


def test_a_batch_without_rows_is_no_loss() -> None:
    factors, embeddings, counts, _ = problem(2, 5, 2, 3, seed=1)
    loss, gradients = run(factors, embeddings[:0], counts[:0], None)
    assert loss == 0 and not any(bool(tensor.any()) for tensor in gradients.tensors())


@pytest.mark.parametrize("programs", [1, 8])
def test_gradients_are_added_to_what_is_there(programs: int) -> None:
    factors, embeddings, counts, weights = problem(40, 50, 3, 4, seed=1)
    _, once = run(factors, embeddings, counts, weights, programs=programs)
    twice = factors.map(lambda tensor: torch.zeros_like(tensor, device=DEVICE))
    for _ in range(2):
        accumulate(
            factors.map(lambda tensor: tensor.to(DEVICE)),
            twice,
            embeddings.to(DEVICE),
            moved(bags_of(counts)),
            weights.to(DEVICE),
            tiles=SMALL,
            programs=programs,
        )
    for found, expected in zip(twice.tensors(), once.tensors(), strict=True):
        torch.testing.assert_close(found.cpu(), 2 * expected, rtol=1e-5, atol=1e-5)


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the largest tensor that any torch operation returns."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else [result]:
            if isinstance(one, torch.Tensor):
                self.numel = max(self.numel, one.numel())
        return result


def test_no_array_of_rows_times_vocabulary_is_made() -> None:
    n, V, r = 64, 200, 3
    factors, embeddings, counts, weights = problem(n, V, r, 4, seed=6)
    counts[:, 20:] = 0  # so that the sparse part is small next to n · V
    with Largest() as largest:
        run(factors, embeddings, counts, weights, programs=4, workspace=Workspace(block_bytes=8 * r * 100))
    assert 0 < largest.numel <= 4 * max(n, V) * r < n * V / 5


# Skipping -------------------------------------------------------------------------------------------------------


def peaked(seed: int) -> tuple[Factors, torch.Tensor, np.ndarray, torch.Tensor]:
    """Return a problem whose words fall off in probability, as in a vocabulary in order of frequency."""
    factors, embeddings, counts, weights = problem(40, 200, 6, 8, seed, scale=0.4)
    return (
        Factors(factors.E1, factors.E2, -0.1 * torch.arange(200.0)),
        embeddings,
        counts * (np.arange(200) < 60),
        weights,
    )


@pytest.mark.parametrize(("skip", "programs"), [(2.0**-6, 1), (2.0**-12, 6), (2.0**-18, 1)])
def test_skipping_errs_by_what_it_leaves_out_and_within_its_bound(skip: float, programs: int) -> None:
    factors, embeddings, counts, weights = peaked(seed=7)
    assert factors.E2 is not None
    _, exact = run(factors, embeddings, counts, weights, skip=0.0, programs=programs)
    _, found = run(factors, embeddings, counts, weights, skip=skip, programs=programs)
    # The slopes in float64, and which the tiles leave out.
    E1, E2, S = (tensor.double().numpy() for tensor in (factors.E1, factors.E2, embeddings))
    Z = S @ E2.T
    logits = Z @ E1.T + factors.b.double().numpy()
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    mass = weights.double().numpy() * counts.sum(axis=1)
    slopes = mass[:, None] * probabilities
    threshold = skip * mass[mass > 0].mean()
    left_out = np.zeros_like(slopes, dtype=bool)
    for row in range(0, 40, SMALL.rows):
        for word in range(0, 200, SMALL.words):
            tile = slice(row, row + SMALL.rows), slice(word, word + SMALL.words)
            left_out[tile] = slopes[tile].max() < threshold
    assert left_out.any() and not left_out.all()
    lost = slopes * left_out
    # b is exact; the rest lacks exactly what was left out.
    torch.testing.assert_close(found.b, exact.b, rtol=0, atol=0)
    assert found.E2 is not None and exact.E2 is not None
    for one, other, missing in (
        (exact.E1, found.E1, lost.T @ Z),
        (exact.E2, found.E2, (lost @ E1).T @ S),
    ):
        np.testing.assert_allclose((one - other).numpy(), missing, atol=3e-6 * float(one.abs().max()))
    # The bounds of the module's docstring.
    noise = 1e-5
    error = np.linalg.norm((exact.E1 - found.E1).numpy(), axis=1)
    assert (error <= threshold * left_out.T @ np.linalg.norm(Z, axis=1) + noise).all()
    each = np.minimum(left_out.sum(axis=1) * threshold, mass) * np.linalg.norm(E1, axis=1).max()
    assert (np.linalg.norm(lost @ E1, axis=1) <= each).all()
    assert np.linalg.norm((exact.E2 - found.E2).numpy()) <= each @ np.linalg.norm(S, axis=1) + noise


def test_a_threshold_above_all_leaves_the_sparse_part_and_the_bias() -> None:
    factors, embeddings, counts, weights = peaked(seed=8)
    assert factors.E2 is not None
    _, exact = run(factors, embeddings, counts, weights, skip=0.0)
    _, found = run(factors, embeddings, counts, weights, skip=1e6)
    observed = torch.from_numpy(counts).float() * weights[:, None]
    torch.testing.assert_close(found.E1, -observed.T @ factors.project(embeddings), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.b, exact.b)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_skipping_errs_less_by_default_than_rounding_does(precision: Precision) -> None:
    factors, embeddings, counts, weights = peaked(seed=9)
    assert factors.E2 is not None
    _, full = run(factors, embeddings, counts, weights, skip=0.0, precision=precision)
    _, found = run(factors, embeddings, counts, weights, precision=precision)
    E1, E2, b, S = (tensor.double().numpy() for tensor in (factors.E1, factors.E2, factors.b, embeddings))
    _, *exact = dense_loss_and_gradients(E1, E2, b, S, counts, weights.double().numpy())
    errors = []
    for other, one, wanted in zip(found.tensors(), full.tensors(), exact, strict=True):
        assert wanted is not None
        rounding = float(np.linalg.norm(one.double().numpy() - wanted))
        errors.append(float((other - one).norm()))
        assert errors[-1] <= rounding
    # In bfloat16 there was something to skip.
    assert default_skip(precision) > 0 and (max(errors) > 0 or precision == "float32")


# Where they run -------------------------------------------------------------------------------------------------


COMPILE = """
import json, re
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from fliplens.arithmetic import objective_triton as ours

found = []
kernels = (ours._normaliser_kernel, ours._word_gradients_kernel, ours._latent_gradients_kernel)
# Triton makes arguments of 1 constants, hence the last case.
cases = (("bfloat16", 90, {}), ("float32", 80, {}),
         ("bfloat16", 80, dict.fromkeys(("n_rows", "n_words", "rank", "tiles_each"), 1)))
for precision, architecture, ones in cases:
    tiles = ours.default_tiles(precision)
    constants = {"ROWS": tiles.rows, "WORDS": tiles.words, "DEPTH": tiles.depth, "INPUT_PRECISION": "ieee",
                 "WIDEN": ours.INTERPRETED, **ones}
    for kernel in kernels:
        types = dict.fromkeys(kernel.arg_names, "*fp32")
        types.update(dict.fromkeys(("latent", "E1"), "*bf16" if precision == "bfloat16" else "*fp32"))
        types.update(dict.fromkeys(("n_rows", "n_words", "rank", "tiles_each"), "i32"))
        types.update(dict.fromkeys(constants, "constexpr"))
        aligned = {(i,): [["tt.divisibility", 16]] for i, t in enumerate(types.values()) if t[0] == "*"}
        options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
        source = ASTSource(kernel, types, constants, aligned)
        built = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
        found.append([kernel.__name__, precision, architecture, built.metadata.shared,
                      sorted(set(re.findall(r"mma[.\\w]*aligned[.]m\\d[.\\w]*", built.asm["ptx"])))])
print(json.dumps(found))
"""


def test_the_kernels_compile_for_devices_that_are_not_at_hand(tmp_path: Any) -> None:
    """The interpreter runs what no GPU would compile; Triton compiles without a GPU."""
    env = {**environment(), "TRITON_CACHE_DIR": str(tmp_path)}
    env.pop("TRITON_INTERPRET", None)
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    built = json.loads(done.stdout.splitlines()[-1])
    assert len(built) == 9
    for name, precision, architecture, shared, products in built:
        assert shared <= 99 * 1024, (name, shared)  # of the smallest device since Ampere
        if precision == "float32":  # honest float32 knows no tensor cores
            assert products == [], (name, products)
        else:
            assert products and all("bf16" in product for product in products), (name, architecture, products)


@pytest.mark.parametrize(
    ("kind", "installed", "cuda", "capability", "expected"),
    [
        ("cuda", True, "12.6", (8, 0), True),
        ("cuda", True, "12.6", (7, 5), False),
        ("cuda", False, "12.6", (9, 0), False),
        ("cuda", True, None, (9, 4), False),  # ROCm calls itself cuda
        ("cpu", True, "12.6", (9, 0), False),
        ("mps", True, None, (9, 0), False),
    ],
)
def test_the_kernels_are_chosen_on_cuda_with_triton(
    kind: str,
    installed: bool,
    cuda: str | None,
    capability: tuple[int, int],
    expected: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices, "find_spec", lambda name: object() if installed else None)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert devices.runs_triton.__wrapped__(kind) is expected


@pytest.mark.parametrize("chosen", [True, False])
def test_the_objective_asks_and_hands_over(chosen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways give the same; which one ran shows in what was called."""
    factors, embeddings, counts, weights = problem(5, 20, 3, 4, seed=1)
    calls = []

    def noted(*args: Any, **options: Any) -> float:
        calls.append(options)
        return accumulate(*args, **options)

    monkeypatch.setattr(objective_triton, "accumulate", noted)
    monkeypatch.setattr(objective, "runs_triton", lambda kind: chosen)
    factors, embeddings = factors.map(lambda tensor: tensor.to(DEVICE)), embeddings.to(DEVICE)
    gradients = factors.map(torch.zeros_like)
    loss = objective.accumulate(
        factors, gradients, embeddings, moved(bags_of(counts)), weights.to(DEVICE), precision="float32"
    )
    assert [call["precision"] for call in calls] == ["float32"] * chosen
    expected, exact = run(factors.map(torch.Tensor.cpu), embeddings.cpu(), counts, weights)
    assert loss == pytest.approx(expected, rel=1e-5)
    for one, other in zip(gradients.tensors(), exact.tensors(), strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=1e-4, atol=1e-4)


WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None  # whoever imports it fails
import numpy as np
import fliplens
from fliplens import fit
texts = ["a red boat", "a blue boat", "the red house", "the blue house"] * 5
vectors = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
fit(texts, vectors, device="cpu", config=fliplens.TrainConfig(passes=1))
print("fliplens.arithmetic.objective_triton" in sys.modules)
"""


def test_training_on_the_processor_needs_no_triton() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT_TRITON],
        capture_output=True,
        text=True,
        env=environment(),
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.skipif(not GPU, reason="needs a CUDA device: both ways at sizes the interpreter is too slow for")
@pytest.mark.parametrize(("precision", "budget"), [("float32", 1e-4), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("shape", [(256, 20_621, 384, 384), (6000, 9_602, 128, 768), (777, 50_001, 1000, 1024)])
def test_on_a_gpu_both_ways_agree(shape: tuple[int, int, int, int], precision: Precision, budget: float) -> None:
    n, V, r, d = shape
    generator = torch.Generator(DEVICE).manual_seed(n)

    def draw(*size: int, scale: float = 1.0) -> torch.Tensor:
        return scale * torch.randn(size, generator=generator, device=DEVICE)

    factors = Factors(
        draw(V, r, scale=0.1), draw(r, d, scale=d**-0.5), -torch.arange(1.0, V + 1, device=DEVICE).log()
    )
    embeddings = draw(n, d)
    words = torch.randint(0, V, (n, 12), generator=generator, device=DEVICE).sort(dim=1).values
    kept = torch.ones_like(words, dtype=torch.bool)
    kept[:, 1:] = words[:, 1:] != words[:, :-1]
    rows = torch.arange(n, device=DEVICE)[:, None].expand_as(words)
    bags = Bags(rows[kept], words[kept], torch.ones(int(kept.sum()), device=DEVICE), n)
    fused, plain = factors.map(torch.zeros_like), factors.map(torch.zeros_like)
    loss = accumulate(factors, fused, embeddings, bags, precision=precision)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objective, "runs_triton", lambda kind: False)
        expected = objective.accumulate(factors, plain, embeddings, bags, precision=precision)
    assert loss == pytest.approx(expected, rel=budget)
    for one, other in zip(fused.tensors(), plain.tensors(), strict=True):
        assert float((one - other).norm() / other.norm()) < budget
