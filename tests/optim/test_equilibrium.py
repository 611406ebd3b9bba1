"""Equilibrium: torch's optimizers come to the angle that rotational ones have from the start.

The gradients are those of a weight in front of a normalization under pure noise: independent,
orthogonal to the row, and the smaller the longer the row is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from groundup.optim.rotational import RotationalAdamW, RotationalSGD, adamw_angle, sgd_angle
from tests.optim.test_rotation import between

ROWS, COLUMNS = 32, 256
ADAMW = {"lr": 0.01, "weight_decay": 0.5}
SGD = {"lr": 0.1, "weight_decay": 0.05}


def scale_invariant(w: Tensor, noise: Tensor) -> Tensor:
    norm = w.norm(dim=1, keepdim=True)
    unit = w / norm
    return (noise - unit * (unit * noise).sum(1, keepdim=True)) / norm


def angles(
    make: Callable[[list[Tensor]], torch.optim.Optimizer],
    steps: int,
    size: float,
    shared: float = 0.0,
    start: int = 0,
) -> Tensor:
    """[steps, rows] radians; `shared`: the part of the noise that 20 steps have in common."""
    g = torch.Generator().manual_seed(0)
    w = nn.Parameter(torch.randn(ROWS, COLUMNS, generator=g) * size)
    optimizer, turned = make([w]), []
    for step in range(steps):
        if step % 20 == 0:
            common = torch.randn(w.shape, generator=g)
        noise = torch.randn(w.shape, generator=g) * (1 - shared) ** 0.5 + common * shared**0.5
        w.grad = scale_invariant(w.detach(), noise) * (step >= start)
        before = w.detach().clone()
        optimizer.step()
        turned.append(between(before, w.detach()))
    return torch.stack(turned)


def rms(values: Tensor, dim: int) -> Tensor:
    return values.square().mean(dim).sqrt()


@pytest.mark.parametrize(
    ("size", "first"), [(0.02, 20.0), (1.0, 0.44)], ids=["from too short", "from too long"]
)
def test_adamw_comes_to_its_equilibrium(size: float, first: float) -> None:
    found = angles(lambda p: torch.optim.AdamW(p, betas=(0.9, 0.95), **ADAMW), 1500, size)
    relative = found / adamw_angle(**ADAMW)
    assert rms(relative[0], 0).item() == pytest.approx(first, rel=0.05)
    assert (rms(relative[900:], 0) - 1).abs().max() < 0.03


@pytest.mark.parametrize(
    ("momentum", "nesterov", "size"),
    [(0.9, False, 0.2), (0.9, False, 3.0), (0.0, False, 0.2), (0.9, True, 0.2), (0.5, True, 0.2)],
)
def test_sgd_comes_to_its_equilibrium(momentum: float, nesterov: bool, size: float) -> None:
    settings: dict[str, Any] = SGD | {"momentum": momentum, "nesterov": nesterov}
    relative = angles(lambda p: torch.optim.SGD(p, **settings), 1000, size)
    relative = relative / sgd_angle(**settings)
    assert not 0.7 < rms(relative[0], 0) < 1.4  # it starts far from it
    assert (rms(relative[500:], 0) - 1).abs().max() < 0.03


KINDS: dict[str, tuple[Callable[..., torch.optim.Optimizer], Callable[..., float], Any]] = {
    "adamw": (RotationalAdamW, adamw_angle, ADAMW),
    "sgd": (RotationalSGD, sgd_angle, SGD),
    "nesterov": (RotationalSGD, sgd_angle, SGD | {"nesterov": True}),
}


def of_equilibrium(kind: str, *args: Any, scale: float = 1.0, **more: Any) -> Tensor:
    """Angles of a rotational optimizer over that of the equilibrium, at `scale` times the rate."""
    cls, angle, settings = KINDS[kind]
    settings = settings | {"lr": settings["lr"] * scale}
    return angles(lambda p: cls(p, **settings), *args, **more) / angle(**settings)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0.02, 3.0])
@pytest.mark.parametrize("shared", [0.0, 0.5])
def test_rotational_ones_hold_it_from_the_start(kind: str, size: float, shared: float) -> None:
    relative = of_equilibrium(kind, 400, size, shared)
    assert (relative[0] - 1).abs().max() < 1e-3
    # The mean momentum of independent gradients shrinks at first, and its average follows.
    assert rms(relative[:50], 1).max() < 1.05
    assert rms(relative[:50], 1).min() > 0.6
    assert (rms(relative[60:], 0) - 1).abs().max() < 0.03


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_that_agree_turn_by_the_equilibrium_angle_at_once(kind: str) -> None:
    relative = of_equilibrium(kind, 15, 1.0, shared=1.0, scale=1e-3)  # so small that it stays
    assert (relative - 1).abs().max() < 5e-3


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_that_come_late_are_no_exception(kind: str) -> None:
    """Zero for 100 updates, as behind a residual branch at α = 0."""
    relative = of_equilibrium(kind, 300, 1.0, start=100)
    assert (relative[:100] == 0).all()
    assert (relative[100] - 1).abs().max() < 1e-3
    assert rms(relative[101:], 1).max() < 1.05
    assert (rms(relative[160:], 0) - 1).abs().max() < 0.03


def test_the_formulas() -> None:
    """Table of arXiv:2305.17212; Nesterov's against the sum over the weights of past gradients."""
    assert adamw_angle(1e-3, 0.1, 0.9) == pytest.approx((2e-4 / 19) ** 0.5)
    assert adamw_angle(1e-3, 0.1, 0.0) == pytest.approx(2e-4**0.5)
    assert sgd_angle(0.1, 5e-4, 0.9) == pytest.approx((1e-4 / 1.9) ** 0.5)
    for momentum in (0.0, 0.5, 0.9):
        weights = momentum ** torch.arange(1, 2000, dtype=torch.float64)
        weights[0] += 1.0
        share = weights.square().sum() / weights.sum() ** 2 / (1 - momentum)
        assert sgd_angle(0.1, 5e-4, momentum, True) ** 2 == pytest.approx(1e-4 * share.item())
