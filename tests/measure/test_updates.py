"""Sizes of updates, against closed forms and 60-digit arithmetic."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from groundup.measure import angle, relative_update, row_angles, update_norm


def decimals(t: Tensor) -> list[Decimal]:
    return [Decimal(float(v)) for v in t.double().flatten()]


def exact_norm(values: list[Decimal]) -> Decimal:
    return sum((v * v for v in values), Decimal(0)).sqrt()


def exact_angle(before: Tensor, after: Tensor) -> float:
    """2·asin(‖u − v‖/2) of the unit vectors, in 60 digits; the arc sine by its series."""
    with localcontext() as context:
        context.prec = 60
        a, b = decimals(before), decimals(after)
        na, nb = exact_norm(a), exact_norm(b)
        half = exact_norm([x / na - y / nb for x, y in zip(a, b, strict=True)]) / 2
        assert half < Decimal("0.2")
        term, total, n = half, half, 0
        while term > Decimal(10) ** -50:
            term *= half * half * (2 * n + 1) ** 2 / Decimal((2 * n + 2) * (2 * n + 3))
            total, n = total + term, n + 1
        return float(2 * total)


@pytest.mark.parametrize("shape", [(), (7,), (5, 9), (3, 4, 2, 2)])
def test_norms(shape: tuple[int, ...]) -> None:
    draw = torch.Generator().manual_seed(0)
    before = torch.randn(shape, generator=draw)
    after = before + 1e-3 * torch.randn(shape, generator=draw)
    delta = [b - a for a, b in zip(decimals(before), decimals(after), strict=True)]
    expected = float(exact_norm(delta))
    assert float(update_norm(before, after)) == pytest.approx(expected, rel=1e-14)
    assert float(relative_update(before, after)) == pytest.approx(
        expected / float(exact_norm(decimals(before))), rel=1e-13
    )


@pytest.mark.parametrize("degree", [0.0, 1e-9, 1e-7, 1e-4, 0.3, math.pi / 2, 3.0, math.pi])
def test_angle_of_a_turn(degree: float) -> None:
    before = torch.tensor([2.0, 0.0], dtype=torch.float64)
    after = 5.0 * torch.tensor([math.cos(degree), math.sin(degree)], dtype=torch.float64)
    assert float(angle(before, after)) == pytest.approx(degree, abs=5e-8, rel=1e-8)


@pytest.mark.parametrize("size", [1e-1, 1e-3, 1e-5, 1e-6])
def test_small_angles_of_float32_weights(size: float) -> None:
    draw = torch.Generator().manual_seed(1)
    before = 0.02 * torch.randn(6, 40, generator=draw)
    after = before + 0.02 * size * torch.randn(6, 40, generator=draw)
    # All of them: a cosine in float64 would lose half its digits at 1e-6, one in float32 all.
    expected = [exact_angle(b, a) for b, a in zip(before, after, strict=True)]
    assert row_angles(before, after).tolist() == pytest.approx(expected, rel=1e-10)
    assert float(angle(before, after)) == pytest.approx(exact_angle(before, after), rel=1e-10)


def test_a_change_of_length_alone_is_no_turn() -> None:
    before = torch.randn(4, 300, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    for factor in (1 - 1e-4, 1 + 1e-7, 2.0):
        change = abs(factor - 1)
        assert float(row_angles(before, before * factor).max()) <= 5e-8 * change + 1e-15


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.floats(-9, 0.5))
def test_angle_against_the_half_angle_formula(seed: int, exponent: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    before, step = torch.randn(2, 3, 5, generator=draw, dtype=torch.float64)
    after = before + 10**exponent * step
    u, v = before / before.norm(dim=1, keepdim=True), after / after.norm(dim=1, keepdim=True)
    expected = 2 * torch.atan2((u - v).norm(dim=1), (u + v).norm(dim=1))
    torch.testing.assert_close(row_angles(before, after), expected, rtol=1e-5, atol=1e-14)


def test_rows_are_worked_on_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(3)
    before, after = torch.randn(2, 11, 7, generator=draw)
    whole = row_angles(before, after), update_norm(before, after), angle(before, after)
    monkeypatch.setattr("groundup.measure._rows._CHUNK", 15)  # two rows at a time
    parts = row_angles(before, after), update_norm(before, after), angle(before, after)
    torch.testing.assert_close(parts, whole, rtol=1e-14, atol=0.0)


def test_where_no_angle_is_defined() -> None:
    before = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    after = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    found = row_angles(before, after)
    assert found.isnan().tolist() == [True, True, False]
    assert found[2] == 0.0
    zero = torch.zeros(3)
    assert angle(zero, zero).isnan()
    assert relative_update(zero, zero).isnan()
    assert relative_update(zero, torch.ones(3)).isinf()
    assert update_norm(zero, torch.ones(3)) == pytest.approx(math.sqrt(3))
    assert float(update_norm(torch.zeros(0, 3), torch.zeros(0, 3))) == 0.0


def test_bfloat16_weights_are_compared_exactly() -> None:
    before = torch.tensor([[1.0, 3.0]], dtype=torch.bfloat16)
    after = torch.tensor([[1.0078125, 3.0]], dtype=torch.bfloat16)
    assert float(update_norm(before, after)) == 0.0078125
    expected = math.atan2(3.0, 1.0) - math.atan2(3.0, 1.0078125)
    assert float(row_angles(before, after)) == pytest.approx(expected, rel=1e-12)


def test_it_takes_no_part_in_autograd() -> None:
    weight = torch.nn.Parameter(torch.ones(2, 2))
    assert not update_norm(weight, weight + 1).requires_grad


def test_refuses() -> None:
    with pytest.raises(ValueError, match=r"after has shape \[3\].*before, \[2\]"):
        update_norm(torch.ones(2), torch.ones(3))
    with pytest.raises(ValueError, match=r"before has shape \[2\].*two dimensions"):
        row_angles(torch.ones(2), torch.ones(2))
