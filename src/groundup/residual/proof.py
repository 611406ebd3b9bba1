"""Attaching proves itself: in the first forward every scaled branch must run exactly once.

A module that is never called (fused attention does not call its output projection) would silently
go unscaled, one that is called twice would be scaled twice. Both are errors that name the branch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import nn

from groundup.residual.branches import Branch


class BranchError(RuntimeError):
    """A branch was not scaled exactly once in a forward."""


class Proof:
    """Counts how often each branch runs in the next forward of `model`, then takes itself off.

    That one forward runs eagerly (compiled parts too: a compiled region does not call Python), with
    its usual autograd graph. A forward that is itself being traced by `torch.compile` is left
    alone; such a model is proven by `Warmup.check`.
    """

    def __init__(self, model: nn.Module, branches: Sequence[Branch]) -> None:
        self.done = False
        self._names = [branch.name for branch in branches]
        self._modules = [branch.module for branch in branches]
        self._counts: Counter[str] = Counter()
        self._during = ExitStack()
        self._armed = [
            model.register_forward_pre_hook(self._begin),
            model.register_forward_hook(self._end, always_call=True),
        ]

    def cancel(self) -> None:
        for handle in self._armed:
            handle.remove()
        self._during.close()

    def _begin(self, model: nn.Module, args: Any) -> None:
        if torch.compiler.is_compiling():
            return
        self._during.close()
        self._counts.clear()
        for name, module in zip(self._names, self._modules, strict=True):
            handle = module.register_forward_hook(partial(self._count, name))
            self._during.callback(handle.remove)
        self._during.enter_context(torch.compiler.set_stance("force_eager"))

    def _count(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        self._counts[name] += 1

    def _end(self, model: nn.Module, args: Any, output: Any) -> None:
        if torch.compiler.is_compiling():
            return
        self._during.close()
        if output is None:  # the forward raised: its own error is the one to see
            return
        wrong = [(name, self._counts[name]) for name in self._names if self._counts[name] != 1]
        if wrong:
            told = ", ".join(f"{name} ran {n} times" for name, n in wrong[:6])
            more = f" (and {len(wrong) - 6} more)" if len(wrong) > 6 else ""
            raise BranchError(
                "each scaled branch must run exactly once per forward, but "
                f"{told}{more}. A fused path may bypass the module, or it serves several "
                "layers: attach to the module that ends the branch with branches=[…]"
            )
        self.cancel()
        self.done = True
