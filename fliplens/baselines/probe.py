"""A probe with one hidden layer: how much of the words is in a vector, but not linearly.

It is the lens with something added to its latent vector, and all of it trained together:

    z = E2 · x + U · gelu(H · x + c),    scores = E1 · z + b,    x = (s - m) · scale

U starts at zero, so that the probe starts as the lens does, by the same recipe on the same rows in the same order:
what it reads beyond the lens is what the hidden layer found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import gelu

from fliplens.arithmetic.decoding import Decoding
from fliplens.arithmetic.objective import Bags, Factors
from fliplens.arithmetic.top import BLOCK_BYTES
from fliplens.embeddings import Embeddings
from fliplens.errors import FliplensError, InputError, InterruptedRunError
from fliplens.lenses.extractor import Extractor, check_prior
from fliplens.lenses.fingerprint import Fingerprint
from fliplens.progress import Progress
from fliplens.text.vocabulary import Vocabulary
from fliplens.training.distributed import Group
from fliplens.training.optimiser import Optimiser
from fliplens.training.recipes import TrainConfig
from fliplens.training.start import starting_state
from fliplens.training.trainer import sampler_of
from fliplens.training.views import Views, batch, batches

__all__ = ["Probe", "ProbeResult", "check_recipe", "train_probe"]

NAMES = ("E1", "E2", "b", "H", "c", "U", "mean", "scale")
HIDDEN_RATE = 5e-3
"""AdamW's rate for H, c and U: of 1e-3, 5e-3 and 2e-2 the best on rows held out of a training text."""


class Probe(Extractor):
    """A non-linear yardstick: reads and is measured as a lens is, but no linear map gives its scores.

    Args:
        tensors: float32 E1 (V, r), E2 (r, d), b (V,) or (V, 1), H (h, d), c (h,), U (r, h), mean (d,), scale (1,).
        vocabulary: the V words.
        fingerprint: of the embedding space.
        config: what is known of how it was made.

    Raises:
        InputError: shapes that do not fit together, or values that are not finite.
    """

    kind: ClassVar[str] = "probe"

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        vocabulary: Vocabulary,
        *,
        fingerprint: Fingerprint | None = None,
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(vocabulary, fingerprint=fingerprint, config=config)
        kept = {name: tensors[name].detach().float() for name in NAMES}
        kept["b"] = kept["b"].reshape(-1)
        _check(kept, len(vocabulary))
        self._tensors = kept

    @property
    def dim(self) -> int:
        """d, the length of the vectors it reads."""
        return int(self._tensors["E2"].shape[1])

    @property
    def hidden(self) -> int:
        """h, the size of the hidden layer."""
        return int(self._tensors["H"].shape[0])

    def __repr__(self) -> str:
        return f"Probe({len(self.vocabulary)} words, {self.dim} dimensions, hidden {self.hidden}, {self.encoder})"

    def to(self, device: torch.device | str) -> Probe:
        """Return the same probe on another device."""
        moved = {name: tensor.to(device) for name, tensor in self._tensors.items()}
        return Probe(moved, self.vocabulary, fingerprint=self.fingerprint, config=self.config)

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the parameters; nothing else belongs to them."""
        return dict(self._tensors), {}

    def describe(self) -> dict[str, Any]:
        """Return kind and sizes."""
        sizes = {"rank": int(self._tensors["E2"].shape[0]), "hidden": self.hidden}
        return {
            "model": {"type": "Probe", **sizes, "vocabulary_size": len(self.vocabulary), "embedding_dim": self.dim}
        }

    def decoding_bias(self, decoding: Decoding, prior: float = 1.0) -> Tensor:
        """Return P · b: centred training makes the whole bias the prior."""
        if decoding != "plain":
            raise InputError(f"expected decoding plain of a probe, found {decoding!r}: only a lens explains away")
        check_prior(prior)
        return self._tensors["b"] * prior

    def decoding_blocks(
        self, embeddings: Embeddings, decoding: Decoding, *, most_rows: int | None = None
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield (first row, E1 · z) in blocks of bounded memory."""
        del decoding
        E1 = self._tensors["E1"]
        size = max(1, min(len(embeddings), most_rows or len(embeddings), BLOCK_BYTES // (4 * len(E1))))
        for start, rows in embeddings.blocks(size):
            vectors = torch.from_numpy(rows).to(E1.device)
            yield start, _latent(self._tensors, (vectors - self._tensors["mean"]) * self._tensors["scale"]) @ E1.T


def _latent(tensors: Mapping[str, Tensor], x: Tensor) -> Tensor:
    return x @ tensors["E2"].T + gelu(x @ tensors["H"].T + tensors["c"]) @ tensors["U"].T


def _check(tensors: dict[str, Tensor], n_words: int) -> None:
    r, d = tensors["E2"].shape if tensors["E2"].ndim == 2 else (-1, -1)
    h = len(tensors["c"])
    expected = {"E1": (n_words, r), "b": (n_words,), "H": (h, d), "U": (r, h), "mean": (d,), "scale": (1,)}
    for name, shape in expected.items():
        if tuple(tensors[name].shape) != shape:
            raise InputError(
                f"expected {name} of shape {shape} in a probe, found {tuple(tensors[name].shape)}: "
                "these files belong to different models"
            )
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"expected finite numbers in {name}, found NaN or infinite ones: the file is bad")


@dataclass(frozen=True)
class ProbeResult:
    """A trained probe's parameters."""

    tensors: dict[str, Tensor]
    loss: float
    """Mean loss per word over the last pass, natural logarithm."""


def check_recipe(config: TrainConfig) -> None:
    """Refuse a recipe that a probe cannot follow.

    Raises:
        InputError: it is one.
    """
    if config.rank == "full" or config.whiten or config.schedule != "linear":
        raise InputError("expected a factorised recipe with schedule=linear and without whitening for a probe")


def train_probe(
    data: Views,
    config: TrainConfig,
    *,
    hidden: int,
    word_vectors: NDArray[np.float32] | None = None,
    show_progress: bool = False,
    stop: Callable[[], bool] | None = None,
) -> ProbeResult:
    """Train a probe to the last pass of a recipe; its last weights are kept.

    Args:
        data: rows to train on.
        config: the recipe of the lens it is compared with: rank, rates, passes, batch size, softmax, seed, anchor.
        hidden: h.
        word_vectors: see `fliplens.training.train`.
        show_progress: a bar on stderr.
        stop: asked after every step; once it is true training ends.

    Raises:
        InputError: a recipe that a probe cannot follow.
        InterruptedRunError: `stop` was true.
        FliplensError: the loss left what float32 holds.
    """
    check_recipe(config)
    rank = min(int(config.rank or 512), data.primary.dim)
    state = starting_state(data, config, rank, word_vectors, show_progress=show_progress)
    network = _network(data.primary.dim, hidden, rank, config.seed)
    own = torch.optim.AdamW(network.values(), lr=HIDDEN_RATE, weight_decay=0.0)
    n_rows = len(data.primary)
    n_steps = config.passes * -(-n_rows // config.batch_size)
    sampler = sampler_of(data, config, n_steps)
    optimiser = Optimiser(state, config, sampled=sampler is not None)
    views = data.weighted(config.alpha)
    alone = Group()
    with Progress("train", total=n_steps, unit="steps", show=show_progress) as bar:
        for number in range(1, config.passes + 1):
            total = n_words = 0.0
            for rows in batches(n_rows, config.batch_size, seed=config.seed, number=number):
                x, bags, weights, held = batch(data.counts, views, rows, state.coordinates, torch.device("cpu"))
                factors, words = state.factors, None
                if sampler is not None:
                    sample = sampler.draw(held, state.step)
                    words = torch.from_numpy(sample.words)
                    bags = replace(bags, words=torch.searchsorted(words, bags.words))
                    bias = factors.b[words] + torch.from_numpy(sample.log_weights)
                    factors = Factors(factors.E1[words], factors.E2, bias)
                gradients = optimiser.zeros(words)
                loss, mass = _accumulate(factors, network, gradients, x, bags, weights)
                factor = 1 - state.step / n_steps
                optimiser.set_factor(factor)
                optimiser.step(gradients, words, alone)
                own.param_groups[0]["lr"] = HIDDEN_RATE * factor
                own.step()
                state.step += 1
                total, n_words = total + loss, n_words + mass
                bar.update()
                if stop is not None and stop():
                    raise InterruptedRunError(
                        "interrupted while training a probe, which keeps no checkpoint: start anew"
                    )
            if not np.isfinite(total):
                raise FliplensError(f"training diverged in pass {number}: lower the learning rates")
    trained = {"E1": state.factors.E1, "E2": state.factors.E2, "b": state.factors.b, **network}
    coordinates = {
        "mean": torch.from_numpy(state.coordinates.mean),
        "scale": torch.tensor([state.coordinates.transform], dtype=torch.float32),
    }
    tensors = {name: tensor.detach() for name, tensor in trained.items() if tensor is not None} | coordinates
    return ProbeResult(tensors, total / n_words)


def _network(dim: int, hidden: int, rank: int, seed: int) -> dict[str, Tensor]:
    """Return the hidden layer as training starts: its output is zero."""
    generator = torch.Generator().manual_seed(seed)
    # x has a mean squared length of 1, which this makes standard normal activations.
    network = {
        "H": torch.randn(hidden, dim, generator=generator),
        "c": torch.zeros(hidden),
        "U": torch.zeros(rank, hidden),
    }
    return {name: tensor.requires_grad_() for name, tensor in network.items()}


def _accumulate(
    factors: Factors, network: dict[str, Tensor], gradients: Factors, x: Tensor, bags: Bags, weights: Tensor | None
) -> tuple[float, float]:
    """Add the gradients of the factors to `gradients`, set those of the network; return the loss and its words."""
    leaves = factors.map(lambda tensor: tensor.detach().requires_grad_())
    projection = {} if leaves.E2 is None else {"E2": leaves.E2}
    logits = torch.addmm(leaves.b, _latent({**projection, **network}, x), leaves.E1.T)
    mass, values = bags.totals(), bags.values
    if weights is not None:
        mass, values = mass * weights, values * weights[bags.rows]
    loss = (mass * logits.logsumexp(dim=1)).sum() - (values * logits[bags.rows, bags.words]).sum()
    for parameter in network.values():
        parameter.grad = None
    loss.backward()  # type: ignore[no-untyped-call]
    for into, leaf in zip(gradients.tensors(), leaves.tensors(), strict=True):
        if leaf.grad is not None:
            into.add_(leaf.grad)
    return float(loss.detach()), float(mass.sum())
