from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.optim.bias import (
    BIAS_CORRECTIONS,
    check_bias_correction,
    momentum_scale,
    scale_of_usual,
)

BETAS = st.fractions(0, Fraction(999, 1000), max_denominator=1000)
STEPS = st.integers(1, 60)


def momentum(beta: Fraction, gradients: list[int]) -> Fraction:
    m = Fraction(0)
    for g in gradients:
        m = beta * m + (1 - beta) * g
    return m


@given(beta=BETAS, n=STEPS)
def test_against_a_momentum_of_equal_gradients(beta: Fraction, n: int) -> None:
    """In exact fractions: m is 1 − βⁿ then, which the usual correction makes 1."""
    m = momentum(beta, [1] * n)
    b = float(beta)
    assert momentum_scale("usual", b, n) == pytest.approx(float(1 / m), rel=1e-12)
    assert momentum_scale("inverse", b, n) == pytest.approx(float(m), rel=1e-12)
    assert momentum_scale("none", b, n) == 1.0


@given(beta=BETAS, n=STEPS)
def test_against_the_square_of_a_momentum_of_uncorrelated_gradients(beta: Fraction, n: int) -> None:
    """E m² is the sum of what each gradient alone leaves, squared."""
    squares = sum(momentum(beta, [0] * i + [1] + [0] * (n - 1 - i)) ** 2 for i in range(n))
    stationary = (1 - beta) / (1 + beta)
    found = momentum_scale("inverse-sqrt", float(beta), n)
    assert found == pytest.approx(math.sqrt(squares / stationary), rel=1e-12)


@given(beta=st.floats(0, 1 - 1e-9), n=st.integers(1, 10**6), name=st.sampled_from(BIAS_CORRECTIONS))
def test_bounds_and_limits(beta: float, n: int, name: str) -> None:
    now, later = momentum_scale(name, beta, n), momentum_scale(name, beta, n + 1)
    assert 0 < now < math.inf
    if name == "usual":
        assert now >= later >= 1
    else:
        assert now <= later <= 1
    if n * (1 - beta) > 40:
        assert now == pytest.approx(1, rel=1e-15)


@given(beta=BETAS, n=STEPS, name=st.sampled_from(BIAS_CORRECTIONS))
@settings(deadline=None)
def test_tensors_are_as_exact_as_float32_is(beta: Fraction, n: int, name: str) -> None:
    wanted = momentum_scale(name, float(beta), float(n))
    found = momentum_scale(name, float(beta), torch.tensor([float(n)]))
    assert float(found) == pytest.approx(wanted, rel=1e-6)


@given(beta=BETAS, n=STEPS, name=st.sampled_from(BIAS_CORRECTIONS))
def test_scale_of_usual(beta: Fraction, n: int, name: str) -> None:
    wanted = momentum_scale(name, float(beta), n) / momentum_scale("usual", float(beta), n)
    assert scale_of_usual(name, float(beta), n) == pytest.approx(wanted, rel=1e-12)
    assert scale_of_usual("usual", float(beta), n) == 1.0


def test_near_one_no_digit_is_lost() -> None:
    beta = 1 - 2.0**-40
    assert momentum_scale("inverse", beta, 1) == pytest.approx(2.0**-40, rel=1e-12)


def test_names() -> None:
    for name in BIAS_CORRECTIONS:
        assert check_bias_correction(name) == name
    with pytest.raises(ValueError, match="bias_correction='invers' is unknown: did you mean"):
        check_bias_correction("invers")
