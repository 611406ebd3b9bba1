"""Checkpoints: exact, atomic, and no code is executed from them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from groundup.train import checkpoint
from groundup.train.checkpoint import CheckpointError


def made(seed: int, updates: int = 3) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.RMSNorm(8), nn.Linear(8, 2))
    groups = [{"params": model[0].parameters()}, {"params": [*model[1:].parameters()], "lr": 0.1}]
    optimizer = torch.optim.AdamW(groups, lr=0.01, fused=True)
    for _ in range(updates):
        model(torch.randn(5, 4)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("updates_before", [0, 2])
def test_everything_comes_back_to_the_bit(tmp_path: Path, updates_before: int) -> None:
    model, optimizer = made(0)
    checkpoint.save(tmp_path, 3, model, optimizer, {"wall_seconds": 1.5}, keep=2)
    other, other_optimizer = made(1, updates_before)
    state = checkpoint.load(tmp_path, 3, other, other_optimizer)
    assert (state["step"], state["wall_seconds"]) == (3, 1.5)
    assert same(model.state_dict(), other.state_dict())
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        assert same(optimizer.state[p], other_optimizer.state[q])
    x = torch.randn(5, 4)
    for m, o in ((model, optimizer), (other, other_optimizer)):
        m(x).square().sum().backward()
        o.step()
    assert same(model.state_dict(), other.state_dict())


def test_the_newest_are_kept_and_a_partial_one_is_never_taken(tmp_path: Path) -> None:
    model, optimizer = made(0)
    for step in (5, 10, 15):
        checkpoint.save(tmp_path, step, model, optimizer, {}, keep=2)
    assert checkpoint.steps_in(tmp_path) == [10, 15]
    (tmp_path / ".step-00000020.partial").mkdir()
    (tmp_path / ".step-00000020.partial" / "state.json").write_text("{")
    (tmp_path / "step-00000015.bak").mkdir()
    assert checkpoint.steps_in(tmp_path) == [10, 15]
    (tmp_path / "step-00000015.bak").rmdir()
    checkpoint.save(tmp_path, 20, model, optimizer, {}, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000015", "step-00000020"]


class _Evil:
    def __reduce__(self):
        return (Path.touch, (Path(self.target),))


def test_no_code_is_executed_from_metadata(tmp_path: Path) -> None:
    model, optimizer = made(0)
    place = checkpoint.save(tmp_path / "c", 3, model, optimizer, {}, keep=2)
    evil = _Evil()
    _Evil.target = str(tmp_path / "executed")
    (place / ".metadata").write_bytes(pickle.dumps(evil))
    with pytest.raises(CheckpointError, match="has no place in a checkpoint's metadata"):
        checkpoint.load(tmp_path / "c", 3, model, optimizer)
    assert not (tmp_path / "executed").exists()


def test_no_code_is_executed_from_tensors(tmp_path: Path) -> None:
    """Tensors are read with weights_only: a pickle in their place is refused."""
    model, optimizer = made(0)
    place = checkpoint.save(tmp_path / "c", 3, model, optimizer, {}, keep=2)
    _Evil.target = str(tmp_path / "executed")
    data = place / "__0_0.distcp"
    size = data.stat().st_size
    data.write_bytes(pickle.dumps(_Evil()).ljust(size, b"\0"))
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path / "c", 3, model, optimizer)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp", "state.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "garbled"])
def test_damage_is_named(tmp_path: Path, name: str, damage: str) -> None:
    model, optimizer = made(0)
    place = checkpoint.save(tmp_path, 3, model, optimizer, {}, keep=2)
    data = (place / name).read_bytes()
    if damage == "missing":
        (place / name).unlink()
    else:
        bad = data[: len(data) // 3] if damage == "truncated" else b"\x00" * len(data)
        (place / name).write_bytes(bad)
    with pytest.raises(CheckpointError, match="step-00000003 cannot be read"):
        checkpoint.load(tmp_path, 3, model, optimizer)


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    model, optimizer = made(0)
    checkpoint.save(tmp_path, 3, model, optimizer, {}, keep=2)
    other = nn.Sequential(nn.Linear(4, 9), nn.RMSNorm(9), nn.Linear(9, 2))
    with pytest.raises(CheckpointError):
        checkpoint.load(tmp_path, 3, other, None)


def test_metadata_holds_nothing_but_tensors_and_state_is_json(tmp_path: Path) -> None:
    model, optimizer = made(0)
    place = checkpoint.save(tmp_path, 3, model, optimizer, {"versions": {"a": "1"}}, keep=2)
    metadata = checkpoint._Reader(place).read_metadata()
    kinds = {type(value).__name__ for value in metadata.state_dict_metadata.values()}
    assert kinds == {"TensorStorageMetadata"}
    assert json.loads((place / "state.json").read_text())["versions"] == {"a": "1"}
