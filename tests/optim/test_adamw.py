"""AdamW with a choice of bias correction: torch's, and float64 loops."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from groundup.optim.adamw import AdamW

SHAPES = ((4, 3), (5,), (2, 3, 2))
CORRECTIONS = ("usual", "none", "inverse", "inverse-sqrt")
KERNELS: dict[str, dict[str, Any]] = {
    "single": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}
BETAS = (0.9, 0.95)


def weights() -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=draw)) for shape in SHAPES]


def gradients(step: int) -> list[Tensor]:
    draw = torch.Generator().manual_seed(step)
    return [torch.randn(shape, generator=draw) for shape in SHAPES]


def lr_at(step: int) -> float:
    return 1e-2 * (1 - step / 100)


def train(
    optimizer: torch.optim.Optimizer,
    steps: range,
    *,
    first: tuple[int, ...] = (0, 0, 0),
    step: Callable[[], Any] | None = None,
) -> list[Tensor]:
    """`first`: the step at which each parameter gets its first gradient."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for i in steps:
        for p, g, begin in zip(params, gradients(i), first, strict=True):
            p.grad = g if i >= begin else None
        for group in optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr_at(i))
            else:
                group["lr"] = lr_at(i)
        (step or optimizer.step)()
    return [p.detach().clone() for p in params]


def looped(
    correction: str,
    steps: int,
    *,
    first: tuple[int, ...] = (0, 0, 0),
    scales: tuple[float, ...] = (1.0, 1.0, 1.0),
    weight_decay: float = 0.3,
    eps: float = 1e-8,
) -> list[np.ndarray]:
    """In float64, the correction from the weights of the gradients in the momentum."""
    (beta1, beta2), found = BETAS, []
    for k, p in enumerate(weights()):
        w = p.detach().double().numpy()
        m = np.zeros_like(w)
        v = np.zeros_like(w)
        for n, i in enumerate(range(first[k], steps), 1):
            g = gradients(i)[k].double().numpy()
            m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
            given = (1 - beta1) * beta1 ** np.arange(n)
            endless = (1 - beta1) * beta1 ** np.arange(10_000)
            factor = {
                "usual": 1 / given.sum(),
                "none": 1.0,
                "inverse": given.sum(),
                "inverse-sqrt": np.sqrt((given**2).sum() / (endless**2).sum()),
            }[correction]
            unbiased = v / ((1 - beta2) * beta2 ** np.arange(n)).sum()
            update = scales[k] * factor * m / (np.sqrt(unbiased) + eps)
            w = w - lr_at(i) * weight_decay * w - lr_at(i) * update
        found.append(w)
    return found


def close(found: list[Tensor], wanted: list[np.ndarray]) -> None:
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a.numpy(), b, rtol=2e-5, atol=2e-6)


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def adamw(params: Any = None, **settings: Any) -> AdamW:
    settings = {"lr": 1e-2, "betas": BETAS, "weight_decay": 0.3} | settings
    return AdamW(weights() if params is None else params, **settings)


# ---------------------------------------------------------------------- usual: torch's


@pytest.mark.parametrize(
    "settings",
    [
        *KERNELS.values(),
        {},
        {"amsgrad": True, "maximize": True},
        {"lr": torch.tensor(1e-2)},
        {"lr": torch.tensor(1e-2), "fused": True},
        {"weight_decay": 0.0},
    ],
)
def test_usual_is_torchs_to_the_bit(settings: dict[str, Any]) -> None:
    given = {"betas": BETAS, "weight_decay": 0.3, **settings}
    theirs = torch.optim.AdamW(weights(), **given)
    ours = AdamW(weights(), **given)
    first = (0, 2, 0)
    assert same(train(ours, range(15), first=first), train(theirs, range(15), first=first))
    added = {"bias_correction"}
    for a, b in zip(ours.param_groups, theirs.param_groups, strict=True):
        assert a.keys() - b.keys() == added
    for p, q in zip(ours.state.values(), theirs.state.values(), strict=True):
        assert p.keys() == q.keys()
        assert all(torch.equal(p[key], q[key]) for key in p)


def test_what_torch_checks_is_checked() -> None:
    with pytest.raises(ValueError, match="Invalid beta"):
        adamw(betas=(1.0, 0.9))
    with pytest.raises(RuntimeError, match="cannot be `True` together"):
        adamw(fused=True, foreach=True)


# ---------------------------------------------------------------------- the other corrections


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("correction", CORRECTIONS)
def test_it_is_the_float64_loop(correction: str, kernel: str) -> None:
    first = (0, 3, 1)  # by themselves, whenever they get their first gradient
    ours = adamw(bias_correction=correction, **KERNELS[kernel])
    close(train(ours, range(30), first=first), looped(correction, 30, first=first))


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize("settings", [{"foreach": False}, {"fused": True}])
def test_a_rate_in_a_tensor_is_the_same_and_not_written_to(
    correction: str, settings: dict[str, Any]
) -> None:
    rate = torch.tensor(1e-2)
    ours = adamw(lr=rate, bias_correction=correction, **settings)
    close(train(ours, range(10)), looped(correction, 10))
    assert ours.param_groups[0]["lr"] is rate
    assert rate.item() == torch.tensor(lr_at(9)).item()


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("correction", ["usual", "inverse"])
@pytest.mark.parametrize("decay", [0.3, 0.0])
def test_update_scale_is_for_one_tensor_and_not_for_its_decay(
    correction: str, kernel: str, decay: float
) -> None:
    ours = adamw(bias_correction=correction, weight_decay=decay, **KERNELS[kernel])
    for p, scale in zip(ours.param_groups[0]["params"], (0.5, 1.0, 2.0), strict=True):
        if scale != 1.0:  # before there is any other state
            ours.state[p]["update_scale"] = torch.tensor(scale)
    wanted = looped(correction, 12, scales=(0.5, 1.0, 2.0), weight_decay=decay)
    close(train(ours, range(12)), wanted)


@pytest.mark.parametrize("settings", [{"foreach": False}, {"fused": True}, {"amsgrad": True}])
def test_scales_that_stay_on_the_device(
    settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is done on a GPU where reading them would wait."""
    scales = (0.5, 1.0, 2.0)
    found = []
    for on_device in (False, True):
        if on_device:
            monkeypatch.setattr("groundup.optim.adamw._stays_on_device", lambda *_: True)
        ours = adamw(bias_correction="inverse", **settings)
        for p, scale in zip(ours.param_groups[0]["params"], scales, strict=True):
            ours.state[p]["update_scale"] = torch.tensor(scale)
        found.append(train(ours, range(20), first=(0, 4, 0)))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)
    if "amsgrad" not in settings:
        close(found[1], looped("inverse", 20, first=(0, 4, 0), scales=scales))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_an_update_scale_that_is_none_is_refused(scale: float) -> None:
    ours = adamw()
    ours.state[ours.param_groups[0]["params"][1]]["update_scale"] = torch.tensor(scale)
    with pytest.raises(ValueError, match="update_scale"):
        train(ours, range(1))


def test_groups_have_their_own() -> None:
    params = weights()
    ours = adamw([{"params": params[:1]}, {"params": params[1:2], "bias_correction": "none"}])
    ours.add_param_group({"params": params[2:], "bias_correction": "inverse"})
    found = train(ours, range(10))
    wanted = [looped(name, 10)[k] for k, name in enumerate(("usual", "none", "inverse"))]
    close(found, wanted)


def test_an_unknown_correction_is_refused() -> None:
    said = "bias_correction='invers' is unknown: did you mean 'inverse'"
    with pytest.raises(ValueError, match=said):
        adamw(bias_correction="invers")
    ours = adamw(weights()[:1])
    with pytest.raises(ValueError, match=said):
        ours.add_param_group({"params": weights()[1:], "bias_correction": "invers"})
    assert len(ours.param_groups) == 1
    tensors = (torch.tensor(0.9), torch.tensor(0.95))
    adamw(betas=tensors)
    with pytest.raises(ValueError, match="'inverse' is not valid with betas in tensors"):
        adamw(betas=tensors, bias_correction="inverse")


# ---------------------------------------------------------------------- nothing leaks


@pytest.mark.parametrize("lr", [1e-2, torch.tensor(1e-2)])
def test_groups_are_as_they_were_also_after_an_exception(lr: float | Tensor) -> None:
    ours = adamw(lr=lr, bias_correction="inverse")
    groups = ours.param_groups
    before = copy.deepcopy(ours.state_dict()["param_groups"])
    seen = []
    ours.register_step_pre_hook(lambda *_: seen.append("before"))
    ours.register_step_post_hook(lambda o, *_: seen.append(str(o.param_groups[0]["lr"])))
    torch.optim.AdamW(weights())  # torch puts the hooks of step() into its class
    torch.optim.Adam(weights())
    for p, g in zip(ours.param_groups[0]["params"], gradients(0), strict=True):
        p.grad = g
    ours.step()
    assert seen == ["before", str(lr)]  # once
    assert ours.param_groups is groups
    assert ours.state_dict()["param_groups"] == before
    ours.param_groups[0]["params"][1].grad = gradients(0)[1].to_sparse()
    with pytest.raises(RuntimeError, match="sparse"):
        ours.step()
    assert ours.state_dict()["param_groups"] == before
    assert ours.param_groups[0]["weight_decay"] == 0.3


def test_closure() -> None:
    ours = adamw(bias_correction="inverse")

    def closure() -> Tensor:
        ours.zero_grad()
        loss = sum(p.square().sum() for p in ours.param_groups[0]["params"])
        loss.backward()
        return loss

    before = closure().item()
    assert ours.step(closure).item() == before
    assert closure().item() < before


# ---------------------------------------------------------------------- compiled


@pytest.mark.parametrize("correction", ["usual", "inverse"])
@pytest.mark.parametrize("scaled", [False, True])
def test_compiled_it_is_the_same_and_compiled_once(correction: str, scaled: bool) -> None:
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    ours = adamw(lr=torch.tensor(1e-2), bias_correction=correction)
    step = torch.compile(ours.step, backend=counter)
    scales = [torch.tensor(s) for s in ((0.5, 0.7, 2.0) if scaled else (1.0, 1.0, 1.0))]
    for p, scale in zip(ours.param_groups[0]["params"], scales if scaled else [], strict=scaled):
        ours.state[p]["update_scale"] = scale
    found = train(ours, range(12), first=(0, 0, 0), step=step)
    close(found, looped(correction, 12, scales=tuple(s.item() for s in scales)))
    assert counter.frame_count == 1
    assert ours.param_groups[0]["weight_decay"] == 0.3


def test_by_inductor_too() -> None:
    torch._dynamo.reset()
    ours = adamw(lr=torch.tensor(1e-2), bias_correction="inverse-sqrt")
    found = train(ours, range(6), step=torch.compile(ours.step))
    close(found, looped("inverse-sqrt", 6))


def test_a_compiled_fused_one_is_the_same_and_not_compiled_again() -> None:
    counts = []
    for steps in (4, 12):
        torch._dynamo.reset()
        counter = CompileCounterWithBackend("aot_eager")
        ours = adamw(lr=torch.tensor(1e-2), bias_correction="inverse", fused=True)
        step = torch.compile(ours.step, backend=counter)
        close(train(ours, range(steps), step=step), looped("inverse", steps))
        counts.append(counter.frame_count)
    assert counts[0] == counts[1]


# ---------------------------------------------------------------------- gradient scaler


@pytest.mark.parametrize("correction", ["usual", "inverse"])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_fused_one_unscales_and_skips_an_overflow(correction: str, compiled: bool) -> None:
    torch._dynamo.reset()
    ours = adamw(bias_correction=correction, fused=True)
    if compiled:
        ours.step = torch.compile(ours.step, backend="eager")  # type: ignore[method-assign]
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=10_000)
    params = ours.param_groups[0]["params"]
    for i in range(12):
        overflows = i in (0, 4, 5)
        ours.param_groups[0]["lr"] = lr_at(i)
        for p, g in zip(params, gradients(i), strict=True):
            p.grad = g * scaler.get_scale() if not overflows else torch.full_like(g, torch.inf)
        scaler.scale(torch.tensor(1.0))
        scaler.step(ours)
        scaler.update()
    wanted = adamw(bias_correction=correction)
    for i in range(12):
        if i not in (0, 4, 5):
            train(wanted, range(i, i + 1))
    for p, q in zip(params, wanted.param_groups[0]["params"], strict=True):
        torch.testing.assert_close(p, q)
    assert ours.state[params[0]]["step"].item() == 9


# ---------------------------------------------------------------------- state


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("correction", CORRECTIONS)
def test_a_loaded_state_goes_on_to_the_bit(correction: str, kernel: str) -> None:
    make = lambda params: adamw(params, bias_correction=correction, **KERNELS[kernel])  # noqa: E731
    straight = train(make(weights()), range(12))
    first = make(weights())
    half = train(first, range(6))
    saved = copy.deepcopy(first.state_dict())
    train(first, range(6, 12))  # what was saved does not change with it
    second = adamw([nn.Parameter(w) for w in half])
    second.load_state_dict(saved)
    assert same(train(second, range(6, 12)), straight)


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_state_that_is_set_back_counts_from_there(kernel: str) -> None:
    """By load_state_dict, and in place, as torch.distributed.checkpoint does."""
    for in_place in (False, True):
        ours = adamw(bias_correction="inverse", **KERNELS[kernel])
        begun = train(ours, range(2))
        saved = copy.deepcopy(ours.state_dict())
        end = train(ours, range(2, 8))
        for p, w in zip(ours.param_groups[0]["params"], begun, strict=True):
            p.data.copy_(w)
        if in_place:
            for i, p in enumerate(ours.param_groups[0]["params"]):
                for key, value in ours.state[p].items():
                    value.copy_(saved["state"][i][key])
        else:
            ours.load_state_dict(saved)
        assert same(train(ours, range(2, 8)), end)


def test_torchs_state_is_loaded_and_copies_go_on() -> None:
    theirs = torch.optim.AdamW(weights(), lr=1e-2, betas=BETAS, weight_decay=0.3)
    half = train(theirs, range(5))
    ours = adamw([nn.Parameter(w) for w in half], bias_correction="none")
    ours.load_state_dict(theirs.state_dict())
    assert ours.param_groups[0]["bias_correction"] == "none"
    twin = copy.deepcopy(ours)
    assert same(train(ours, range(5, 9)), train(twin, range(5, 9)))
    assert not same(train(theirs, range(5, 9)), train(twin, range(0)))


def test_counts_are_read_once_and_counted_along(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU a fused optimizer's count is there, and every look at it would wait."""
    ours = adamw(bias_correction="inverse", fused=True)
    train(ours, range(1))
    looks: list[object] = []
    stack = torch.stack
    monkeypatch.setattr(torch, "stack", lambda *a, **k: looks.append(a) or stack(*a, **k))
    train(ours, range(1, 10))
    assert not looks
    ours.state[ours.param_groups[0]["params"][0]]["step"].zero_()
    train(ours, range(10, 12))
    assert len(looks) == 1
