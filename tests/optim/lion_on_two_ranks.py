"""Checks of LionA, LionAR and AdamW that run on each of two ranks (see tests/residual/where)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

from groundup.optim.adamw import AdamW
from groundup.optim.lion import LionA, LionAR
from groundup.optim.rows import dealt_like, local, placed_like, row_dots, row_norms, whole_rows
from tests.optim.loading import Maker, loaded

MAKERS: dict[str, Maker] = {
    "LionA": lambda params: LionA(params, lr=0.02, bias_correction="inverse", foreach=True),
    "LionAR": lambda params: LionAR(params, lr=0.02, nesterov=True),
    "LionAR foreach": lambda params: LionAR(params, lr=torch.tensor(0.02), foreach=True),
    "AdamW": lambda params: AdamW(params, lr=0.02, bias_correction="inverse"),
}


def net() -> nn.Sequential:
    """Seven rows and one: not as many on both ranks, or none at all."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 7), nn.Linear(7, 1), nn.LayerNorm(1))


def gradients(step: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(step)
    grads = [torch.randn(p.shape, generator=draw) for p in net().parameters()]
    grads[0][5] *= step > 3  # a row that moves later
    return grads


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    """With given gradients: rounding could turn a sign where ranks have added them up."""
    for step in steps:
        for p, g in zip(model.parameters(), gradients(step), strict=True):
            g = g.to(p.dtype)
            dealt = isinstance(p, DTensor)
            p.grad = distribute_tensor(g, p.device_mesh, p.placements) if dealt else g
        optimizer.step()


def wholes(model: nn.Module) -> list[Tensor]:
    return [p.full_tensor() if isinstance(p, DTensor) else p for p in model.parameters()]


def by_one_process(make: Maker, steps: int = 10) -> list[Tensor]:
    plain = net()
    train(plain, make(plain.parameters()), range(steps))
    return list(plain.parameters())


def check_fsdp_is_one_process(_: Path) -> None:
    for make in MAKERS.values():
        model = net()
        fully_shard(model[0])
        fully_shard(model)
        train(model, make(model.parameters()), range(10))
        for p, q in zip(wholes(model), by_one_process(make), strict=True):
            assert torch.equal(p, q)


def check_tensor_parallel_is_one_process(_: Path) -> None:
    """Sharded by rows and within rows; and inside FSDP, by either axis of two."""
    for shape in ((1, 2), (2, 1)):
        mesh = init_device_mesh("cpu", shape, mesh_dim_names=("data", "tensor"))
        for inside_fsdp in (False, True):
            for make in MAKERS.values():
                model = net()
                plan = {"0": ColwiseParallel(), "1": RowwiseParallel()}
                parallelize_module(model, mesh["tensor"], plan)
                if inside_fsdp:
                    fully_shard(model, mesh=mesh["data"])
                train(model, make(model.parameters()), range(10))
                for p, q in zip(wholes(model), by_one_process(make), strict=True):
                    torch.testing.assert_close(p, q)


def check_the_work_is_local_where_rows_are_whole(_: Path) -> None:
    mesh = init_device_mesh("cpu", (2,))
    w = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    for placement, is_local in ((Shard(0), True), (Replicate(), True), (Shard(1), False)):
        p = distribute_tensor(w, mesh, [placement])
        assert isinstance(whole_rows(p), DTensor) is not is_local
        assert whole_rows(p).data_ptr() == local(p).data_ptr() or not is_local
        assert row_norms(p).placements == ((placement,) if is_local else (Replicate(),))
        torch.testing.assert_close(row_norms(p).full_tensor(), w.norm(dim=1, keepdim=True))
        dots = row_dots(p, p).full_tensor()
        torch.testing.assert_close(dots, w.square().sum(1, keepdim=True))
        again = dealt_like(local(p), p)
        assert (again.shape, again.placements) == (p.shape, p.placements)
        assert torch.equal(again.full_tensor(), w)


def check_gradients_that_are_dealt_otherwise(_: Path) -> None:
    mesh = init_device_mesh("cpu", (2,))
    w = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    part = distribute_tensor(w, mesh, [Replicate()])
    summed = DTensor.from_local(w / 2, mesh, [Partial()])
    torch.testing.assert_close(placed_like(summed, part).to_local(), w)
    for make in (MAKERS["LionA"], MAKERS["LionAR"]):
        found = []
        for grad in (summed, part):
            p = nn.Parameter(distribute_tensor(w.clone(), mesh, [Shard(0)]))
            optimizer = make([p])
            p.grad = None
            # As tensor parallelism leaves it: assigned where .grad would not take it.
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(DTensor, "grad", grad, raising=False)
                optimizer.step()
            found.append(p.full_tensor())
        torch.testing.assert_close(*found)
        assert not torch.equal(found[0], w)


def check_norms_are_dealt_as_the_rows_are(_: Path) -> None:
    model = fully_shard(net())
    optimizer = LionAR(model.parameters())
    train(model, optimizer, range(2))
    norm = optimizer.state[model[0].weight]["norm"]
    assert norm.shape == (7, 1)
    assert norm.placements == model[0].weight.placements
    torch.testing.assert_close(norm.full_tensor(), net()[0].weight.norm(dim=1, keepdim=True))


def check_master_weights_are_dealt_too(_: Path) -> None:
    make = lambda params: LionAR(params, lr=0.02, master_weights=True)  # noqa: E731
    model = fully_shard(net().to(torch.bfloat16))
    optimizer = make(model.parameters())
    train(model, optimizer, range(5))
    plain = net().to(torch.bfloat16)
    train(plain, make(plain.parameters()), range(5))
    for p, q in zip(wholes(model), plain.parameters(), strict=True):
        assert torch.equal(p, q)
    assert optimizer.state[model[0].weight]["master"].dtype == torch.float32


def check_a_checkpoint_goes_on(folder: Path) -> None:
    for name, make in MAKERS.items():
        model = fully_shard(net())
        optimizer = make(model.parameters())
        train(model, optimizer, range(5))
        weights, state = get_state_dict(model, optimizer)
        dcp.save({"model": weights, "optimizer": state}, checkpoint_id=folder / name)
        resumed = resume(fully_shard(net()), make, folder / name)
        for p, q in zip(wholes(resumed), by_one_process(make), strict=True):
            torch.testing.assert_close(p, q)


def check_a_full_state_dict_goes_on(_: Path) -> None:
    options = StateDictOptions(full_state_dict=True)
    for make in MAKERS.values():
        model = fully_shard(net())
        optimizer = make(model.parameters())
        train(model, optimizer, range(5))
        weights, state = get_state_dict(model, optimizer, options=options)
        again = fully_shard(net())
        other = make(again.parameters())
        set_state_dict(
            again, other, model_state_dict=weights, optim_state_dict=state, options=options
        )
        train(again, other, range(5, 10))
        for p, q in zip(wholes(again), by_one_process(make), strict=True):
            torch.testing.assert_close(p, q)


def resume(model: nn.Module, make: Maker, checkpoint: Path) -> nn.Module:
    train(model, loaded(model, make, checkpoint), range(5, 10))
    return model
