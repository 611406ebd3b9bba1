"""Checks of the rotational optimizers that run on each of two ranks (see tests/residual/where)."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from groundup.optim.lion import LionAR
from groundup.optim.rotational import RotationalAdamW, RotationalSGD
from tests.optim.loading import Maker, loaded

MAKERS: list[Maker] = [
    lambda params: RotationalAdamW(params, lr=0.02),
    lambda params: RotationalAdamW(params, lr=0.02, foreach=True),
    lambda params: RotationalSGD(params, lr=0.02, weight_decay=0.1, nesterov=True),
]


def net() -> nn.Module:
    """Seven rows and three: not the same number on both ranks."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, 3), nn.LayerNorm(3))


def batch(step: int) -> Tensor:
    return torch.randn(8, 6, generator=torch.Generator().manual_seed(step))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    sharded = isinstance(next(model.parameters()), DTensor)
    for step in steps:
        x = batch(step)
        if sharded:
            x = x.chunk(dist.get_world_size())[dist.get_rank()]
        model(x)[:, 0].square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def assert_close(model: nn.Module, plain: nn.Module) -> None:
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(p.full_tensor(), q, rtol=1e-4, atol=1e-5)


def check_fsdp_equals_one_process(_: Path) -> None:
    for make in MAKERS:
        plain, model = net(), net()
        fully_shard(model[0])
        fully_shard(model)
        train(plain, make(plain.parameters()), range(10))
        train(model, make(model.parameters()), range(10))
        assert_close(model, plain)


def check_sharded_within_rows_equals_one_process(_: Path) -> None:
    lion: Maker = lambda params: LionAR(params, lr=0.02)  # noqa: E731
    mesh = init_device_mesh("cpu", (2,))
    for make, at in itertools.product([*MAKERS, lion], (1, 0)):
        g = torch.Generator().manual_seed(0)
        whole = [torch.randn(5, 6, generator=g) for _ in range(2)]
        plain = nn.ParameterList(whole)
        model = nn.ParameterList(
            [nn.Parameter(distribute_tensor(w.clone(), mesh, [Shard(at)])) for w in whole]
        )
        ours, theirs = (
            make([{"params": list(kind.parameters()), "out_dim": 1 - at}])
            for kind in (model, plain)
        )
        for step in range(10):
            for p, q in zip(plain, model, strict=True):
                p.grad = torch.randn(5, 6, generator=g)
                p.grad.select(1 - at, 2).mul_(step > 3)
                q.grad = distribute_tensor(p.grad, mesh, [Shard(at)])
            ours.step()
            theirs.step()
        assert_close(model, plain)


def check_a_checkpoint_goes_on(folder: Path) -> None:
    for i, make in enumerate(MAKERS):
        model = fully_shard(net())
        optimizer = make(model.parameters())
        train(model, optimizer, range(5))
        weights, state = get_state_dict(model, optimizer)
        dcp.save({"model": weights, "optimizer": state}, checkpoint_id=folder / str(i))
        train(model, optimizer, range(5, 10))
        ends = [p.full_tensor().detach() for p in model.parameters()]
        if dist.get_rank() == 0:
            torch.save(ends, folder / f"{i}.pt")
        resumed = resume(fully_shard(net()), make, folder / str(i))
        for p, q in zip(model.parameters(), resumed.parameters(), strict=True):
            assert torch.equal(p.to_local(), q.to_local())


def resume(model: nn.Module, make: Maker, checkpoint: Path) -> nn.Module:
    train(model, loaded(model, make, checkpoint), range(5, 10))
    return model


def check_row_state_is_dealt_as_the_rows_are(_: Path) -> None:
    model = fully_shard(net())
    optimizer = MAKERS[0](model.parameters())
    train(model, optimizer, range(2))
    norms = copy.deepcopy(optimizer.state[model[0].weight]["row_norm"])
    assert norms.shape == (7, 1)
    assert norms.placements == model[0].weight.placements
    torch.testing.assert_close(norms.full_tensor(), net()[0].weight.norm(dim=1, keepdim=True))
