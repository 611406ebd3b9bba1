"""What the tests of checkpoints share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from groundup.train.checkpoint import Checkpoints, manifest, places
from groundup.train.world import ALONE


def made(seed: int, updates: int = 3) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A small model after some updates, and its optimizer."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 8), nn.RMSNorm(8), nn.Linear(8, 2))
    groups = [{"params": model[0].parameters()}, {"params": [*model[1:].parameters()], "lr": 0.1}]
    optimizer = torch.optim.AdamW(groups, lr=0.01, fused=True)
    for _ in range(updates):
        update(model, optimizer)
    return model, optimizer


def update(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    model(torch.randn(5, 4)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def same(a: dict, b: dict) -> bool:
    """Keys, and values to the bit."""
    return a.keys() == b.keys() and all(
        torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype
        if isinstance(a[k], torch.Tensor)
        else a[k] == b[k]
        for k in a
    )


def saved(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any] | None = None,
    keep: int = 2,
) -> Path:
    """The folder of a checkpoint that is written."""
    checkpoints = Checkpoints(folder, ALONE, keep)
    checkpoints.save(step, model, optimizer, state or {})
    checkpoints.close()
    return places.place_of(folder, step)


def resumed(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[Any, list]:
    """What resuming gives, and what it says."""
    notes: list[str] = []
    checkpoints = Checkpoints(folder, ALONE, 2)
    try:
        return checkpoints.resume(model, optimizer, notes.append), notes
    finally:
        checkpoints.close()


def sign(place: Path) -> None:
    """Make the manifest agree with what is there, as who forges a checkpoint would."""
    names = [path.name for path in place.iterdir() if path.name != manifest.NAME]
    manifest.save(place, {name: manifest.entry(place / name) for name in names})


def as_of_old(place: Path) -> None:
    """Make it one of a groundup that wrote no manifests."""
    (place / manifest.NAME).unlink()
    state = json.loads((place / places.STATE).read_text())
    del state["format"]
    (place / places.STATE).write_text(json.dumps(state))
