"""Fixtures of a test module whose `CHECKS` names a module of checks for two ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch.distributed as dist

from tests.residual.where import ranks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the checks leave their files."""
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, folder: Path) -> dict[str, str]:
    """Of every check "", or what went wrong."""
    if not (dist.is_available() and dist.is_gloo_available()):
        pytest.skip("no gloo")
    return ranks.run(request.module.CHECKS, folder)
