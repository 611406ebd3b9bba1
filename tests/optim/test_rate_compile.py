"""A compiled ``optimizer.step``: how many graphs a changing rate makes, and that it is obeyed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

import groundup as gu
from groundup.optim import rate
from tests.fresh_compiler import fresh_compiler  # noqa: F401

STEPS = 24  # three times what torch would compile anew before it gives up
FACTOR = gu.factor.linear(8) >> gu.factor.hold() >> gu.factor.decay("linear", 8)


def train(
    graphs: CompileCounter | None, tensor: bool, make: Callable, **options: Any
) -> list[Tensor]:
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(4, 4)) for _ in range(2)]
    groups = [
        {"params": [p], "lr": torch.tensor(lr) if tensor else lr}
        for p, lr in zip(parameters, (1e-2, 3e-2), strict=True)
    ]
    optimizer = make(groups)
    schedule = rate.schedule(optimizer, FACTOR, steps=STEPS, **options)
    step = optimizer.step if graphs is None else torch.compile(optimizer.step, backend=graphs)
    for _ in range(STEPS):
        for p in parameters:
            p.grad = torch.randn(4, 4)
        step()
        schedule.step()
    assert schedule.last_epoch == STEPS
    return [p.detach() for p in parameters]


BETA2 = {"beta2": gu.factor.linear(8, initial=0.9)}
ADAMW = torch.optim.AdamW
# Groups with rates in tensors or numbers, the optimizer, options of the schedule; the graphs.
TABLE: dict[str, tuple[bool, Callable, dict[str, Any], int]] = {
    "a tensor": (True, ADAMW, {}, 1),
    "a tensor, LionA": (True, gu.optim.LionA, {}, 1),
    # A number that changes makes torch compile once more, now for any number. So does the count
    # of updates in the groups.
    "a tensor, followed": (True, ADAMW, {"follow": True}, 2),
    "a number": (False, ADAMW, {}, 2),
    "weight decay": (True, ADAMW, {"weight_decay": "independent"}, 2),
    "all of it": (
        False,
        ADAMW,
        {"weight_decay": "squared", "others": BETA2, "follow": True},
        2,
    ),
}


@pytest.mark.parametrize("name", TABLE)
def test_graphs(name: str) -> None:
    tensor, make, options, most = TABLE[name]
    graphs = CompileCounter()
    compiled = train(graphs, tensor, make, **options)
    for one, other in zip(compiled, train(None, tensor, make, **options), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert 1 <= graphs.frame_count <= most
