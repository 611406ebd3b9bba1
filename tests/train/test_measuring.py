"""[measure] in a recipe: what is written, that it disturbs nothing, that it resumes."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from groundup.train import MeasureConfig, OptimizerConfig, RateConfig, Recipe, ResidualConfig, train
from groundup.train.measuring import interval
from tests.train.runs import changed, forget_the_end, lines, metrics


def test_measuring_changes_no_bit_of_the_run(recipe: Recipe, tmp_path: Path) -> None:
    recipe = changed(recipe, micro_batch=4)
    train(replace(recipe, measure=MeasureConfig(every=0)), tmp_path / "without")
    train(replace(recipe, measure=MeasureConfig(every=3)), tmp_path / "with")
    texts = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("with", "without")]
    assert texts[0] == texts[1]
    assert not (tmp_path / "without" / "measurements.jsonl").exists()
    found = lines(tmp_path / "with", "measurements")
    at = {line["step"]: line for line in found}
    assert sorted(at) == [0, 3, 4, 6, 9, 11, 12]
    for step in (3, 6, 9):
        assert {"update_norm", "relative_update", "angle", "phi", "rrc"} <= at[step].keys()
        assert {"stable_rank", "momentum_cosine", "grad_norm/layers"} <= at[step].keys()
        assert not any("/" in k and not k.endswith(("/layers", "/positions")) for k in at[step])
    # Evaluations follow updates 4, 9 and 11; the model at the end needs no update.
    for step in (4, 9, 11):
        assert sum(v is not None for v in at[step]["eval_loss/positions"]) == 8
    assert {"stream_norm/layers", "skip_loss/layers", "probe_loss"} <= at[12].keys()
    assert "update_norm" not in at[12]
    sketches = lines(tmp_path / "with", "sketches")
    assert [line["step"] for line in sketches] == [0, 3, 6, 9, 12]
    assert {"attention", "feed_forward"} < sketches[0].keys()
    # Left out where the smaller batch's gradient happens to be the smaller one: φ is infinite.
    assert any("phi_two_batches" in line for line in found)


def test_the_loss_by_position_is_that_of_the_evaluation(recipe: Recipe, tmp_path: Path) -> None:
    run = replace(recipe, measure=MeasureConfig(what=("positions",)))
    train(changed(run, eval_every=12), tmp_path)
    (line,) = lines(tmp_path, "measurements")
    edges, losses = line["loss_bins"], line["eval_loss/positions"]
    widths = [b - a for a, b in pairwise(edges)]
    mean = sum(w * loss for w, loss in zip(widths, losses, strict=True)) / edges[-1]
    assert edges[-1] == run.data.length
    assert mean == pytest.approx(metrics(tmp_path)[-1]["eval_loss"], rel=1e-6)


def test_what_is_costly_is_measured_a_limited_number_of_times(recipe: Recipe) -> None:
    for steps, every, word, expected in (
        (1000, 100, "depth", 200),
        (100_000, 100, "depth", 12_500),
        (100_000, 100, "similarity", 1700),
        (100_000, 100, "stream", 100),
        (12, 3, "depth", 3),
    ):
        run = replace(changed(recipe, steps=steps), measure=MeasureConfig(every=every))
        assert interval(run, word) == expected


def test_measuring_may_be_changed_on_resume(recipe: Recipe, tmp_path: Path) -> None:
    train(replace(recipe, measure=MeasureConfig(every=0)), tmp_path)
    text = (tmp_path / "metrics.jsonl").read_bytes()
    forget_the_end(tmp_path)
    train(replace(recipe, measure=MeasureConfig(every=4, what=("stream",))), tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == text
    assert lines(tmp_path, "measurements")[-1]["step"] == 12


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
        MeasureConfig(every=0, what=("noise",))
