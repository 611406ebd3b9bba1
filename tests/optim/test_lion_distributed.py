"""LionA, LionAR and AdamW under FSDP2 and tensor parallelism, on two processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.optim.lion_on_two_ranks import MAKERS, by_one_process, net, resume
from tests.residual.where import ranks

CHECKS = "tests.optim.lion_on_two_ranks"


@pytest.mark.parametrize("name", ranks.names(CHECKS))
def test_on_two_ranks(name: str, outcomes: dict[str, str]) -> None:
    assert not outcomes[name], outcomes[name]


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("name", MAKERS)
def test_what_two_ranks_saved_is_resumed_by_one_process(
    name: str, folder: Path, outcomes: dict[str, str]
) -> None:
    model = resume(net(), MAKERS[name], folder / name)
    for p, q in zip(model.parameters(), by_one_process(MAKERS[name]), strict=True):
        torch.testing.assert_close(p, q)
