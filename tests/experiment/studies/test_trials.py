"""What a study wants to train next, as a function of what has been trained."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.experiment.studies.trials import Outcome, Trial, planned, reported, tuning, wanted

from .made import Made, setting

RATES = (0.5, 1.0, 2.0)
TUNED = setting(RATES, seeds=2)
ARMS = {"a": Made(), "b": Made()}


def end(trial: Trial, value: float | None) -> None:
    """As a run ends: with a value, with one that is not a number, or not able to go on."""
    trial.write()
    if value is None:
        trial.stop("the loss was not finite")
    else:
        trial.folder.mkdir()
        (trial.folder / "summary.json").write_text(json.dumps({"loss": value}))


def told(trials: list[Trial]) -> list[tuple[str, float, int]]:
    return [(trial.name, trial.peak, trial.seed) for trial in trials]


def test_rates_first_then_seed_by_seed(tmp_path: Path) -> None:
    first = [(name, rate, 0) for name in "ab" for rate in RATES]
    assert told(wanted(ARMS, TUNED, tmp_path)) == first
    for trial, value in zip(tuning("b", ARMS["b"], TUNED, tmp_path), (3.0, 1.5, None), strict=True):
        assert len(wanted(ARMS, TUNED, tmp_path)) == 6  # a rate is not chosen before all have ended
        end(trial, value)
    assert told(wanted(ARMS, TUNED, tmp_path)) == [*first, ("b", 1.0, 1), ("b", 1.0, 2)]
    for trial, value in zip(tuning("a", ARMS["a"], TUNED, tmp_path), (3.0, 3.5, 2.0), strict=True):
        end(trial, value)
    seeds = [("a", 2.0, 1), ("b", 1.0, 1), ("a", 2.0, 2), ("b", 1.0, 2)]
    assert told(wanted(ARMS, TUNED, tmp_path)) == first + seeds
    assert planned(ARMS, TUNED, tmp_path) == 10


def test_a_single_rate_is_not_tried_first(tmp_path: Path) -> None:
    assert told(wanted({"a": Made(peak=0.3)}, setting(seeds=2), tmp_path)) == [
        ("a", 0.3, 1),
        ("a", 0.3, 2),
    ]
    assert planned({"a": Made()}, setting(seeds=2), tmp_path) == 2


def test_rates_that_round_to_one_are_one(tmp_path: Path) -> None:
    alike = setting((1.0, 1.0001, 2.0))
    assert told(wanted({"a": Made()}, alike, tmp_path)) == [("a", 1.0, 0), ("a", 2.0, 0)]


def test_an_arm_that_always_diverged_is_not_reported(tmp_path: Path) -> None:
    for trial, value in zip(
        tuning("a", ARMS["a"], TUNED, tmp_path), (None, math.nan, None), strict=True
    ):
        end(trial, value)
    assert len(wanted(ARMS, TUNED, tmp_path)) == 6
    assert planned(ARMS, TUNED, tmp_path) == 6 + 2


def test_a_summary_of_what_diverged_gives_no_value(tmp_path: Path) -> None:
    """A program may write one, with how it was when it was still sound."""
    (trial,) = reported("a", Made(), 1.0, setting(), tmp_path)
    trial.folder.mkdir(parents=True)
    (trial.folder / "summary.json").write_text('{"loss": 0.02, "status": "diverged"}')
    assert trial.outcome() == Outcome(None, "diverged")


@pytest.mark.parametrize("content", ["", '{"loss": 1', "[1]", '{"loss": "low"}', "\x00"])
def test_a_damaged_summary_is_named(content: str, tmp_path: Path) -> None:
    (trial,) = reported("a", Made(), 1.0, setting(), tmp_path)
    trial.folder.mkdir(parents=True)
    (trial.folder / "summary.json").write_text(content)
    with pytest.raises(ValueError, match=r"a.peak-1/seed-1/summary.json is damaged"):
        trial.outcome()


values = st.none() | st.floats(0, 5, width=16) | st.just(math.nan)
tables = st.fixed_dictionaries({(arm, rate): values for arm in "ab" for rate in RATES})


@settings(max_examples=10, deadline=None)
@given(table=tables, jobs=st.integers(1, 4), draw=st.data())
def test_in_whatever_order_runs_end_the_same_are_trained(
    table: Mapping[tuple[str, float], float | None], jobs: int, draw: st.DataObject
) -> None:
    trained: list[Trial] = []
    with tempfile.TemporaryDirectory() as folder:
        while True:
            # All that is known is in the folder: an interruption changes nothing.
            every = wanted(dict(ARMS), TUNED, Path(folder))
            waiting = [trial for trial in every if trial.outcome() is None][:jobs]
            if not waiting:
                break
            trial = draw.draw(st.sampled_from(waiting))
            trained.append(trial)
            assert len(trained) <= planned(ARMS, TUNED, Path(folder))
            value = table[trial.name, trial.peak]
            end(trial, value if trial.tuning or value is None else value + trial.seed)
        assert len(trained) == planned(ARMS, TUNED, Path(folder))
    assert len(set(told(trained))) == len(trained)
    expected = {(name, rate, 0) for name in ARMS for rate in RATES}
    for name in ARMS:
        ranks = {
            rate: value
            for rate in RATES
            if (value := table[name, rate]) is not None and not math.isnan(value)
        }
        best = [rate for rate, value in ranks.items() if value == min(ranks.values())]
        expected |= {(name, rate, seed) for rate in best[:1] for seed in (1, 2)}
    assert set(told(trained)) == expected
