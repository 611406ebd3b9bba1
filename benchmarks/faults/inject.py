"""A program that runs groundup's command line with something wrong in the process.

python inject.py WHAT:NUMBER COMMAND …
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import register_optimizer_step_post_hook

_STRUCK = int(os.environ.get("WORLD_SIZE", "1")) - 1  # the last rank, as torchrun says it


class Count:
    """Calls `act` with its argument once: the call of that number, from 0 on."""

    def __init__(self, number: int, act: Callable) -> None:
        self._left, self._act = number, act

    def __call__(self, argument):
        self._left -= 1
        return self._act(argument) if self._left == -1 else None


def nan_weights(step: int) -> None:
    def poison(weight: nn.Parameter) -> None:
        with torch.no_grad():
            weight.view(-1)[0] = torch.nan

    _after_updates(Count(step, poison))


def nan_gradients(step: int) -> None:
    def arm(weight: nn.Parameter) -> None:
        weight.register_hook(Count(0, partial(torch.full_like, fill_value=torch.nan)))

    _after_updates(Count(step - 1, arm))


def _after_updates(act: Callable[[nn.Parameter], object]) -> None:
    """Call `act` with a weight after each update of the model: not of what is made to try out an
    optimizer."""

    def hook(optimizer: torch.optim.Optimizer, *_: object) -> None:
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        if len(weights) > 4:
            act(weights[0])

    register_optimizer_step_post_hook(hook)


def sleep(step: int) -> None:
    """An update that does not end."""
    _after_updates(Count(step, lambda _: time.sleep(10**6)))


def nan_activations(step: int) -> None:
    def arm(_: nn.Parameter) -> None:
        once = Count(0, partial(torch.full_like, fill_value=torch.nan))

        def hook(module: nn.Module, _: object, output: torch.Tensor) -> torch.Tensor | None:
            trained = module.training and torch.is_grad_enabled()
            return once(output) if isinstance(module, nn.Embedding) and trained else None

        register_module_forward_hook(hook)

    _after_updates(Count(step - 1, arm))


def clock_back(_: int) -> None:
    """The clock is an hour earlier each time that one looks at it."""
    looked = [0]
    real = time.time

    def back() -> float:
        looked[0] += 1
        return real() - 3600.0 * looked[0]

    time.time = back
    time.time_ns = lambda: int(back() * 1e9)


FAULTS = {
    "nan-weights": nan_weights,
    "nan-gradients": nan_gradients,
    "nan-activations": nan_activations,
    "clock-back": clock_back,
    "sleep": sleep,
}


def main() -> int:
    name, _, number = sys.argv[1].partition(":")
    if int(os.environ.get("RANK", "0")) == _STRUCK:
        FAULTS[name](int(number))
    from groundup.cli import main as groundup

    del sys.argv[1]
    return groundup()


if __name__ == "__main__":
    raise SystemExit(main())
