"""The hidden states of a transformers model, layer by layer, without running the layers above those wanted.

Hidden state 0 is what enters the first layer (the embeddings), k what leaves the k-th, and the last one has passed
the model's final normalisation where it has one: the states that transformers gives as `hidden_states`. They are
taken where they enter a layer, and the pass ends where the highest one wanted does; nothing above it runs. Which of a
model's modules its layers are is found by trying, and what they give is compared with what transformers gives for a
probe; of a model where the two differ, transformers' own are used, from a whole pass.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from fliplens.errors import InputError

if TYPE_CHECKING:
    import torch

__all__ = ["LayerReader"]


class _Reached(Exception):  # noqa: N818 - it tells of success
    """The highest layer that is wanted was reached: the model need not go on."""


class LayerReader:
    """Runs a model and hands out the hidden states that are wanted. Safe to call from several threads.

    Args:
        model: a transformers model without a head, or the encoder of one, in evaluation mode.
        probe: what its forward takes, a few short texts; compared once.
        name: what messages call the model.

    Raises:
        InputError: the model gives no hidden states, or of another length than the text.
    """

    def __init__(self, model: Any, probe: Mapping[str, torch.Tensor], *, name: str) -> None:
        import torch

        self.model = model
        self._now = threading.local()
        with torch.inference_mode():
            states = getattr(model(**probe, output_hidden_states=True), "hidden_states", None)
        tokens = probe["input_ids"].shape
        if not states or any(state.shape[:-1] != tokens for state in states):
            found = "none" if not states else ", ".join(str(tuple(state.shape)) for state in states)
            raise InputError(
                f"expected hidden states of {name}, one vector a token in every layer, found {found} for "
                f"{tuple(tokens)} tokens: name another model"
            )
        self.dims = [int(state.shape[-1]) for state in states]
        self.stops_early = any(
            self._agrees(blocks, probe, states)
            for blocks in model.modules()
            if isinstance(blocks, torch.nn.ModuleList) and len(blocks) == self.layers
        )

    @property
    def layers(self) -> int:
        """How many layers the model has; it has one hidden state more."""
        return len(self.dims) - 1

    def run(
        self,
        inputs: Mapping[str, torch.Tensor],
        wanted: Collection[int],
        keep: Callable[[int, torch.Tensor], None],
    ) -> None:
        """Run the model on one batch.

        Args:
            inputs: what its forward takes.
            wanted: which hidden states, 0 to `layers`.
            keep: called with the number of each one wanted and its value, (batch, tokens, its dimensions), in order.
        """
        import torch

        with torch.inference_mode():
            if not self.stops_early:
                states = self.model(**inputs, output_hidden_states=True).hidden_states
                for number in sorted(wanted):
                    keep(number, states[number])
                return
            self._now.wanted, self._now.keep, self._now.highest = wanted, keep, max(wanted)
            try:
                last = self.model(**inputs).last_hidden_state
            except _Reached:
                return
            finally:
                self._now.keep = None
            keep(self.layers, last)

    def _agrees(self, blocks: Any, probe: Mapping[str, torch.Tensor], states: Any) -> bool:
        """Watch a list of modules, and tell whether they are the layers; where they are not, leave them alone."""
        import torch

        watches = [
            block.register_forward_pre_hook(self._watch(number), with_kwargs=True)
            for number, block in enumerate(blocks)
        ]
        self.stops_early = True
        found: list[tuple[int, torch.Tensor]] = []
        try:
            # All at once, and each alone, as what is not reached must not matter.
            self.run(probe, range(len(states)), lambda number, state: found.append((number, state)))
            for number in range(len(states)):
                self.run(probe, [number], lambda number, state: found.append((number, state)))
        except (TypeError, AttributeError, LookupError):
            found = []
        expected = [*range(len(states)), *range(len(states))]
        agrees = [number for number, _ in found] == expected and all(
            state.shape == states[number].shape and torch.allclose(state, states[number], rtol=1e-4, atol=1e-5)
            for number, state in found
        )
        if not agrees:
            for watch in watches:
                watch.remove()
        return agrees

    def _watch(self, number: int) -> Callable[[Any, tuple[Any, ...], dict[str, Any]], None]:
        """Return a hook for the layer that hidden state `number` enters."""

        def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            keep = getattr(self._now, "keep", None)
            if keep is None:
                return
            if number in self._now.wanted:
                keep(number, args[0] if args else kwargs["hidden_states"])
            if number >= self._now.highest:
                raise _Reached

        return hook
