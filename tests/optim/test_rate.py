"""`gu.rate.schedule` against torch's LambdaLR, the schedules of transformers and pytorch_warmup."""

from __future__ import annotations

import copy
import doctest
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    ExponentialLR,
    LambdaLR,
    LRScheduler,
    SequentialLR,
)

import groundup as gu
from groundup.optim import rate

PEAKS = (1e-3, 3e-4, 0.7)
STEPS, W = 60, 12
WSD = gu.factor.linear(W) >> gu.factor.hold() >> gu.factor.decay("linear", 0.25)


def parameters(count: int = 1) -> list[nn.Parameter]:
    return [nn.Parameter(torch.ones(2)) for _ in range(count)]


def adamw(*peaks: float, tensor: bool = False, **options: Any) -> torch.optim.AdamW:
    """One group for each peak, with gradients that are always there."""
    groups = []
    for peak, p in zip(peaks or PEAKS, parameters(len(peaks or PEAKS)), strict=True):
        p.grad = torch.ones(2)
        groups.append({"params": [p], "lr": torch.tensor(peak) if tensor else peak})
    return torch.optim.AdamW(groups, **options)


def rates(optimizer: torch.optim.Optimizer) -> list[float]:
    return [float(group["lr"]) for group in optimizer.param_groups]


def run(optimizer: torch.optim.Optimizer, schedule: LRScheduler, steps: int) -> list[list[float]]:
    """The rates that each of the next updates is made with."""
    found = []
    for _ in range(steps):
        found.append(rates(optimizer))
        optimizer.step()
        schedule.step()
    return found


def ours(factor: Any, steps: int = STEPS, length: int = STEPS, **options: Any) -> list[list[float]]:
    optimizer = adamw()
    return run(optimizer, rate.schedule(optimizer, factor, steps=length, **options), steps)


class TestLikeTorch:
    def test_lambda_lr_with_the_same_function_to_the_bit(self) -> None:
        def trapezoid(step: int) -> float:
            n = step + 1
            return n / W if n <= W else 1.0 if step < 45 else (STEPS - step) / 15

        optimizer = adamw()
        expected = run(optimizer, LambdaLR(optimizer, trapezoid), STEPS + 5)
        with pytest.warns(UserWarning, match="update 61 of a run of steps=60: .* has ended"):
            found = ours(WSD, STEPS + 6)
        # After its end LambdaLR would go below 0; the factor keeps its last value.
        assert found[:STEPS] == expected[:STEPS]
        assert found[STEPS:] == [[0.0] * 3] * 6

    def test_a_factor_for_each_group_to_the_bit(self) -> None:
        functions = [lambda t: min(1.0, (t + 1) / 10), lambda t: 0.5, lambda t: (STEPS - t) / STEPS]
        factors = [gu.factor.linear(10), gu.factor.hold() * 0.5, gu.factor.decay("linear")]
        optimizer = adamw()
        expected = run(optimizer, LambdaLR(optimizer, functions), STEPS)
        assert ours(factors) == expected
        named = adamw()
        for group, name in zip(named.param_groups, "abc", strict=True):
            group["name"] = name
        by_name = dict(zip("cab", (factors[2], *factors[:2]), strict=True))
        assert run(named, rate.schedule(named, by_name, steps=STEPS), STEPS) == expected

    def test_it_is_a_scheduler_of_torch(self) -> None:
        optimizer = adamw(1e-2)
        schedule = rate.schedule(optimizer, gu.factor.linear(10))
        assert isinstance(schedule, LRScheduler)
        assert schedule.optimizer is optimizer
        assert schedule.get_last_lr() == schedule.get_lr() == [1e-2 * 0.1]
        assert schedule.base_lrs == [optimizer.param_groups[0]["initial_lr"]] == [1e-2]
        run(optimizer, schedule, 3)
        assert schedule.last_epoch == 3
        assert schedule.get_last_lr() == [1e-2 * 0.4]

    @pytest.mark.filterwarnings("ignore:group 0 has been scheduled before")
    def test_sequential_lr(self) -> None:
        def both(second: Callable[[Any], LRScheduler]) -> list[list[float]]:
            optimizer = adamw()
            first = ConstantLR(optimizer, 0.5, total_iters=100)
            chain = SequentialLR(optimizer, [first, second(optimizer)], milestones=[7])
            return run(optimizer, chain, 30)

        factor = gu.factor.linear(W)
        expected = both(lambda o: LambdaLR(o, factor))
        with warnings.catch_warnings(action="error", category=RuntimeWarning):
            assert both(lambda o: rate.schedule(o, factor)) == expected
        assert expected[7] == [p * factor(0) for p in PEAKS]

        def after(first: Callable[[Any], LRScheduler]) -> list[list[float]]:
            optimizer = adamw()
            schedules = [first(optimizer), ExponentialLR(optimizer, 0.9)]
            return run(optimizer, SequentialLR(optimizer, schedules, milestones=[7]), 30)

        assert after(lambda o: rate.schedule(o, factor)) == after(lambda o: LambdaLR(o, factor))

    def test_chained_scheduler_is_no_better_than_with_lambda_lr_and_says_so(self) -> None:
        def both(first: Callable[[Any], LRScheduler]) -> list[list[float]]:
            optimizer = adamw()
            chain = ChainedScheduler([first(optimizer), ExponentialLR(optimizer, 0.9)], optimizer)
            return run(optimizer, chain, 5)

        with pytest.warns(UserWarning, match="something else has written the rate of group 0"):
            found = both(lambda o: rate.schedule(o, gu.factor.linear(10)))
        assert found == both(lambda o: LambdaLR(o, gu.factor.linear(10)))

    def test_last_epoch(self) -> None:
        optimizer = adamw(1e-2)
        with pytest.raises(ValueError, match="no 'initial_lr'"):
            rate.schedule(optimizer, gu.factor.linear(10), last_epoch=3)
        optimizer.param_groups[0]["initial_lr"] = 1e-2
        schedule = rate.schedule(optimizer, gu.factor.linear(10), last_epoch=3)
        assert schedule.last_epoch == 4
        assert rates(optimizer) == [1e-2 * 0.5]

    def test_the_peak_is_initial_lr_where_there_is_one(self) -> None:
        optimizer = adamw(1e-2)
        LambdaLR(optimizer, lambda t: 0.0)
        with pytest.warns(UserWarning, match=r"its peak is initial_lr=0.01 .* not lr=0\."):
            rate.schedule(optimizer, gu.factor.linear(10))
        assert rates(optimizer) == [1e-2 * 0.1]

    def test_copies(self) -> None:
        optimizer = adamw(1e-2)
        schedule = rate.schedule(optimizer, gu.factor.linear(10), follow=True)
        optimizer.step()
        for other in (copy.deepcopy(schedule), pickle.loads(pickle.dumps(schedule))):
            assert other.optimizer is not optimizer
            assert run(other.optimizer, other, 2) == [[1e-2 * 0.2], [1e-2 * 0.3]]
        assert rates(optimizer) == [1e-2 * 0.2]


class TestPeers:
    """Whole runs of other libraries' schedules. They begin at rate 0: start="zero"."""

    TABLE: dict[str, tuple[str, dict[str, Any], Any]] = {
        "linear": (
            "get_linear_schedule_with_warmup",
            {"num_training_steps": STEPS},
            gu.factor.linear(W, start="zero") >> gu.factor.decay("linear"),
        ),
        "cosine": (
            "get_cosine_schedule_with_warmup",
            {"num_training_steps": STEPS},
            gu.factor.linear(W, start="zero") >> gu.factor.decay("cosine"),
        ),
        "constant": (
            "get_constant_schedule_with_warmup",
            {},
            gu.factor.linear(W, start="zero") >> gu.factor.hold(),
        ),
        "inverse square root": (
            "get_inverse_sqrt_schedule",
            {},
            gu.factor.noam(W, start="zero"),
        ),
        "cosine to a floor": (
            "get_cosine_with_min_lr_schedule_with_warmup",
            {"num_training_steps": STEPS, "min_lr_rate": 0.1},
            gu.factor.linear(W, start="zero") >> gu.factor.decay("cosine", floor=0.1),
        ),
        "wsd": (
            "get_wsd_schedule",
            {"num_training_steps": STEPS, "num_decay_steps": 15, "decay_type": "linear"},
            gu.factor.linear(W, start="zero") >> gu.factor.hold() >> gu.factor.decay("linear", 15),
        ),
    }

    @pytest.mark.parametrize("name", TABLE)
    def test_transformers(self, name: str) -> None:
        transformers = pytest.importorskip("transformers")
        function, arguments, factor = self.TABLE[name]
        optimizer = adamw()
        theirs = getattr(transformers, function)(optimizer, num_warmup_steps=W, **arguments)
        expected = run(optimizer, theirs, STEPS)
        found = ours(factor)
        assert found[0] == [0.0] * 3
        for ours_, theirs_ in zip(found, expected, strict=True):
            assert ours_ == pytest.approx(theirs_, rel=1e-12, abs=1e-16)

    def test_pytorch_warmup(self) -> None:
        peer = pytest.importorskip("pytorch_warmup")
        optimizer = adamw()
        base = LambdaLR(optimizer, lambda step: 1.0)
        warmup = peer.LinearWarmup(optimizer, warmup_period=W)
        expected = []
        for _ in range(STEPS):
            expected.append(rates(optimizer))
            optimizer.step()
            with warmup.dampening():
                base.step()
        assert ours(gu.factor.linear(W)) == expected

    @pytest.mark.parametrize("name", ["AdamP", "Lion", "StableAdamW", "Adan", "ScheduleFreeAdamW"])
    def test_optimizers_of_pytorch_optimizer(self, name: str) -> None:
        peer = pytest.importorskip("pytorch_optimizer")
        p = nn.Parameter(torch.ones(3, 3))
        optimizer = getattr(peer, name)([p], lr=1e-2)
        schedule = rate.schedule(optimizer, gu.factor.linear(4), follow=True)
        for n in range(1, 7):
            assert rates(optimizer) == [1e-2 * min(1.0, n / 4)]
            p.grad = torch.ones(3, 3)
            optimizer.step()
        assert schedule.last_epoch == 6


class TestTensors:
    """A rate in a 0-dim tensor: filled, and never another tensor."""

    def test_filled_in_place(self) -> None:
        optimizer = adamw(tensor=True)
        held = [group["lr"] for group in optimizer.param_groups]
        schedule = rate.schedule(optimizer, WSD, steps=STEPS)
        found = run(optimizer, schedule, STEPS)
        float32 = [float(torch.tensor(p)) for p in PEAKS]
        expected = [[float(torch.tensor(p * WSD(t, STEPS))) for p in float32] for t in range(STEPS)]
        assert found == expected
        assert all(g["lr"] is h for g, h in zip(optimizer.param_groups, held, strict=True))
        # Neither the peaks nor what is handed out is the optimizer's own tensor.
        assert [float(base) for base in schedule.base_lrs] == float32
        assert all(isinstance(last, torch.Tensor) for last in schedule.get_last_lr())
        schedule.get_last_lr()[0].fill_(7.0)
        assert rates(optimizer) == [0.0] * 3

    def test_groups_that_share_the_default_get_their_own(self) -> None:
        """torch puts the one tensor into all groups that have no rate of their own."""
        shared = torch.tensor(1e-2)
        a, b = parameters(2)
        optimizer = torch.optim.AdamW([{"params": [a]}, {"params": [b]}], lr=shared)
        assert optimizer.param_groups[0]["lr"] is optimizer.param_groups[1]["lr"]
        rate.schedule(optimizer, [gu.factor.linear(10), gu.factor.linear(5)])
        assert rates(optimizer) == pytest.approx([1e-3, 2e-3])
        assert optimizer.param_groups[0]["lr"] is shared

    def test_it_stays_the_same_when_the_optimizer_is_loaded(self) -> None:
        optimizer, saving = adamw(1e-2, tensor=True), adamw(1e-3)
        held = optimizer.param_groups[0]["lr"]
        schedule = rate.schedule(optimizer, gu.factor.linear(10))
        saving.step()
        optimizer.load_state_dict(saving.state_dict())
        assert optimizer.param_groups[0]["lr"] is held
        assert rates(optimizer) == pytest.approx([1e-3])
        schedule.at(10)
        assert rates(optimizer) == pytest.approx([1e-2])

    def test_one_that_needs_a_gradient(self) -> None:
        peak = torch.tensor(1e-2, requires_grad=True)
        optimizer = torch.optim.SGD(parameters(), lr=peak)
        schedule = rate.schedule(optimizer, gu.factor.linear(10))
        schedule.at(4)
        assert peak.item() == pytest.approx(5e-3)


class TestGroups:
    def test_a_group_that_is_added_later(self) -> None:
        optimizer = adamw(1e-2)
        schedule = rate.schedule(optimizer, gu.factor.linear(10))
        run(optimizer, schedule, 4)
        (late,) = parameters()
        optimizer.add_param_group({"params": [late], "lr": 1.0})
        assert rates(optimizer) == [1e-2 * 0.5, 0.5]
        assert schedule.get_last_lr() == [1e-2 * 0.5, 0.5]
        assert run(optimizer, schedule, 2) == [[1e-2 * 0.5, 0.5], [1e-2 * 0.6, 0.6]]
        assert schedule.base_lrs == [1e-2, 1.0]

    def test_gradual_unfreezing_with_names_and_a_shared_tensor(self) -> None:
        a, b, c = parameters(3)
        optimizer = torch.optim.AdamW([{"params": [a], "name": "head"}], lr=torch.tensor(1e-2))
        factors = {"head": gu.factor.linear(10)}
        schedule = rate.schedule(optimizer, factors)
        with pytest.raises(ValueError, match=r"name of group 1='body' is unknown: .*head"):
            optimizer.add_param_group({"params": [b], "name": "body"})
        assert len(optimizer.param_groups) == 1
        optimizer.add_param_group({"params": [c], "name": "head"})
        schedule.at(4)
        assert rates(optimizer) == pytest.approx([5e-3, 5e-3])
        assert optimizer.param_groups[0]["lr"] is not optimizer.param_groups[1]["lr"]

    def test_a_list_has_none_for_a_new_group(self) -> None:
        optimizer = adamw(1e-2, 1e-3)
        schedule = rate.schedule(optimizer, [gu.factor.linear(10), gu.factor.hold()])
        with pytest.raises(ValueError, match="factor has 2 entries, but there is a group 2"):
            optimizer.add_param_group({"params": parameters()})
        run(optimizer, schedule, 2)

    def test_a_schedule_that_nobody_holds_does_nothing(self) -> None:
        optimizer = adamw(1e-2)
        rate.schedule(optimizer, gu.factor.linear(10))
        optimizer.param_groups[0]["lr"] = 5.0
        optimizer.load_state_dict(optimizer.state_dict())
        optimizer.add_param_group({"params": parameters(), "lr": 3.0})
        assert rates(optimizer) == [5.0, 3.0]


class TestByHand:
    def test_at_is_a_pure_function(self) -> None:
        optimizer = adamw(1e-2)
        schedule = rate.schedule(optimizer, WSD, steps=STEPS)
        for step in (50, 3, 59, 0, 3):
            schedule.at(step)
            assert rates(optimizer) == [1e-2 * WSD(step, STEPS)]
            assert schedule.last_epoch == step
        assert schedule.values(50) == [{"lr": 1e-2 * WSD(50, STEPS)}]
        assert rates(optimizer) == [1e-2 * WSD(3, STEPS)]

    def test_lengths_in_fractions_and_tokens(self) -> None:
        tokens = gu.factor.linear(gu.factor.Tokens(10_000)) >> gu.factor.hold()
        assert ours(tokens, tokens_per_step=1000) == ours(gu.factor.linear(10))
        assert ours(gu.factor.linear(0.2)) == ours(gu.factor.linear(W))

    def test_rewarm(self) -> None:
        optimizer = adamw(1e-2)
        schedule = rate.schedule(optimizer, WSD, steps=STEPS)
        before = [r for (r,) in run(optimizer, schedule, 40)]
        schedule.rewarm(8)
        after = [r for (r,) in run(optimizer, schedule, 20)]
        plain = [1e-2 * WSD(t, STEPS) for t in range(STEPS)]
        assert before == plain[:40]
        expected = [plain[40 + k] * min(1.0, (k + 1) / 8) for k in range(20)]
        assert after == pytest.approx(expected, rel=1e-14)
        with pytest.raises(ValueError, match="0 updates remain"):
            schedule.rewarm(1)

    def test_rewarm_at_the_very_beginning(self) -> None:
        optimizer = adamw(1e-2)
        schedule = rate.schedule(optimizer, gu.factor.hold())
        schedule.rewarm(4)
        assert [r for (r,) in run(optimizer, schedule, 5)] == [
            1e-2 * w for w in (0.25, 0.5, 0.75, 1, 1)
        ]

    def test_stop(self) -> None:
        optimizer = adamw(1e-2)
        first = rate.schedule(optimizer, gu.factor.linear(10), follow=True)
        with pytest.raises(RuntimeError, match=r"follows this optimizer already: stop\(\) it"):
            rate.schedule(optimizer, gu.factor.hold(), follow=True)
        optimizer.step()
        first.stop()
        optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
        assert rates(optimizer) == [1e-2 * 0.2]
        assert rate.GROUP_KEY not in optimizer.param_groups[0]
        with pytest.raises(RuntimeError, match="stopped"):
            first.step()
        with pytest.warns(UserWarning, match="scheduled before"):
            second = rate.schedule(optimizer, gu.factor.hold(), follow=True)
        assert second.last_epoch == 0
        assert rates(optimizer) == [1e-2]

    def test_repr(self) -> None:
        schedule = rate.schedule(adamw(), gu.factor.linear(10), steps=100, follow=True)
        assert repr(schedule) == (
            "<RateSchedule of AdamW: step 0 of 100, lr 0.0001, 3e-05, 0.07, following>"
        )


def test_the_example_of_the_docstring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gu, "rate", rate, raising=False)
    (example,) = doctest.DocTestFinder(recurse=False).find(rate.schedule, globs={"torch": torch})
    assert doctest.DocTestRunner().run(example) == (0, 7)
