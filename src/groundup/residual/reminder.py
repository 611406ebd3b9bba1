"""A word to a loop that trains and never advances α: its layers would stay silent for good."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

PATIENCE = 200  # more micro-batches than anybody accumulates into one update


class Reminder:
    """Warns once when `PATIENCE` training forwards have gone by, unless it is cancelled before."""

    def __init__(self, model: nn.Module) -> None:
        self._forwards = 0
        self._hook = model.register_forward_pre_hook(self._count)

    def cancel(self) -> None:
        self._hook.remove()

    def _count(self, model: nn.Module, args: Any) -> None:
        if torch.compiler.is_compiling() or not (model.training and torch.is_grad_enabled()):
            return
        self._forwards += 1
        if self._forwards == PATIENCE:
            self.cancel()
            warnings.warn(
                f"{PATIENCE} training forwards since residual warmup was attached to this "
                f"{type(model).__name__}, and its step still stands at its beginning: say "
                "warmup.follow(optimizer), or warmup.step() after each update",
                stacklevel=2,
            )
