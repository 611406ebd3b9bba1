"""The geometry: rows turned by an angle, against a float64 computation of it."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from groundup.optim.rotation import rotate_rows, tangent


def between(a: Tensor, b: Tensor) -> Tensor:
    """Angles between rows, in float64, also right for small ones."""
    a, b = (x.double().flatten(1) for x in (a, b))
    a, b = (x / x.norm(dim=1, keepdim=True) for x in (a, b))
    return 2 * torch.asin((a - b).norm(dim=1) / 2)


def close(found: Tensor, expected: Tensor | float, rtol: float, atol: float = 0.0) -> None:
    expected = torch.as_tensor(expected, dtype=torch.float64).expand(found.shape)
    torch.testing.assert_close(found.double(), expected, rtol=rtol, atol=atol)


def exactly(weight: Tensor, direction: Tensor, angle: float, norm: Tensor) -> Tensor:
    """In float64, in the plane of the row and its direction."""
    w, d = weight.double(), direction.double()
    first = w / w.norm(dim=1, keepdim=True)
    second = d - first * (first * d).sum(1, keepdim=True)
    second = second / second.norm(dim=1, keepdim=True)
    return norm.double() * (first * math.cos(angle) + second * math.sin(angle))


@pytest.mark.parametrize("angle", [1e-4, 1e-3, 1e-2, 1.0, -0.3])
def test_one_turn(angle: float) -> None:
    torch.manual_seed(0)
    w, d, norm = torch.randn(20, 300), torch.randn(20, 300), torch.rand(20, 1) + 0.5
    turned = rotate_rows(w, d, angle, norm)
    close(turned, exactly(w, d, angle, norm), rtol=0, atol=2e-7 * norm.max().item())
    close(between(w, turned), abs(angle), rtol=1e-3)


@pytest.mark.parametrize("at", [1, 2])
def test_rows_along_another_dimension(at: int) -> None:
    """Of [in, out], and of three dimensions: as if it were the first."""
    g = torch.Generator().manual_seed(0)
    shape = (7, 40) if at == 1 else (3, 30, 5)
    w, d = (torch.randn(shape, generator=g, dtype=torch.float64) for _ in range(2))
    angle = torch.rand(shape[at], generator=g).view([-1 if i == at else 1 for i in range(w.ndim)])
    turned = rotate_rows(w, d, angle, 2.0, at)
    first = [x.movedim(at, 0).contiguous() for x in (w, d, angle)]
    expected = rotate_rows(*first, 2.0).movedim(0, at)
    close(turned, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize(("angle", "steps"), [(1e-4, 4000), (1e-3, 2000), (1e-2, 2000)])
def test_thousands_of_small_turns(angle: float, steps: int) -> None:
    """Rounding neither eats small angles nor adds to them, and norms do not drift."""
    g = torch.Generator().manual_seed(1)
    w = torch.randn(16, 200, generator=g) * 0.02
    norm, exact = w.norm(dim=1, keepdim=True), w.double()
    steady = torch.randn(16, 200, generator=g)  # or errors of random directions would cancel
    total = torch.zeros(16, dtype=torch.float64)
    for _ in range(steps):
        d = torch.randn(16, 200, generator=g) + steady
        turned = rotate_rows(w, d, angle, norm)
        total += between(w, turned)
        w, exact = turned, exactly(exact, d, angle, norm)
    assert between(w, exact).max() < 2e-4
    close(total, angle * steps, rtol=2e-5)
    close(w.norm(dim=1, keepdim=True), norm.double(), rtol=3e-7)


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 5),
    inner=st.sampled_from([(2,), (7,), (3, 2), (1, 2, 3)]),
    angle=st.floats(-1.5, 1.5).filter(lambda a: abs(a) > 1e-6),
    size=st.sampled_from([1e-6, 1.0, 1e6]),
    seed=st.integers(0, 1000),
)
def test_norm_angle_and_plane(
    rows: int, inner: tuple[int, ...], angle: float, size: float, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    w = torch.randn(rows, *inner, generator=g)
    d = torch.randn(rows, *inner, generator=g) * size
    kept = w.clone(), d.clone()
    norm = torch.full((rows, *[1] * len(inner)), 2.5)
    turned = rotate_rows(w, d, angle, norm)
    assert torch.equal(w, kept[0])
    assert torch.equal(d, kept[1])
    torch.testing.assert_close(turned.flatten(1).norm(dim=1), torch.full((rows,), 2.5))
    close(turned.flatten(1), exactly(w.flatten(1), d.flatten(1), angle, norm.flatten(1)), 0, 2e-4)


def test_an_angle_for_each_row_and_as_a_tensor() -> None:
    w, d = torch.randn(3, 4), torch.randn(3, 4)
    angles = torch.tensor([[0.1], [0.0], [-0.2]])
    norm = w.norm(dim=1, keepdim=True)
    turned = rotate_rows(w, d, angles, norm)
    for i, angle in enumerate(angles.flatten().tolist()):
        assert torch.equal(turned[i], rotate_rows(w, d, angle, norm)[i])
        torch.testing.assert_close(turned[i], rotate_rows(w, d, torch.tensor(angle), norm)[i])


def test_rows_that_cannot_turn_stay_bit_by_bit() -> None:
    torch.manual_seed(0)
    w = torch.randn(5, 64)
    d = torch.randn(5, 64)
    d[0] = 0.0
    d[1] = w[1] * 3.7  # radial: what is left of it is rounding
    w[2] = 0.0
    d[3] = w[3] * -1e-3 + 1e-9 * torch.randn(64)  # within rounding of radial
    turned = rotate_rows(w, d, 0.1, w.norm(dim=1, keepdim=True) * 2)
    assert torch.equal(turned[:4], w[:4])
    assert not torch.equal(turned[4], w[4])
    assert torch.equal(rotate_rows(w, d, 0.0, 1.0), w)
    assert [n == 0.0 for n in tangent(w, d)[1].flatten()] == [True, True, False, True, False]


def test_nearly_radial_directions_still_turn_by_the_angle() -> None:
    torch.manual_seed(0)
    w = torch.randn(8, 256)
    d = w + 1e-4 * torch.randn(8, 256)
    turned = rotate_rows(w, d, 0.01, w.norm(dim=1, keepdim=True))
    close(between(w, turned), 0.01, rtol=1e-3)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_no_number_is_seen(bad: float) -> None:
    w, d = torch.randn(2, 4), torch.randn(2, 4)
    d[0, 1] = bad
    turned = rotate_rows(w, d, 0.1, 1.0)
    assert not turned[0].isfinite().all()
    assert turned[1].isfinite().all()
