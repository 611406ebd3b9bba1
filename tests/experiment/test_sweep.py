"""Sweeps: the grid, its names, a run that diverges, what is printed and written."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from groundup.cli import main
from groundup.experiment.sweep import parse_axes
from groundup.train import OptimizerConfig, Recipe, ResidualConfig, recipe_file, toml
from groundup.train.recipe_file import sweep


def test_residual_warmup_is_switched_by_an_axis(recipe: Recipe) -> None:
    own = replace(recipe, residual=ResidualConfig("linear", fraction=0.25))
    axis = {"residual.schedule": ["none", "linear", "equal", "fix-L"]}
    points = sweep({"": own}, {"model.layers": [2, 4]} | axis)
    found = {name: point.recipe.residual for name, point in points.items()}
    for layers in (2, 4):
        assert found[f"layers-{layers}.schedule-none"] == ResidualConfig()
        assert found[f"layers-{layers}.schedule-linear"] == own.residual
        equal = found[f"layers-{layers}.schedule-equal"]
        assert equal == ResidualConfig("equal", fraction=0.25)
        assert found[f"layers-{layers}.schedule-fix-L"] == ResidualConfig("fix-L")
    lengths = {"residual.schedule": ["linear"], "residual.T": [3]}
    (point,) = sweep({"": own}, lengths).values()
    assert point.recipe.residual == ResidualConfig("linear", T=3)
    (point,) = sweep({"": own}, dict(reversed(lengths.items()))).values()
    assert point.recipe.residual == ResidualConfig("linear", T=3)


def test_every_combination_the_last_axis_fastest(recipe: Recipe) -> None:
    axes = {"rate.warmup": [0, 0.25], "optimizer.options.beta": [0.8, 0.9, 0.95]}
    lion = replace(recipe, optimizer=OptimizerConfig("liona", weight_decay=0.3))
    points = sweep({"a": lion, "b": lion}, axes)
    assert list(points) == [
        f"{v}.warmup-{w}.beta-{b}" for v in "ab" for w in (0, 0.25) for b in (0.8, 0.9, 0.95)
    ]
    point = points["b.warmup-0.25.beta-0.8"]
    assert (point.variant, point.values) == ("b", (0.25, 0.8))
    assert point.recipe.rate.warmup == 0.25
    assert point.recipe.optimizer == replace(lion.optimizer, options={"beta": 0.8})
    assert point.recipe.variant == "b.warmup-0.25.beta-0.8"


def test_another_optimizer_keeps_decay_and_clip_alone(recipe: Recipe) -> None:
    own = OptimizerConfig(betas=(0.8, 0.9), weight_decay=0.3, clip=0.5)
    points = sweep({"": replace(recipe, optimizer=own)}, {"optimizer.name": ["adamw", "lionar"]})
    assert points["name-lionar"].recipe.optimizer == OptimizerConfig(
        "lionar", weight_decay=0.3, clip=0.5
    )


def test_a_length_of_residual_warmup_replaces_the_recipes(recipe: Recipe) -> None:
    points = sweep({"": recipe}, {"residual.total": [6, 9]})
    found = points["total-9"].recipe.residual
    assert (found.schedule, found.T, found.total) == ("linear", None, 9)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"rate.warmup": []}, r"sweep.rate.warmup=\[\] is not valid"),
        ({"rate.warmup": 3}, "sweep.rate.warmup=3 is not valid"),
        ({"rate.wramup": [3]}, "sweep with rate.wramup=3: key in .*did you mean 'warmup'"),
        ({"rate.warmup": [2, 2]}, "give each value once"),
        ({"optimizer.name": ["adamw", "adamv"]}, "sweep with optimizer.name='adamv'.*adamw"),
    ],
)
def test_what_is_wrong_is_named_before_anything_runs(
    recipe: Recipe, axes: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        sweep({"": recipe}, axes)


def test_axes_of_a_command_line() -> None:
    found = parse_axes(["rate.warmup=0,0.05,untuned", "train.compile=true,false"])
    assert found == {"rate.warmup": [0, 0.05, "untuned"], "train.compile": [True, False]}
    with pytest.raises(ValueError, match="write it like"):
        parse_axes(["rate.warmup"])


def test_from_the_command_line(recipe: Recipe, tmp_path: Path, capsys) -> None:
    path = tmp_path / "small.toml"
    text = toml.dumps(replace(recipe, residual=replace(recipe.residual, schedule="linear")))
    path.write_text(
        text
        + "\n[sweep]\nrate.warmup = [2, 6]\n"
        + '[[variants]]\nname = "adamw"\n[[variants]]\nname = "lionar"\noptimizer.name = "lionar"\n'
        + '[[variants]]\nname = "broken"\nrate.peak = 1e30\noptimizer.clip = 0.0\n'
    )
    out = tmp_path / "runs"
    assert main(["sweep", str(path), "--out", str(out), "--list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert not out.exists()

    assert main(["sweep", str(path), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    rows = {line.split()[0]: line.split() for line in said.splitlines() if line.strip()}
    assert rows["broken"][1:] == ["diverged", "diverged"]
    table = list(csv.DictReader((out / "sweep.csv").open()))
    assert [row["status"] for row in table] == ["finished"] * 4 + ["stopped"] * 2
    losses = {(row["variant"], row["rate.warmup"]): row["eval_loss"] for row in table}
    for variant in ("adamw", "lionar"):
        cells = [word for word in rows[variant][1:] if word != "*"]
        expected = [f"{float(losses[variant, w]):.4f}" for w in ("2", "6")]
        assert cells == expected
        best = rows[variant].index("*") - 1
        assert rows[variant][best] == min(expected)
    assert "broken.warmup-2" in (out / "report.html").read_text()
    assert (out / "lionar.warmup-6" / "seed-0" / "metrics.jsonl").exists()
    point = recipe_file.read(out / "lionar.warmup-6" / "seed-0" / "recipe.toml").recipe
    assert (point.optimizer.name, point.rate.warmup) == ("lionar", 6)

    # Finished runs are not trained again.
    assert main(["sweep", str(path), "--out", str(out)]) == 0
    assert "has finished already" in capsys.readouterr().out


def test_compare_does_not_ignore_a_sweep(recipe: Recipe, tmp_path: Path, capsys) -> None:
    path = tmp_path / "small.toml"
    path.write_text(toml.dumps(recipe) + "\n[sweep]\nrate.warmup = [2, 6]\n")
    assert main(["compare", str(path)]) == 2
    assert "say groundup sweep" in capsys.readouterr().err


def test_nothing_to_sweep(recipe: Recipe, tmp_path: Path, capsys) -> None:
    path = tmp_path / "small.toml"
    path.write_text(toml.dumps(recipe))
    assert main(["sweep", str(path)]) == 2
    assert "nothing to sweep" in capsys.readouterr().err


def test_what_the_grid_overrides_is_refused(recipe: Recipe, tmp_path: Path, capsys) -> None:
    path = tmp_path / "small.toml"
    path.write_text(toml.dumps(recipe))
    assert main(["sweep", str(path), "--axes", "train.seed=0,1"]) == 2
    assert "seeds are said with --seeds" in capsys.readouterr().err
    assert main(["sweep", str(path), "--axes", "rate.warmup=2,3", "--rate.warmup", "1"]) == 2
    assert "said of rate.warmup would be ignored" in capsys.readouterr().err
