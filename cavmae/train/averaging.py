"""Averages of a model's weights over steps (EMA) or epochs, kept beside the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cavmae.train.parallel import as_sharded, to_cpu, whole


class WeightAverage:
    """A running average of the weights that are trained.

    Attributes:
        count: how often the weights were added.
    """

    def __init__(self, model: nn.Module) -> None:
        """Args:
        model: spread over the ranks already, see `spread_model`.
        """
        self._own = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self._mean = {name: p.detach().clone() for name, p in self._own.items()}
        self.count = 0

    @torch.no_grad()
    def add(self, share: float) -> None:
        """Move the average towards the present weights: (1 - share) · average + share · weights."""
        for name, parameter in self._own.items():
            self._mean[name].lerp_(parameter, share)
        self.count += 1

    def add_equally(self) -> None:
        """Add the present weights so that all weights ever added count the same."""
        self.add(1 / (self.count + 1))

    def add_exponentially(self, decay: float) -> None:
        """Add the present weights; those of n steps ago count decay ** n as much.

        The first steps forget faster, so that a short run is no average of random weights.
        """
        self.add(1 - min(decay, (1 + self.count) / (10 + self.count)))

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the average as its weights for the length of a block."""
        kept = {name: parameter.detach().clone() for name, parameter in self._own.items()}
        self._put(self._mean)
        try:
            yield
        finally:
            self._put(kept)

    def state(self, keep: bool, copy: Callable[[Tensor], Tensor] = to_cpu) -> dict[str, Any]:
        """For a checkpoint, whole tensors on the CPU, see `whole`. All ranks call this together."""
        return {"count": self.count, "mean": whole(self._mean, keep, copy)}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state`."""
        self.count = state["count"]
        for name, mean in self._mean.items():
            mean.copy_(as_sharded(state["mean"][name], mean))

    @torch.no_grad()
    def _put(self, weights: Mapping[str, Tensor]) -> None:
        for name, parameter in self._own.items():
            parameter.copy_(weights[name])
