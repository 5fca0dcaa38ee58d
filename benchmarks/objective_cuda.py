"""One step of the objective on a CUDA device: the Triton kernels against torch's own operations. Needs a GPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from benchmarks.registry import Benchmark

if TYPE_CHECKING:
    import torch

    from fliplens.arithmetic.objective import Bags, Factors, Precision

WORDS_A_ROW = 12
REPEATS = 20
# Two common batch sizes at the vocabulary of Common Voice, and a large vocabulary.
SHAPES = {"n 256, V 20k": (256, 20_000), "n 6000, V 20k": (6000, 20_000), "n 6000, V 200k": (6000, 200_000)}
RANK, DIM = 384, 768


def _problem(n: int, V: int) -> tuple[Factors, torch.Tensor, Bags]:
    """Return factors whose probabilities fall off as word frequencies do, embeddings, and words drawn alike."""
    import torch

    from fliplens.arithmetic.objective import Bags, Factors

    generator = torch.Generator("cuda").manual_seed(0)

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(size, generator=generator, device="cuda")

    prior = -torch.arange(2.0, V + 2, device="cuda").log()
    prior -= prior.logsumexp(0)
    factors = Factors(3 * RANK**-0.5 * draw(V, RANK), DIM**-0.5 * draw(RANK, DIM), prior)
    words = torch.multinomial(prior.exp().expand(n, V), WORDS_A_ROW, generator=generator).sort(dim=1).values
    rows = torch.arange(n, device="cuda").repeat_interleave(WORDS_A_ROW)
    return factors, draw(n, DIM), Bags(rows, words.flatten(), torch.ones(len(rows), device="cuda"), n)


def _seconds(step: Callable[[], object]) -> float:
    """Return the median time of a step, compiled and warm."""
    import torch

    times: list[float] = []
    for repeat in range(REPEATS + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        start.record()
        step()
        end.record()
        torch.cuda.synchronize()
        if repeat >= 3:
            times.append(start.elapsed_time(end) / 1e3)
    return sorted(times)[len(times) // 2]


def _peak(dtype: torch.dtype) -> float:
    """Return FLOP/s of a large square matrix product."""
    import torch

    square = torch.randn(8192, 8192, device="cuda", dtype=dtype)
    return 2 * 8192**3 / _seconds(partial(torch.mm, square, square))


def _plain(*args: Any, **options: Any) -> float:
    """Compute the objective by torch's own operations, Triton or not."""
    from fliplens.arithmetic import objective

    with patch.object(objective, "runs_triton", return_value=False):
        return objective.accumulate(*args, **options)


def _measure(n: int, V: int, precision: Precision) -> dict[str, Any]:
    import torch

    from fliplens.arithmetic import objective, objective_triton
    from fliplens.devices import runs_triton

    if not runs_triton("cuda"):
        raise SystemExit("expected Triton and a device since Ampere, found none: pip install 'fliplens[triton]'")
    factors, embeddings, bags = _problem(n, V)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    peak = _peak(dtype)
    # What any way has to do: three products with E1 and three with E2.
    work = 6 * n * (V * RANK + RANK * DIM)
    result: dict[str, Any] = {
        "device": torch.cuda.get_device_name(),
        "peak_tflops": round(peak / 1e12, 1),
        "ways": {},
    }
    exact = factors.map(torch.zeros_like)
    workspace = objective.Workspace()
    _plain(factors, exact, embeddings, bags, workspace=workspace, precision="float32")
    ways: dict[str, Callable[..., float]] = {
        "torch": _plain,
        "Triton": objective_triton.accumulate,
        "Triton, skip 0": partial(objective_triton.accumulate, skip=0.0),
        "Triton, skip 2^-12": partial(objective_triton.accumulate, skip=2.0**-12),
    }
    for name, way in ways.items():
        gradients = factors.map(torch.zeros_like)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        way(factors, gradients, embeddings, bags, workspace=workspace, precision=precision)
        memory = torch.cuda.max_memory_allocated() - before
        errors = [
            float((one - other).norm() / other.norm())
            for one, other in zip(gradients.tensors(), exact.tensors(), strict=True)
        ]
        seconds = _seconds(
            partial(way, factors, gradients, embeddings, bags, workspace=workspace, precision=precision)
        )
        result["ways"][name] = {
            "seconds": seconds,
            "rows_a_second": round(n / seconds),
            "share_of_peak": round(work / seconds / peak, 3),
            "extra_memory_mb": round(memory / 2**20),
            "error_E1": errors[0],
            "error_E2": errors[1],
            "error_b": errors[2],
        }
    return result


def _cell(key: str, show: Callable[[Any], str]) -> Callable[[dict[str, Any]], str]:
    return lambda result: "; ".join(f"{name} {show(one[key])}" for name, one in result["ways"].items())


BENCHMARKS = [
    Benchmark(
        name="objective-cuda",
        description="loss and gradients of one batch on a GPU, rank 384, 768 dimensions, 12 words a row",
        cases={
            f"{name}, {precision}": partial(_measure, *shape, precision)
            for name, shape in SHAPES.items()
            for precision in ("float32", "bfloat16")
        },
        columns={
            "device": lambda result: f"{result['device']}, {result['peak_tflops']} TFLOP/s",
            "rows a second": _cell("rows_a_second", "{:,}".format),
            "share of peak": _cell("share_of_peak", "{:.2f}".format),
            "memory, MB": _cell("extra_memory_mb", str),
            "error of E1": _cell("error_E1", "{:.1e}".format),
        },
        needs_data=False,
        needs_gpu=True,
    )
]
