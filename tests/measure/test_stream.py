"""What is told of the residual stream, against loops over tokens."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from groundup.measure import alikeness


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(2, 6), st.integers(1, 5)),
    seed=st.integers(0, 100),
)
def test_alikeness_is_the_mean_cosine_of_all_pairs(shape: tuple[int, int, int], seed: int) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    cosines = [
        math.fsum(a * b for a, b in zip(u.tolist(), v.tolist(), strict=True))
        / math.hypot(*u.tolist())
        / math.hypot(*v.tolist())
        for sequence in x
        for u, v in itertools.combinations(sequence, 2)
    ]
    mean = math.fsum(cosines) / len(cosines)
    assert float(alikeness(x)) == pytest.approx(mean, rel=1e-9, abs=1e-12)
    # Tokens that are 0 are as if they were not there.
    padded = torch.cat([x, torch.zeros_like(x)], 1)
    assert float(alikeness(padded)) == pytest.approx(mean, rel=1e-9, abs=1e-12)


def test_alikeness_at_its_ends() -> None:
    same = torch.tensor([0.3, -2.0, 1.0]).expand(2, 7, 3) * torch.rand(2, 7, 1).add(0.1)
    assert float(alikeness(same)) == pytest.approx(1)
    assert float(alikeness(torch.eye(4))) == pytest.approx(0)
    assert float(alikeness(torch.tensor([[1.0, 0], [-5, 0]]))) == -1
    assert math.isnan(float(alikeness(torch.ones(3, 1, 4))))
    assert math.isnan(float(alikeness(torch.zeros(5, 3))))


def test_all_tokens_of_an_example_are_one_set_and_one_without_two_is_left_out() -> None:
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    assert float(alikeness(x)) == pytest.approx(float(alikeness(x.reshape(2, 12, 5))))
    empty = torch.cat([x, torch.zeros(1, 3, 4, 5)])
    assert float(alikeness(empty)) == pytest.approx(float(alikeness(x)))
    with pytest.raises(ValueError, match=r"x has shape \[5\]"):
        alikeness(torch.ones(5))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_alikeness_of_halves_is_computed_in_float32(dtype: torch.dtype) -> None:
    x = torch.randn(2, 500, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    found = alikeness(x)
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(float(alikeness(x.double())), abs=1e-6)
