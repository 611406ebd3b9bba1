"""The running monitor against the spike score of the whole series."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.measure import Monitor, run_spike_score

series_ = st.lists(
    st.one_of(
        st.floats(width=32),  # also nan, inf, subnormal and near the largest
        st.floats(-4, 4, width=32),
        st.sampled_from([None, 2.5, 2.5, 2.5, 1e30, -1e-30]),
    ),
    max_size=80,
)


def running(values, window, threshold):
    monitor = Monitor(window, threshold)
    return [i for i, value in enumerate(values) if monitor.add(value) is not None]


@settings(deadline=None, max_examples=400)
@given(series_, st.integers(2, 15), st.sampled_from([0.7, 1.37, 3.77, 7.0]))
def test_verdicts_are_those_of_the_score(values, window, threshold) -> None:
    whole = run_spike_score(values, window, threshold, span=(0.0, 1.0))
    assert running(values, window, threshold) == whole.spikes


@pytest.mark.parametrize("window", [2, 75, 129, 1000])
@pytest.mark.parametrize("kind", ["heavy", "walk", "steps", "constant"])
def test_long_series(kind: str, window: int) -> None:
    draw = np.random.default_rng(window)
    noise = draw.standard_t(2, size=3500).astype(np.float32)
    values = {
        "heavy": noise,
        "walk": np.cumsum(noise) + np.float32(1e4),
        "steps": np.repeat(noise[:70], 50),
        "constant": np.full(3500, 0.1, dtype=np.float32),
    }[kind].tolist()
    for at in (1200, 1201, 2222):
        values[at] += 1000.0
    whole = run_spike_score(values, window, span=(0.0, 1.0))
    assert running(values, window, 7.0) == whole.spikes
    assert 1200 in whole.spikes


def test_a_verdict_has_the_numbers_of_the_window() -> None:
    window = [3.0, 1.0, 4.0, None, 5.0]
    monitor = Monitor(5, before=[99.0, *window])
    finite = [value for value in window if value is not None]
    verdict = monitor.judge(50.0)
    assert verdict is not None
    assert verdict.mean == pytest.approx(statistics.fmean(finite))
    assert verdict.deviation == pytest.approx(statistics.pstdev(finite))
    assert verdict.above
    assert monitor.judge(50.0) == verdict  # judging adds nothing
    below = monitor.judge(-50.0)
    assert below is not None
    assert not below.above
    assert monitor.judge(math.nan).above


def test_what_came_before_is_as_if_it_had_been_added() -> None:
    values = np.random.default_rng(3).standard_cauchy(300).tolist()
    monitor = Monitor(20)
    for i, value in enumerate(values):
        fresh = Monitor(20, before=values[max(0, i - 20) : i])
        assert fresh.judge(value) == monitor.add(value)


def test_a_window_without_a_finite_point() -> None:
    monitor = Monitor(2, before=[None, math.inf])
    assert monitor.judge(1.0) is None
    assert math.isnan(monitor.judge(None).mean)


def test_refuses() -> None:
    with pytest.raises(ValueError, match="window is 1"):
        Monitor(1)
    with pytest.raises(ValueError, match="threshold is 0"):
        Monitor(10, 0)


def test_needs_no_torch() -> None:
    code = "import sys, groundup.measure.monitor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
