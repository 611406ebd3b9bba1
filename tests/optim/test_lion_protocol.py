"""What LionA and LionAR have in common with every torch optimizer."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend

from groundup.optim.lion import LionA, LionAR

Make = Callable[..., torch.optim.Optimizer]
SHAPES = ((4, 8), (5,), (6, 2, 2), (3, 1))
SETTINGS: list[dict[str, Any]] = [
    {},
    {"nesterov": True, "bias_correction": "inverse", "beta": 0.98},
    {"bias_correction": "inverse-sqrt", "maximize": True},
]


@pytest.fixture(params=[LionA, LionAR])
def make(request: pytest.FixtureRequest) -> Make:
    return request.param


def weights(dtype: torch.dtype = torch.float32, seed: int = 0) -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=draw).to(dtype)) for shape in SHAPES]


def train(
    optimizer: torch.optim.Optimizer,
    steps: range,
    *,
    step: Callable[[], Any] | None = None,
    lr: Callable[[int], float] | None = None,
) -> list[Tensor]:
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for i in steps:
        draw = torch.Generator().manual_seed(i)
        for p in params:
            p.grad = torch.randn(p.shape, generator=draw).to(p.dtype)
        for group in optimizer.param_groups if lr is not None else ():
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr(i))
            else:
                group["lr"] = lr(i)
        (step or optimizer.step)()
    return [p.detach().clone() for p in params]


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def decaying(step: int) -> float:
    return 1e-2 * (1 - step / 100)


# ---------------------------------------------------------------------- the same numbers


@pytest.mark.parametrize("settings", SETTINGS)
def test_foreach_is_the_same(make: Make, settings: dict[str, Any]) -> None:
    found = []
    for foreach in (False, True, None):
        optimizer = make(weights(), 1e-2, foreach=foreach, **settings)
        found.append(train(optimizer, range(20)))
    assert same(found[0], found[1])
    assert same(found[0], found[2])
    assert not same(found[0], [w.detach() for w in weights()])


@pytest.mark.parametrize("foreach", [False, True])
def test_a_rate_in_a_tensor_is_the_same_and_stays_the_object(make: Make, foreach: bool) -> None:
    rate = torch.tensor(1e-2)
    ours = train(make(weights(), rate, foreach=foreach), range(20), lr=decaying)
    assert rate.item() == pytest.approx(decaying(19))
    floats = train(make(weights(), 1e-2, foreach=foreach), range(20), lr=decaying)
    for a, b in zip(ours, floats, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("settings", SETTINGS)
def test_maximize_is_the_descent_of_the_negative(make: Make, settings: dict[str, Any]) -> None:
    up, down = weights(), weights()
    ascent = make(up, 1e-2, **settings | {"maximize": True})
    descent = make(down, 1e-2, **settings | {"maximize": False})
    for i in range(10):
        draw = torch.Generator().manual_seed(i)
        for p, q in zip(up, down, strict=True):
            p.grad = torch.randn(p.shape, generator=draw)
            q.grad = -p.grad
        ascent.step()
        descent.step()
    assert same(up, down)


def test_closure(make: Make) -> None:
    (w, *_) = weights()
    optimizer = make([w], 1e-2)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (w * torch.arange(32.0).sin().view(4, 8)).sum()
        loss.backward()
        return loss

    before = closure().item()
    assert optimizer.step(closure).item() == before
    assert closure().item() < before


# ---------------------------------------------------------------------- compiled


@pytest.mark.parametrize("settings", SETTINGS[:2])
def test_compiled_it_is_the_same_and_compiled_once(make: Make, settings: dict[str, Any]) -> None:
    eager = train(make(weights(), torch.tensor(1e-2), **settings), range(10), lr=decaying)
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    optimizer = make(weights(), torch.tensor(1e-2), **settings)
    step = torch.compile(optimizer.step, backend=counter)
    compiled = train(optimizer, range(10), step=step, lr=decaying)
    for a, b in zip(eager, compiled, strict=True):
        torch.testing.assert_close(a, b)
    assert counter.frame_count == 1


@pytest.mark.parametrize(("rate", "settings"), [(1e-2, {}), (torch.tensor(1e-2), SETTINGS[1])])
def test_by_inductor_too(make: Make, rate: float | Tensor, settings: dict[str, Any]) -> None:
    rate = rate.clone() if isinstance(rate, Tensor) else rate
    eager = train(make(weights(), rate, **settings), range(5))
    torch._dynamo.reset()
    optimizer = make(weights(), rate, **settings)
    compiled = train(optimizer, range(5), step=torch.compile(optimizer.step))
    for a, b in zip(eager, compiled, strict=True):
        torch.testing.assert_close(a, b)


def test_compiled_it_heeds_update_scale(make: Make) -> None:
    found = []
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    for compiled in (False, True):
        optimizer = make(weights(), torch.tensor(1e-2))
        step = torch.compile(optimizer.step, backend=counter) if compiled else optimizer.step
        scale = torch.tensor(1.0)
        for i in range(8):
            scale.mul_(0.8)
            for p in optimizer.param_groups[0]["params"]:
                optimizer.state[p]["update_scale"] = scale
            ends = train(optimizer, range(i, i + 1), step=step)
        found.append(ends)
    assert not same(found[0], train(make(weights(), 1e-2), range(8)))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)
    assert counter.frame_count == 1


# ---------------------------------------------------------------------- state


def saved_and_loaded(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.filterwarnings("ignore:.* weights lose turns")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_loaded_state_goes_on_to_the_bit(
    make: Make, settings: dict[str, Any], dtype: torch.dtype
) -> None:
    if make is LionAR:
        settings = settings | {"master_weights": True}
    straight = train(make(weights(dtype), 1e-2, **settings), range(12))
    first = make(weights(dtype), 1e-2, **settings)
    half = train(first, range(6))
    second = make([nn.Parameter(w) for w in half], 5.0, weight_decay=0.01, beta=0.5)
    second.load_state_dict(saved_and_loaded(first))
    assert same(train(second, range(6, 12)), straight)


@pytest.mark.filterwarnings("ignore:.* weights lose turns")
def test_float32_state_of_bfloat16_weights_stays_what_it_is(make: Make) -> None:
    first = make(weights(torch.bfloat16), 1e-2)
    train(first, range(3))
    second = make(weights(torch.bfloat16), 1e-2)
    # What another hook makes of a state is what is loaded.
    second.register_load_state_dict_pre_hook(lambda _, s: {**s, "state": dict(s["state"])})
    second.load_state_dict(first.state_dict())
    for p, q in zip(first.param_groups[0]["params"], second.param_groups[0]["params"], strict=True):
        assert first.state[p].keys() == second.state[q].keys()
        for key, value in first.state[p].items():
            assert value.dtype == torch.float32
            assert second.state[q][key].dtype == torch.float32
            assert torch.equal(second.state[q][key], value)


def test_everything_kept_is_in_the_state(make: Make) -> None:
    optimizer = make(weights(), 1e-2)
    assert not optimizer.state
    train(optimizer, range(3))
    state = optimizer.state_dict()["state"]
    turning = {"norm"} if make is LionAR else set()
    assert [set(state[i]) for i in range(4)] == [
        {"step", "exp_avg"} | turning,
        {"step", "exp_avg"},
        {"step", "exp_avg"} | turning,
        {"step", "exp_avg"},  # rows of one element cannot turn
    ]
    step = state[0]["step"]
    assert (step.item(), step.dtype, step.device.type, step.shape) == (3, torch.float32, "cpu", ())


def test_copies_go_on_by_themselves(make: Make) -> None:
    optimizer = make(weights(), 1e-2, bias_correction="inverse")
    train(optimizer, range(3))
    twin = copy.deepcopy(optimizer)
    assert same(train(optimizer, range(3, 6)), train(twin, range(3, 6)))


def test_an_older_state_without_a_setting_is_loaded(make: Make) -> None:
    first = make(weights(), 1e-2)
    train(first, range(3))
    old = first.state_dict()
    del old["param_groups"][0]["bias_correction"]
    second = make(weights(), 1e-2, bias_correction="inverse")
    second.load_state_dict(old)
    assert second.param_groups[0]["bias_correction"] == "inverse"
    train(second, range(3))


# ---------------------------------------------------------------------- groups and gradients


def test_a_group_has_its_own_settings_and_any_other_keys(make: Make) -> None:
    a, b = weights()[:2], weights()[:2]
    optimizer = make([{"params": a, "layer": 3}], 1e-2)
    optimizer.add_param_group({"params": b, "lr": 1e-3, "beta": 0.5, "nesterov": True})
    found = train(optimizer, range(10))
    assert optimizer.param_groups[0]["layer"] == 3
    assert optimizer.param_groups[1]["weight_decay"] == 0.1
    alone = make(weights()[:2], 1e-3, beta=0.5, nesterov=True)
    draws = []
    for i in range(10):  # the second pair's gradients, in the order that `train` draws them
        draw = torch.Generator().manual_seed(i)
        draws.append([torch.randn(p.shape, generator=draw) for p in (*a, *b)][2:])
    for grads in draws:
        for p, g in zip(alone.param_groups[0]["params"], grads, strict=True):
            p.grad = g
        alone.step()
    assert same(found[2:], [p.detach() for p in alone.param_groups[0]["params"]])


def test_parameters_without_gradient_are_left_alone_and_count_later(make: Make) -> None:
    params = weights()
    optimizer = make(params, 1e-2, bias_correction="inverse")
    late = params[0].detach().clone()
    for i in range(4):
        for p in params[1:]:
            p.grad = torch.ones_like(p)
        params[0].grad = torch.ones_like(params[0]) if i == 3 else None
        assert torch.equal(params[0], late)
        optimizer.step()
    fresh = nn.Parameter(late.clone())
    fresh.grad = torch.ones_like(fresh)
    make([fresh], 1e-2, bias_correction="inverse").step()
    assert torch.equal(params[0], fresh)
    assert not torch.equal(fresh, late)


def test_sparse_gradients_are_refused_before_anything_moves(make: Make) -> None:
    table = nn.Embedding(5, 3, sparse=True)
    other = weights()[0]
    optimizer = make([{"params": [("w", other)]}, {"params": [("table", table.weight)]}], 1e-2)
    table(torch.tensor([1])).sum().backward()
    other.grad = torch.ones_like(other)
    with pytest.raises(ValueError, match=r"gradient of table \(shape \(5, 3\)\) is sparse"):
        optimizer.step()
    assert torch.equal(other, weights()[0])


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int64])
def test_other_parameters_than_real_ones_are_refused(make: Make, dtype: torch.dtype) -> None:
    w = nn.Parameter(torch.ones(2, 2, dtype=dtype), requires_grad=dtype.is_complex)
    with pytest.raises(ValueError, match=rf"parameter 0 of its group .* is {dtype}"):
        make([w])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"lr": -1.0}, r"lr=-1\.0 is not valid"),
        ({"lr": float("nan")}, "lr=nan is not valid"),
        ({"lr": torch.tensor([1.0])}, r"lr of shape \(1,\) is not valid"),
        ({"lr": torch.tensor(-1.0)}, r"lr=-1\.0 is not valid"),
        ({"lr": "fast"}, "lr='fast' is not valid"),
        ({"beta": 1.0}, r"beta=1 is not valid"),
        ({"beta": -0.1}, r"beta=-0\.1 is not valid"),
        ({"weight_decay": -0.1}, r"weight_decay=-0\.1 is not valid"),
        ({"bias_correction": "invers"}, "did you mean 'inverse'"),
        ({"nesterov": "yes"}, "nesterov='yes' is unknown"),
        ({"foreach": 2}, "foreach=2 is unknown"),
    ],
)
def test_bad_settings_are_refused(make: Make, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make(weights(), **settings)
    optimizer = make(weights()[:1])
    with pytest.raises(ValueError, match=said):
        optimizer.add_param_group({"params": weights()[1:], **settings})
    assert len(optimizer.param_groups) == 1


def test_a_gradient_scaler_skips_an_overflow(make: Make) -> None:
    params = weights()
    optimizer = make(params, 1e-2)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    before = [p.detach().clone() for p in params]
    for p in params:
        p.grad = torch.full_like(p, float("inf"))
    scaler.scale(torch.tensor(1.0))
    scaler.step(optimizer)
    assert same(before, [p.detach() for p in params])
    assert not optimizer.state


def test_it_refuses_to_be_captured(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundup.optim.own.capturing", lambda: True)
    with pytest.raises(RuntimeError, match="each replay of a CUDA graph"):
        train(make(weights(), 1e-2), range(1))


def test_bfloat16_weights_are_updated_in_float32_and_rounded_once(make: Make) -> None:
    """Decay and step are less than a rounding each, and both together more."""
    w = nn.Parameter(torch.full((1,), 1.0, dtype=torch.bfloat16))
    optimizer = make([w], 0.0075, beta=0.0, weight_decay=1 / 3)
    w.grad = torch.ones_like(w)
    # Halves of a rounding below 1: 2⁻⁹ = 0.00195. The decay alone is 0.0025, with the step 0.01.
    optimizer.step()
    assert w.item() == torch.tensor(1 - 0.0075 / 3 - 0.0075).to(torch.bfloat16).item()
