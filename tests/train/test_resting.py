"""Runs that leave dormant layers out of the computation."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from groundup.train import MeasureConfig, RateConfig, Recipe, ResidualConfig, train
from tests.train.runs import forget_the_end, lines, metrics

SKIP = ResidualConfig("cascade", T=3, S=4, dormant="skip")


@pytest.fixture(scope="module")
def resting(recipe: Recipe) -> Recipe:
    """Layers wake at the 4th and the 8th of 12 updates, just when a checkpoint is written."""
    return replace(recipe, residual=SKIP, measure=MeasureConfig(every=3))


@pytest.fixture(scope="module")
def whole(resting: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("resting")
    train(resting, out)
    return out


def test_it_trains_otherwise_than_with_layers_that_run(
    resting: Recipe, whole: Path, tmp_path: Path
) -> None:
    """The same until a layer wakes with moments of its own, and without the decay."""
    train(replace(resting, residual=replace(SKIP, dormant="run")), tmp_path)
    found, expected = metrics(whole), metrics(tmp_path)
    assert found[:5] == expected[:5]
    assert found[-1]["loss"] != expected[-1]["loss"]


@pytest.mark.parametrize("checkpoints", [1, 2])
def test_it_goes_on_exactly(resting: Recipe, whole: Path, tmp_path: Path, checkpoints: int) -> None:
    """Also from where some weights have no state in the optimizer yet."""
    out = shutil.copytree(whole, tmp_path / "run")
    for _ in range(checkpoints):
        forget_the_end(out)
    train(resting, out)
    for name in ("metrics", "measurements"):
        assert lines(out, name) == lines(whole, name)


def test_what_is_measured_of_a_layer_that_rests(whole: Path) -> None:
    """It gives nothing, and nothing of it moves."""
    updates = [line for line in lines(whole, "measurements") if "update_norm/layers" in line]
    assert [line["step"] for line in updates] == [0, 3, 6, 9]
    for line in updates:
        moved = [value > 0 for value in line["update_norm/layers"]]
        gradients = [value is not None for value in line["grad_norm/layers"]]
        assert moved == gradients == [line["step"] >= 4 * l for l in range(3)]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"schedule": "linear", "T": 2, "dormant": "skip"}, "linear declares no layer dormant"),
        ({"schedule": "none", "dormant": "skip"}, "none declares no layer dormant"),
        ({"schedule": "cascade", "T": 2, "dormant": "leave"}, "residual.dormant='leave'"),
    ],
)
def test_what_cannot_be(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResidualConfig(**fields)


def test_rates_by_layer_leave_none_out() -> None:
    with pytest.raises(ValueError, match=r"rate\.layers\.dormant='skip' would be ignored"):
        RateConfig(layers=SKIP)
