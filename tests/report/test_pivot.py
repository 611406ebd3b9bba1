"""Sweeps: their axes, the grid, what is said of it."""

from __future__ import annotations

import itertools
import math
import re

import pytest

from groundup.report import read_runs, write_report
from groundup.report.page.pivot import grid
from groundup.report.page.pivot_table import headline
from groundup.train import OptimizerConfig, Recipe, toml
from groundup.train.recipe_file import sweep


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
    group, pivot = grid(read_runs(folders))
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
    pivot = grid(read_runs(folders))[1]
    assert pivot.axes == tuple(axes)
    assert pivot.columns == ("[0.9, 0.95]", "[0.8, 0.99]")
    for i, point in enumerate(points.values()):
        warmup, peak, betas = point.values
        cells = pivot.rows[point.variant, warmup, float(peak)]
        assert cells[pivot.columns.index(str(betas))].loss == pytest.approx(3 + i / 100)


def test_runs_with_names_of_their_own(tmp_path, write_run):
    folders = write_sweep(tmp_path, write_run, AXES, name=lambda point: point[::-1])
    pivot = grid(read_runs(folders))[1]
    assert set(pivot.axes) == set(AXES)
    assert len(pivot.rows) == 3
    assert all(cell is not None for cells in pivot.rows.values() for cell in cells)


def test_a_comparison_is_no_grid(pair, tmp_path, write_run):
    group, pivot = grid(read_runs(pair))
    assert pivot is None
    assert group.baseline.name == "baseline"
    assert grid(read_runs(pair[:1]))[1] is None
    more = [
        write_run(tmp_path / name, name, schedule=name, length=f"T = {length}")
        for name, length in (("linear", 5), ("equal", 10), ("reverse", 5))
    ]
    assert grid(read_runs([pair[0], *more]))[1] is None


def test_a_baseline_that_is_named_stays(tmp_path, write_run):
    folders = write_sweep(tmp_path, write_run, AXES)
    chosen = "warmup-0.peak-0.001"
    group, pivot = grid(read_runs(folders), chosen)
    assert group.baseline.name == chosen
    assert pivot is not None


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
    pivot = grid(runs)[1]
    calm, lost = pivot.rows["", 0]
    assert (calm.loss, calm.seeds, dict(calm.states)) == (pytest.approx(4.1), 3, {})
    assert (lost.loss, dict(lost.states)) == (None, {"diverged": 3})
    partly = pivot.rows["", 0.1][1]
    assert (partly.loss, dict(partly.states)) == (None, {"diverged": 1})
    main, details = headline(pivot)
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
    _, pivot = grid(read_runs(folders))
    assert "None of the 9 points" in headline(pivot)[0]
    # A missing point is a hole, not an error.
    pivot = grid(read_runs(folders[:-1]))[1]
    assert sum(cell is None for cells in pivot.rows.values() for cell in cells) == 1
