"""Accelerate needs no code of ours: its optimizer is followed, its checkpoints carry the step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import groundup as gu
from tests.residual.toy import PATTERNS, Net

accelerate = pytest.importorskip("accelerate")
ROWS = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def _fresh_state() -> Iterator[None]:
    """Accelerators of one process share their state."""
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.state.GradientState._reset_state()
    yield
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.state.GradientState._reset_state()


def made(**settings: Any) -> tuple[Any, Any, Any, gu.Warmup]:
    torch.manual_seed(0)
    accelerator = accelerate.Accelerator(cpu=True, **settings)
    net: Any = Net()
    optimizer: Any = torch.optim.AdamW(net.parameters(), lr=0.01)
    net, optimizer = accelerator.prepare(net, optimizer)
    return accelerator, net, optimizer, gu.attach(net, gu.depth.linear(T=3), branches=PATTERNS)


def train(accelerator: Any, net: Any, optimizer: Any, batches: int) -> list[float]:
    losses = []
    for _ in range(batches):
        with accelerator.accumulate(net):
            loss = (net(ROWS) - 1).square().mean()
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def test_accumulated_batches_are_one_update() -> None:
    accelerator, net, optimizer, warmup = made(gradient_accumulation_steps=4)
    warmup.follow(optimizer)
    train(accelerator, net, optimizer, 7)
    assert warmup.updates == 1
    train(accelerator, net, optimizer, 1)
    assert warmup.updates == 2


@pytest.mark.parametrize("follow", [True, False])
def test_load_state_goes_on_exactly(tmp_path: Path, follow: bool) -> None:
    """Followed, the step is in the optimizer; counted by hand, the warmup is registered."""

    def begin() -> tuple[Any, Any, Any, gu.Warmup]:
        accelerator, net, optimizer, warmup = made()
        if follow:
            warmup.follow(optimizer)
        else:
            accelerator.register_for_checkpointing(warmup)
        return accelerator, net, optimizer, warmup

    def run(accelerator: Any, net: Any, optimizer: Any, warmup: gu.Warmup, n: int) -> list[float]:
        losses = []
        for _ in range(n):
            losses += train(accelerator, net, optimizer, 1)
            if not follow:
                warmup.step()
        return losses

    first = begin()
    run(*first, 4)
    first[0].save_state(str(tmp_path))
    expected = run(*first, 10)
    second = begin()
    second[0].load_state(str(tmp_path))
    assert second[3].updates == 4
    assert run(*second, 10) == expected
    first[0].load_state(str(tmp_path))  # within the same process, too
    assert first[3].updates == 4
    assert run(*first, 10) == expected


def test_mixed_precision() -> None:
    accelerator, net, optimizer, warmup = made(mixed_precision="bf16")
    warmup.follow(optimizer)
    train(accelerator, net, optimizer, 5)
    assert warmup.updates == 5
