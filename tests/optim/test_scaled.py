from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from groundup.optim.lion import LionA
from groundup.optim.scaled import scaled, scaled_update


def weights() -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(4, 3, generator=draw)) for _ in range(2)]


def step(optimizer: torch.optim.Optimizer) -> None:
    for i, group in enumerate(optimizer.param_groups):
        for p in group["params"]:
            p.grad = torch.randn(4, 3, generator=torch.Generator().manual_seed(i))
    optimizer.step()


def in_groups(kind: Any, **settings: Any) -> torch.optim.Optimizer:
    return kind([{"params": [w]} for w in weights()], **settings)


@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1)])
@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (torch.optim.AdamW, {"weight_decay": 0.5}),
        (torch.optim.AdamW, {"weight_decay": 0.0}),
        (LionA, {"weight_decay": 0.5}),
    ],
)
def test_the_update_is_scaled_and_the_decay_is_not(
    kind: Any, settings: dict[str, Any], lr: float | Tensor
) -> None:
    """Two groups with scales of their own; a tensor rate is one for both."""
    once = in_groups(kind, lr=0.1, **settings)
    step(once)
    ours = in_groups(kind, lr=lr, **settings)
    with scaled_update(ours, [0.25, 3.0]):
        step(ours)
    for i, start in enumerate(weights()):
        decayed = start.detach() * (1 - 0.1 * settings["weight_decay"])
        wanted = once.param_groups[i]["params"][0].detach() - decayed
        found = ours.param_groups[i]["params"][0].detach() - decayed
        torch.testing.assert_close(found, wanted * (0.25, 3.0)[i], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("settings", [{"weight_decay": 0.5}, {}])
def test_l2_decay_is_scaled_with_the_update(settings: dict[str, Any]) -> None:
    once = in_groups(torch.optim.SGD, lr=0.1, **settings)
    ours = in_groups(torch.optim.SGD, lr=0.1, **settings)
    step(once)
    with scaled_update(ours, [0.5, 1.0], decoupled=[False, False]):
        step(ours)
    for i, start in enumerate(weights()):
        wanted = once.param_groups[i]["params"][0].detach() - start.detach()
        found = ours.param_groups[i]["params"][0].detach() - start.detach()
        torch.testing.assert_close(found, wanted * (0.5, 1.0)[i])


@pytest.mark.parametrize("lr", [0.1, torch.tensor(0.1)])
@pytest.mark.parametrize("raises", [False, True])
def test_groups_are_as_they_were(lr: float | Tensor, raises: bool) -> None:
    optimizer = in_groups(torch.optim.AdamW, lr=lr, weight_decay=0.3)
    try:
        with scaled_update(optimizer, [0.1, 0.7]):
            assert float(optimizer.param_groups[1]["lr"]) == pytest.approx(0.07)
            assert optimizer.param_groups[1]["weight_decay"] == pytest.approx(0.3 / 0.7)
            if raises:
                raise RuntimeError
    except RuntimeError:
        assert raises
    for group in optimizer.param_groups:
        assert group["lr"] is lr
        assert group["weight_decay"] == 0.3
    assert float(lr) == pytest.approx(0.1, rel=1e-7)


def test_nothing_is_added_to_groups_without_decay() -> None:
    optimizer = torch.optim.Rprop(weights(), lr=0.1)
    keys = set(optimizer.param_groups[0])
    with scaled_update(optimizer, [0.5]):
        assert set(optimizer.param_groups[0]) == keys
    assert set(optimizer.param_groups[0]) == keys


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_none_is_refused(scale: float) -> None:
    optimizer = in_groups(torch.optim.AdamW, lr=0.1)
    said = r"scales\[1\]=.* must be a finite number above 0"
    with pytest.raises(ValueError, match=said), scaled_update(optimizer, [1.0, scale]):
        pass
    assert optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize(("scales", "decoupled"), [([1.0], None), ([1.0, 1.0], [True])])
def test_one_for_each_group(scales: list[float], decoupled: list[bool] | None) -> None:
    optimizer = in_groups(torch.optim.AdamW, lr=0.1)
    with (
        pytest.raises(ValueError, match="has length 1, .* the optimizer has 2 groups"),
        scaled_update(optimizer, scales, decoupled),
    ):
        pass


def test_scaled() -> None:
    assert scaled(0.5, 0.1, 1.0) == (0.5, 0.1)
    assert scaled(0.5, 0.1, 0.25) == (0.125, 0.4)
    rate = torch.tensor(0.5)
    assert scaled(rate, 0.1, 0.25)[0] == torch.tensor(0.125)
    assert rate == torch.tensor(0.5)


def test_a_compiled_step_is_not_compiled_for_each_scale() -> None:
    """A rate in a tensor does not matter; a weight decay that changes is made an input, once."""
    found = []
    for steps in (3, 10):
        torch._dynamo.reset()
        counter = CompileCounterWithBackend("aot_eager")
        optimizer = in_groups(torch.optim.AdamW, lr=torch.tensor(0.1), weight_decay=0.3)
        inner = torch.compile(optimizer.step, backend=counter)
        for i in range(steps):
            for group in optimizer.param_groups:
                group["params"][0].grad = torch.ones(4, 3)
            with scaled_update(optimizer, [0.1 + 0.05 * i, 0.7]):
                inner()
        found.append(counter.frame_count)
    assert found[0] == found[1] <= 3
