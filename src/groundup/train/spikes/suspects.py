"""Which sequences of a batch a spike may come from: each by itself, of the model as it is now.

A spike of the loss is looked for in the loss of each sequence, one of the gradient norm in the norm
of its gradient. The loss does not do for both: text that has been learned by heart has a low one,
and may have a gradient many times that of any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from groundup.measure import positions, probing
from groundup.model import LanguageModel
from groundup.train.world import ALONE, World

Rows = Callable[[int], Iterator[tuple[Tensor, Tensor]]]
"""Inputs and targets, [n, length] each, of a batch of the data by its number."""


class Suspects:
    """Looks at batches again, eagerly; neither gradients nor random state are touched. Each process
    looks at its own sequences of the batch."""

    def __init__(
        self,
        model: LanguageModel,
        rows: Rows,
        precision: Callable[[], AbstractContextManager[Any]],
        world: World = ALONE,
    ) -> None:
        self._model, self._rows, self._precision, self._world = model, rows, precision, world

    def of(self, series: str, batch: int) -> tuple[str, list[float]]:
        """What was looked at, and a number for each sequence of the batch: the higher, the more
        suspect.

        Args:
            series: "loss" (nats per token), or "grad_norm" of that loss. Where weights are sharded
                (FSDP2) one sequence has no gradient of its own, and its loss is looked at.
        """
        if series == "grad_norm" and isinstance(next(self._model.parameters()), DTensor):
            series = "loss"
        look = {"loss": self._losses, "grad_norm": self._gradients}[series]
        return series, [value for part in self._world.gather(look(batch)) for value in part]

    def _losses(self, batch: int) -> list[float]:
        found: list[Tensor] = []
        for inputs, targets in self._rows(batch):
            with self._precision():
                logits = probing.run(self._model, probing.Probe((inputs,)), ())
            for one, wanted in zip(logits.split(1), targets.split(1), strict=True):
                sums, counts = positions.loss_by_position(one, wanted)
                found.append(sums.sum() / counts.sum())
        return torch.stack(found).tolist()

    def _gradients(self, batch: int) -> list[float]:
        weights = [p for p in self._model.parameters() if p.requires_grad]
        found: list[Tensor] = []
        with torch.enable_grad(), probing.eagerly():
            for inputs, targets in self._rows(batch):
                for one, wanted in zip(inputs.split(1), targets.split(1), strict=True):
                    with self._precision():
                        loss = self._model(one, wanted).total / wanted.numel()
                    # Not backward(), which would add to the gradients that training holds.
                    gradients = torch.autograd.grad(loss, weights, allow_unused=True)
                    norms = torch._foreach_norm([g for g in gradients if g is not None])
                    found.append(torch.stack(norms).double().norm())
        return torch.stack(found).tolist()
