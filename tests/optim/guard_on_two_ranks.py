"""Checks of guarded updates that run on each of two ranks (see tests/residual/where)."""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Shard
from torch.nn.parallel import DistributedDataParallel

from groundup.optim import all_finite, create, guarded_step
from groundup.optim.guard import waits
from groundup.optim.rows import local

BADS = (None, math.nan, None, math.inf, math.nan, None)


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 7), nn.LayerNorm(7), nn.Linear(7, 3))


def sharded() -> nn.Module:
    model = net()
    fully_shard(model[0])
    return fully_shard(model)


def replicated() -> nn.Module:
    return DistributedDataParallel(net())


def norm_of(model: nn.Module, step: int, bad: float | None = None) -> Tensor:
    """Of the gradients of a batch in which rank 1 has a bad number."""
    draw = torch.Generator().manual_seed(2 * step + dist.get_rank())
    x = torch.randn(4, 6, generator=draw)
    if bad is not None and dist.get_rank() == 1:
        x[0, 0] = bad
    model(x).square().mean().backward()
    return nn.utils.clip_grad_norm_(model.parameters(), 1.0)


def held(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """The weights and the state of this rank."""
    states = [optimizer.state[p] for p in model.parameters() if p in optimizer.state]
    values = [value for state in states for value in state.values()]
    return [local(t).detach().clone() for t in [*model.parameters(), *values]]


def check_a_bad_gradient_of_one_rank_stops_all(_: Path) -> None:
    for name, made in (("adamw", sharded), ("lionar", sharded), ("sgd", replicated)):
        model, untroubled = made(), made()
        optimizer, twin = create(name, model.parameters()), create(name, untroubled.parameters())
        for step, bad in enumerate(BADS):
            before = held(model, optimizer)
            norm = norm_of(model, step, bad)
            assert isinstance(norm, DTensor) is (made is sharded)
            finite = all_finite(norm)
            assert bool(finite) is (bad is None)
            guarded_step(optimizer, finite)
            optimizer.zero_grad()
            if bad is None:
                norm_of(untroubled, step)
                twin.step()
                twin.zero_grad()
            expected = held(untroubled, twin) if bad is None else before
            for a, b in zip(held(model, optimizer), expected, strict=True):
                assert torch.equal(a, b)
        assert waits(optimizer) is (name == "lionar")


def check_all_ranks_say_the_same(_: Path) -> None:
    """Of a tensor whose parts, or what is to be added up, are bad on rank 1 only."""
    mesh = init_device_mesh("cpu", (2,))
    for placement in (Shard(0), Partial()):
        for bad in (1.0, math.inf):
            part = torch.tensor([1.0, bad if dist.get_rank() == 1 else 2.0])
            tensor = DTensor.from_local(part, mesh, [placement])
            assert bool(all_finite(torch.ones(()), tensor)) is math.isfinite(bad)
