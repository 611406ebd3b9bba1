"""DDP, FSDP2, distributed checkpoints and tensor parallelism, on two processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch.distributed as dist

from tests.residual.where import ranks
from tests.residual.where.models import net

pytestmark = pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(), reason="no gloo"
)

CHECKS = "tests.residual.where.on_two_ranks"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def outcomes(folder: Path) -> dict[str, str]:
    return ranks.run(CHECKS, folder)


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
