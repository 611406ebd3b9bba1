"""Runs whose branches have gains and are left out at random."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from groundup.train import Recipe, train
from tests.train.runs import forget_the_end, lines, metrics


def test_stochastic_depth_and_gains_go_on_exactly(recipe: Recipe, tmp_path: Path) -> None:
    """What is left out is a function of seed and step: there is nothing of it to save."""
    relatives = replace(recipe.model, gain="layerscale", drop_path=0.5)
    recipe = replace(recipe, model=relatives)
    train(recipe, tmp_path / "run")
    whole = {name: lines(tmp_path / "run", name) for name in ("metrics", "measurements")}
    forget_the_end(tmp_path / "run")
    train(recipe, tmp_path / "run")
    for name, expected in whole.items():
        assert lines(tmp_path / "run", name) == expected
    always = replace(recipe, model=replace(relatives, drop_path=0.0))
    train(always, tmp_path / "always")
    assert metrics(tmp_path / "always")[-1]["loss"] != whole["metrics"][-1]["loss"]
