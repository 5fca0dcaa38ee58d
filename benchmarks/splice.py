"""SpLiCE's decomposition of sentence vectors: ours against scikit-learn's Lasso, celer and skglm, in one run.

The dictionary holds MiniLM's vectors of the 10,000 most frequent words and pairs of words of Common Voice English;
what is decomposed are MiniLM's vectors of its sentences. The dictionary is encoded once, into `runs/splice`. celer
and skglm are timed where they are installed.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from benchmarks.registry import ROOT, Benchmark, common_voice_texts, common_voice_vectors

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CONCEPTS = 10_000
VECTORS = 4096
ONE_BY_ONE = 100
"""Vectors that ours is also given one at a time."""
OTHERS = 40
"""Vectors that each other solver is given, one at a time, as their own loops do."""
WITH_GRAM = 10
EXACT = 24
"""Vectors whose optimum is found by scikit-learn in float64, at a tolerance of 1e-10."""
ROUNDS = 3
NEGLIGIBLE = 1e-3
"""Weights below this are not looked at where concepts are compared; vectors have length 1."""
PENALTIES = {"7e-4": 7e-4, "4e-4": 4e-4, "3e-4": 3e-4, "2e-4": 2e-4}


def _problem(n: int) -> tuple[Any, NDArray[np.float32]]:
    """Return the dictionary and n centred vectors."""
    from fliplens import Vocabulary, load_encoder
    from fliplens.baselines.decomposition import Dictionary, centred, mean_of
    from fliplens.encoding.texts import encode_texts
    from fliplens.files import sha256_of_lines

    words = list(
        Vocabulary.from_texts(common_voice_texts("en", "train"), ngram_range=(1, 2), max_size=CONCEPTS).words
    )
    out = ROOT / "runs" / "splice" / f"{sha256_of_lines(words)[:16]}.npy"
    out.parent.mkdir(parents=True, exist_ok=True)
    dictionary = Dictionary.from_vectors(encode_texts(words, load_encoder("minilm"), out, show_progress=True))
    vectors = common_voice_vectors("en", "train")
    return dictionary, centred(vectors.block(0, n), mean_of(vectors))


def _others(
    penalty: float, X: NDArray[np.float32]
) -> dict[str, Callable[[NDArray[np.float32]], NDArray[np.floating[Any]]]]:
    """Return the other solvers: name → weights of one vector. None of them is given the time to start."""
    import numpy as np
    from sklearn.linear_model import Lasso

    # The authors' settings; the matrix in the order that scikit-learn works in, so that it is not turned each time.
    theirs = Lasso(alpha=penalty, fit_intercept=False, positive=True, max_iter=10_000, tol=1e-6)
    solvers: dict[str, Any] = {
        "scikit-learn, SpLiCE's settings": theirs,
        "scikit-learn, default tolerance": Lasso(alpha=penalty, fit_intercept=False, positive=True, max_iter=10_000),
        "scikit-learn, Gram matrix": Lasso(
            alpha=penalty, fit_intercept=False, positive=True, max_iter=10_000, tol=1e-6, precompute=X.T @ X
        ),
    }
    if find_spec("celer"):
        from celer import Lasso as Celer

        solvers["celer"] = Celer(alpha=penalty, fit_intercept=False, positive=True, tol=1e-6)
    if find_spec("skglm"):
        from skglm import Lasso as Skglm

        solvers["skglm"] = Skglm(alpha=penalty, fit_intercept=False, positive=True, tol=1e-6)

    def fitted(solver: Any, y: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
        return np.asarray(solver.fit(X, y).coef_).ravel().copy()

    return {name: partial(fitted, solver) for name, solver in solvers.items()}


def _compare(penalty: float, *, vectors: int = VECTORS, others: int = OTHERS, exact: int = EXACT) -> dict[str, Any]:
    """Time all solvers in turns, and measure how far from the optimum each ends."""
    import numpy as np
    from sklearn.linear_model import Lasso

    from fliplens.baselines.decomposition import decompose

    warnings.simplefilter("ignore")
    dictionary, Y = _problem(vectors)
    d = dictionary.dim
    X = np.asfortranarray(dictionary.rows.T)
    ways = _others(penalty, X)
    taken: dict[str, list[float]] = {name: [] for name in ("ours", "ours, one by one", *ways)}
    weights: dict[str, Any] = {}

    def timed(name: str, n: int, call: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = call()
        taken[name].append(1000 * (time.perf_counter() - started) / n)
        return result

    decompose(Y[:200], dictionary, penalty)
    for way in ways.values():
        way(Y[0])
    for _ in range(ROUNDS):
        result = timed("ours", len(Y), lambda: decompose(Y, dictionary, penalty))
        timed(
            "ours, one by one", ONE_BY_ONE, lambda: [decompose(y[None], dictionary, penalty) for y in Y[:ONE_BY_ONE]]
        )
        for name, way in ways.items():
            n = min(WITH_GRAM, others) if "Gram" in name else others
            weights[name] = timed(name, n, partial(lambda way, n: [way(y) for y in Y[:n]], way, n))

    double = X.astype(np.float64)
    oracle = Lasso(alpha=penalty, fit_intercept=False, positive=True, max_iter=1_000_000, tol=1e-10)
    best = np.stack([oracle.fit(double, y.astype(np.float64)).coef_ for y in Y[:exact]])

    def excess(W: Any) -> NDArray[np.float64]:
        # How far above the least objective each row's is, as a share of it.
        n = min(len(W), exact)

        def objective(W: Any) -> Any:
            return np.square(Y[:n] - W[:n] @ double.T).sum(axis=1) / (2 * d) + penalty * W[:n].sum(axis=1)

        least = objective(best)
        return np.asarray((objective(np.asarray(W, dtype=np.float64)) - least) / least)

    ours = result.weights[:exact].toarray().astype(np.float64)
    median = {name: statistics.median(values) for name, values in taken.items()}
    return {
        "penalty": penalty,
        "concepts": len(dictionary),
        "dimensions": d,
        "vectors": len(Y),
        "concepts_a_vector": round(result.weights.nnz / len(Y), 1),
        "products_a_vector": round(float(result.rounds.mean()) + 1, 2),
        "largest_gap": float(result.gap.max()),
        "excess": {"ours": float(excess(ours).max())}
        | {name: float(excess(found).max()) for name, found in weights.items()},
        "supports_differ": int(((ours > NEGLIGIBLE) != (best > NEGLIGIBLE)).sum()),
        "supports_compared": int((best > NEGLIGIBLE).sum()),
        "milliseconds": {name: round(value, 3) for name, value in median.items()},
        "all_milliseconds": {name: [round(value, 3) for value in values] for name, values in taken.items()},
        "ratio": {name: round(value / median["ours"], 1) for name, value in median.items() if name in ways},
        "versions": {name: version(name) for name in ("scikit-learn", "celer", "skglm") if find_spec(_module(name))},
    }


def _module(package: str) -> str:
    return {"scikit-learn": "sklearn"}.get(package, package)


def _other(name: str) -> Callable[[dict[str, Any]], str]:
    def cell(result: dict[str, Any]) -> str:
        if name not in result["ratio"]:
            return ""
        return f"{result['milliseconds'][name]:.1f} ({result['ratio'][name]:.0f} ×)"

    return cell


BENCHMARKS = [
    Benchmark(
        name="splice",
        description=(
            f"milliseconds a vector to decompose MiniLM's vectors of sentences of en.train over {CONCEPTS:,} "
            f"concepts of 384 dimensions, float32: ours on {VECTORS:,} vectors at once and one at a time, the others "
            f"one at a time, in brackets how many times as long as ours at once (medians of {ROUNDS}, in turns); and "
            f"how far above the least objective, found by scikit-learn in float64 at a tolerance of 1e-10 on {EXACT} "
            "vectors, "
            f"ours ends at most, as a share, and in how many of their concepts of a weight above {NEGLIGIBLE:g} it "
            "differs"
        ),
        cases={f"penalty {name}": partial(_compare, penalty) for name, penalty in PENALTIES.items()},
        columns={
            "concepts a vector": lambda result: f"{result['concepts_a_vector']:.1f}",
            "ours": lambda result: f"{result['milliseconds']['ours']:.2f}",
            "ours, one at a time": lambda result: f"{result['milliseconds']['ours, one by one']:.1f}",
            "scikit-learn, SpLiCE's settings": _other("scikit-learn, SpLiCE's settings"),
            "default tolerance": _other("scikit-learn, default tolerance"),
            "Gram matrix": _other("scikit-learn, Gram matrix"),
            "celer": _other("celer"),
            "skglm": _other("skglm"),
            "products with the dictionary": lambda result: f"{result['products_a_vector']:.1f}",
            "above the least objective": lambda result: f"{max(result['excess']['ours'], 0):.0e}",
            "concepts that differ": lambda result: f"{result['supports_differ']} of {result['supports_compared']}",
        },
        needs_data=True,
    ),
]
