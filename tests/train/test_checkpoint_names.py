"""What a checkpoint holds of models and optimizers of many kinds, under which names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.optim.swa_utils import AveragedModel

from groundup.optim import create, rrc
from groundup.optim.entries import ENTRIES
from groundup.residual import names
from tests.train.checkpoints import made, resumed, same, saved, update
from tests.train.checkpoints_on_two_ranks import assert_same, everything, tiny, train


@pytest.mark.parametrize("name", [entry.name for entry in ENTRIES])
def test_every_optimizer_of_the_table(tmp_path: Path, name: str) -> None:
    model = tiny(0)
    optimizer = create(name, model)
    train(model, optimizer, range(3))
    saved(tmp_path, 3, model, optimizer)
    other = tiny(1)
    its = create(name, other)
    assert resumed(tmp_path, other, its)[1] == []
    for _ in range(2):
        assert_same(everything(other, its), everything(model, optimizer))
        for m, o in ((model, optimizer), (other, its)):
            train(m, o, range(3, 5))


def wrapped(kind: str, seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    model, _ = made(seed, 0)
    if kind == "recomputed":
        model[0], model[2] = checkpoint_wrapper(model[0]), checkpoint_wrapper(model[2])
    elif kind == "compiled":
        model[0] = torch.compile(model[0], backend="eager")
    elif kind == "both":
        model[0] = torch.compile(checkpoint_wrapper(model[0]), backend="eager")
        model = torch.compile(model, backend="eager")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    return model, optimizer


@pytest.mark.parametrize("before", ["plain", "recomputed", "compiled", "both"])
@pytest.mark.parametrize("after", ["plain", "both"])
def test_wrappers_may_differ(tmp_path: Path, before: str, after: str) -> None:
    model, optimizer = wrapped(before, 0)
    torch.manual_seed(2)
    inner = model if before == "plain" else names.inside_wrappers(model)
    for p in inner.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()
    saved(tmp_path, 1, model, optimizer)
    other, its = wrapped(after, 1)
    resumed(tmp_path, other, its)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q)
        assert same(optimizer.state[p], its.state[q])


def test_a_module_that_is_called_module_keeps_its_name(tmp_path: Path) -> None:
    model = nn.ModuleDict({"module": nn.Linear(2, 2)})
    place = saved(tmp_path, 1, model, torch.optim.SGD(model.parameters()))
    assert b"model.module.weight" in (place / ".metadata").read_bytes()
    averaged = AveragedModel(model)
    resumed(tmp_path, averaged, torch.optim.SGD(averaged.parameters()))
    assert same(averaged.module.state_dict(), model.state_dict())


def test_shared_weights(tmp_path: Path) -> None:
    def tied(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        model[1].weight = model[0].weight
        optimizer = torch.optim.AdamW(model.parameters())
        update(model, optimizer)
        return model, optimizer

    model, optimizer = tied(0)
    saved(tmp_path, 1, model, optimizer)
    other, its = tied(1)
    resumed(tmp_path, other, its)
    assert other[0].weight is other[1].weight
    assert same(other.state_dict(), model.state_dict())
    assert same(its.state[other[0].weight], optimizer.state[model[0].weight])


def test_a_rate_that_is_a_tensor(tmp_path: Path) -> None:
    def make(rate: float) -> tuple[nn.Module, torch.optim.Optimizer]:
        model = nn.Linear(2, 2)
        return model, torch.optim.AdamW(model.parameters(), lr=torch.tensor(rate), foreach=False)

    saved(tmp_path, 1, *make(0.25))
    model, optimizer = make(0.5)
    rate = optimizer.param_groups[0]["lr"]
    resumed(tmp_path, model, optimizer)
    assert rate == 0.25
    # To a number and back.
    optimizer.param_groups[0]["lr"] = 0.125
    saved(tmp_path, 2, model, optimizer)
    model, optimizer = make(0.5)
    resumed(tmp_path, model, optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.125


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_correction_of_representation_change(tmp_path: Path, dtype: torch.dtype) -> None:
    """Its averages are float32 whatever the weights are."""

    def make(seed: int) -> tuple[nn.Module, torch.optim.Optimizer]:
        model = tiny(seed).to(dtype)
        optimizer = create("adamw", model)
        rrc.RRC(optimizer, batch_size=8)
        return model, optimizer

    def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
        draw = torch.Generator().manual_seed(seed)
        for p in model.parameters():
            p.grad = torch.randn(p.shape, generator=draw).to(dtype)
        optimizer.step()

    model, optimizer = make(0)
    for seed in range(3):
        step(model, optimizer, seed)
    saved(tmp_path, 3, model, optimizer)
    other, its = make(1)
    resumed(tmp_path, other, its)
    for seed in (3, 4):
        found = everything(other, its)
        assert any(key.endswith(" noise") for key in found)
        assert_same(found, everything(model, optimizer))
        for m, o in ((model, optimizer), (other, its)):
            step(m, o, seed)
