"""Checks of checkpoints that run on each of two ranks (see tests/residual/where)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from groundup.model import ModelConfig, Transformer
from groundup.optim import create, info, names
from groundup.train.checkpoint import CheckpointError, Checkpoints, manifest, places
from groundup.train.world import World

SHARDED = [name for name in names() if info(name).sharded]


def world() -> World:
    return World(dist.get_rank(), dist.get_world_size(), dist.get_rank(), _plain())


def _plain():
    if not _groups:
        _groups.append(dist.new_group(backend="gloo"))
    return _groups[0]


_groups: list = []


def tiny(seed: int, sharded: bool = False) -> nn.Module:
    """Rows that two do not divide."""
    torch.manual_seed(seed)
    model = Transformer(ModelConfig(layers=1, width=6, heads=1, vocab_size=9))
    if sharded:
        for layer in model.layers:
            fully_shard(layer)
        fully_shard(model)
    return model


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    """With gradients that depend on the step alone, the same for all ranks and one process."""
    for step in steps:
        draw = torch.Generator().manual_seed(step)
        for p in model.parameters():
            grad = torch.randn(p.shape, generator=draw)
            if isinstance(p, DTensor):
                grad = distribute_tensor(grad, p.device_mesh, p.placements)
            p.grad = grad
        optimizer.step()
    optimizer.zero_grad()


def whole(value: object) -> object:
    if isinstance(value, DTensor):
        return value.full_tensor().detach().clone()
    return value.detach().clone() if isinstance(value, Tensor) else value


def everything(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, object]:
    """Weights, state and settings, whole and under names."""
    found: dict[str, object] = {name: whole(p) for name, p in model.state_dict().items()}
    for name, p in model.named_parameters():
        for key, value in optimizer.state.get(p, {}).items():
            found[f"{name} {key}"] = whole(value)
    for number, group in enumerate(optimizer.param_groups):
        for key, value in group.items():
            # Which kernel is taken is decided anew; torch adds "differentiable" in loading.
            if key not in ("params", "fused", "foreach", "differentiable"):
                found[f"{number} {key}"] = whole(value)
    return found


def assert_same(found: dict[str, object], expected: dict[str, object]) -> None:
    differ = found.keys() ^ expected.keys()
    assert not differ, differ
    for name, value in expected.items():
        if isinstance(value, Tensor):
            assert found[name].dtype == value.dtype, name
            assert torch.equal(found[name], value), name
        else:
            assert found[name] == value, name


def check_every_optimizer_from_fsdp_to_anything(folder: Path) -> None:
    """The other way of a process by itself is in test_checkpoint_ranks.py."""
    for name in SHARDED:
        model = tiny(0, sharded=True)
        optimizer = create(name, model)
        train(model, optimizer, range(2))
        expected = everything(model, optimizer)
        checkpoints = Checkpoints(folder / "fsdp" / name, world(), 2)
        checkpoints.save(2, model, optimizer, {"of": name})
        train(model, optimizer, range(2, 3))
        after = everything(model, optimizer)
        checkpoints.wait()
        if dist.get_rank() == 0:
            torch.save([expected, after], folder / f"{name}.pt")
        for sharded in (True, False):
            other = tiny(1, sharded)
            its = create(name, other)
            step, state = checkpoints.resume(other, its, _never)
            assert (step, state["of"]) == (2, name)
            assert_same(everything(other, its), expected)
            train(other, its, range(2, 3))
            if sharded:
                assert_same(everything(other, its), after)
        checkpoints.close()


def check_from_ddp_to_fsdp(folder: Path) -> None:
    for name in ("adamw", "sgd", "muon", "lionar"):
        model = tiny(0)
        optimizer = create(name, model)
        train(model, optimizer, range(2))
        checkpoints = Checkpoints(folder / "ddp" / name, world(), 2)
        checkpoints.save(2, model, optimizer, {})
        checkpoints.wait()
        place = places.place_of(checkpoints.folder, 2)
        sizes = [entry.size for file, entry in manifest.load(place).items() if "distcp" in file]
        assert len(sizes) == 2
        assert min(sizes) > 0.4 * max(sizes)  # each writes half
        other = tiny(1, sharded=True)
        its = create(name, other)
        checkpoints.resume(other, its, _never)
        assert_same(everything(other, its), everything(model, optimizer))
        for m, o in ((model, optimizer), (other, its)):
            train(m, o, range(2, 3))
        checkpoints.close()


def check_shards_that_are_empty_and_replicas(folder: Path) -> None:
    """One row on two ranks; and HSDP, where each of two processes holds all."""
    for shape in ((2,), (2, 1)):
        found = []
        folder_ = folder / f"mesh{len(shape)}"
        for seed in (0, 1):
            torch.manual_seed(seed)
            model = nn.Sequential(nn.Linear(6, 7), nn.Linear(7, 1), nn.LayerNorm(1))
            dims = ("replicate", "shard")[-len(shape) :]
            fully_shard(model, mesh=init_device_mesh("cpu", shape, mesh_dim_names=dims))
            optimizer = torch.optim.AdamW(model.parameters())
            checkpoints = Checkpoints(folder_, world(), 2)
            if seed == 0:
                train(model, optimizer, range(2))
                checkpoints.save(2, model, optimizer, {})
                checkpoints.wait()
            else:
                checkpoints.resume(model, optimizer, _never)
            found.append(everything(model, optimizer))
            checkpoints.close()
        assert_same(found[1], found[0])
        sizes = [
            e.size for n, e in manifest.load(places.place_of(folder_, 2)).items() if n[0] == "_"
        ]
        assert min(sizes) > 0.2 * max(sizes)


def check_after_a_forward_pass_that_left_weights_whole(folder: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2))
    fully_shard(model, reshard_after_forward=False)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(3, 4)).sum().backward()
    optimizer.step()
    with torch.no_grad():
        model(torch.randn(3, 4))
    checkpoints = Checkpoints(folder / "whole", world(), 2)
    checkpoints.save(1, model, optimizer, {})
    checkpoints.wait()
    expected = everything(model, optimizer)
    train(model, optimizer, range(1))
    checkpoints.resume(model, optimizer, _never)
    assert_same(everything(model, optimizer), expected)
    checkpoints.close()


def check_training_goes_on_with_collectives_of_its_own(folder: Path) -> None:
    """While a checkpoint is written the main thread sums, on the default group and on `plain`;
    what is saved is what was there when it began."""
    here = world()
    model = nn.Linear(200, 200)
    optimizer = torch.optim.AdamW(model.parameters())
    train(model, optimizer, range(1))
    checkpoints = Checkpoints(folder / "background", here, 2)
    for step in range(1, 4):
        expected = everything(model, optimizer)
        checkpoints.save(step, model, optimizer, {"step of the caller": step})
        turns, writing = 0, True
        while writing or turns < 5:
            with torch.no_grad():
                for p in [*model.parameters(), *optimizer.state[model.weight].values()]:
                    p.add_(1)
            total = torch.ones(1000)
            dist.all_reduce(total)
            assert total.eq(2).all()
            writing = not all(here.gather(checkpoints._writing.done()))
            turns += 1
        checkpoints.wait()
        other = nn.Linear(200, 200)
        its = torch.optim.AdamW(other.parameters())
        reader = Checkpoints(folder / "background", here, 2)
        assert reader.resume(other, its, _never)[0] == step
        assert_same(everything(other, its), expected)
        reader.close()
    checkpoints.close()


def check_all_decide_alike(folder: Path) -> None:
    """What one rank cannot read or write all do without."""
    here = world()
    model = nn.Linear(30, 30)
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoints = Checkpoints(folder / "alike", here, 5)
    for step in (1, 2, 3):
        train(model, optimizer, range(step, step + 1))
        checkpoints.save(step, model, optimizer, {})
    checkpoints.wait()
    if here.main:
        path = folder / "alike" / "step-00000003" / "__1_0.distcp"
        path.write_bytes(path.read_bytes()[:-1])
    here.barrier()
    digest = manifest.entry

    def failing(path: Path):
        if here.rank == 1 and path.parent.name == "step-00000002":
            raise OSError(5, "Input/output error")
        return digest(path)

    notes: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "entry", failing)
        assert checkpoints.resume(model, optimizer, notes.append)[0] == 1
    assert len(notes) == (2 if here.main else 0)
    assert checkpoints.steps() == [1]
    for name in ("step-00000003.damaged", "step-00000002.unreadable"):
        assert (folder / "alike" / name).is_dir()

    def full(self, plan, planner):
        raise OSError(28, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        if here.rank == 1:
            patch.setattr("groundup.train.checkpoint.checkpoints.FileSystemWriter.write_data", full)
        checkpoints.save(4, model, optimizer, {})
        with pytest.raises(CheckpointError, match=r"updates to .*alike failed: .*No space left"):
            checkpoints.wait()
    assert checkpoints.steps() == [1]
    here.barrier()
    assert not list((folder / "alike").glob(".*"))
    here.barrier()  # the next one begins a folder of that kind
    for _ in range(2):  # there already, it stays
        checkpoints.save(4, model, optimizer, {})
    checkpoints.close()
    assert checkpoints.steps() == [1, 4]
    with pytest.raises(CheckpointError, match="is of another model: bias"):
        Checkpoints(folder / "alike", here, 5).resume(nn.Linear(3, 3), optimizer, _never)
    assert json.loads((folder / "alike" / "step-00000004" / "state.json").read_text())["step"] == 4


def _never(note: str) -> None:
    raise AssertionError(note)
