"""Weight decay under a schedule, other hyperparameters, and rates by layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import groundup as gu
from groundup.optim import rate

PEAK, DECAY, STEPS = 1e-2, 0.1, 30
FACTOR = gu.factor.linear(5) >> gu.factor.hold() >> gu.factor.decay("linear", 10)


def omega(step: int) -> float:
    """The factor above, by hand."""
    return min((step + 1) / 5, 1.0, (STEPS - step) / 10)


def weights(count: int = 1) -> list[nn.Parameter]:
    torch.manual_seed(0)
    return [nn.Parameter(torch.randn(3, 3, dtype=torch.float64)) for _ in range(count)]


def gradients() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, 3, dtype=torch.float64, generator=generator) for _ in range(STEPS)]


class TestWeightDecay:
    # The share of a weight that an update takes away, over peak·λ.
    SHARES = {
        "coupled": lambda step: omega(step),
        "independent": lambda step: 1.0,
        "squared": lambda step: omega(step) ** 2,
        "factor": lambda step: omega(step) * (1.0 - step / STEPS),
    }

    @pytest.mark.parametrize("mode", SHARES)
    @pytest.mark.parametrize("tensors", [False, True], ids=["floats", "tensors"])
    def test_adamw_in_a_loop_of_float64(self, mode: str, tensors: bool) -> None:
        (p,) = weights()
        number = (lambda x: torch.tensor(x, dtype=torch.float64)) if tensors else float
        optimizer = torch.optim.AdamW([p], lr=number(PEAK), weight_decay=number(DECAY))
        held = optimizer.param_groups[0]["weight_decay"]
        own: Any = gu.factor.decay("linear") if mode == "factor" else mode
        schedule = rate.schedule(optimizer, FACTOR, steps=STEPS, weight_decay=own)
        w = p.detach().clone()
        m, v = torch.zeros_like(w), torch.zeros_like(w)
        for step, g in enumerate(gradients()):
            p.grad = g.clone()
            optimizer.step()
            schedule.step()
            lr = PEAK * omega(step)
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            hat, root = m / (1 - 0.9 ** (step + 1)), (v / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
            w = w * (1 - PEAK * DECAY * self.SHARES[mode](step)) - lr * hat / root
            torch.testing.assert_close(p.detach(), w, rtol=1e-12, atol=1e-14)
        assert not tensors or optimizer.param_groups[0]["weight_decay"] is held

    def test_independent_at_a_rate_of_zero(self) -> None:
        """Nothing is decayed there, and λ stays a finite number: the group's own."""
        optimizer = torch.optim.AdamW(weights(), lr=PEAK, weight_decay=DECAY)
        factor = gu.factor.linear(4, start="zero") >> gu.factor.decay("linear", 4)
        schedule = rate.schedule(optimizer, factor, weight_decay="independent")
        found = [schedule.values(step)[0] for step in range(12)]
        assert [v["weight_decay"] for v in found if v["lr"] == 0.0] == [DECAY] * 5
        products = [v["lr"] * v["weight_decay"] for v in found if v["lr"] > 0.0]
        assert products == pytest.approx([PEAK * DECAY] * 7, rel=1e-14)
        del optimizer.param_groups[0]["initial_lr"]
        optimizer.param_groups[0]["lr"] = PEAK
        tiny = rate.schedule(optimizer, gu.factor.hold() * 1e-320, weight_decay="independent")
        assert tiny.values(0)[0]["weight_decay"] == DECAY  # the quotient would be infinite

    def test_a_group_without_decay_stays_without(self) -> None:
        a, b = weights(2)
        groups = [{"params": [a], "weight_decay": 0.5}, {"params": [b], "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=PEAK)
        rate.schedule(optimizer, FACTOR, steps=STEPS, weight_decay="independent")
        assert [g["weight_decay"] for g in optimizer.param_groups] == [2.5, 0.0]

    REFUSED = {
        "SGD": lambda p: torch.optim.SGD(p, weight_decay=DECAY),
        "Adam": lambda p: torch.optim.Adam(p, weight_decay=DECAY),
        "NAdam": lambda p: torch.optim.NAdam(p, weight_decay=DECAY),
        "RMSprop": lambda p: torch.optim.RMSprop(p, weight_decay=DECAY),
        "Adagrad": lambda p: torch.optim.Adagrad(p, weight_decay=DECAY),
        "Adamax": lambda p: torch.optim.Adamax(p, weight_decay=DECAY),
        "RotationalAdamW": lambda p: gu.optim.RotationalAdamW(p, lr=1e-3, weight_decay=DECAY),
        "LionAR": lambda p: gu.optim.LionAR(p, lr=1e-3, weight_decay=DECAY),
    }
    TAKEN = {
        "Adam": lambda p: torch.optim.Adam(p, weight_decay=DECAY, decoupled_weight_decay=True),
        "NAdam": lambda p: torch.optim.NAdam(p, weight_decay=DECAY, decoupled_weight_decay=True),
        "Adafactor": lambda p: torch.optim.Adafactor(p, weight_decay=DECAY),
        "LionA": lambda p: gu.optim.LionA(p, lr=1e-3, weight_decay=DECAY),
        "without decay": lambda p: torch.optim.SGD(p, weight_decay=0.0),
        "said so": lambda p: torch.optim.SGD(
            [{"params": p, "decoupled_weight_decay": True}], weight_decay=DECAY
        ),
    }

    @pytest.mark.parametrize("mode", ["independent", "squared"])
    @pytest.mark.parametrize("name", REFUSED)
    def test_refused_where_lambda_is_not_a_share_of_the_weight(self, name: str, mode: str) -> None:
        optimizer = self.REFUSED[name]([nn.Parameter(torch.ones(3, 3))])
        with pytest.raises(ValueError, match=rf"weight_decay='{mode}' is not valid for {name}: "):
            rate.schedule(optimizer, FACTOR, steps=STEPS, weight_decay=mode)
        rate.schedule(optimizer, FACTOR, steps=STEPS, weight_decay=gu.factor.hold() * 0.5)
        assert optimizer.param_groups[0]["weight_decay"] == DECAY / 2

    @pytest.mark.parametrize("name", TAKEN)
    def test_taken(self, name: str) -> None:
        optimizer = self.TAKEN[name]([nn.Parameter(torch.ones(3, 3))])
        before = optimizer.param_groups[0]["weight_decay"]
        rate.schedule(optimizer, FACTOR, steps=STEPS, weight_decay="independent")
        assert optimizer.param_groups[0]["weight_decay"] == before * 5

    @pytest.mark.parametrize(
        ("name", "options", "taken"),
        [
            ("Lion", {}, True),
            ("Lion", {"weight_decouple": False}, False),
            ("Lion", {"fixed_decay": True}, False),
            ("StableAdamW", {}, True),
            ("Adan", {}, False),
            ("SOAP", {}, False),
        ],
    )
    def test_pytorch_optimizer(self, name: str, options: dict[str, Any], taken: bool) -> None:
        """Those that say how they decay are believed; of the others nothing is known."""
        peer = pytest.importorskip("pytorch_optimizer")
        p = nn.Parameter(torch.ones(3, 3, dtype=torch.float64))
        optimizer = getattr(peer, name)([p], lr=PEAK, weight_decay=DECAY, **options)
        if not taken:
            with pytest.raises(ValueError, match="weight_decay='independent' is not valid"):
                rate.schedule(optimizer, FACTOR, steps=STEPS, weight_decay="independent")
            return
        rate.schedule(optimizer, FACTOR, steps=STEPS, weight_decay="independent")
        p.grad = torch.zeros_like(p)
        optimizer.step()  # of nothing but decay
        torch.testing.assert_close(p.detach(), torch.full_like(p, 1 - PEAK * DECAY))


class TestOthers:
    def test_betas(self) -> None:
        optimizer = torch.optim.AdamW(weights(), lr=PEAK, betas=(0.9, 0.99))
        others = {"beta2": gu.factor.linear(10, initial=0.9), "eps": gu.factor.hold() * 2.0}
        schedule = rate.schedule(optimizer, FACTOR, steps=STEPS, others=others)
        for step in range(12):
            schedule.at(step)
            group = optimizer.param_groups[0]
            beta2 = 0.99 * (0.9 + 0.1 * min(1.0, (step + 1) / 10))
            assert group["betas"] == (0.9, pytest.approx(beta2, rel=1e-14))
            assert group["eps"] == 2e-8

    def test_betas_in_tensors(self) -> None:
        betas = (torch.tensor(0.9), torch.tensor(0.99))
        optimizer = torch.optim.AdamW(weights(), lr=PEAK, betas=betas, capturable=True)
        schedule = rate.schedule(
            optimizer, FACTOR, others={"beta1": gu.factor.linear(2)}, steps=STEPS
        )
        assert optimizer.param_groups[0]["betas"][0] is betas[0]
        assert [float(b) for b in betas] == pytest.approx([0.45, 0.99])
        schedule.at(1)
        assert [float(b) for b in betas] == pytest.approx([0.9, 0.99])

    def test_momentum_where_only_some_groups_have_it(self) -> None:
        a, b = weights(2)
        optimizer = torch.optim.SGD([{"params": [a]}, {"params": [b]}], lr=PEAK, momentum=0.9)
        del optimizer.param_groups[1]["momentum"]
        rate.schedule(optimizer, FACTOR, steps=STEPS, others={"momentum": gu.factor.linear(2)})
        assert [g.get("momentum") for g in optimizer.param_groups] == [0.45, None]

    def test_weight_decay_twice(self) -> None:
        optimizer = torch.optim.AdamW(weights(), lr=PEAK)
        both: Any = {"weight_decay": "squared", "others": {"weight_decay": gu.factor.hold()}}
        with pytest.raises(ValueError, match="weight decay is given twice"):
            rate.schedule(optimizer, FACTOR, steps=STEPS, **both)

    def test_a_beta_that_would_reach_one_later(self) -> None:
        optimizer = torch.optim.AdamW(weights(), lr=PEAK, betas=(0.9, 0.99))
        rising = gu.factor.linear(20) * 1.02
        with pytest.raises(ValueError, match=r"beta2=1.0098 at step 29 is not valid: 0.99 times"):
            rate.schedule(optimizer, FACTOR, steps=STEPS, others={"beta2": rising})

    def test_the_peak_that_an_optimizer_keeps_follows_the_schedule(self) -> None:
        """Rotational optimizers with angle="linear" keep the peak of their group in it."""

        def make(peak: float) -> torch.optim.Optimizer:
            p = nn.Parameter(torch.ones(3, 3))
            p.grad = torch.eye(3)
            return gu.optim.LionAR([p], lr=peak, weight_decay=DECAY, angle="linear")

        saving, optimizer = make(1e-3), make(2e-3)
        old = rate.schedule(saving, FACTOR, steps=STEPS)
        for _ in range(10):
            saving.step()
            old.step()
        new = rate.schedule(optimizer, FACTOR, steps=STEPS, blend=4)
        with pytest.warns(UserWarning, match=r"peak 0.001 → 0.002"):
            new.load_state_dict(old.state_dict())
        optimizer.load_state_dict(saving.state_dict())
        for step, share in ((10, 0.0), (12, 0.5), (14, 1.0)):
            new.at(step)
            expected = 1e-3 + share * 1e-3
            assert optimizer.param_groups[0]["peak_lr"] == pytest.approx(expected)
            assert optimizer.param_groups[0]["lr"] == pytest.approx(expected)


class TestLayers:
    def alpha(self, layer: int, step: int, T: int) -> float:
        return min(1.0, (step + 1) / (T * layer))

    def test_linear_over_depth(self) -> None:
        groups: list[dict[str, Any]] = [{"params": [p]} for p in weights(5)]
        for group, layer in zip(groups, (None, 1, 2, 3), strict=False):
            group["layer"] = layer  # and the last has no such key
        optimizer = torch.optim.AdamW(groups, lr=PEAK, weight_decay=DECAY)
        schedule = rate.schedule(
            optimizer,
            FACTOR,
            steps=STEPS,
            layers=gu.depth.linear(T=4),
            weight_decay="independent",
        )
        for step in range(STEPS):
            schedule.at(step)
            share = [1.0, *(self.alpha(l, step, 4) for l in (1, 2, 3)), 1.0]
            expected = [PEAK * omega(step) * a for a in share]
            assert schedule.get_last_lr() == pytest.approx(expected, rel=1e-14)
            for group in optimizer.param_groups:
                assert group["lr"] * group["weight_decay"] == pytest.approx(PEAK * DECAY)

    def test_groups_of_a_model(self) -> None:
        model = gu.model.Transformer(
            gu.model.ModelConfig(vocab_size=16, width=16, layers=3, heads=2)
        )
        optimizer = torch.optim.AdamW(gu.optim.groups(model, by_layer=True), lr=PEAK)
        rate.schedule(optimizer, gu.factor.hold(), layers=gu.depth.linear(T=2))
        layers = {g["layer"] for g in optimizer.param_groups}
        assert layers == {None, 1, 2, 3}
        for group in optimizer.param_groups:
            share = 1.0 if group["layer"] is None else self.alpha(group["layer"], 0, 2)
            assert group["lr"] == pytest.approx(PEAK * share)

    def test_depth_counts_where_a_schedule_asks_for_it(self) -> None:
        p, q = weights(2)
        optimizer = torch.optim.AdamW([{"params": [p], "layer": 2}], lr=PEAK)
        layers = gu.depth.reverse(T=4)  # T·(L − l + 1) updates
        schedule = rate.schedule(optimizer, gu.factor.hold(), layers=layers, depth=3)
        assert schedule.get_last_lr() == [PEAK / 8]
        optimizer.add_param_group({"params": [q], "layer": 3})
        assert schedule.get_last_lr() == [PEAK / 8, PEAK / 4]
        with pytest.raises(ValueError, match="layer=4 of a group is not valid: .*depth=3"):
            optimizer.add_param_group({"params": weights(), "layer": 4})

    @pytest.mark.parametrize(
        ("group", "arguments", "message"),
        [
            ({}, {}, "layers is given, but no group has a 'layer'"),
            ({"layer": 0}, {}, "layer=0 is not valid"),
            ({"layer": 3}, {"depth": 2}, "depth=2 is not valid: .* at least 3"),
            ({"layer": 1}, {"layers": gu.factor.linear(3)}, "must be a schedule of groundup.depth"),
        ],
    )
    def test_refused(self, group: dict, arguments: dict, message: str) -> None:
        optimizer = torch.optim.AdamW([{"params": weights()} | group], lr=PEAK)
        given: Any = {"layers": gu.depth.linear(T=3)} | arguments
        with pytest.raises(ValueError, match=message):
            rate.schedule(optimizer, FACTOR, steps=STEPS, **given)
