"""Stable rank, against matrices made from known singular values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from groundup.measure import stable_rank, stable_rank_by_power


def matrix(values: list[float], rows: int, columns: int, seed: int = 0) -> Tensor:
    """A matrix with these singular values, float64."""
    draw = torch.Generator().manual_seed(seed)
    kind = {"generator": draw, "dtype": torch.float64}
    u = torch.linalg.qr(torch.randn(rows, len(values), **kind)).Q
    v = torch.linalg.qr(torch.randn(columns, len(values), **kind)).Q
    return u @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ v.T


SPECTRA = {
    "one": [3.0],
    "flat": [1.0] * 40,
    "two close": [1.0, 0.999] + [0.5] * 38,
    "slow": [1 / (1 + 0.02 * i) for i in range(40)],
    "fast": [2.0**-i for i in range(40)],
    "tiny": [1e-20 / (1 + i) for i in range(40)],
    "huge": [1e25 / (1 + i) for i in range(40)],
}


@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("shape", [(40, 60), (70, 40)])
def test_known_spectra(name: str, shape: tuple[int, int]) -> None:
    values = SPECTRA[name]
    expected = sum((v / values[0]) ** 2 for v in values)
    weight = matrix(values, *shape)
    assert float(stable_rank(weight)) == pytest.approx(expected, rel=1e-10)
    for tolerance in (0.1, 1e-2, 1e-3):
        found = float(stable_rank_by_power(weight.float(), tolerance))
        assert expected * (1 - 1e-5) <= found <= expected * (1 + tolerance)


@pytest.mark.parametrize("seed", range(10))
def test_random_matrices_have_no_gap(seed: int) -> None:
    weight = torch.randn(90, 110, generator=torch.Generator().manual_seed(seed))
    exact = weight.double().square().sum() / torch.linalg.matrix_norm(weight.double(), 2) ** 2
    assert float(stable_rank(weight)) == pytest.approx(float(exact), rel=1e-12)
    found = float(stable_rank_by_power(weight, 1e-2))
    assert float(exact) * (1 - 1e-5) <= found <= float(exact) * 1.01


def test_without_convergence_it_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundup.measure.rank._LONGEST", 2)
    weight = torch.randn(40, 50, generator=torch.Generator().manual_seed(3))
    assert float(stable_rank_by_power(weight)) == pytest.approx(float(stable_rank(weight)), 1e-6)


def test_convolutions_are_flattened() -> None:
    weight = torch.randn(20, 6, 3, 3, generator=torch.Generator().manual_seed(1))
    flat = stable_rank(weight.reshape(20, 54))
    assert stable_rank(weight) == flat
    assert float(stable_rank_by_power(weight)) == pytest.approx(float(flat), rel=1e-2)


def test_a_few_rows_and_low_precision() -> None:
    weight = torch.diag(torch.tensor([2.0, 1.0, 1.0])).to(torch.bfloat16)
    assert float(stable_rank(weight)) == 1.5
    assert float(stable_rank_by_power(weight)) == pytest.approx(1.5)


def test_zero_has_none() -> None:
    assert stable_rank(torch.zeros(3, 4)).isnan()
    assert stable_rank_by_power(torch.zeros(30, 40)).isnan()


def test_the_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    stable_rank_by_power(torch.eye(20))
    assert torch.equal(before, torch.get_rng_state())


def test_refuses() -> None:
    for measure in (stable_rank, stable_rank_by_power):
        with pytest.raises(ValueError, match=r"weight has shape \[3\].*two dimensions"):
            measure(torch.ones(3))
    with pytest.raises(ValueError, match="tolerance=0"):
        stable_rank_by_power(torch.eye(3), 0)
