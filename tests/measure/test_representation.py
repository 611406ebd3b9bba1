"""Representation changes against their definition, alignment against gradients made for it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from groundup.measure import (
    alignment,
    dead_share,
    dead_units,
    representation_change,
    representation_changes,
)


def test_against_loops() -> None:
    draw = torch.Generator().manual_seed(0)
    before, after = torch.randn(2, 3, 4, generator=draw)
    inputs = torch.randn(2, 5, 4, generator=draw)
    change = size = 0.0
    each = []
    for x in inputs.reshape(-1, 4).tolist():
        old = [sum(w * v for w, v in zip(row, x, strict=True)) for row in before.tolist()]
        new = [sum(w * v for w, v in zip(row, x, strict=True)) for row in after.tolist()]
        moved = sum((a - b) ** 2 for a, b in zip(new, old, strict=True))
        length = sum(a * a for a in old)
        each.append(math.sqrt(moved / length))
        change, size = change + moved, size + length
    assert representation_changes(before, after, inputs).tolist() == pytest.approx(each)
    found = representation_change(before, after, inputs)
    assert float(found) == pytest.approx(math.sqrt(change / size))
    assert found.dtype == torch.float64


def test_a_scaled_weight_changes_everything_alike() -> None:
    draw = torch.Generator().manual_seed(1)
    weight, inputs = torch.randn(6, 3, 2, 2, generator=draw), torch.randn(9, 12, generator=draw)
    changes = representation_changes(weight, 1.25 * weight, inputs)
    torch.testing.assert_close(changes, torch.full((9,), 0.25, dtype=torch.float64))


def test_small_changes_keep_their_digits() -> None:
    weight = torch.ones(1, 2, dtype=torch.float64)
    moved = weight + torch.tensor([[1e-12, 0.0]], dtype=torch.float64)
    found = representation_change(weight, moved, torch.tensor([[1.0, 1.0]]))
    assert float(found) == pytest.approx(5e-13, rel=1e-3)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("n", [1, 2, 7, math.inf])
def test_alignment_is_a_cosine_of_expectations(beta: float, n: float, nesterov: bool) -> None:
    """⟨u, g_b⟩/(‖u‖·‖g_b‖) with expectations taken by hand over explicit weights."""
    batch, phi, steps = 6, 0.3, 600 if n == math.inf else int(n)
    m = [0.0] * steps  # the weight of each gradient
    for i in range(steps):
        m = [beta * w for w in m]
        m[i] += 1 - beta
    direction = [beta * w for w in m] if nesterov else m
    direction[-1] += (1 - beta) if nesterov else 0.0
    total = sum(direction)
    # ‖ḡ‖² = φ, σ² = 1, B examples in each gradient; g_b is one of the newest.
    inner = total * phi + direction[-1] / batch
    length = total**2 * phi + sum(w * w for w in direction) / batch
    expected = inner / math.sqrt(length * (phi + 1))
    assert alignment(phi, batch, beta, n=n, nesterov=nesterov) == pytest.approx(expected)


def test_alignment_at_its_ends_and_between() -> None:
    assert alignment(0.0, 480, 0.9) == pytest.approx(math.sqrt((1 - 0.81) / 480))
    assert alignment(0.25, 16) == pytest.approx(math.sqrt((0.25 + 1 / 16) / 1.25))
    assert alignment(math.inf, 480, 0.9) == 1.0
    assert alignment(1e12, 480, 0.9) == pytest.approx(1.0)
    assert alignment(0.3, 480, 0.9, n=1) == pytest.approx(alignment(0.3, 480))
    grid = [alignment(10 ** (i / 4), 32, 0.9) for i in range(-40, 41)]
    assert grid == sorted(grid)
    tensor = alignment(torch.tensor([0.0, 0.3, math.inf]), 32, 0.9)
    assert tensor.tolist() == pytest.approx([alignment(p, 32, 0.9) for p in (0.0, 0.3, math.inf)])


@given(
    st.floats(1e-9, 1e6),
    st.floats(1.001, 10.0),
    st.integers(1, 10_000),
    st.sampled_from([0.0, 0.3, 0.9, 0.99]),
)
def test_alignment_rises(phi: float, more: float, batch: int, beta: float) -> None:
    low, high = (alignment(p, batch, beta) for p in (phi, phi * more))
    assert alignment(0.0, batch, beta) <= low * (1 + 1e-12)
    assert low <= high * (1 + 1e-12) <= 1 + 1e-9


@given(st.floats(0.0, 1e6), st.integers(2, 10_000), st.sampled_from([0.3, 0.9, 0.98]))
def test_nesterovs_alignment_first_falls_a_little(phi: float, batch: int, beta: float) -> None:
    """Where c > 2k; at most to 2√(k(c − k))/c of a(0), the minimum of (x + c)²/(x + k)."""
    c, k = 1 - beta**2, beta**4 * (1 - beta) / (1 + beta) + (1 - beta**2) ** 2
    least = 2 * math.sqrt(k * (c - k)) / c if c > 2 * k else 1.0
    a = alignment(phi, batch, beta, nesterov=True)
    # φ + 1 in the place of 1 can only take a little more at such a small φ.
    lowest = max(0.0, (c - 2 * k) / batch)
    floor = least / math.sqrt(1 + lowest) * alignment(0.0, batch, beta, nesterov=True)
    assert floor * 0.999 <= a <= 1 + 1e-9
    if beta == 0.98:
        assert least == pytest.approx(0.893, abs=1e-3)


def test_alignment_does_not_fall_below_the_width() -> None:
    a = alignment(0.0, 480, 0.9)
    assert alignment(0.0, 480, 0.9, width=768) == pytest.approx(math.hypot(a, 768**-0.5), rel=1e-3)
    assert alignment(math.inf, 480, 0.9, width=768) == 1.0


def test_dead_units() -> None:
    draw = torch.Generator().manual_seed(2)
    tokens = torch.rand(3, 5, 8, generator=draw) + 0.1
    tokens[..., 2] = 0.0
    tokens[..., 5] *= -1
    tokens[0, 0, 6] = -1.0
    assert dead_units(tokens).nonzero().flatten().tolist() == [2, 5]
    assert float(dead_share(tokens)) == 0.25
    images = tokens.movedim(-1, 1)[..., None]  # [N, channels, H, W]
    assert dead_units(images).nonzero().flatten().tolist() == [2, 5]
    assert dead_units(images[..., 0], 1).nonzero().flatten().tolist() == [2, 5]


def change_of(after: tuple[int, int] = (2, 3), inputs: tuple[int, int] = (1, 3)) -> torch.Tensor:
    return representation_change(torch.ones(2, 3), torch.ones(after), torch.ones(inputs))


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        ("after has shape", lambda: change_of(after=(3, 3))),
        ("inputs have 2 .*takes 3", lambda: change_of(inputs=(1, 2))),
        ("phi=-1", lambda: alignment(-1.0, 8)),
        ("phi=nan", lambda: alignment(math.nan, 8)),
        ("batch_size=0", lambda: alignment(1.0, 0)),
        ("beta=1", lambda: alignment(1.0, 8, 1.0)),
        ("width=0", lambda: alignment(1.0, 8, width=0)),
        (r"shape \[4\]", lambda: dead_units(torch.ones(4))),
    ],
)
def test_refuses(message: str, wrong) -> None:
    with pytest.raises(ValueError, match=message):
        wrong()
