"""A fixture for tests that count graphs; a module imports it for itself."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def fresh_compiler() -> Iterator[None]:
    """No graphs of tests before, none left for those after."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
