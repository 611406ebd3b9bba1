"""Resuming a rate schedule: exactly where nothing changed, without a jump where something did."""

from __future__ import annotations

import io
import itertools
import json
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import groundup as gu
from groundup.optim import rate

PEAKS = (1e-2, 3e-3)
DECAY, STEPS = 0.1, 100
WSD = gu.factor.linear(10) >> gu.factor.hold() >> gu.factor.decay("linear", 30)


def wsd(step: int, peak: float = 1.0, warmup: int = 10, steps: int = STEPS) -> float:
    """The rate of the factor above, by hand."""
    return peak * min(1.0, (step + 1) / warmup, max(0.0, (steps - step) / 30))


def adamw(*peaks: float, tensor: bool = False, **options: Any) -> torch.optim.AdamW:
    torch.manual_seed(0)
    groups = []
    for peak in peaks or PEAKS:
        p = nn.Parameter(torch.randn(3))
        p.grad = torch.randn(3)
        groups.append({"params": [p], "lr": torch.tensor(peak) if tensor else peak})
    return torch.optim.AdamW(groups, weight_decay=DECAY, **options)


def rates(optimizer: torch.optim.Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def run(schedule: rate.RateSchedule, steps: int) -> list[list[float]]:
    """The rates that each of the next updates is made with."""
    found = []
    for _ in range(steps):
        found.append(rates(schedule.optimizer))
        schedule.optimizer.step()
        schedule.step()
    return found


def saved(schedule: rate.RateSchedule) -> tuple[dict, dict]:
    """Both states as a checkpoint would bring them: through a file, read without pickled code."""
    file = io.BytesIO()
    torch.save((schedule.state_dict(), schedule.optimizer.state_dict()), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def load(schedule: rate.RateSchedule, states: tuple[dict, dict], optimizer_first: bool) -> None:
    own, optimizer = states
    loads = [
        lambda: schedule.load_state_dict(own),
        lambda: schedule.optimizer.load_state_dict(optimizer),
    ]
    for one in reversed(loads) if optimizer_first else loads:
        one()


ORDERS = pytest.mark.parametrize("optimizer_first", [True, False], ids=["optimizer first", "last"])
FOLLOW = pytest.mark.parametrize("follow", [True, False], ids=["follow", "step"])
TENSOR = pytest.mark.parametrize("tensor", [True, False], ids=["tensor", "float"])


class TestUnchanged:
    @ORDERS
    @FOLLOW
    @TENSOR
    def test_it_goes_on_exactly(self, optimizer_first: bool, follow: bool, tensor: bool) -> None:
        arguments: Any = {
            "factor": [WSD, gu.factor.cosine(0.3) >> gu.factor.hold()],
            "steps": STEPS,
            "weight_decay": "independent",
            "others": {"beta2": gu.factor.linear(50, initial=0.9)},
            "follow": follow,
        }
        whole = rate.schedule(adamw(tensor=tensor), **arguments)
        expected = run(whole, STEPS)
        first = rate.schedule(adamw(tensor=tensor), **arguments)
        assert run(first, 37) == expected[:37]
        second = rate.schedule(adamw(tensor=tensor), **arguments)
        with warnings.catch_warnings(action="error"):
            load(second, saved(first), optimizer_first)
            for p, q in zip(weights(second), weights(first), strict=True):
                p.data.copy_(q)
            assert run(second, STEPS - 37) == expected[37:]
        for p, q in zip(weights(second), weights(whole), strict=True):
            assert torch.equal(p, q)
        assert second.last_epoch == STEPS

    def test_layers(self) -> None:
        def make() -> rate.RateSchedule:
            optimizer = adamw()
            optimizer.param_groups[1]["layer"] = 3
            return rate.schedule(optimizer, WSD, steps=STEPS, layers=gu.depth.linear(T=7))

        expected = run(make(), STEPS)
        first, second = make(), make()
        run(first, 15)
        second.load_state_dict(json.loads(json.dumps(first.state_dict())))
        assert run(second, STEPS - 15) == expected[15:]
        assert expected[15][1] == pytest.approx(PEAKS[1] * 16 / 21)

    def test_a_rewarm_is_in_the_state(self) -> None:
        first, second = (rate.schedule(adamw(), WSD, steps=STEPS) for _ in range(2))
        run(first, 20)
        first.rewarm(10)
        run(first, 3)
        load(second, saved(first), optimizer_first=True)
        assert run(second, 70) == run(first, 70)
        assert second.values(23)[0]["lr"] == pytest.approx(PEAKS[0] * 0.4)

    def test_the_optimizer_alone_is_enough_where_it_is_followed(self) -> None:
        first, second = (rate.schedule(adamw(), WSD, steps=STEPS, follow=True) for _ in range(2))
        run(first, 20)
        second.optimizer.load_state_dict(saved(first)[1])
        assert second.last_epoch == 20
        assert run(second, 70) == run(first, 70)

    def test_rounding_to_float32_is_no_change(self) -> None:
        first, second = rate.schedule(adamw(), WSD, steps=STEPS), None
        run(first, 20)
        second = rate.schedule(adamw(tensor=True), WSD, steps=STEPS)
        with warnings.catch_warnings(action="error"):
            load(second, saved(first), optimizer_first=True)
        assert rates(second.optimizer) == pytest.approx(PEAKS)

    @pytest.mark.parametrize(
        "factor", [gu.factor.linear(10) >> gu.factor.hold(), gu.factor.linear(10) * 0.5]
    )
    def test_a_longer_run_of_a_schedule_without_a_decay(self, factor: Any) -> None:
        first = rate.schedule(adamw(), factor, steps=STEPS)
        run(first, 20)
        second = rate.schedule(adamw(), factor, steps=3 * STEPS)
        with warnings.catch_warnings(action="error"):
            load(second, saved(first), optimizer_first=True)
            assert run(second, 2 * STEPS) == [rates(first.optimizer)] * (2 * STEPS)

    @pytest.mark.parametrize("tensors", [(True, False), (False, True)])
    def test_numbers_stay_numbers_and_tensors_tensors(self, tensors: tuple[bool, bool]) -> None:
        first, second = (rate.schedule(adamw(tensor=t), WSD, steps=STEPS) for t in tensors)
        run(first, 3)
        load(second, saved(first), optimizer_first=True)
        for group in second.optimizer.param_groups:
            for key in ("lr", "initial_lr"):
                assert isinstance(group[key], torch.Tensor) is tensors[1]
        assert rates(second.optimizer) == pytest.approx([p * 0.4 for p in PEAKS])

    def test_a_group_that_was_added(self) -> None:
        def add(schedule: rate.RateSchedule) -> None:
            late = nn.Parameter(torch.ones(2))
            late.grad = torch.ones(2)
            schedule.optimizer.add_param_group({"params": [late], "lr": 1.0})

        first, second = (rate.schedule(adamw(), WSD, steps=STEPS) for _ in range(2))
        run(first, 20)
        add(first)
        run(first, 5)
        states = saved(first)
        with pytest.raises(ValueError, match="has 3 groups, this optimizer 2: add those"):
            second.load_state_dict(states[0])
        add(second)
        load(second, states, optimizer_first=False)
        assert run(second, 70) == run(first, 70)


def weights(schedule: rate.RateSchedule) -> list[nn.Parameter]:
    return [p for group in schedule.optimizer.param_groups for p in group["params"]]


class TestChanged:
    @ORDERS
    @FOLLOW
    @TENSOR
    def test_another_peak(self, optimizer_first: bool, follow: bool, tensor: bool) -> None:
        """From the old rate to the new one along a straight line, and it is said."""
        first = rate.schedule(adamw(1e-2, 3e-3, tensor=tensor), WSD, steps=STEPS, follow=follow)
        run(first, 40)
        second = rate.schedule(
            adamw(5e-3, 3e-3, tensor=tensor), WSD, steps=STEPS, follow=follow, blend=8
        )
        message = (
            r"not the one that was saved after 40 updates. group 0 \(peak 0.01 → 0.005\): the rate "
            r"goes from 0.01 to the new schedule's, 0.005 at this step, over 8 updates$"
        )
        with pytest.warns(UserWarning, match=message):
            load(second, saved(first), optimizer_first)
        found = run(second, STEPS - 40)
        for t, (one, other) in enumerate(found, start=40):
            share = min(1.0, (t - 40) / 8)
            expected = (1 - share) * wsd(t, 1e-2) + share * wsd(t, 5e-3)
            assert one == pytest.approx(expected, rel=1e-6 if tensor else 1e-13)
            assert other == pytest.approx(wsd(t, 3e-3), rel=1e-6 if tensor else 1e-13)
        # The past stays what it was, for whoever asks or goes back.
        assert all(second.values(t) == first.values(t) for t in range(41))
        assert found[0] == pytest.approx([1e-2, 3e-3], rel=1e-6 if tensor else 0)
        assert float(second.optimizer.param_groups[0]["initial_lr"]) == pytest.approx(5e-3)

    def test_the_state_of_a_changed_schedule_is_exact_again(self) -> None:
        first = rate.schedule(adamw(), WSD, steps=STEPS)
        run(first, 40)

        def longer() -> rate.RateSchedule:
            return rate.schedule(adamw(2e-2, 3e-3), WSD, steps=200)

        second, third, fourth = longer(), longer(), longer()
        with pytest.warns(UserWarning, match="over 10 updates"):
            load(second, saved(first), optimizer_first=True)
        run(second, 4)
        with warnings.catch_warnings(action="error"):
            load(third, saved(second), optimizer_first=True)
            assert run(third, 156) == run(second, 156)
            load(fourth, saved(third), optimizer_first=False)
        assert fourth.state_dict()["courses"] == second.state_dict()["courses"]
        # And a second change, while the first is still going on, begins from what that gives.
        fifth = rate.schedule(adamw(5e-3, 3e-3), WSD, steps=200)
        with pytest.warns(UserWarning, match="over 10 updates"):
            fifth.load_state_dict(second_at(second, 44))
        assert fifth.values(44) == second.values(44)
        assert fifth.values(54)[0]["lr"] == 5e-3

    def test_a_longer_run_that_had_come_to_its_end(self) -> None:
        first = rate.schedule(adamw(1e-2), WSD, steps=STEPS)
        run(first, STEPS)
        second = rate.schedule(adamw(1e-2), WSD, steps=300)
        with pytest.warns(UserWarning, match=r"hold 60 .* → .*hold 260 .* from 0 to .*over 10 up"):
            load(second, saved(first), optimizer_first=True)
        found = [r for (r,) in run(second, 12)]
        assert found == pytest.approx([1e-2 * k / 10 for k in range(10)] + [1e-2] * 2)

    def test_a_longer_warmup_in_the_middle_of_it(self) -> None:
        first = rate.schedule(adamw(1e-2), gu.factor.linear(10))
        run(first, 5)
        second = rate.schedule(adamw(1e-2), gu.factor.linear(20))
        with pytest.warns(UserWarning, match="linear 10 → linear 20.*over 20 updates"):
            load(second, saved(first), optimizer_first=True)
        found = [r for (r,) in run(second, 25)]
        mixed = [
            (1 - k / 20) * wsd(5 + k, 1e-2, 10, 10_000) + k / 20 * wsd(5 + k, 1e-2, 20, 10_000)
            for k in range(21)
        ]
        assert found[:21] == pytest.approx(mixed)
        assert found[21:] == [1e-2] * 4

    @pytest.mark.parametrize(
        ("factor", "steps", "at", "length"),
        [
            (gu.factor.wsd(50, 100), 1000, 400, 50),  # the new warmup
            (gu.factor.wsd(3, 100), 1000, 400, 10),  # 1% of the run, where that is longer
            (gu.factor.wsd(50, 100), 1000, 800, 20),  # a tenth of what remains
            (gu.factor.wsd(50, 100), 1000, 999, 1),
            (gu.factor.wsd(50, 100), 1000, 1000, 1),
            (gu.factor.decay("linear"), 1000, 400, 10),  # 1% of the run
            (gu.factor.linear(50) * gu.factor.decay("linear"), 1000, 400, 10),
            (gu.factor.constant(30, 0.1) >> gu.factor.hold(), 1000, 400, 30),
            (gu.factor.linear(50), None, 400, 50),
            (gu.factor.noam(60), None, 400, 60),
            (gu.factor.hold(), None, 400, 100),
        ],
    )
    def test_how_long_it_takes(self, factor: Any, steps: int | None, at: int, length: int) -> None:
        first = rate.schedule(adamw(1.0), factor, steps=steps)
        second = rate.schedule(adamw(2.0), factor, steps=steps)
        first.at(at)
        with pytest.warns(UserWarning, match=f"over {length} updates"):
            second.load_state_dict(first.state_dict())
        old, new = (s.values(at + length)[0]["lr"] for s in (first, second))
        assert new == 2 * old
        assert second.values(at)[0]["lr"] == first.values(at)[0]["lr"]

    def test_jump(self) -> None:
        first = rate.schedule(adamw(1e-2), WSD, steps=STEPS, weight_decay="independent")
        run(first, 3)
        second = rate.schedule(adamw(5e-3), WSD, steps=STEPS, on_change="jump")
        message = (
            r"peak 0.01 → 0.005; the schedule of weight_decay\): .* 0.002 at this step, at once"
        )
        with pytest.warns(UserWarning, match=message):
            load(second, saved(first), optimizer_first=True)
        group = second.optimizer.param_groups[0]
        assert group["lr"] == wsd(3, 5e-3)
        assert group["weight_decay"] == DECAY  # and not the λ that the old schedule had just then

    def test_refuse(self) -> None:
        first = rate.schedule(adamw(), WSD, steps=STEPS)
        run(first, 3)
        second = rate.schedule(adamw(5e-3, 3e-3), WSD, steps=STEPS, on_change="refuse")
        with pytest.raises(ValueError, match=r"on_change='refuse': group 0 \(peak 0.01 → 0.005\)$"):
            second.load_state_dict(first.state_dict())
        assert second.last_epoch == 0
        same = rate.schedule(adamw(), WSD, steps=STEPS, on_change="refuse")
        same.load_state_dict(first.state_dict())
        assert same.last_epoch == 3

    @pytest.mark.parametrize(
        ("old", "new"), list(itertools.permutations(["coupled", "squared", "independent"], 2))
    )
    def test_weight_decay(self, old: str, new: str) -> None:
        """Its lr·λ goes along a straight line, and so it never exceeds both of them."""
        first = rate.schedule(adamw(1e-2), WSD, steps=STEPS, weight_decay=old)
        run(first, 1)
        second = rate.schedule(adamw(1e-2), WSD, steps=STEPS, weight_decay=new, blend=20)
        with pytest.warns(UserWarning, match="the schedule of weight_decay"):
            load(second, saved(first), optimizer_first=True)
        exponents = {"coupled": 1, "squared": 2, "independent": 0}
        for t in range(1, 30):
            second.at(t)
            group = second.optimizer.param_groups[0]
            products = [1e-2 * DECAY * wsd(t) ** exponents[mode] for mode in (old, new)]
            share = min(1.0, (t - 1) / 20)
            expected = (1 - share) * products[0] + share * products[1]
            assert group["lr"] * group["weight_decay"] == pytest.approx(expected, rel=1e-12)

    def test_independent_weight_decay_in_a_new_warmup(self) -> None:
        """λ/ω is large where ω is small: its mean would decay by much more than either."""
        first = rate.schedule(adamw(1e-2), gu.factor.linear(1000), weight_decay="independent")
        second = rate.schedule(adamw(1e-2), gu.factor.hold(), weight_decay="independent", blend=100)
        with pytest.warns(UserWarning, match="linear 1000 → hold"):
            second.load_state_dict(first.state_dict())
        for step in (0, 10, 50, 99, 200):
            (values,) = second.values(step)
            assert values["lr"] * values["weight_decay"] == pytest.approx(1e-2 * DECAY)

    def test_what_is_scheduled_no_more_goes_back_to_this_runs_constant(self) -> None:
        others = {"beta2": gu.factor.linear(40, initial=0.5)}
        first = rate.schedule(adamw(1e-2, betas=(0.9, 0.99)), WSD, steps=STEPS, others=others)
        run(first, 9)
        second = rate.schedule(adamw(1e-2, betas=(0.9, 0.95)), WSD, steps=STEPS, blend=10)
        with pytest.warns(UserWarning, match="the schedule of beta2"):
            load(second, saved(first), optimizer_first=False)
        old = [0.99 * (0.5 + 0.5 * min(1.0, (t + 1) / 40)) for t in range(STEPS)]
        for t in range(9, 30):
            share = min(1.0, (t - 9) / 10)
            beta2 = second.optimizer.param_groups[0]["betas"][1]
            assert beta2 == pytest.approx((1 - share) * old[t] + share * 0.95)
            run(second, 1)

    def test_layers(self) -> None:
        def make(T: int, **options: Any) -> rate.RateSchedule:
            optimizer = adamw(1e-2)
            optimizer.param_groups[0]["layer"] = 2
            layers = gu.depth.linear(T=T)
            return rate.schedule(optimizer, gu.factor.hold(), layers=layers, **options)

        first, second = make(10), make(50, blend=10)
        run(first, 19)
        with pytest.warns(UserWarning, match="the schedule over layers"):
            load(second, saved(first), optimizer_first=True)
        for step, share in ((19, 0.0), (24, 0.5), (29, 1.0), (60, 1.0)):
            expected = (1 - share) * min(1, (step + 1) / 20) + share * min(1, (step + 1) / 100)
            assert second.values(step)[0]["lr"] == pytest.approx(1e-2 * expected)

    def test_many_groups(self) -> None:
        """What is the same is said once; of five different ones the first three."""
        peaks = (1e-2, 1e-2, 2e-2, 3e-2, 4e-2, 5e-2)
        first, second = (
            rate.schedule(adamw(*(peak * scale for peak in peaks)), WSD, steps=STEPS)
            for scale in (1, 2)
        )
        message = r"\. groups 0, 1 \(peak .*; group 2 .*; group 3 .*; and likewise 2 more groups$"
        with pytest.warns(UserWarning, match=message):
            second.load_state_dict(first.state_dict())

    @settings(max_examples=40, deadline=None)
    @given(
        st.integers(1, 60),
        st.integers(1, 60),
        st.integers(0, 120),
        st.integers(1, 30),
        st.floats(1e-4, 1.0),
        st.floats(1e-4, 1.0),
    )
    def test_there_is_never_a_jump(
        self, old: int, new: int, at: int, length: int, peak: float, other: float
    ) -> None:
        """Between two updates the rate moves by no more than the two schedules and the difference
        of them, shared out over the updates that the change takes."""
        first = rate.schedule(adamw(peak), gu.factor.linear(old) >> gu.factor.hold())
        first.at(at)
        factor = gu.factor.linear(new) >> gu.factor.hold()
        second = rate.schedule(adamw(other), factor, blend=length)
        with warnings.catch_warnings(action="ignore"):
            second.load_state_dict(first.state_dict())
        slope = max(peak / old, other / new) + max(peak, other) / length
        path = [second.values(t)[0]["lr"] for t in range(at, at + length + 3)]
        assert path[0] == first.values(at)[0]["lr"]
        assert all(abs(b - a) <= slope * (1 + 1e-9) for a, b in itertools.pairwise(path))
        # Peaks that differ by less than float32 can tell are the same.
        assert path[-1] == pytest.approx(other * factor(at + length + 2), rel=1e-6)


def second_at(schedule: rate.RateSchedule, step: int) -> dict[str, Any]:
    return schedule.state_dict() | {"last_epoch": step}


class TestOtherStates:
    def test_of_torch(self) -> None:
        optimizer = adamw(1e-2)
        state = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1.0).state_dict()
        schedule = rate.schedule(adamw(1e-2), WSD, steps=STEPS)
        with pytest.raises(
            ValueError, match=r"it lacks given, courses.* say schedule.at\(updates\)"
        ):
            schedule.load_state_dict(state)

    @pytest.mark.parametrize(
        "broken",
        [
            {"last_epoch": -1},
            {"last_epoch": "3"},
            {"courses": "[]"},
            {"courses": "[1]"},
            {"courses": "{"},
            {"given": '[{"peak": 1}]', "courses": "[{}]"},
        ],
    )
    def test_broken(self, broken: dict[str, Any]) -> None:
        schedule = rate.schedule(adamw(1e-2), WSD, steps=STEPS)
        with pytest.raises(ValueError):
            schedule.load_state_dict(schedule.state_dict() | broken)
        assert schedule.last_epoch == 0

    def test_the_state_is_plain_data(self) -> None:
        schedule = rate.schedule(adamw(tensor=True), WSD, steps=STEPS, weight_decay="squared")
        state = schedule.state_dict()
        assert json.loads(json.dumps(state)) == state
        assert {type(value) for value in state.values()} == {int, str}
