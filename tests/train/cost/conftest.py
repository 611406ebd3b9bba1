"""Plans are of a GPU; what they are compared with runs on a CPU, and is to do the same."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from groundup.model import head_loss


@pytest.fixture(autouse=True, scope="package")
def loss_as_on_a_gpu() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(head_loss, "WHOLE", set())
        yield
