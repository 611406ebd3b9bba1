"""DDP, FSDP2, distributed checkpoints and tensor parallelism, on two processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.residual.where import ranks
from tests.residual.where.models import net

CHECKS = "tests.residual.where.on_two_ranks"


@pytest.mark.parametrize("name", ranks.names(CHECKS))
def test_on_two_ranks(name: str, outcomes: dict[str, str]) -> None:
    assert not outcomes[name], outcomes[name]


@pytest.mark.parametrize("flat", [False, True])
def test_what_two_ranks_saved_is_resumed_by_one_process(
    flat: bool, folder: Path, outcomes: dict[str, str]
) -> None:
    from tests.residual.where.on_two_ranks import resume

    losses = json.loads((folder / "losses.json").read_text())
    assert resume(net(seed=5), folder, flat) == pytest.approx(losses, rel=1e-5)
