"""Sweeps: their axes, the grid, what is said of it."""

from __future__ import annotations

import csv
import itertools
import json
import math
import re

import pytest

from groundup.report import figure, hover, read_runs, write_csv, write_report
from groundup.report.health import when
from groundup.report.page import pivot_table
from groundup.report.table import compare, study
from groundup.train import OptimizerConfig, Recipe, toml
from groundup.train.recipe_file import sweep
from tests.report.test_table import write_depths


def headline(group):
    return pivot_table.headline(group.pivot, compare(group))


def write_sweep(root, write_run, axes, *, variants=("",), seeds=(0,), name=None, **losses):
    """A grid of runs as `groundup sweep` calls them; `losses` by what their names contain."""
    folders = []
    for variant, *values in itertools.product(variants, *axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        parts = [f"{key.rpartition('.')[2]}-{value}" for key, value in chosen.items()]
        point = ".".join([*([variant] if variant else []), *parts])
        for seed in seeds:
            loss = 4 + 0.1 * len(folders)
            folders.append(
                write_run(
                    root / point / f"seed-{seed}",
                    name(point) if name else point,
                    seed=seed,
                    schedule="none",
                    settings=chosen | ({"optimizer.name": variant} if variant else {}),
                    eval_loss=loss,
                )
            )
    return folders


AXES = {"rate.warmup": [0.2, 0, 0.05], "rate.peak": [1e-3, 1e-05, 1.0]}


def test_axes_are_those_of_the_names(tmp_path, write_run):
    folders = write_sweep(tmp_path, write_run, AXES, variants=("adamw", "lion"))
    group = study(read_runs(folders))
    pivot = group.pivot
    assert group.baseline is None
    assert pivot.axes == ("rate.warmup", "rate.peak")
    assert pivot.columns == (1e-05, 1e-3, 1.0)
    assert list(pivot.rows) == [(v, w) for v in ("adamw", "lion") for w in (0, 0.05, 0.2)]
    losses = [cell.loss for cell in pivot.rows["adamw", 0.2]]
    assert losses == pytest.approx([4.1, 4.0, 4.2])
    losses = [cell.loss for cell in pivot.rows["lion", 0]]
    assert losses == pytest.approx([4 + 0.1 * 13, 4 + 0.1 * 12, 4 + 0.1 * 14])


def test_names_are_those_that_sweep_gives(tmp_path, write_run):
    """The grid found from recipes and names is the one that the sweep was made from."""
    axes = {"rate.warmup": [0, 0.25], "rate.peak": [1, 2e-3], "optimizer.betas": [[0.9, 0.95]]}
    axes["optimizer.betas"].append([0.8, 0.99])
    recipe = Recipe(optimizer=OptimizerConfig("adamw"))
    points = sweep({"a": recipe, "b.c": recipe}, axes)
    folders = []
    for i, (name, point) in enumerate(points.items()):
        folder = write_run(tmp_path / str(i), name, eval_loss=3 + i / 100)
        (folder / "recipe.toml").write_text(toml.dumps(point.recipe))
        folders.append(folder)
    pivot = study(read_runs(folders)).pivot
    assert pivot.axes == tuple(axes)
    assert pivot.columns == ("[0.9, 0.95]", "[0.8, 0.99]")
    for i, point in enumerate(points.values()):
        warmup, peak, betas = point.values
        cells = pivot.rows[point.variant, warmup, float(peak)]
        assert cells[pivot.columns.index(str(betas))].loss == pytest.approx(3 + i / 100)


def test_runs_with_names_of_their_own(tmp_path, write_run):
    folders = write_sweep(tmp_path, write_run, AXES, name=lambda point: point[::-1])
    pivot = study(read_runs(folders)).pivot
    assert set(pivot.axes) == set(AXES)
    assert len(pivot.rows) == 3
    assert all(cell is not None for cells in pivot.rows.values() for cell in cells)


def test_a_comparison_is_no_grid(pair, tmp_path, write_run):
    group = study(read_runs(pair))
    assert group.pivot is None
    assert group.baseline.name == "baseline"
    assert study(read_runs(pair[:1])).pivot is None
    more = [
        write_run(tmp_path / name, name, schedule=name, length=f"T = {length}")
        for name, length in (("linear", 5), ("equal", 10), ("reverse", 5))
    ]
    assert study(read_runs([pair[0], *more])).pivot is None


def test_a_baseline_that_is_named_stays(tmp_path, write_run):
    folders = write_sweep(tmp_path, write_run, AXES)
    chosen = "warmup-0.peak-0.001"
    group = study(read_runs(folders), chosen)
    assert group.baseline.name == chosen
    assert group.pivot is not None


def test_means_over_seeds_and_what_diverged(tmp_path, write_run, rows):
    axes = {"rate.warmup": [0, 0.1], "rate.peak": [0.001, 10.0]}
    folders = write_sweep(tmp_path, write_run, axes, seeds=(0, 1, 2))
    metrics = rows(20)
    metrics[-1]["loss"] = None
    hot = [folder for folder in folders if "peak-10" in str(folder)]
    for folder in [*hot[:3], hot[4]]:
        (folder / "summary.json").unlink()
        text = "\n".join(map(str, metrics)).replace("'", '"').replace("None", "null")
        (folder / "metrics.jsonl").write_text(text + "\n")
    runs = read_runs(folders)
    group = study(runs)
    pivot = group.pivot
    calm, lost = pivot.rows["", 0]
    assert (calm.loss, calm.seeds, dict(calm.states)) == (pytest.approx(4.1), 3, {})
    assert (lost.loss, dict(lost.states)) == (None, {"diverged": 3})
    partly = pivot.rows["", 0.1][1]
    assert (partly.loss, dict(partly.states)) == (None, {"diverged": 1})
    main, details = headline(group)
    assert main == (
        "Of 4 points the one with rate.warmup 0, rate.peak 0.001 has the least evaluation loss, "
        f"4.100 (perplexity {math.exp(4.1):.1f}), mean of 3 seeds."
    )
    assert "Of 12 runs 4 diverged." in details
    page = write_report(folders, tmp_path / "r.html").read_text(encoding="utf-8")
    table = re.search(r'<table class="pivot">.*?</table>', page, re.DOTALL)[0]
    assert '<td class="state">diverged</td>' in table
    assert '<td class="state">1 of 3 diverged</td>' in table
    assert table.count("best of all") == 1
    assert table.count("<b>") == 2
    assert "1 of 3 diverged" in page[page.index("by variant") :]


def test_a_sweep_that_has_not_got_far(tmp_path, write_run, rows):
    folders = write_sweep(tmp_path, write_run, AXES)
    quiet = [{k: v for k, v in row.items() if k != "eval_loss"} for row in rows(10)]
    lines = "\n".join(map(str, quiet)).replace("'", '"')
    for folder in folders:
        (folder / "summary.json").unlink()
        (folder / "metrics.jsonl").write_text(lines + "\n")
    group = study(read_runs(folders))
    assert "None of the 9 points" in headline(group)[0]
    # A missing point is a hole, not an error.
    pivot = study(read_runs(folders[:-1])).pivot
    assert sum(cell is None for cells in pivot.rows.values() for cell in cells) == 1


def test_a_depth_study_says_whether_warmup_helped(tmp_path, write_run):
    folders = write_depths(tmp_path, write_run, {2: -0.2, 4: -0.1, 8: 0.05})
    group = study(read_runs(folders))
    assert group.pivot.axes == ("model.layers",)
    main, details = headline(group)
    assert main == (
        "Residual warmup (linear) ends lower than without it at 2 of 3 points of the grid: −0.200 "
        "(model.layers 2), −0.100 (4), +0.050 (8) nats per token, mean of 2 seeds."
    )
    assert any("has the least evaluation loss" in line for line in details)
    page = write_report(folders, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "When residual warmup helped" in page
    assert "gap to baseline" in page
    assert "no run has a baseline" not in page
    with (write_csv(folders, tmp_path / "r.csv")).open() as file:
        rows = list(csv.DictReader(file))
    gaps = {(row["variant"], row["seed"]): row["gap"] for row in rows}
    assert float(gaps["linear.layers-8", "1"]) == pytest.approx(0.05)
    assert gaps["baseline.layers-8", "1"] == ""


def test_the_gap_figure_pairs_as_the_page_does(tmp_path, write_run, rows):
    folders = write_depths(tmp_path, write_run, {2: 0, 4: 0})
    offsets = {
        "baseline.layers-2": 0,
        "linear.layers-2": 0.25,
        "baseline.layers-4": -1,
        "linear.layers-4": -1.5,
    }
    for folder in folders:
        offset = offsets[folder.parent.name]
        lines = [json.dumps(row) for row in rows(100, offset=offset)]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (axes,) = figure("gap", folders).axes
    named = [(hover.found(line), line.get_ydata()) for line in axes.lines]
    drawn = {shown.name: y for shown, y in named if shown and "evaluation" not in shown.name}
    assert set(drawn) == {"linear.layers-2", "linear.layers-4"}
    assert drawn["linear.layers-2"] == pytest.approx(0.25)
    assert drawn["linear.layers-4"] == pytest.approx(-0.5)


def test_points_on_different_text_have_no_best(tmp_path, write_run):
    folders = write_sweep(tmp_path, write_run, {"data.length": [64, 128]})
    group = study(read_runs(folders))
    assert "none of them is best" in headline(group)[0]
    page = write_report(folders, tmp_path / "r.html").read_text(encoding="utf-8")
    assert "Runs that differ in data.length were evaluated on different text" in page
    assert "best of all" not in page


def test_a_sweep_without_counterparts_has_no_gap(tmp_path, write_run):
    folders = write_sweep(tmp_path, write_run, AXES)
    with pytest.raises(ValueError, match="no run has a baseline: one without residual warmup"):
        figure("gap", folders)


def test_when_tells_four_pairs_and_counts_the_rest(tmp_path, write_run, rows):
    folders = write_depths(tmp_path, write_run, dict.fromkeys((2, 3, 4, 6, 8, 12), 0), seeds=(0,))
    for folder in folders:
        variant, _, layers = folder.parent.name.partition(".layers-")
        offset = (0.01 * int(layers) - 0.05) * (variant == "linear")
        lines = [json.dumps(row) for row in rows(100, offset=offset)]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    told = when.sentences(study(read_runs(folders)))
    assert told[1].startswith("Of 6 variants with residual warmup, 3 end with a training loss")
    assert "4 of 6" in told[2]
    names = [re.match("“linear.layers-([0-9]+)”", line)[1] for line in told[3:]]
    assert names == ["2", "3", "8", "12"]


def test_when_says_that_the_plans_differ(tmp_path, write_run, rows):
    base = write_run(tmp_path / "b", metrics=rows(160), steps=160)
    longer = write_run(tmp_path / "l", "linear", metrics=rows(300, offset=-0.1), steps=300)
    (line,) = when.sentences(study(read_runs([base, longer])))
    assert line.endswith(
        "Its run is planned for 300 updates, the baseline’s for 160, so their rates differ."
    )
