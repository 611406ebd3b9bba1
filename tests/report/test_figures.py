"""Curves, schedules and figures."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.report import FIGURES, NothingToShow, curves, figure, moments, read_runs, svg
from groundup.report.table import study


@given(st.lists(st.floats(-9, 9) | st.just(math.nan), max_size=60), st.integers(0, 9))
@settings(deadline=None)
def test_smooth_is_a_plain_mean(values, half):
    got = curves.smooth(np.array(values, dtype=float), 2 * half + 1)
    for i in range(len(values)):
        left = min(half, i)
        right = min(half, i, len(values) - 1 - i)
        part = [v for v in values[i - left : i + right + 1] if not math.isnan(v)]
        expected = sum(part) / len(part) if part else math.nan
        assert got[i] == pytest.approx(expected, abs=1e-9, nan_ok=True)


@given(st.lists(st.floats(-9, 9) | st.just(math.nan), min_size=1, max_size=500))
@settings(deadline=None)
def test_thin_keeps_ends_and_extremes(values):
    y = np.array(values)
    known = y[~np.isnan(y)]
    steps, kept = curves.thin(np.arange(len(y), dtype=float), y, points=20)
    assert len(kept) <= 22
    assert np.array_equal(kept, y[steps.astype(int)])
    if len(known):
        assert (kept[0], kept[-1]) == (known[0], known[-1])
        assert (kept.min(), kept.max()) == (known.min(), known.max())


def test_decay_start(tmp_path, write_run, rows):
    (run,) = read_runs([write_run(tmp_path / "a")])
    # The rate is (100 − step)/20 of the peak from step 80 on: below it first at step 81.
    assert curves.decay_start(run) == 81
    young = write_run(tmp_path / "b", metrics=rows(100)[:50], summary=False)
    assert curves.decay_start(read_runs([young])[0]) is None


def test_alpha_map_is_the_formula(pair):
    (heat,) = moments.alpha_maps(study(read_runs(pair)))
    assert (heat.variants, heat.end, heat.last) == (("linear",), 20.0, 25.0)
    at = (np.arange(400) + 0.5) * 25 / 400
    expected = np.minimum(at[:, None] / (5 * np.arange(1, 5)), 1)
    np.testing.assert_allclose(heat.values, expected)


@pytest.mark.parametrize(
    ("length", "end"), [("T = 5", 20), ("total = 30", 30), ("fraction = 0.4", 40)]
)
def test_end_of_residual_warmup(tmp_path, length, end, write_run):
    folders = [write_run(tmp_path / "b"), write_run(tmp_path / "l", "linear", length=length)]
    assert [m[:2] for m in moments.warmup_ends(study(read_runs(folders)))] == [
        (end, "residual warmup ends")
    ]


def test_unknown_schedule_is_no_obstacle(tmp_path, write_run):
    folder = write_run(tmp_path / "a", "odd", schedule="from-the-future")
    runs = read_runs([folder])
    assert moments.schedule_of(runs[0]) is None
    with pytest.raises(NothingToShow, match="warms up"):
        figure("alpha", runs)


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_draws(pair, name):
    runs = read_runs(pair)
    drawn = figure(name, runs)
    assert drawn.axes
    text = svg.inline(drawn, name, "what it shows")
    assert text == svg.inline(figure(name, runs), name, "what it shows")
    assert "updates</text>" in text
    assert "#1f2429" not in text


def test_names_of_figures():
    assert list(FIGURES) == ["loss", "gap", "alpha", "rate", "grad_norm"]
    with pytest.raises(ValueError, match="did you mean 'loss'"):
        figure("los", [])


def test_gap_needs_a_baseline(pair):
    with pytest.raises(NothingToShow, match="baseline"):
        figure("gap", read_runs(pair[2:]))


def test_gap_line_is_the_difference(tmp_path, write_run, rows):
    folders = [
        write_run(tmp_path / "b", metrics=rows(100)),
        write_run(tmp_path / "l", "linear", metrics=rows(80, offset=-0.5), steps=80),
    ]
    axes = figure("gap", read_runs(folders)).axes[0]
    line = max(axes.lines, key=lambda line: len(line.get_xdata()))
    assert len(line.get_xdata()) == 80
    np.testing.assert_allclose(line.get_ydata(), -0.5)


def test_runs_without_a_single_finite_loss(tmp_path, write_run):
    metrics = [{"step": i, "loss": None, "grad_norm": None, "rate": 1e-3} for i in range(5)]
    runs = read_runs([write_run(tmp_path / "a", metrics=metrics, summary=False)])
    for name in ("loss", "grad_norm"):
        with pytest.raises(NothingToShow):
            figure(name, runs)


@pytest.mark.parametrize("steps", [1, 2, 3, 12])
def test_very_short_runs(tmp_path, steps, write_run, rows):
    folders = [
        write_run(tmp_path / v, v, steps=steps, metrics=rows(steps, every=1))
        for v in ("baseline", "linear")
    ]
    for name in FIGURES:
        svg.inline(figure(name, read_runs(folders)), name, name)


def test_the_users_matplotlib_settings_are_left_alone(pair):
    import matplotlib

    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 31, "axes.facecolor": "pink"}):
        text = svg.inline(figure("loss", read_runs(pair)), "loss", "")
    assert "font-size: 31" not in text
    assert dict(matplotlib.rcParams) == before
