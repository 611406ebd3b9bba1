"""Figures of how runs end against a setting: depth, warmup, what a sweep varies."""

from __future__ import annotations

import math

import numpy as np
import pytest

from groundup.report import NothingToShow, figure, hover, read_runs
from groundup.report.figures._courses import courses, ended, number
from groundup.report.page import svg
from groundup.report.table import study


@pytest.fixture
def make(tmp_path, write_run, rows):
    """Writes a run with settings, {"rate.warmup": 0.1}; `loss` None: it stopped at a nan."""

    def write(variant, loss, settings, *, seed=0, **how):
        folder = tmp_path / f"{len(list(tmp_path.iterdir())):03}"
        metrics = rows(40)
        if loss is None:
            metrics = [*metrics[:20], metrics[20] | {"loss": None}]
            how["summary"] = False
        how = {"steps": 40, "metrics": metrics, "eval_loss": loss, "schedule": "none"} | how
        return write_run(folder, variant, seed=seed, settings=settings, **how)

    return write


def drawn_lines(axes):
    found = {said.name: line for line in axes.lines if (said := hover.found(line)) is not None}
    return {
        name: dict(zip(line.get_xdata(), line.get_ydata(), strict=True))
        for name, line in found.items()
    }


def crosses(axes):
    return sorted(line.get_xdata()[0] for line in axes.lines if line.get_label() == "diverged")


def test_perplexity_against_depth(make):
    """As `compare` leaves them: one folder per depth, the same names in each."""
    losses = {(12, "baseline"): (3.2, 3.4), (24, "baseline"): (3.1, 3.1)}
    losses |= {(12, "linear"): (3.0, 3.2), (24, "linear"): (2.5, 2.7)}
    folders = [
        make(
            name, loss, {}, seed=seed, layers=depth, schedule="none" if name == "baseline" else name
        )
        for (depth, name), both in losses.items()
        for seed, loss in enumerate(both)
    ]
    drawn = figure("depth-perplexity", folders)
    found = drawn_lines(drawn.axes[0])
    assert found["baseline"] == pytest.approx({12: math.exp(3.3), 24: math.exp(3.1)})
    assert found["linear"] == pytest.approx({12: math.exp(3.1), 24: math.exp(2.6)})
    bars = drawn.axes[0].collections[0].get_segments()
    np.testing.assert_allclose(bars[0], [[12, math.exp(3.2)], [12, math.exp(3.4)]])
    svg.inline(drawn, "d", "d")


def test_placements_are_lines_and_a_length_chosen_by_depth_is_not(make):
    folders = [
        make(
            "linear",
            3.0,
            {"model.placement": placement},
            layers=depth,
            schedule="linear",
            length=f"T = {500 if depth > 72 else 1000}",
        )
        for depth in (12, 72, 96)
        for placement in ("pre", "post")
    ]
    drawn = figure("depth-perplexity", folders)
    found = drawn_lines(drawn.axes[0])
    assert set(found) == {"linear, pre", "linear, post"}
    assert list(found["linear, pre"]) == [12, 72, 96]
    assert "residual.T" in drawn.get_supxlabel()


def test_single_runs_without_variants_are_told_apart_by_their_settings(make):
    folders = [
        make("", 3.0 + warm + 0.01 * depth, {}, layers=depth, schedule=schedule, name=f"r{i}")
        for i, (depth, warm, schedule) in enumerate(
            [(6, 0, "none"), (6, -1, "linear"), (9, 0, "none"), (9, -1, "linear")]
        )
    ]
    found = drawn_lines(figure("depth-perplexity", folders).axes[0])
    assert set(found) == {"no residual warmup", "linear"}
    assert found["linear"] == pytest.approx({6: math.exp(2.06), 9: math.exp(2.09)})


def test_spikes_against_depth(make):
    scores = {6: (1.0, 2.0), 9: (0.5, 0.0)}
    folders = [
        make(
            "baseline",
            3.0,
            {},
            layers=depth,
            summary={
                "spike_score": {
                    name: {"percent": percent, "scored": 80, "window": 10}
                    for name, percent in zip(("loss", "grad_norm"), both, strict=True)
                }
            },
        )
        for depth, both in scores.items()
    ]
    loss, gradient = figure("depth-spikes", folders).axes
    assert drawn_lines(loss)["baseline"] == {6: 1.0, 9: 0.5}
    assert drawn_lines(gradient)["baseline"] == {6: 2.0, 9: 0.0}


def test_warmup_length_from_a_sweep(make):
    """Points of `groundup sweep`: the variant's name holds the value."""
    folders = []
    for name in ("adamw", "lionar"):
        for warmup in (0, 0.05, 0.2):
            for seed in (0, 1):
                gone = name == "adamw" and warmup == 0 and seed == 1
                loss = None if gone else 3 + warmup + 0.1 * seed + (name == "adamw")
                given = {"rate.warmup": warmup, "optimizer.name": name}
                folders.append(make(f"{name}.warmup-{warmup}", loss, given, seed=seed))
    drawn = figure("warmup-length", folders)
    found = drawn_lines(drawn.axes[0])
    assert found["lionar"] == pytest.approx({0: 3.05, 0.05: 3.1, 0.2: 3.25})
    # The seed that did not diverge does not stand for the point.
    assert found["adamw"] == pytest.approx({0.05: 4.1, 0.2: 4.25})
    assert crosses(drawn.axes[0]) == [0]
    low, high = drawn.axes[0].get_xlim()
    assert low < 0 < 0.2 < high
    assert "diverged" in [text.get_text() for text in drawn.legends[0].get_texts()]
    svg.inline(drawn, "w", "w")


def test_warmup_lengths_in_updates_and_as_text(make):
    lengths = {"a.warmup-4": 4, "a.warmup-5%": "5%", "a.warmup-untuned": "untuned"}
    folders = [make(name, 3.0, {"rate.warmup": value}) for name, value in lengths.items()]
    found = drawn_lines(figure("warmup-length", folders).axes[0])
    assert [list(points) for points in found.values()] == [[0.05, 0.1]]  # 4 of 40 updates


def test_sweep_over_a_peak(make):
    losses = {1e-3: 3.2, 4e-3: 3.0, 1.6e-2: 3.4}
    folders = [make(f"a.peak-{peak}", loss, {"rate.peak": peak}) for peak, loss in losses.items()]
    drawn = figure("sweep", folders)
    assert drawn_lines(drawn.axes[0]) == {"a": losses}
    assert drawn.axes[0].get_xlabel() == "rate.peak"
    assert drawn.axes[0].get_xscale() == "log"
    with pytest.raises(NothingToShow, match="warmup"):
        figure("warmup-length", folders)


def test_a_value_may_be_named_as_it_was_given(make):
    """`rate.peak=1e-3,4e-3,10`: the point is called peak-10, the recipe has 10.0."""
    losses = {0.001: 3.2, 0.004: 3.0, 10.0: None}
    folders = [make(f"peak-{p:g}", loss, {"rate.peak": p}) for p, loss in losses.items()]
    drawn = figure("sweep", folders)
    (axes,) = drawn.axes
    assert drawn_lines(axes) == {"came to an end": {0.001: 3.2, 0.004: 3.0}}
    assert crosses(axes) == [10]
    assert axes.get_xscale() == "log"
    names = [text.get_text() for text in drawn.legends[0].get_texts()]
    assert names == ["came to an end", "diverged"]


def test_sweep_over_two_settings_has_two_panels(make):
    folders = [
        make(f"beta-{b}.decay-{d}", 3 + b + d, {"optimizer.beta": b, "rate.decay": d})
        for b in (0.1, 0.2)
        for d in (0.3, 0.4, 0.5)
    ]
    drawn = figure("sweep", folders)
    by_label = {axes.get_xlabel(): drawn_lines(axes) for axes in drawn.axes}
    assert set(by_label) == {"rate.decay", "optimizer.beta"}
    assert by_label["rate.decay"]["beta-0.1"] == pytest.approx({0.3: 3.4, 0.4: 3.5, 0.5: 3.6})
    assert len(by_label["optimizer.beta"]) == 3


def test_names_that_say_nothing_are_no_obstacle(make):
    folders = [
        make(f"T{T}", 3 + T / 1000, {}, schedule="linear", length=f"T = {T}") for T in (5, 10, 20)
    ]
    (found,) = drawn_lines(figure("sweep", folders).axes[0]).values()
    assert found == pytest.approx({5: 3.005, 10: 3.01, 20: 3.02})


def test_of_many_lines_the_lowest(make):
    folders = [
        make(f"v{i}.warmup-{w}", 5 - 0.1 * i + w, {"rate.warmup": w})
        for i in range(20)
        for w in (0, 0.1)
    ]
    drawn = figure("warmup-length", folders)
    assert list(drawn_lines(drawn.axes[0])) == [f"v{i}" for i in range(8, 20)]
    assert "12 lines that get lowest, of 20" in drawn.get_supxlabel()


def test_a_value_at_which_all_diverged_is_on_the_axis(make):
    losses = {0: None, 0.1: 3.0, 0.2: 3.1, 0.9: None}
    folders = [make(f"a.warmup-{w}", loss, {"rate.warmup": w}) for w, loss in losses.items()]
    (axes,) = figure("warmup-length", folders).axes
    low, high = axes.get_xlim()
    assert low < 0
    assert high > 0.9
    assert crosses(axes) == [0, 0.9]


def test_nothing_but_divergence(make):
    folders = [make(f"a.warmup-{w}", None, {"rate.warmup": w}) for w in (0, 0.1)]
    with pytest.raises(NothingToShow, match="finite"):
        figure("warmup-length", folders)


def test_how_a_run_ended(make, rows):
    def of(loss, **how):
        return ended(read_runs([make("a", loss, {}, **how)])[0])

    assert of(3.0) == 3.0
    assert of(None) == math.inf
    assert of(9.0) == math.inf  # it began at 8
    assert of(8.05) == 8.05
    assert of(3.0, summary=False, metrics=rows(20)) is None
    # A summary may be missing at the end of a run: metrics say the same.
    assert of(3.0, summary=False) == rows(40)[-1]["eval_loss"]


def test_unfinished_runs_are_counted(make, rows):
    folders = [make(f"a.warmup-{w}", 3.0, {"rate.warmup": w}) for w in (0, 0.1)]
    young = make("a.warmup-0.2", 3.0, {"rate.warmup": 0.2}, metrics=rows(9), summary=False)
    drawn = figure("warmup-length", [*folders, young])
    assert list(drawn_lines(drawn.axes[0])["a"]) == [0, 0.1]
    assert "Not drawn: 1 " in drawn.get_supxlabel()


def test_settings_that_only_watch_do_not_split_lines(make):
    folders = [
        make("a", 3.0, {"rate.peak": p, "train.eval_every": e}, seed=e)
        for p in (1, 2)
        for e in (1, 2)
    ]
    (course,) = courses(study(read_runs(folders)), "rate.peak", number("rate.peak"))
    assert [len(runs) for runs in course.points.values()] == [2, 2]
