"""Gradient scalers: an update that is skipped after an overflow does not move α."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from tests.residual.where.models import FINISHED, alphas, attach, inputs, net

OVERFLOW = float("inf")
OPTIMIZERS = {
    "AdamW fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "AdamW foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
    "AdamW loop": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=False),
    "SGD fused": lambda p: torch.optim.SGD(p, lr=0.01, fused=True),
    "SGD foreach": lambda p: torch.optim.SGD(p, lr=0.01, foreach=True),
    "Adagrad fused": lambda p: torch.optim.Adagrad(p, lr=0.01, fused=True),
}


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("unscaled", [False, True], ids=["step", "unscale, clip, step"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_skipped_update_is_not_counted(name: str, unscaled: bool) -> None:
    model = net()
    warmup = attach(model)
    optimizer = OPTIMIZERS[name](model.parameters())
    warmup.follow(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    counted = 0
    # The first, one between, two in a row, and one after the warmup has finished.
    for factor in (OVERFLOW, 1.0, 1.0, OVERFLOW, OVERFLOW, *[1.0] * FINISHED, OVERFLOW):
        before = model.stem.weight.clone()
        scaler.scale(model(inputs()).sum() * factor).backward()
        if unscaled:
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        counted += factor != OVERFLOW
        assert torch.equal(model.stem.weight, before) is (factor == OVERFLOW)
        assert warmup.updates == counted
        assert torch.equal(warmup.alphas(), torch.tensor(alphas(counted)))
    assert warmup.finished


@pytest.mark.parametrize("fused", [True, False])
def test_two_optimizers_one_overflows(fused: bool) -> None:
    """The scaler judges each optimizer by its own gradients; the followed one decides."""
    model = net()
    followed = torch.optim.AdamW(model.layers.parameters(), fused=fused)
    other = torch.optim.AdamW(model.stem.parameters(), fused=fused)
    warmup = attach(model)
    warmup.follow(followed)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    overflows: list[tuple[Callable, int]] = [
        (lambda: model.stem.weight, 1),
        (lambda: model.layers[0].mix.out.weight, 1),
        (lambda: None, 2),
    ]
    for where, counted in overflows:
        scaler.scale(model(inputs()).sum()).backward()
        if (parameter := where()) is not None:
            parameter.grad[0, 0] = OVERFLOW
        for optimizer in (followed, other):
            scaler.step(optimizer)
            optimizer.zero_grad()
        scaler.update()
        assert warmup.updates == counted


def test_a_scaler_that_is_switched_off_counts_every_update() -> None:
    model = net()
    warmup = attach(model)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    warmup.follow(optimizer)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    for _ in range(3):
        scaler.scale(model(inputs()).sum()).backward()
        scaler.step(optimizer)
        scaler.update()
    assert warmup.updates == 3
