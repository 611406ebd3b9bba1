"""Attaching proves itself: in the first forward every scaled branch must run exactly once.

A module that is never called (fused attention does not call its output projection) would silently
go unscaled, one that is called twice would be scaled twice. Both are errors that name the branch.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import nn

from groundup.residual.branches import Branch
from groundup.residual.scale import Traced


class BranchError(RuntimeError):
    """A branch was not scaled exactly once in a forward."""


class Proof:
    """Counts how often each branch runs in the next forward of `model`, then takes itself off.

    Compiled parts do not call Python. Where the model has some, the forward is run once before,
    eagerly and without gradients. A forward that is itself being traced by `torch.compile` is left
    alone: a model that is compiled as a whole is proven by `Warmup.check`.
    """

    def __init__(self, model: nn.Module, branches: Sequence[Branch], traced: Traced) -> None:
        self.done = False
        self._running = False
        self._branches = list(branches)
        self._traced = traced
        self._counts: Counter[str] = Counter()
        self._counting = ExitStack()
        self._armed = [
            model.register_forward_pre_hook(self._before, with_kwargs=True),
            model.register_forward_hook(self._after),
        ]

    def cancel(self) -> None:
        """Take everything off."""
        for handle in self._armed:
            handle.remove()
        self._counting.close()
        self.done = True

    def run(
        self, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Prove it now: `forward` on this input, eagerly, without gradients."""
        self._start()
        self._running = True
        devices = {branch.device for branch in self._branches if branch.device.type == "cuda"}
        with ExitStack() as during:
            during.callback(setattr, self, "_running", False)
            during.callback(self._counting.close)
            during.enter_context(torch.no_grad())
            during.enter_context(torch.random.fork_rng(devices=devices))
            if "torch._dynamo" in sys.modules:  # nothing is compiled where nobody imported it
                during.enter_context(torch.compiler.set_stance("force_eager"))
            forward(*args, **kwargs)
        self._judge()

    def _before(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_compiling() or self.done or self._running:
            return
        if has_compiled_parts(model):
            # Not model(…): its hooks (FSDP gathers weights in one) have run or are about to.
            self.run(model.forward, args, kwargs)
        else:
            self._start()

    def _after(self, model: nn.Module, args: Any, output: Any) -> None:
        if torch.compiler.is_compiling() or self.done or self._running:
            return
        self._counting.close()
        self._judge()

    def _start(self) -> None:
        """Count from here; a forward that raised may have left its own counting behind."""
        self._counting.close()
        self._counts.clear()
        for branch in self._branches:
            handle = branch.module.register_forward_hook(partial(self._count, branch.name))
            self._counting.callback(handle.remove)

    def _count(self, name: str, module: nn.Module, args: Any, output: Any) -> None:
        self._counts[name] += 1

    def _judge(self) -> None:
        counts = [(branch.name, self._counts[branch.name]) for branch in self._branches]
        if wrong := [(name, n) for name, n in counts if n != 1]:
            told = ", ".join(f"{name} ran {n} times" for name, n in wrong[:6])
            more = f" (and {len(wrong) - 6} more)" if len(wrong) > 6 else ""
            raise BranchError(
                "each scaled branch must run exactly once per forward, but "
                f"{told}{more}. A fused path may bypass the module, or it serves several "
                "layers: attach to the module that ends the branch with branches=[…]"
            )
        self.done = True
        # A removed hook recompiles; where something was traced, these stay and do nothing.
        if not self._traced.seen:
            self.cancel()


def has_compiled_parts(model: nn.Module) -> bool:
    """Whether a module inside is compiled (`module.compile()` or `torch.compile(module)`)."""
    if "torch._dynamo" not in sys.modules:
        return False
    from torch._dynamo.eval_frame import OptimizedModule

    return any(
        module._compiled_call_impl is not None or isinstance(module, OptimizedModule)
        for module in model.modules()
    )
