"""Attaching proves itself: in the first forward every scaled branch must run exactly once.

A module that is never called (fused attention does not call its output projection) would silently
go unscaled, one that is called twice would be scaled twice. Both are errors that name the branch.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from groundup.residual.branches import Branch
from groundup.residual.scale import Traced


class BranchError(RuntimeError):
    """A branch was not scaled exactly once in a forward."""


_ADVICE = {
    False: "A fused path bypasses the module, which reads its weights alone: name one that is "
    "called, the module around it or after it, with branches=[…]",
    True: "Layers that share their weights cannot be told apart; where the whole model runs more "
    "than once in a forward (two inputs, one encoder), attach to the part that does",
}
_ATTEMPTS = 3  # forwards in which a layer may stay out (layer drop, one of two towers)


class Proof:
    """Counts how often each branch runs in the next forward of `model`, then takes itself off.

    A branch whose layer did not run either is looked for again in the next forwards. Compiled parts
    do not call Python, and layers that rest are not called: where the model has some, the forward
    is run once before, eagerly and without gradients. A forward that is itself being traced by
    `torch.compile` is left alone: a model that is compiled as a whole is proven by `Warmup.check`.

    Args:
        resting: entered around such a forward of a model with layers that may rest.
    """

    def __init__(
        self,
        model: nn.Module,
        branches: Sequence[Branch],
        traced: Traced,
        resting: Callable[[], AbstractContextManager[None]] | None = None,
    ) -> None:
        self.done = False
        self._model = model
        self._running = self._watching = False
        self._branches = self._open = list(branches)
        self._attempts = 0
        self._traced, self._resting = traced, resting
        self._counts: Counter[int] = Counter()
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
        """Prove it now: `forward` on this input, eagerly, without gradients. Random state and
        buffers (running statistics) are afterwards what they were."""
        self._start()
        buffers = [(b, b.clone()) for b in self._model.buffers() if not b.is_meta]
        self._running = True
        devices = {branch.device for branch in self._open if branch.device.type == "cuda"}
        with ExitStack() as during:
            during.callback(setattr, self, "_running", False)
            during.callback(self._counting.close)
            during.enter_context(torch.no_grad())
            during.callback(_restore, buffers)
            during.enter_context(torch.random.fork_rng(devices=devices))
            if "torch._dynamo" in sys.modules:  # nothing is compiled where nobody imported it
                during.enter_context(torch.compiler.set_stance("force_eager"))
            if self._resting is not None:
                during.enter_context(self._resting())
            forward(*args, **kwargs)
        self._judge()

    @property
    def unseen(self) -> list[str]:
        """Branches that have not run yet, in any forward that was counted."""
        return [] if self.done else [branch.name for branch in self._open]

    def _before(self, model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if torch.compiler.is_compiling() or self.done or self._running:
            return
        if self._resting is not None or has_compiled_parts(model):
            # Not model(…): its hooks (FSDP gathers weights in one) have run or are about to.
            self.run(model.forward, args, kwargs)
        else:
            self._start()
            self._watching = True

    def _after(self, model: nn.Module, args: Any, output: Any) -> None:
        if torch.compiler.is_compiling() or self.done or not self._watching:
            return
        self._watching = False
        self._counting.close()
        self._judge()

    def _start(self) -> None:
        """Count from here; a forward that raised may have left its own counting behind."""
        self._counting.close()
        self._counts.clear()
        for branch in self._open:
            branch.require_in_place()
        modules = {id(m): m for b in self._branches for m in (b.module, b.block)}
        for key, module in modules.items():
            handle = module.register_forward_hook(partial(self._count, key))
            self._counting.callback(handle.remove)

    def _count(self, key: int, module: nn.Module, args: Any, output: Any) -> None:
        self._counts[key] += 1

    def _judge(self) -> None:
        times = [(branch, self._counts[id(branch.module)]) for branch in self._open]
        # Not run: its layer stood aside as a whole, or it is a branch that may.
        aside = [b for b, n in times if n == 0 and (b.end.optional or not self._layer_ran(b))]
        if wrong := [(b.name, n) for b, n in times if n != 1 and b not in aside]:
            told = ", ".join(f"{name} ran {n} times" for name, n in wrong[:6])
            more = f" (and {len(wrong) - 6} more)" if len(wrong) > 6 else ""
            raise BranchError(
                "each scaled branch must run exactly once per forward, but "
                f"{told}{more}. {_ADVICE[wrong[0][1] > 0]}"
            )
        self._attempts += 1
        self._open = [branch for branch in aside if not branch.end.optional]
        if self._open and self._attempts < _ATTEMPTS:
            return
        if self._open:
            warnings.warn(
                f"in {self._attempts} forwards these layers did not run, so it is not proven that "
                f"their branches are scaled: {', '.join(b.name for b in self._open[:6])}",
                stacklevel=2,
            )
        self.done = True
        # A removed hook recompiles; where something was traced, these stay and do nothing.
        if not self._traced.seen:
            self.cancel()

    def _layer_ran(self, branch: Branch) -> bool:
        """Whether it was called, or another branch in it (of a layer that is a mere container)."""
        others = (b for b in self._branches if b.block is branch.block)
        return branch.block is branch.module or any(
            self._counts[id(module)] for b in others for module in (b.block, b.module)
        )


def _restore(buffers: list[tuple[Tensor, Tensor]]) -> None:
    for buffer, value in buffers:
        if not torch.equal(buffer, value):
            buffer.copy_(value)


def called_around(model: nn.Module, branches: Sequence[Branch]) -> nn.Module:
    """The innermost module around all layers that has a forward.

    Not every loop calls the outermost: a LightningModule's training_step, or a loss that is
    computed in chunks, calls a part of it.
    """
    layers = {branch.block for branch in branches}
    called = around = model
    while not is_compiled(around):
        inner = next((m for m in around.children() if layers <= set(m.modules())), None)
        if inner is None:
            break
        around = inner
        if "forward" in around.__dict__ or type(around).forward is not nn.Module.forward:
            called = around
    return called


def has_compiled_parts(model: nn.Module) -> bool:
    """Whether a module inside is compiled (`module.compile()` or `torch.compile(module)`)."""
    return any(is_compiled(module) for module in model.modules())


def is_compiled(module: nn.Module) -> bool:
    """Whether it is compiled as a whole."""
    if "torch._dynamo" not in sys.modules:
        return False
    from torch._dynamo.eval_frame import OptimizedModule

    return module._compiled_call_impl is not None or isinstance(module, OptimizedModule)
