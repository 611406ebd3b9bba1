"""Factors against the same schedules of other libraries.

transformers counts n = step, our ``start="zero"``; pytorch_warmup counts n = step + 1, as we do.
torch's own schedulers multiply up from the value before, which costs them some digits.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as torch_schedules

from groundup.schedules import factor as F
from groundup.schedules.chain import Factor
from groundup.schedules.segments import rectification

N = 300


def optimizer(beta2: float = 0.999) -> torch.optim.Optimizer:
    return torch.optim.Adam([torch.zeros(1, requires_grad=True)], lr=1.0, betas=(0.9, beta2))


def rates(make: Callable[[torch.optim.Optimizer], Any], steps: int = N) -> list[float]:
    """The rates of the updates 0…steps−1 under a torch scheduler, at a base rate of 1."""
    opt = optimizer()
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's about the missing optimizer.step()
        scheduler = make(opt)
        for _ in range(steps):
            found.append(opt.param_groups[0]["lr"])
            scheduler.step()
    return found


def curve(f: Factor, steps: int = N) -> list[float]:
    return [f(step, steps=steps) for step in range(steps)]


ZERO: Any = {"start": "zero"}
# transformers' function, its arguments, ours, and whether every bit is the same.
TRANSFORMERS: list[tuple[str, dict[str, Any], Factor, bool]] = [
    ("constant_schedule", {}, F.hold(), True),
    (
        "constant_schedule_with_warmup",
        {"num_warmup_steps": 37},
        F.linear(37, **ZERO) >> F.hold(),
        True,
    ),
    (
        "linear_schedule_with_warmup",
        {"num_warmup_steps": 37, "num_training_steps": N},
        F.linear(37, **ZERO) >> F.decay("linear"),
        True,
    ),
    (
        "cosine_schedule_with_warmup",
        {"num_warmup_steps": 37, "num_training_steps": N},
        F.linear(37, **ZERO) >> F.decay("cosine"),
        False,
    ),
    (
        # With more than one cycle the rate jumps back to its peak, which no chain does.
        "cosine_with_hard_restarts_schedule_with_warmup",
        {"num_warmup_steps": 37, "num_training_steps": N, "num_cycles": 1},
        F.linear(37, **ZERO) >> F.decay("cosine"),
        False,
    ),
    (
        "polynomial_decay_schedule_with_warmup",
        {"num_warmup_steps": 37, "num_training_steps": N, "lr_end": 0.125, "power": 1.0},
        F.linear(37, **ZERO) >> F.decay("linear", floor=0.125),
        False,
    ),
    ("inverse_sqrt_schedule", {"num_warmup_steps": 37}, F.noam(37, **ZERO), False),
    (
        "inverse_sqrt_schedule",
        {"num_warmup_steps": 37, "timescale": 100},
        F.linear(37, **ZERO) >> F.inverse_sqrt(100, **ZERO),
        False,
    ),
    (
        "cosine_with_min_lr_schedule_with_warmup",
        {"num_warmup_steps": 37, "num_training_steps": N, "min_lr_rate": 0.1},
        F.linear(37, **ZERO) >> F.decay("cosine", floor=0.1),
        False,
    ),
    *[
        (
            "wsd_schedule",
            {
                "num_warmup_steps": 37,
                "num_decay_steps": 60,
                "num_training_steps": N,
                "warmup_type": rise,
                "decay_type": fall,
                "min_lr_ratio": 0.1,
            },
            warmup(37, initial=0.1, **ZERO) >> F.hold() >> F.decay(shape, 60, 0.1),
            False,
        )
        for rise, warmup in (("linear", F.linear), ("cosine", F.cosine))
        for fall, shape in (("linear", "linear"), ("cosine", "cosine"), ("1-sqrt", "sqrt"))
    ],
]


@pytest.mark.parametrize(
    ("name", "arguments", "ours", "bits"), [pytest.param(*row, id=row[0]) for row in TRANSFORMERS]
)
def test_transformers(name: str, arguments: dict[str, Any], ours: Factor, bits: bool) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = rates(lambda opt: getattr(transformers, f"get_{name}")(opt, **arguments))
    if bits:
        assert curve(ours) == theirs
    else:
        assert curve(ours) == pytest.approx(theirs, rel=1e-12, abs=1e-15)


def test_transformers_cosine_with_a_warmup_rate() -> None:
    """Its warmup rises as ours, (n − 1)/(W − 1); its decay is one update further than ours."""
    transformers = pytest.importorskip("transformers")
    theirs = rates(
        lambda opt: transformers.get_scheduler(
            "cosine_warmup_with_min_lr",
            opt,
            num_warmup_steps=37,
            num_training_steps=N,
            scheduler_specific_kwargs={"min_lr_rate": 0.1, "warmup_lr_rate": 0.2},
        )
    )
    warmup = F.linear(36, initial=0.2, start="zero") >> F.hold(1)
    assert curve(warmup)[:37] == pytest.approx(theirs[:37], rel=1e-12)
    ours = curve(F.hold(36) >> F.decay("cosine", N - 37, floor=0.1))
    assert ours[37:] == pytest.approx(theirs[37:], rel=1e-12)


S = torch_schedules
TORCH: dict[str, tuple[Callable[[torch.optim.Optimizer], Any], Factor]] = {
    "StepLR": (lambda opt: S.StepLR(opt, 40, 0.5), F.step_decay(0.5, every=40)),
    "MultiStepLR": (
        lambda opt: S.MultiStepLR(opt, [50, 51, 200], 0.3),
        F.step_decay(0.3, at=(50, 51, 200)),
    ),
    "ExponentialLR": (
        lambda opt: S.ExponentialLR(opt, 0.99),
        F.decay("exponential", N, floor=0.99**N),
    ),
    "CosineAnnealingLR": (
        lambda opt: S.CosineAnnealingLR(opt, N, eta_min=0.1),
        F.decay("cosine", floor=0.1),
    ),
    "LinearLR": (
        lambda opt: S.LinearLR(opt, start_factor=0.25, total_iters=60),
        F.linear(60, initial=0.25, start="zero"),
    ),
    "LinearLR, falling": (
        lambda opt: S.LinearLR(opt, start_factor=1.0, end_factor=0.25, total_iters=60),
        F.decay("linear", 60, floor=0.25),
    ),
    "ConstantLR": (lambda opt: S.ConstantLR(opt, factor=0.3, total_iters=20), F.constant(20, 0.3)),
    "PolynomialLR": (lambda opt: S.PolynomialLR(opt, total_iters=N), F.decay("linear")),
    "SequentialLR": (
        lambda opt: S.SequentialLR(
            opt,
            [S.LinearLR(opt, 0.1, total_iters=30), S.CosineAnnealingLR(opt, N - 30)],
            milestones=[30],
        ),
        F.linear(30, initial=0.1, start="zero") >> F.decay("cosine"),
    ),
    "ChainedScheduler": (
        lambda opt: S.ChainedScheduler(
            [S.LinearLR(opt, 0.1, total_iters=30), S.StepLR(opt, 100, 0.5)]
        ),
        F.linear(30, initial=0.1, start="zero") * F.step_decay(0.5, every=100),
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_torch(name: str) -> None:
    make, ours = TORCH[name]
    assert curve(ours) == pytest.approx(rates(make), rel=1e-11, abs=1e-13)


def warmed_up(name: str, beta2: float, steps: int, *arguments: int) -> list[float]:
    """The factors of pytorch_warmup's class of that name, as it puts them into an optimizer."""
    pytorch_warmup = pytest.importorskip("pytorch_warmup")
    opt = optimizer(beta2)
    scheduler = getattr(pytorch_warmup, name)(opt, *arguments)
    found = []
    for _ in range(steps):
        found.append(opt.param_groups[0]["lr"])
        with scheduler.dampening():
            pass
    return found


@pytest.mark.parametrize("W", [1, 7, 200])
def test_pytorch_warmup(W: int) -> None:
    assert curve(F.linear(W)) == warmed_up("LinearWarmup", 0.999, N, W)
    assert curve(F.exponential(W)) == pytest.approx(
        warmed_up("ExponentialWarmup", 0.999, N, W), rel=1e-12
    )


@pytest.mark.parametrize(
    ("beta2", "theirs", "ours"),
    [(0.5, 4, 4), (0.95, 39, 40), (0.99, 199, 200), (0.999, 1999, 2000)],
)
def test_pytorch_warmups_untuned_linear_loses_an_update(
    beta2: float, theirs: int, ours: int
) -> None:
    """int(2/(1 − β₂)) cuts what floats make of it: 2/(1 − 0.999) = 1999.9999999999982."""
    assert int(2.0 / (1.0 - beta2)) == theirs
    assert F.untuned_length(beta2) == ours == round(2 / (1 - Fraction(str(beta2))))
    factors = warmed_up("UntunedLinearWarmup", beta2, 2100)
    assert factors == curve(F.linear(theirs), 2100)
    assert factors == pytest.approx(curve(F.untuned_linear(beta2), 2100), rel=1.001 / theirs)


@pytest.mark.parametrize(
    ("beta2", "tau"), [(0.5, 2), (0.9, 10), (0.95, 19), (0.99, 99), (0.999, 999)]
)
def test_pytorch_warmups_untuned_exponential_is_cut_too(beta2: float, tau: int) -> None:
    """Its τ = int(1/(1 − β₂)); ours is not rounded at all."""
    theirs = warmed_up("UntunedExponentialWarmup", beta2, 2100)
    assert theirs == pytest.approx(curve(F.exponential(tau), 2100), rel=1e-12)
    ours = curve(F.untuned_exponential(beta2), 2100)
    assert ours == pytest.approx(theirs, rel=1.01 * abs(1 - tau * (1 - beta2)) + 1e-12)


@pytest.mark.parametrize("beta2", [0.7, 0.9, 0.95, 0.98, 0.999, 0.9999])
def test_pytorch_warmups_radam(beta2: float) -> None:
    # Near ρ = 4 the difference has lost digits, theirs more than ours.
    theirs = warmed_up("RAdamWarmup", beta2, 3000)
    assert curve(F.radam(beta2), 3000) == pytest.approx(theirs, rel=1e-7)


@pytest.mark.parametrize("beta2", [0.9, 0.95, 0.999])
def test_the_steps_of_torchs_own_radam(beta2: float) -> None:
    """With β₁ = 0, ε = 0 and a gradient of 1 an update of Adam is lr, one of RAdam lr·rₙ.

    While ρₙ ≤ 5 torch's takes a step lr·m̂ = lr instead; our warmup begins at the first ρₙ > 4.
    """
    weight = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    radam = torch.optim.RAdam([weight], lr=1.0, betas=(0.0, beta2), eps=0.0)
    moved = []
    for _ in range(400):
        weight.grad = torch.ones_like(weight)
        before = weight.item()
        radam.step()
        moved.append(before - weight.item())
    limit = 2 / (1 - beta2) - 1
    rho = [limit - 2 * n * beta2**n / (1 - beta2**n) for n in range(1, 401)]
    first = next(i for i, value in enumerate(rho) if value > 5)
    shift = next(i for i, value in enumerate(rho) if value > 4)
    assert shift < first
    assert moved[:first] == [1.0] * first
    assert [F.radam(beta2)(i - shift) for i in range(first, 400)] == pytest.approx(
        moved[first:], rel=1e-9
    )
    assert [rectification(i + 1, beta2) for i in range(first, 400)] == pytest.approx(
        moved[first:], rel=1e-9
    )


def test_pytorch_warmups_dampening_is_a_product() -> None:
    """Their warmup over torch's cosine: factors multiplied, not joined."""
    pytorch_warmup = pytest.importorskip("pytorch_warmup")
    opt = optimizer()
    cosine = torch_schedules.CosineAnnealingLR(opt, N)
    warmup = pytorch_warmup.LinearWarmup(opt, 50)
    theirs = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(N):
            theirs.append(opt.param_groups[0]["lr"])
            with warmup.dampening():
                cosine.step()
    ours = F.linear(50) * F.decay("cosine")
    assert curve(ours) == pytest.approx(theirs, rel=1e-9, abs=1e-13)
    assert ours(99, steps=N) == pytest.approx((1 + math.cos(math.pi * 99 / N)) / 2)
