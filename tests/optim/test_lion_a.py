from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from groundup.optim.bias import momentum_rms
from groundup.optim.lion import LionA
from tests.optim import lion_loop


def gradients(shape: tuple[int, ...], steps: int, seed: int = 0) -> list[Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=draw) for _ in range(steps)]


def run(optimizer: torch.optim.Optimizer, w: Tensor, grads: list[Tensor]) -> Tensor:
    for g in grads:
        w.grad = g.clone()
        optimizer.step()
    return w.detach()


def parameter(*shape: int, seed: int = 1) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(seed)))


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.98])
@pytest.mark.parametrize("nesterov", [False, True])
def test_it_is_lion_but_for_the_scale(beta: float, nesterov: bool) -> None:
    """Lion(β, β), and with Nesterov momentum Lion(β², β)."""
    from pytorch_optimizer import Lion

    ours, theirs = parameter(7, 5), parameter(7, 5)
    grads, lr, decay = gradients((7, 5), 60), 1e-2, 0.3
    scale = lion_loop.size(beta, nesterov)
    betas = (beta**2 if nesterov else beta, beta)
    run(LionA([ours], lr, beta, decay, nesterov), ours, grads)
    run(
        Lion([theirs], lr=lr * scale, betas=betas, weight_decay=decay / scale, foreach=False),
        theirs,
        grads,
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("correction", ["none", "usual", "inverse", "inverse-sqrt"])
def test_it_is_the_float64_loop(nesterov: bool, correction: str) -> None:
    w, grads = parameter(7, 5), gradients((7, 5), 40)
    lrs = [1e-2 * (1 - i / 50) for i in range(40)]
    wanted = lion_loop.lion_a(
        w.detach().double().numpy(),
        [g.double().numpy() for g in grads],
        lrs,
        beta=0.95,
        weight_decay=0.3,
        nesterov=nesterov,
        bias_correction=correction,
        scale=0.7,
    )
    optimizer = LionA([w], 1.0, 0.95, 0.3, nesterov, correction)  # type: ignore[arg-type]
    optimizer.state[w]["update_scale"] = torch.tensor(0.7)
    for g, lr in zip(grads, lrs, strict=True):
        optimizer.param_groups[0]["lr"] = lr
        run(optimizer, w, [g])
    np.testing.assert_allclose(w.detach().numpy(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("beta", [0.5, 0.9, 0.98])
def test_its_steps_are_as_long_as_those_of_adamw(beta: float) -> None:
    """Under gradients that are independent from step to step, after the first updates."""
    grads = gradients((4000,), 1200)
    rms = {}
    for name in ("AdamW", "LionA"):
        w = parameter(4000)
        if name == "AdamW":
            optimizer: torch.optim.Optimizer = torch.optim.AdamW(
                [w], lr=1.0, betas=(beta, 0.999), weight_decay=0.0
            )
        else:
            optimizer = LionA([w], 1.0, beta, weight_decay=0.0)
        lengths = []
        for i, g in enumerate(grads):
            before = w.detach().clone()
            run(optimizer, w, [g])
            if i >= 1000:
                lengths.append((w.detach() - before).square().mean())
        rms[name] = torch.stack(lengths).mean().sqrt().item()
    assert rms["LionA"] == pytest.approx(rms["AdamW"], rel=0.01)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.98])
def test_momentum_rms(beta: float, nesterov: bool) -> None:
    assert momentum_rms(beta, nesterov) == pytest.approx(lion_loop.size(beta, nesterov), rel=1e-9)
    m, squares = torch.zeros(20_000), []
    for n, g in enumerate(gradients((20_000,), 400)):
        m = beta * m + (1 - beta) * g
        u = beta * m + (1 - beta) * g if nesterov else m
        if n >= 300:
            squares.append(u.square().mean().item())
    assert math.sqrt(np.mean(squares)) == pytest.approx(momentum_rms(beta, nesterov), rel=0.01)


def test_each_element_moves_by_the_same_from_the_first_update_on() -> None:
    w = parameter(100)
    optimizer = LionA([w], 1e-2, 0.9, weight_decay=0.0)
    for g in gradients((100,), 5):
        before = w.detach().clone()
        run(optimizer, w, [g * 1e-4])
        moved = (w.detach() - before).abs()
        torch.testing.assert_close(moved, torch.full_like(moved, 1e-2 * math.sqrt(0.1 / 1.9)),
                                   rtol=1e-4, atol=0)  # fmt: skip


def test_the_decay_is_not_scaled() -> None:
    w = nn.Parameter(torch.ones(3))
    optimizer = LionA([w], 0.1, weight_decay=0.5, bias_correction="inverse")
    optimizer.state[w]["update_scale"] = torch.tensor(0.1)
    run(optimizer, w, [torch.zeros(3)])  # the sign of 0 is 0
    torch.testing.assert_close(w.detach(), torch.full((3,), 0.95))
