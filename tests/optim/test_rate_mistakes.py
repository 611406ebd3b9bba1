"""What is refused or warned about when a rate is scheduled, and that nothing else is."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
from torch import nn

import groundup as gu
from groundup.optim import rate
from tests.optim.test_rate import STEPS, WSD, adamw, rates, run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"factor": 0.1}, "factor=0.1 is not valid: it must be a factor of groundup.factor"),
        ({"factor": [gu.factor.hold()]}, "factor has 1 entries for 3 groups"),
        ({"factor": {"a": gu.factor.hold()}}, "factor for the group='a' is unknown"),
        ({"factor": {}}, "group 0 has no 'name'"),
        ({"factor": gu.factor.linear(0.1)}, "fraction of the run: say how long the run is"),
        ({"factor": gu.factor.linear(100), "steps": 50}, "longer than the run of 50"),
        ({"steps": 0}, "steps=0"),
        ({"on_change": "ignore"}, "on_change='ignore' is unknown"),
        ({"on_change": "jump", "blend": 5}, "blend=5 has no meaning with on_change='jump'"),
        ({"blend": 0}, "blend=0"),
        ({"blend": 0.5}, "blend=0.5 is a fraction of the run"),
        ({"depth": 4}, "depth=4 has a meaning only together with layers"),
        ({"others": {"beta3": gu.factor.hold()}}, "hyperparameter='beta3' is unknown: .*beta1"),
        ({"others": {"momentum": gu.factor.hold()}}, "valid are eps, weight_decay, beta1"),
        ({"others": {"lr": gu.factor.hold()}}, "the rate is what factor is for"),
        ({"others": {"beta1": gu.factor.hold() * 1.2}}, r"beta1=1.08 at step 0 is not valid"),
        ({"weight_decay": "constant"}, "weight_decay='constant' is unknown"),
        ({"weight_decay": 0.1}, "weight_decay=0.1 is not valid: it must be a factor"),
    ],
)
def test_arguments(arguments: dict[str, Any], message: str) -> None:
    optimizer = adamw()
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=message):
        rate.schedule(optimizer, **({"factor": gu.factor.hold()} | arguments))
    assert optimizer.state_dict() == before


def test_no_optimizer() -> None:
    with pytest.raises(ValueError, match="optimizer of type Linear is not valid"):
        rate.schedule(nn.Linear(1, 1), gu.factor.hold())  # type: ignore[arg-type]


def test_the_wrong_order() -> None:
    optimizer = adamw(1e-2)
    schedule = rate.schedule(optimizer, gu.factor.linear(10))
    with pytest.warns(UserWarning, match=r"schedule.step\(\) before optimizer.step\(\)"):
        schedule.step()
    with warnings.catch_warnings(action="error"):
        schedule.step()


def test_a_step_that_is_never_called() -> None:
    optimizer = adamw(1e-2)
    schedule = rate.schedule(optimizer, gu.factor.linear(10))
    for _ in range(2):
        optimizer.step()
    with pytest.warns(UserWarning, match=r"was not called in 2 updates.*follow=True"):
        schedule.state_dict()
    with warnings.catch_warnings(action="error"):  # once is enough
        schedule.get_last_lr()


@pytest.mark.parametrize(
    ("updates", "calls", "message"),
    [(100, 1, "called once an epoch"), (10, 40, "for every micro-batch")],
)
def test_the_wrong_number_of_steps(updates: int, calls: int, message: str) -> None:
    optimizer = adamw(1e-2)
    schedule = rate.schedule(optimizer, gu.factor.linear(10))
    for _ in range(updates):
        optimizer.step()
    for _ in range(calls):
        schedule.step()
    with pytest.warns(UserWarning, match=message):
        schedule.get_last_lr()


def test_somebody_else_writes_the_rate() -> None:
    optimizer = adamw(1e-2)
    schedule = rate.schedule(optimizer, gu.factor.hold())
    run(optimizer, schedule, 2)
    optimizer.param_groups[0]["lr"] = 5e-3
    with pytest.warns(UserWarning, match="something else has written the rate of group 0"):
        run(optimizer, schedule, 1)
    assert rates(optimizer) == [1e-2]


def test_a_loaded_optimizer_and_a_schedule_at_its_beginning() -> None:
    saving = adamw(1e-2)
    for _ in range(5):
        saving.step()
    optimizer = adamw(1e-2)
    schedule = rate.schedule(optimizer, gu.factor.linear(10))
    optimizer.load_state_dict(saving.state_dict())
    optimizer.step()
    with pytest.warns(UserWarning, match=r"with 5 updates behind it.*schedule.at\(5\)"):
        schedule.step()
    deliberate = rate.schedule(adamw(1e-2), gu.factor.linear(10))
    deliberate.optimizer.load_state_dict(saving.state_dict())
    deliberate.at(0)
    deliberate.optimizer.step()
    with warnings.catch_warnings(action="error"):
        deliberate.step()


def test_nothing_is_said_in_an_ordinary_run() -> None:
    with warnings.catch_warnings(action="error"):
        optimizer = adamw()
        schedule = rate.schedule(optimizer, WSD, steps=STEPS)
        for _ in range(STEPS):
            optimizer.step()
            schedule.step()
            schedule.get_last_lr()
            schedule.state_dict()
    assert schedule.last_epoch == STEPS
