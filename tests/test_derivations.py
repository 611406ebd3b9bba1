"""The simulations of docs/derivations.md: what is derived there, seen to happen.

``python -m tests.test_derivations`` prints the numbers of that page.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

import groundup as gu
from groundup.measure import (
    alignment,
    momentum_noise,
    phi_from_momentum,
    representation_change,
    split_by_momentum,
    two_batches,
)
from groundup.optim import RRC
from groundup.optim.bias import momentum_rms


def rms(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt())


# ---------------------------------------------------------------------- steps of LionA


def steps_under_noise(
    make: Callable[[list[nn.Parameter]], torch.optim.Optimizer], updates: int
) -> float:
    """RMS of the last update per unit of the rate, 20 000 weights with independent gradients."""
    draw = torch.Generator().manual_seed(0)
    w = nn.Parameter(torch.zeros(20_000))
    optimizer = make([w])
    for _ in range(updates):
        w.grad = 0.3 * torch.randn(w.shape, generator=draw)
        before = w.detach().clone()
        optimizer.step()
    return rms(w.detach() - before) / optimizer.param_groups[0]["lr"]


def lengths(beta: float) -> dict[str, float]:
    """AdamW's and LionA's update, and the scale s."""
    betas, updates = (beta, 0.998), 600
    return {
        "AdamW": steps_under_noise(
            lambda p: torch.optim.AdamW(p, lr=1.0, betas=betas, weight_decay=0.0), updates
        ),
        "LionA": steps_under_noise(
            lambda p: gu.optim.LionA(p, lr=1.0, beta=beta, weight_decay=0.0), 3
        ),
        "s": math.sqrt((1 - beta) / (1 + beta)),
    }


@pytest.mark.parametrize("beta", [0.9, 0.98])
def test_liona_steps_are_as_long_as_those_of_adamw(beta: float) -> None:
    found = lengths(beta)
    assert found["LionA"] == pytest.approx(found["s"], rel=1e-4)
    assert found["AdamW"] == pytest.approx(found["s"], rel=0.02)


def nesterov_length(beta: float) -> float:
    """RMS of β·m + (1 − β)·g of gradients of RMS 1."""
    draw = torch.Generator().manual_seed(1)
    m = torch.zeros(20_000)
    for _ in range(int(5 / (1 - beta))):
        g = torch.randn(m.shape, generator=draw)
        m = beta * m + (1 - beta) * g
    return rms(beta * m + (1 - beta) * g)


@pytest.mark.parametrize("beta", [0.9, 0.98])
def test_nesterov_steps(beta: float) -> None:
    assert nesterov_length(beta) == pytest.approx(momentum_rms(beta, nesterov=True), rel=0.02)


# ---------------------------------------------------------------------- angle of LionAR


def sign_correlation(beta: float) -> float:
    """1 + 2·Σ (2/π)·asin(βʲ): what an update of LionA, its sequels counted, adds to ‖w‖²."""
    return 1 + 2 * sum(2 / math.pi * math.asin(beta**j) for j in range(1, 5000))


def turns_of_liona(beta: float, lr: float = 0.02, decay: float = 0.5) -> float:
    """RMS angle of rows in equilibrium over √(2·lr·λ)·s: noise orthogonal to the rows."""
    draw = torch.Generator().manual_seed(2)
    w = nn.Parameter(0.1 * torch.randn(32, 256, generator=draw))
    optimizer = gu.optim.LionA([w], lr=lr, beta=beta, weight_decay=decay)
    found = []
    for update in range(800):
        g = torch.randn(w.shape, generator=draw)
        unit = w.detach() / w.detach().norm(dim=1, keepdim=True)
        w.grad = g - unit * (unit * g).sum(1, keepdim=True)
        before = w.detach().clone()
        optimizer.step()
        if update >= 500:
            found.append(gu.measure.row_angles(before, w.detach()))
    return rms(torch.stack(found)) / (math.sqrt(2 * lr * decay) * momentum_rms(beta))


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_equilibrium_of_liona_itself(beta: float) -> None:
    """It turns a little faster than LionAR: signs forget sooner than the momentum."""
    expected = 1 / math.sqrt(momentum_rms(beta) ** 2 * sign_correlation(beta))
    assert turns_of_liona(beta) == pytest.approx(expected, rel=0.03)
    assert expected >= 1 - 1e-9


# ---------------------------------------------------------------------- a young momentum


def momenta(beta: float, updates: int, signal: float) -> Iterator[tuple[int, Tensor, Tensor]]:
    """n, g and m of 100 000 coordinates: noise of RMS 1 and a mean of RMS √signal."""
    draw = torch.Generator().manual_seed(3)
    mean = math.sqrt(signal) * torch.randn(100_000, generator=draw)
    m = torch.zeros_like(mean)
    for n in range(1, updates + 1):
        g = mean + torch.randn(mean.shape, generator=draw)
        m = beta * m + (1 - beta) * g
        yield n, g, m


def test_length_of_a_young_momentum() -> None:
    beta = 0.9
    for n, _, m in momenta(beta, 30, signal=0.0):
        expected = math.sqrt(1 - beta ** (2 * n)) * momentum_rms(beta)
        assert rms(m) == pytest.approx(expected, rel=0.02)
        # The noise of the corrected one: k_n.
        assert rms(m / (1 - beta**n)) ** 2 == pytest.approx(momentum_noise(beta, n), rel=0.02)
    for n, g, m in momenta(beta, 30, signal=1e6):
        assert rms(m) / rms(g) == pytest.approx(1 - beta**n, rel=0.01)


# ---------------------------------------------------------------------- signal and noise


def estimates(phi: float, updates: int, shrink: float = 1.0) -> dict[str, float]:
    """φ of the last update, estimated: B = 32, β = 0.9, 50 000 coordinates, the mean `shrink` times
    as long with each update. Two batches (4 and 32) are averaged over the last 20."""
    draw = torch.Generator().manual_seed(4)
    d, batch, small = 50_000, 32, 4
    direction = torch.nn.functional.normalize(torch.randn(d, generator=draw), dim=0)
    m = torch.zeros(d)
    squares = []
    for n in range(1, updates + 1):
        mean = math.sqrt(phi) * shrink ** (n - updates) * direction
        # The means of 4 examples and of the other 28; σ² = 1.
        first, rest = (
            mean + torch.randn(d, generator=draw) / math.sqrt(count * d)
            for count in (small, batch - small)
        )
        g = (small * first + (batch - small) * rest) / batch
        before, m = m / (1 - 0.9 ** (n - 1)) if n > 1 else m, 0.9 * m + 0.1 * g
        squares.append((float(first @ first), float(g @ g)))
    small_sq, big_sq = (sum(s) / len(s) for s in zip(*squares[-20:], strict=True))
    m_hat = m / (1 - 0.9**updates)
    split = split_by_momentum(
        float(before @ before), float(before @ g), float(g @ g), 0.9, updates, batch
    )
    return {
        "two batches": two_batches(small_sq, big_sq, small, batch).phi,
        "norms": phi_from_momentum(float((m_hat @ m_hat) / (g @ g)), 0.9, updates, batch),
        "split": split.phi,
    }


@pytest.mark.parametrize("phi", [0.003, 0.03, 0.3])
@pytest.mark.parametrize("updates", [2, 3, 5, 40])
def test_a_known_phi_is_found(phi: float, updates: int) -> None:
    found = estimates(phi, updates)
    for name, slack in (("two batches", 0.0004), ("norms", 0.0008), ("split", 0.0008)):
        assert found[name] == pytest.approx(phi, abs=slack, rel=0.08), name


def test_a_shrinking_gradient() -> None:
    """2% in an update: its norms alone make φ infinite, the split is late by a memory of
    momentum."""
    found = estimates(1.0, 100, shrink=0.98)
    lag = sum(0.1 * 0.9 ** (j - 1) * 0.98**-j for j in range(1, 99)) ** 2
    assert found["norms"] == math.inf
    assert found["split"] == pytest.approx(lag, rel=0.03)
    assert found["split"] < 1.6
    assert found["two batches"] < 1.6  # averaged over 20 updates


# ---------------------------------------------------------------------- alignment


def examples(
    f: float, batch: int, d: int, draw: torch.Generator, u: Tensor
) -> tuple[Tensor, Tensor]:
    """Inputs x and output gradients δ = ±1 of one unit: gradients δ·x of length 1, a share f of
    whose square is along u for all. φ = f/(1 − f)."""
    noise = torch.randn(batch, d, generator=draw) / math.sqrt(d)
    delta = torch.randint(0, 2, (batch, 1), generator=draw) * 2.0 - 1.0
    return delta * (math.sqrt(f) * u + math.sqrt(1 - f) * noise), delta


def aligned(
    phi: float, batch: int, beta: float, d: int, nesterov: bool = False, sign: bool = False
) -> float:
    """RMS over examples of |u·x| for an update u of length 1, after many updates."""
    draw = torch.Generator().manual_seed(5)
    u = torch.nn.functional.normalize(torch.randn(d, generator=draw), dim=0)
    m, found = torch.zeros(d), []
    updates = 1 if beta == 0 else int(3 / (1 - beta))
    for n in range(updates + 10):
        x, delta = examples(phi / (1 + phi), batch, d, draw, u)
        g = (delta * x).mean(0)
        m = beta * m + (1 - beta) * g
        along = beta * m + (1 - beta) * g if nesterov else m
        along = along.sign() if sign else along
        if n >= updates:
            found.append(x @ (along / along.norm()))
    return rms(torch.stack(found))


@pytest.mark.parametrize(("beta", "nesterov"), [(0.0, False), (0.9, False), (0.9, True)])
@pytest.mark.parametrize("phi", [0.0, 0.01, 0.1, 1.0])
def test_alignment_of_one_unit(beta: float, nesterov: bool, phi: float) -> None:
    found = aligned(phi, 16, beta, 16_384, nesterov)
    assert found == pytest.approx(alignment(phi, 16, beta, nesterov=nesterov), rel=0.04)


@pytest.mark.parametrize("phi", [0.0, 0.1, 1.0])
def test_alignment_of_a_sign(phi: float) -> None:
    found = aligned(phi, 16, 0.9, 16_384, sign=True)
    assert found == pytest.approx(math.sqrt(2 / math.pi) * alignment(phi, 16, 0.9), rel=0.04)


@pytest.mark.parametrize("d", [64, 256])
@pytest.mark.parametrize("phi", [0.0, 0.03, 0.3])
def test_alignment_does_not_fall_below_the_width(d: int, phi: float) -> None:
    found = aligned(phi, 128, 0.9, d)
    assert found == pytest.approx(alignment(phi, 128, 0.9, width=d), rel=0.05)
    if phi == 0.0:
        assert found > 1.5 * alignment(phi, 128, 0.9)


def many_units(phi: float, batch: int, units: int = 64, d: int = 4096) -> float:
    """The mean of ‖ΔW·x‖/(‖ΔW‖·‖x‖) over a(φ), one batch (β = 0): both the inputs x and the output
    gradients δ have a direction in common, in the same share."""
    draw = torch.Generator().manual_seed(6)
    share = math.sqrt(phi / (1 + phi))  # of x and of δ: that of δ·xᵀ is its square
    x = _with_a_mean(batch, d, share, draw)
    delta = _with_a_mean(batch, units, share, draw)
    update = delta.T @ x
    changes = (x @ update.T).norm(dim=1) / (update.norm() * x.norm(dim=1))
    return float(changes.mean()) / alignment(phi, batch)


def _with_a_mean(count: int, d: int, share: float, draw: torch.Generator) -> Tensor:
    mean = torch.nn.functional.normalize(torch.randn(d, generator=draw), dim=0)
    noise = torch.nn.functional.normalize(torch.randn(count, d, generator=draw), dim=1)
    return math.sqrt(share) * mean + math.sqrt(1 - share) * noise


@pytest.mark.parametrize("phi", [0.0, 0.01, 0.1, 1.0])
def test_alignment_of_many_units_is_a_lower_bound(phi: float) -> None:
    assert 0.97 < many_units(phi, 16) < 1.8


# ---------------------------------------------------------------------- RRC correction


UPDATES, PACE = 700, 150


def falling(update: int, pace: float = PACE) -> float:
    """φ, tenfold smaller every `pace` updates, from 10 to 0.0005 and no further."""
    return max(10.0 ** (1 - update / pace), 5e-4)


def changes(
    correct: str | None, batch: int = 32, d: int = 4096, width: float = math.inf, pace: float = PACE
) -> list[float]:
    """Relative representation changes of LionA's updates while φ falls: of one unit, on the
    examples of each update. One further input is 1, with a weight of 1, so that W·x is 1."""
    draw = torch.Generator().manual_seed(7)
    u = torch.nn.functional.normalize(torch.randn(d, generator=draw), dim=0)
    w = nn.Parameter(torch.zeros(1, d + 1, dtype=torch.float64))
    with torch.no_grad():
        w[0, 0] = 1.0
    optimizer = gu.optim.LionA([w], lr=1e-6, beta=0.9, weight_decay=0.0)
    rrc = None if correct is None else RRC(optimizer, batch_size=batch, phi=correct, width=width)
    found = []
    for update in range(UPDATES * int(pace) // PACE):
        phi = falling(update, pace)
        x, delta = examples(phi / (1 + phi), batch, d, draw, u)
        w.grad = torch.cat([torch.zeros(1), (delta * x).mean(0)])[None].double()
        if rrc is not None and correct == "given":
            rrc.observe(phi)
        before = w.detach().clone()
        optimizer.step()
        with torch.no_grad():
            inputs = torch.cat([torch.ones(batch, 1), x], 1).double()
            found.append(float(representation_change(before, w, inputs)))
            w[0, 1:] = 0.0
    return found


def last(found: list[float]) -> float:
    """The level that they come down to: the RMS of the last 20."""
    return rms(torch.tensor(found[-20:]))


def relative(found: list[float]) -> Tensor:
    """RMS of each 20 updates over that of the last ones."""
    parts = torch.tensor(found).split(20)
    return torch.stack([part.square().mean().sqrt() for part in parts]) / last(found)


def test_without_correction_changes_follow_the_alignment() -> None:
    found = changes(None, pace=75)
    assert found[0] > 10 * last(found)
    for update in (0, 40, 80, 120, 160, 200, 240):
        expected = alignment(falling(update, 75), 32, 0.9, n=update + 1) / alignment(5e-4, 32, 0.9)
        assert found[update] / last(found) == pytest.approx(expected, rel=0.12)


def test_correction_with_a_given_phi_keeps_them_constant() -> None:
    found = changes("given", pace=75)
    assert relative(found).sub(1).abs().max() < 0.1


def test_correction_from_the_momentum_keeps_them_constant() -> None:
    """It knows φ some ten updates late, and averages it over another ten."""
    found = changes("momentum")
    levels = relative(found)
    assert levels.min() > 0.8
    assert levels.max() < 1.1


def test_a_narrow_layer_is_corrected_too_much_unless_its_width_is_given() -> None:
    plain, told = (changes("given", 128, 64, width, pace=75) for width in (math.inf, 64))
    assert plain[0] < 0.3 * last(plain)
    # A sign is aligned by √(2/π) less, but no less by chance: what remains.
    assert told[0] / last(told) == pytest.approx(math.sqrt(2 / math.pi), rel=0.1)


def print_numbers() -> None:
    """The numbers of docs/derivations.md, section by section."""
    torch.set_num_threads(1)
    for beta in (0.9, 0.98):
        print("1", beta, lengths(beta), nesterov_length(beta), momentum_rms(beta, nesterov=True))
    for beta in (0.0, 0.9):
        bound = 1 / math.sqrt(momentum_rms(beta) ** 2 * sign_correlation(beta))
        print("2", beta, turns_of_liona(beta), bound)
    for n, _, m in momenta(0.9, 30, 0.0):
        if n in (1, 2, 5, 10, 30):
            k, length = momentum_noise(0.9, n), math.sqrt(1 - 0.9 ** (2 * n))
            print("3", n, rms(m) / momentum_rms(0.9), length, rms(m / (1 - 0.9**n)) ** 2, k)
    for n, g, m in momenta(0.9, 30, 1e6):
        if n in (1, 2, 5, 10, 30):
            print("3", n, rms(m) / rms(g), 1 - 0.9**n)
    for phi in (0.003, 0.03, 0.3):
        for n in (2, 3, 5, 40):
            print("4", phi, n, estimates(phi, n))
    print("4 shrinking", estimates(1.0, 100, shrink=0.98))
    for phi in (0.0, 0.01, 0.1, 1.0):
        for beta, nesterov in ((0.0, False), (0.9, False), (0.9, True)):
            found = aligned(phi, 16, beta, 16_384, nesterov)
            print("5", phi, beta, nesterov, found, alignment(phi, 16, beta, nesterov=nesterov))
        sign = aligned(phi, 16, 0.9, 16_384, sign=True) / alignment(phi, 16, 0.9)
        print("5 sign", phi, sign, "many", many_units(phi, 16))
    for d in (64, 256):
        for phi in (0.0, 0.03, 0.3):
            both = [alignment(phi, 128, 0.9, width=w) for w in (d, math.inf)]
            print("5 width", d, phi, aligned(phi, 128, 0.9, d), both)
    for name in (None, "given", "momentum"):
        for pace in (25, 75, 150, 300):
            levels = relative(changes(name, pace=pace))
            some = [round(v, 2) for v in levels.tolist()[:: max(1, len(levels) // 12)]]
            print("6", name, pace, some, float(levels.min()), float(levels.max()))
    for width in (math.inf, 64):
        found = changes("given", 128, 64, width, pace=75)
        print("6 narrow", width, found[0] / last(found))


if __name__ == "__main__":
    print_numbers()
