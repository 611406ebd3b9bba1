"""Rows of plain tensors; of distributed ones see `lion_on_two_ranks`."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from groundup.optim.rows import (
    dealt_like,
    local,
    placed_like,
    row_dots,
    row_norms,
    turns,
    whole_rows,
)

SHAPES = st.lists(st.integers(0, 4), min_size=2, max_size=4).filter(lambda s: min(s[1:]) > 0)


@given(shape=SHAPES, seed=st.integers(0, 100), size=st.sampled_from([1e-10, 1.0, 1e10]))
@settings(deadline=None)
def test_norms_and_dots(shape: list[int], seed: int, size: float) -> None:
    draw = torch.Generator().manual_seed(seed)
    a = torch.randn(shape, generator=draw) * size
    b = torch.randn(shape, generator=draw)
    norms, dots = row_norms(a), row_dots(a, b)
    assert norms.shape == dots.shape == (shape[0], *[1] * (len(shape) - 1))
    for i in range(shape[0]):
        row, other = a[i].double().flatten().tolist(), b[i].double().flatten().tolist()
        assert norms[i].item() == pytest.approx(math.hypot(*row), rel=1e-5)
        products = [x * y for x, y in zip(row, other, strict=True)]
        bound = sum(map(abs, products)) * 1e-5
        assert dots[i].item() == pytest.approx(math.fsum(products), rel=0, abs=bound)


@pytest.mark.parametrize(
    ("dtype", "of_norm"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_norms_are_taken_in_float32_at_least(dtype: torch.dtype, of_norm: torch.dtype) -> None:
    row = torch.full((1, 10_000), 300.0, dtype=dtype)  # its square leaves the range of float16
    assert row_norms(row).dtype == of_norm
    assert row_norms(row).item() == pytest.approx(float(row[0, 0]) * 100, rel=1e-5)


@pytest.mark.parametrize("function", [row_norms, lambda t: row_dots(t, t)])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_what_has_no_rows_is_refused(function, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"has no rows"):
        function(torch.ones(shape))


@pytest.mark.parametrize(
    ("shape", "able"),
    [((), False), ((4,), False), ((4, 1), False), ((4, 2), True), ((1, 2), True),
     ((4, 1, 1), False), ((4, 1, 3), True), ((0, 3), True)],
)  # fmt: skip
def test_what_turns(shape: tuple[int, ...], able: bool) -> None:
    weight = torch.ones(shape)
    assert turns(weight, None) is able
    assert turns(weight, False) is False
    if able:
        assert turns(weight, True) is True
    else:
        with pytest.raises(ValueError, match="rotational=True is not valid for a parameter of"):
            turns(weight, True)


def test_plain_tensors_are_what_they_are() -> None:
    w: Tensor = torch.ones(2, 3)
    for found in (whole_rows(w), local(w), placed_like(w, w), dealt_like(w, w)):
        assert found is w
