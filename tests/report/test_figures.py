"""Curves, schedules and figures."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.report import (
    FIGURES,
    NothingToShow,
    curves,
    figure,
    hover,
    moments,
    read_runs,
    save_figure,
)
from groundup.report.page import svg
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
    (heat,), left_out = moments.alpha_maps(study(read_runs(pair)))
    assert left_out == 0
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


CURVES = ("loss", "gap", "alpha", "rate", "grad_norm")
"""What can be drawn of any run."""


@pytest.mark.parametrize("name", CURVES)
def test_every_figure_draws(pair, name):
    runs = read_runs(pair)
    drawn = figure(name, runs)
    assert drawn.axes
    text = svg.inline(drawn, name, "what it shows")
    assert text == svg.inline(figure(name, runs), name, "what it shows")
    assert "updates</text>" in text
    assert "#1f2429" not in text


def test_names_of_figures():
    assert set(CURVES) < set(FIGURES)
    with pytest.raises(ValueError, match="did you mean 'loss'") as error:
        figure("los", [])
    assert all(name in str(error.value) for name in FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_a_caption(pair, name):
    said = FIGURES[name].caption(study(read_runs(pair)))
    assert said.endswith(".")
    assert ".." not in said
    assert len(said) < 400


@pytest.mark.parametrize("name", sorted(set(FIGURES) - set(CURVES)))
def test_what_was_not_measured_is_said(pair, name):
    with pytest.raises(NothingToShow) as reason:
        figure(name, pair)
    assert len(str(reason.value)) > 20


def test_runs_folders_or_a_folder_of_runs(tmp_path, pair):
    def drawn(runs):
        return [line.get_ydata().tolist() for line in figure("loss", runs).axes[0].lines]

    expected = drawn(read_runs(pair))
    assert drawn(pair) == expected
    assert drawn([str(folder) for folder in pair]) == expected
    assert drawn(tmp_path) == expected
    assert drawn([*read_runs(pair[:2]), *pair[2:]]) == expected
    with pytest.raises(ValueError, match="is no run folder and holds none"):
        figure("loss", [tmp_path / "nowhere"])


@pytest.mark.parametrize(
    ("suffix", "begins"),
    [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF"), (".PNG", b"")],
)
def test_save_figure(tmp_path, pair, suffix, begins):
    out = tmp_path / "figures" / f"gap{suffix}"
    assert save_figure("gap", pair, str(out)) == out
    content = out.read_bytes()
    assert content.startswith(begins)
    assert save_figure("gap", pair, out, baseline="baseline").read_bytes() == content
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_save_figure_refuses_other_suffixes(tmp_path, pair):
    for name in ("gap.jpeg", "gap"):
        with pytest.raises(ValueError, match=r"end it in \.png, \.svg, \.pdf"):
            save_figure("gap", pair, tmp_path / "new" / name)
    with pytest.raises(NothingToShow):
        save_figure("activations", pair, tmp_path / "new" / "a.png")
    assert not (tmp_path / "new").exists()


def test_the_package_leaves_matplotlib_alone():
    code = "import sys, groundup.report; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_loss_lines_are_the_smoothed_mean(pair):
    runs = read_runs(pair)
    lines = {
        said.name: line
        for line in figure("loss", runs).axes[0].lines
        if (said := hover.found(line)) is not None
    }
    assert set(lines) == {
        "baseline", "baseline, evaluation", "linear", "linear, evaluation"
    }  # fmt: skip
    width = curves.window(runs)
    expected = np.mean([curves.smooth(run.series["loss"], width) for run in runs[:2]], axis=0)
    np.testing.assert_allclose(lines["baseline"].get_ydata(), expected)
    np.testing.assert_allclose(lines["linear, evaluation"].get_ydata()[-1], np.mean([3.4, 3.54]))


def test_of_many_variants_the_best_are_drawn(tmp_path, write_run):
    names = [f"v{i}" for i in range(30)]
    folders = [write_run(tmp_path / "baseline", eval_loss=9.0)]
    folders += [
        write_run(tmp_path / name, name, eval_loss=5 - 0.1 * i) for i, name in enumerate(names)
    ]
    drawn = figure("loss", folders)
    (legend,) = drawn.legends
    assert [text.get_text() for text in legend.get_texts()] == ["baseline", *names[-11:]]
    assert "19 of 31 variants are left out" in drawn.get_supxlabel()


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
    for name in ("loss", "grad_norm", "gap"):
        with pytest.raises(NothingToShow):
            figure(name, runs)


@pytest.mark.parametrize("steps", [1, 2, 3, 12])
def test_very_short_runs(tmp_path, steps, write_run, rows):
    folders = [
        write_run(tmp_path / v, v, steps=steps, metrics=rows(steps, every=1))
        for v in ("baseline", "linear")
    ]
    for name in CURVES:
        svg.inline(figure(name, read_runs(folders)), name, name)


def test_the_users_matplotlib_settings_are_left_alone(pair):
    import matplotlib

    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 31, "axes.facecolor": "pink"}):
        text = svg.inline(figure("loss", read_runs(pair)), "loss", "")
    assert "font-size: 31" not in text
    assert dict(matplotlib.rcParams) == before
