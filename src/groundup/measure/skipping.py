"""Effective depth: what a layer is worth is what the loss rises by without it.

With a layer's branches at 0 the rest of the model stays as it is: x goes on as it came (Pre-LN), or
through the layer's norms (Post-LN). That is the state in which residual warmup starts a layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_map_only

from groundup.measure.positions import IGNORE_INDEX

_ROWS = 4096  # tokens whose logits are raised to float32 at once


class Outputs:
    """What modules return in a forward, to be returned again instead of computing it."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self._modules = modules
        self._kept: dict[nn.Module, Any] = {}  # in the order in which they ran
        self._once = True

    def watching(self) -> ExitStack:
        """Within, what the modules return is kept."""
        self._kept, self._once = {}, True
        stack = ExitStack()
        for module in self._modules:
            stack.callback(module.register_forward_hook(self._keep).remove)
        return stack

    @contextmanager
    def before(self, module: nn.Module) -> Iterator[None]:
        """Within, those that ran before `module` return what they did, whatever their inputs.

        All compute anew where one ran twice: it returned different things.
        """
        earlier_ones = takewhile(lambda m: m is not module, self._kept) if self._once else ()
        with ExitStack() as stack:
            for earlier in earlier_ones:
                own = earlier.__dict__.get("forward")  # another library's (accelerate)
                stack.callback(_put_back, earlier, own)
                earlier.forward = partial(_given, self._kept[earlier])
            yield

    def forget(self) -> None:
        """Let the memory go."""
        self._kept = {}

    def _keep(self, module: nn.Module, _: Any, output: Any) -> None:
        self._once &= module not in self._kept
        self._kept[module] = _copied(output)


def _given(output: Any, *_: Any, **__: Any) -> Any:
    return _copied(output)


def _copied(output: Any) -> Any:
    """A later layer may add to its input in place."""
    return tree_map_only(Tensor, Tensor.clone, output)


def _put_back(module: nn.Module, forward: Any) -> None:
    del module.forward
    if forward is not None:
        module.forward = forward


@contextmanager
def skipped(branches: Iterable[nn.Module]) -> Iterator[None]:
    """Within, these modules (the ends of residual branches) give zeros, in eager forwards."""
    with ExitStack() as hooks:
        for module in branches:
            hooks.callback(module.register_forward_hook(_zeros).remove)
        yield


def mean_loss(output: Any, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats over the targets that are not -100: 0-dim float64.

    Args:
        output: logits [..., C], or what holds them as `logits`.
        targets: [...] int64, a class for each: the next token, not the inputs themselves.

    Raises:
        TypeError: where no logits are found.
        ValueError: if the shapes do not fit.
    """
    logits = logits_of(output)
    if logits.shape[:-1] != targets.shape:
        raise ValueError(
            f"targets have shape {list(targets.shape)}, but the logits, {list(logits.shape)}, "
            f"need {list(logits.shape[:-1])}"
        )
    rows, wanted = logits.flatten(0, -2), targets.flatten().to(logits.device)
    total = torch.zeros((), dtype=torch.float64, device=logits.device)
    for part, target in zip(rows.split(_ROWS), wanted.split(_ROWS), strict=True):
        total += F.cross_entropy(part.float(), target, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / (wanted != IGNORE_INDEX).sum()


def logits_of(output: Any) -> Tensor:
    """The logits in what a model returns.

    Raises:
        TypeError: where none are found.
    """
    found = output.get("logits") if isinstance(output, dict) else getattr(output, "logits", output)
    if not isinstance(found, Tensor):
        raise TypeError(
            f"the model returns a {type(output).__name__} without logits, so that its loss cannot "
            "be measured: leave targets out"
        )
    return found


def _zeros(_: nn.Module, __: Any, output: Any) -> Any:
    if isinstance(output, tuple):
        return torch.zeros_like(output[0]), *output[1:]
    return torch.zeros_like(output)
