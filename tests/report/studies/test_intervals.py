"""Paired differences and Student's t, against integration of its density and a printed table."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundup.report.studies.intervals import paired, t_quantile

FREEDOMS = [*range(1, 33), 100, 1001]
values = st.dictionaries(st.integers(0, 9), st.floats(-10, 10), max_size=10)


@pytest.mark.parametrize("freedom", FREEDOMS)
def test_the_density_up_to_a_quantile_integrates_to_its_probability(freedom: int) -> None:
    log_factor = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)
    factor = math.exp(log_factor) / math.sqrt(freedom * math.pi)
    for probability in (0.6, 0.975, 0.995):
        # Simpson's rule over x = sinh(u), so that far tails are seen as well.
        u, step = np.linspace(0, math.asinh(t_quantile(probability, freedom)), 2001, retstep=True)
        density = factor * (1 + np.sinh(u) ** 2 / freedom) ** (-(freedom + 1) / 2) * np.cosh(u)
        simpson = step / 3 * (density[:-1:2] + 4 * density[1::2] + density[2::2]).sum()
        assert simpson == pytest.approx(probability - 0.5, abs=1e-9)


def test_the_printed_table() -> None:
    found = [round(t_quantile(0.975, n), 3) for n in (1, 2, 4, 30)]
    assert found == [12.706, 4.303, 2.776, 2.042]
    assert t_quantile(0.975, 9_999) == pytest.approx(1.959964, abs=1e-3)
    assert t_quantile(0.5, 3) == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize(
    ("probability", "freedom", "field"),
    [(0.4, 3, "probability"), (1.0, 3, "probability"), (0.9, 0, "freedom"), (0.9, 1.5, "freedom")],
)
def test_what_is_no_quantile_is_refused(probability: float, freedom: int, field: str) -> None:
    with pytest.raises(ValueError, match=field):
        t_quantile(probability, freedom)


def test_an_interval_by_hand() -> None:
    found = paired({1: 3.9, 2: 3.8, 3: 3.7, 7: 1.0}, {1: 4.0, 2: 4.0, 3: 4.0, 8: 1.0})
    assert found is not None
    assert found.values == pytest.approx({1: -0.1, 2: -0.2, 3: -0.3})
    assert (found.n, found.agreeing) == (3, 3)
    assert (found.mean, found.sd) == (pytest.approx(-0.2), pytest.approx(0.1))
    assert found.interval == pytest.approx((-0.2 - 0.248414, -0.2 + 0.248414), abs=1e-6)


def test_one_seed_has_no_interval_and_none_no_difference() -> None:
    found = paired({1: 3.9}, {1: 4.0, 2: 4.0})
    assert found is not None
    assert (found.sd, found.half, found.interval) == (None, None, None)
    assert paired({1: 3.9}, {2: 4.0}) is None


@given(values, values)
def test_exchanging_the_arms_turns_the_interval_round(
    one: dict[int, float], other: dict[int, float]
) -> None:
    found, turned = paired(one, other), paired(other, one)
    if found is None or turned is None:
        assert found is turned
        assert not one.keys() & other.keys()
        return
    assert found.mean == -turned.mean
    assert found.half == turned.half
    assert found.agreeing == turned.agreeing
    if found.interval is not None:
        differences = np.array(list(found.values.values()))
        low, high = found.interval
        assert low <= differences.mean() + 1e-12
        assert high >= differences.mean() - 1e-12
        assert found.sd == pytest.approx(differences.std(ddof=1), abs=1e-9)
