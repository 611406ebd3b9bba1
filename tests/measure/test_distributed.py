"""Measurements and the RRC correction under FSDP2, on two processes."""

from __future__ import annotations

import pytest

from tests.residual.where import ranks

CHECKS = "tests.measure.on_two_ranks"


@pytest.mark.parametrize("name", ranks.names(CHECKS))
def test_on_two_ranks(name: str, outcomes: dict[str, str]) -> None:
    assert not outcomes[name], outcomes[name]
