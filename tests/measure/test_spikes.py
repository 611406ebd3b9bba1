"""The spike score, against a plain loop over Python floats and against series made by hand."""

from __future__ import annotations

import math
import subprocess
import sys
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.measure import run_spike_score, spike_score


def loop(values, window, threshold):
    """The definition, one point at a time; returns ({spike positions}, {scored positions})."""
    spikes, scored = set(), set()
    for i in range(window, len(values)):
        before = [v for v in values[i - window : i] if v is not None and math.isfinite(v)]
        point = values[i]
        if point is None or not math.isfinite(point):
            spikes.add(i)
            scored.add(i)
            continue
        if not before:
            continue
        scored.add(i)
        mean = fmean(before) if len(set(before)) > 1 else before[0]
        deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in before) / len(before))
        far = abs(point - mean) >= threshold * deviation if deviation > 0 else point != mean
        if far:
            spikes.add(i)
    return spikes, scored


# Quarters: sums and means are (nearly) exact, so that a tie cannot fall on both sides.
numbers = st.integers(-400, 400).map(lambda n: n / 4)
points = st.one_of(numbers, st.just(2.5), st.sampled_from([None, math.nan, math.inf, -math.inf]))


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.one_of(numbers, points), max_size=60),
    st.integers(2, 12),
    st.sampled_from([1.37, 2.13, 3.77, 7.0]),
)
def test_agrees_with_a_plain_loop(values, window, threshold):
    spikes, scored = loop(values, window, threshold)
    expected = 100 * len(spikes) / len(scored) if scored else math.nan
    assert spike_score(values, window, threshold) == pytest.approx(expected, nan_ok=True)
    whole = run_spike_score(values, window, threshold, span=(0.0, 1.0))
    assert set(whole.spikes) == spikes
    assert whole.scored == len(scored)


@pytest.mark.parametrize("length", [40, 999, 1000, 3001])
def test_middle_of_a_run(length):
    values = list(np.random.default_rng(length).standard_t(1.5, size=length))
    score = run_spike_score(values)
    window = max(10, min(1000, length // 10))
    spikes, scored = loop(values, window, 7.0)
    inside = {i for i in range(length) if length <= 10 * i < 9 * length}
    assert score.window == window
    assert score.spikes == sorted(spikes & inside)
    assert score.scored == len(scored & inside)
    assert score.percent == pytest.approx(100 * len(score.spikes) / score.scored)


def test_spikes_made_by_hand():
    values = [1.0, 3.0] * 500  # mean 2, deviation 1
    values[400] = 2 + 7.0  # at the threshold exactly
    values[700] = 2 - 30.0
    score = run_spike_score(values)
    assert score.spikes == [400, 700]
    assert (score.scored, score.window) == (800, 100)
    assert score.percent == pytest.approx(100 * 2 / 800)


def test_just_under_the_threshold_is_no_spike():
    assert spike_score([1.0, 3.0] * 50 + [8.999], window=100) == 0.0
    assert spike_score([1.0, 3.0] * 50 + [9.0], window=100) == 100.0


def test_ends_of_the_run_do_not_count_but_feed_the_windows():
    values = [1.0, 3.0] * 500
    values[50] = values[950] = 100.0
    assert run_spike_score(values).spikes == []
    values = [1.0] * 1000
    values[99] = 2.0  # before 10%: not scored, but in the windows of the next hundred
    assert run_spike_score(values).spikes == []
    values[99], values[100] = 1.0, 2.0
    assert run_spike_score(values).spikes == [100]


def test_constant_window():
    assert spike_score([0.1] * 30, window=10) == 0.0
    assert spike_score([0.1] * 10 + [0.1 + 1e-9], window=10) == 100.0


def test_far_from_zero_nothing_cancels():
    noise = np.random.default_rng(0).integers(-8, 9, size=500) / 8
    noise[333] = 40.0
    near = run_spike_score(noise)
    assert near.spikes == [333]
    assert run_spike_score(noise + 2.0**40) == near
    assert run_spike_score(noise * 2.0**1000).spikes == [333]
    assert run_spike_score(noise * 2.0**-600).spikes == [333]


def test_not_finite_is_a_spike_and_spoils_no_window():
    values: list[float | None] = [1.0, 3.0] * 100
    values[50], values[90], values[120] = None, math.inf, math.nan
    assert run_spike_score(values).spikes == [50, 90, 120]
    assert run_spike_score([math.nan] * 50 + [1.0] * 50).spikes == list(range(10, 50))


def test_too_short_to_score():
    assert math.isnan(spike_score([1.0] * 1000))
    assert math.isnan(spike_score([]))
    score = run_spike_score([1.0] * 8)
    assert (score.percent, score.spikes, score.scored, score.window) == (None, [], 0, 10)


def test_default_window_of_long_runs_is_a_thousand():
    score = run_spike_score(np.tile([1.0, 3.0], 10_000))
    assert (score.window, score.scored, score.percent) == (1000, 16_000, 0.0)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: spike_score([1.0], window=1),
        lambda: spike_score([1.0], threshold=0.0),
        lambda: spike_score([1.0], threshold=math.nan),
        lambda: spike_score([[1.0, 2.0]]),
        lambda: run_spike_score([1.0], span=(0.9, 0.1)),
        lambda: run_spike_score([1.0], span=(0.0, 1.5)),
    ],
)
def test_refuses(wrong):
    with pytest.raises(ValueError, match=r"window|threshold|span|series"):
        wrong()


def test_needs_no_torch():
    code = "import sys, groundup.measure.spikes; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
