"""[measure] in a recipe: what is written, that it disturbs nothing, that it resumes."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from groundup.train import MeasureConfig, OptimizerConfig, RateConfig, Recipe, ResidualConfig, train
from tests.train.runs import changed, forget_the_end, lines


def test_measuring_changes_no_bit_of_the_run(recipe: Recipe, tmp_path: Path) -> None:
    recipe = changed(recipe, micro_batch=4)
    train(recipe, tmp_path / "without")
    train(replace(recipe, measure=MeasureConfig(every=3)), tmp_path / "with")
    texts = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("with", "without")]
    assert texts[0] == texts[1]
    assert not (tmp_path / "without" / "measurements.jsonl").exists()
    found = lines(tmp_path / "with", "measurements")
    assert [line["step"] for line in found] == [0, 3, 6, 9]
    for line in found[1:]:
        assert {"update_norm", "relative_update", "angle", "phi", "rrc"} <= line.keys()
        assert {"stable_rank", "momentum_cosine"} <= line.keys()
        assert not any("/" in name for name in line)
    # Left out where the smaller batch's gradient happens to be the smaller one: φ is infinite.
    assert any("phi_two_batches" in line for line in found)


def test_the_norm_of_lions_update_is_known(recipe: Recipe, tmp_path: Path) -> None:
    """Every weight moves by η·s exactly, but for those whose gradient is 0."""
    steps = 12
    run = replace(
        recipe,
        residual=ResidualConfig(),
        optimizer=OptimizerConfig("liona", weight_decay=0.0),
        rate=RateConfig(peak=1e-3, warmup=0, decay=0),
        measure=MeasureConfig(every=1, what=("updates",), per_tensor=True),
    )
    train(run, tmp_path)
    found = lines(tmp_path, "measurements")
    assert len(found) == steps
    moved = 1e-3 * math.sqrt(0.1 / 1.9)
    weight = run.model.width * run.model.width
    name = "update_norm/layers.1.attention.branch.output.weight"
    for line in found:
        assert line[name] == pytest.approx(moved * math.sqrt(weight), rel=1e-4)


def test_measurements_are_cut_back_on_resume(recipe: Recipe, tmp_path: Path) -> None:
    run = replace(recipe, measure=MeasureConfig(every=2, what=("updates", "noise")))
    train(run, tmp_path)
    text = (tmp_path / "measurements.jsonl").read_bytes()
    forget_the_end(tmp_path)
    train(run, tmp_path)
    assert (tmp_path / "measurements.jsonl").read_bytes() == text


def test_settings_without_effect_are_refused() -> None:
    with pytest.raises(ValueError, match="nothing is measured"):
        MeasureConfig(what=("noise",))
