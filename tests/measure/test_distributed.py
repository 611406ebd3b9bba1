"""Measurements and the RRC correction under FSDP2, on two processes."""

from __future__ import annotations

import pytest
import torch.distributed as dist

from tests.residual.where import ranks

pytestmark = pytest.mark.skipif(
    not dist.is_available() or not dist.is_gloo_available(), reason="no gloo"
)

CHECKS = "tests.measure.on_two_ranks"


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return ranks.run(CHECKS, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("name", ranks.names(CHECKS))
def test_on_two_ranks(name: str, outcomes: dict[str, str]) -> None:
    assert not outcomes[name], outcomes[name]
