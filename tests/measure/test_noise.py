"""Estimates of signal and noise, against gradients whose signal and noise are known."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from groundup.measure import (
    cosine,
    momentum_noise,
    phi_from_momentum,
    split_by_momentum,
    two_batches,
)


def weights(beta: Fraction, n: int) -> list[Fraction]:
    """Of the gradients 1 … n in m̂_n, by the recursion itself."""
    found: list[Fraction] = []
    for _ in range(n):
        found = [beta * w for w in found] + [1 - beta]
    return [w / sum(found) for w in found]


@pytest.mark.parametrize("beta", [Fraction(0), Fraction(1, 2), Fraction(9, 10), Fraction(98, 100)])
@pytest.mark.parametrize("n", [1, 2, 3, 10, 40])
def test_k_n_is_the_sum_of_squared_weights(beta: Fraction, n: int) -> None:
    expected = sum(w * w for w in weights(beta, n))
    assert momentum_noise(float(beta), n) == pytest.approx(float(expected), rel=1e-13)
    tensor = momentum_noise(float(beta), torch.tensor(float(n), dtype=torch.float64))
    assert float(tensor) == pytest.approx(float(expected), rel=1e-13)


def test_k_n_goes_from_one_to_its_stationary_value() -> None:
    assert momentum_noise(0.9, 1) == pytest.approx(1.0)
    assert momentum_noise(0.9) == pytest.approx(0.1 / 1.9)
    assert momentum_noise(0.9, 400) == pytest.approx(momentum_noise(0.9), rel=1e-12)


positive = st.floats(1e-6, 1e6)


@given(positive, positive, st.integers(1, 100), st.integers(1, 100))
def test_two_batches_solve_their_equations(
    signal: float, variance: float, small: int, more: int
) -> None:
    big = small + more
    found = two_batches(signal + variance / small, signal + variance / big, small, big)
    scale = signal + variance / small
    assert found.signal == pytest.approx(signal, rel=1e-6, abs=1e-10 * scale * big)
    assert found.variance == pytest.approx(variance, rel=1e-6, abs=1e-10 * scale * big * small)


def test_two_batches_are_unbiased() -> None:
    """Monte Carlo: mean gradient of norm 0.3, single gradients with E‖g − ḡ‖² = 2."""
    draw = torch.Generator().manual_seed(0)
    d, runs, small, big = 20, 40_000, 2, 8
    mean = torch.full((d,), 0.3 / math.sqrt(d))
    examples = mean + math.sqrt(2 / d) * torch.randn(runs, big, d, generator=draw)
    small_sq = examples[:, :small].mean(1).square().sum(1)
    big_sq = examples.mean(1).square().sum(1)
    each = [two_batches(float(a), float(b), small, big) for a, b in zip(small_sq, big_sq)]  # noqa: B905
    signal = torch.tensor([e.signal for e in each])
    variance = torch.tensor([e.variance for e in each])
    for values, expected in ((signal, 0.09), (variance, 2.0)):
        error = float(values.std()) / math.sqrt(runs)
        assert abs(float(values.mean()) - expected) < 4 * error
        assert 4 * error < 0.05 * expected + 0.005


def test_two_batches_clamp_phi_only() -> None:
    below = two_batches(2.0, 0.5, 1, 2)
    assert below.signal == -1.0
    assert below.phi == 0.0
    assert two_batches(1.0, 2.0, 1, 2).phi == math.inf
    assert two_batches(5.0, 2.0, 1, 4).phi == pytest.approx(0.25)


def products(
    n: int, phi: float, batch: int, beta: float = 0.9, growth: float = 1.0
) -> dict[str, torch.Tensor]:
    """Of many runs, with the recursion of an optimizer: ‖m̂_(n−1)‖², ⟨m̂_(n−1), g_n⟩, ‖g_n‖² and
    ‖m̂_n‖². σ² = 1; the mean is `growth` times as long with each update, √φ at the last."""
    d, runs = 16, 4000
    draw = torch.Generator().manual_seed(n)
    sigma = 1 / math.sqrt(d * batch)
    m = torch.zeros(runs, d, dtype=torch.float64)
    for i in range(1, n + 1):
        length = math.sqrt(phi) * growth ** (i - n)
        noise = torch.randn(runs, d, generator=draw, dtype=torch.float64)
        g = length / math.sqrt(d) + sigma * noise
        before, m = m / (1 - beta ** (i - 1) if i > 1 else 1), beta * m + (1 - beta) * g
    return {
        "before": before.square().sum(1),
        "dot": (before * g).sum(1),
        "gradient": g.square().sum(1),
        "after": (m / (1 - beta**n)).square().sum(1),
    }


@pytest.mark.parametrize("n", [2, 3, 5, 10, 100])
@pytest.mark.parametrize("phi", [0.0, 0.01, 1.0])
def test_norms_give_back_a_known_phi(n: int, phi: float) -> None:
    batch = 8
    found = products(n, phi, batch)
    m_sq, g_sq = found["after"], found["gradient"]
    ratio = float(m_sq.mean() / g_sq.mean())
    # The error of r, by the delta method, carried over to B·φ.
    spread = float((m_sq - ratio * g_sq).std() / g_sq.mean()) / math.sqrt(len(m_sq))
    error = spread * (1 - momentum_noise(0.9, n)) / (1 - ratio) ** 2
    assert abs(phi_from_momentum(ratio, 0.9, n, batch) - phi) * batch < 4 * error
    assert 4 * error < 0.25 * (1 + batch * phi)


@pytest.mark.parametrize("growth", [0.9, 1.0, 1.1])
@pytest.mark.parametrize("n", [2, 3, 5, 10, 100])
@pytest.mark.parametrize("phi", [0.0, 0.01, 1.0])
def test_products_give_back_a_known_phi_while_the_gradient_changes(
    n: int, phi: float, growth: float
) -> None:
    batch, beta = 8, 0.9
    found = {
        key: float(value.mean()) for key, value in products(n, phi, batch, growth=growth).items()
    }
    noise = split_by_momentum(found["before"], found["dot"], found["gradient"], beta, n, batch)
    weights = [(1 - beta) * beta ** (n - 1 - i) / (1 - beta ** (n - 1)) for i in range(1, n)]
    length = sum(w * growth ** (i - n) for i, w in enumerate(weights, start=1))
    signal = phi * length**2  # of the momentum
    # Products over 4000 runs of 16 coordinates are exact to 1/√64000, that of the noise to more.
    assert noise.variance == pytest.approx(1.0, abs=0.03)
    assert noise.signal == pytest.approx(signal, abs=0.012 / batch + 0.02 * signal)
    assert noise.phi == pytest.approx(noise.signal / noise.variance)


def test_a_shrinking_gradient_misleads_the_norms() -> None:
    """The reason for the longer way."""
    found = {key: float(v.mean()) for key, v in products(100, 1.0, 8, growth=0.97).items()}
    assert phi_from_momentum(found["after"] / found["gradient"], 0.9, 100, 8) > 5.0
    noise = split_by_momentum(found["before"], found["dot"], found["gradient"], 0.9, 100, 8)
    # That of the momentum, some ten updates ago: (Σ 0.1·0.9^(j−1)·0.97^−j)².
    assert noise.phi == pytest.approx((0.1 / 0.97 / (1 - 0.9 / 0.97)) ** 2, rel=0.05)


fractions = st.floats(1e-3, 1e3)


@given(fractions, fractions, fractions, st.integers(2, 200), st.sampled_from([0.5, 0.9, 0.98]))
def test_split_solves_its_equations(s: float, t: float, noise: float, n: int, beta: float) -> None:
    """A = s² + k·N, D = s·t, G = t² + N for any s, t, N: they are what comes back."""
    k = momentum_noise(beta, n - 1)
    found = split_by_momentum(s * s + k * noise, s * t, t * t + noise, beta, n, 4)
    scale = s * s + k * noise + k * (t * t + noise)
    assert found.signal == pytest.approx(s * s, rel=1e-9, abs=1e-9 * scale)
    assert found.variance / 4 == pytest.approx(noise, rel=1e-6, abs=1e-9 * scale / k)


def test_split_at_its_ends() -> None:
    k = momentum_noise(0.9, 4)
    assert split_by_momentum(4.0, 6.0, 9.0, 0.9, 5, 8).phi == math.inf
    assert split_by_momentum(k, 0.0, 1.0, 0.9, 5, 8).phi == pytest.approx(0.0, abs=1e-12)
    assert split_by_momentum(k, -0.1, 1.0, 0.9, 5, 8).phi == pytest.approx(0.0, abs=1e-12)
    assert split_by_momentum(0.5 * k, 0.0, 1.0, 0.9, 5, 8).signal == 0.0


def test_norms_at_their_ends() -> None:
    k = momentum_noise(0.9, 7)
    assert phi_from_momentum(k, 0.9, 7, 4) == 0.0
    assert phi_from_momentum(k / 2, 0.9, 7, 4) == 0.0
    assert phi_from_momentum(1.0, 0.9, 7, 4) == math.inf
    assert phi_from_momentum(3.0, 0.9, 7, 4) == math.inf
    assert math.isnan(phi_from_momentum(0.7, 0.9, 1, 4))


def test_cosine() -> None:
    a, b = torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.tensor([[2.0, 0.0], [5.0, 2.0]])
    assert float(cosine(a, b)) == pytest.approx(4 / math.sqrt(6 * 33), rel=1e-14)
    assert float(cosine(a, -3 * a)) == pytest.approx(-1.0)
    assert cosine(a, torch.zeros(2, 2)).isnan()


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        ("big=2.*above small=2", lambda: two_batches(1.0, 1.0, 2, 2)),
        ("small=0", lambda: two_batches(1.0, 1.0, 0, 2)),
        ("big_sq=-1", lambda: two_batches(1.0, -1.0, 1, 2)),
        ("beta=1", lambda: momentum_noise(1.0, 2)),
        ("beta=0 ", lambda: phi_from_momentum(0.5, 0.0, 2, 8)),
        ("batch_size=0", lambda: phi_from_momentum(0.5, 0.9, 2, 0)),
        ("n=0", lambda: phi_from_momentum(0.5, 0.9, 0, 8)),
        ("n=1 .*2 or more", lambda: split_by_momentum(1.0, 0.0, 1.0, 0.9, 1, 8)),
        ("beta=0 ", lambda: split_by_momentum(1.0, 0.0, 1.0, 0.0, 3, 8)),
        ("gradient_sq=inf", lambda: split_by_momentum(1.0, 0.0, math.inf, 0.9, 3, 8)),
        ("ratio=nan", lambda: phi_from_momentum(math.nan, 0.9, 3, 8)),
        (r"b has shape \[3\]", lambda: cosine(torch.ones(2), torch.ones(3))),
    ],
)
def test_refuses(message: str, wrong) -> None:
    with pytest.raises(ValueError, match=message):
        wrong()
