"""Checkpoints written on one number of processes and read on another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from groundup.optim import create
from groundup.train.checkpoint import Checkpoints
from groundup.train.world import ALONE
from tests.residual.where.pairs import folder, outcomes  # noqa: F401
from tests.residual.where.ranks import names
from tests.train.checkpoints_on_two_ranks import SHARDED, assert_same, everything, tiny, train

CHECKS = "tests.train.checkpoints_on_two_ranks"


@pytest.mark.parametrize("check", names(CHECKS))
def test_on_two_ranks(check: str, outcomes: dict[str, str]) -> None:  # noqa: F811
    assert outcomes[check] == "", outcomes[check]


@pytest.mark.parametrize("name", SHARDED)
def test_from_two_ranks_of_fsdp_to_one_process(
    name: str,
    outcomes: dict[str, str],  # noqa: F811
    folder: Path,  # noqa: F811
) -> None:
    assert outcomes["check_every_optimizer_from_fsdp_to_anything"] == ""
    expected, after = torch.load(folder / f"{name}.pt", weights_only=False)
    model = tiny(1)
    optimizer = create(name, model)
    checkpoints = Checkpoints(folder / "fsdp" / name, ALONE, 2)
    notes: list[str] = []
    assert checkpoints.resume(model, optimizer, notes.append)[0] == 2
    checkpoints.close()
    assert notes == []
    assert_same(everything(model, optimizer), expected)
    train(model, optimizer, range(2, 3))
    # Of Newton-Schulz in bfloat16 over shards the rounding is another.
    near = {"rtol": 1e-2, "atol": 1e-3} if name == "muon" else {}
    for key, value in everything(model, optimizer).items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(value, after[key], **near)
