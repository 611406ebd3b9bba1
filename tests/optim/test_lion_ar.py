from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from groundup.optim.lion import LionA, LionAR
from tests.optim import lion_loop

ROUNDING = 3e-7  # radians, and relative for norms: a few float32 roundings


def parameter(*shape: int, seed: int = 1, scale: float = 0.02) -> nn.Parameter:
    draw = torch.Generator().manual_seed(seed)
    return nn.Parameter(torch.randn(shape, generator=draw) * scale)


def rows(w: Tensor) -> np.ndarray:
    return w.detach().double().flatten(1).numpy().copy()


def full_angle(lr: float, weight_decay: float = 0.1, beta: float = 0.9) -> float:
    return math.sqrt(2 * lr * weight_decay) * math.sqrt((1 - beta) / (1 + beta))


# ---------------------------------------------------------------------- the formula


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("correction", ["none", "usual", "inverse", "inverse-sqrt"])
@pytest.mark.parametrize("angle", ["sqrt", "linear"])
def test_it_is_the_float64_loop(nesterov: bool, correction: str, angle: str) -> None:
    w = parameter(6, 4, scale=1.0)
    draw = torch.Generator().manual_seed(0)
    grads = [torch.randn(6, 4, generator=draw) for _ in range(40)]
    lrs = [0.1 * (1 - i / 50) for i in range(40)]
    wanted = lion_loop.lion_ar(
        rows(w),
        [g.double().numpy() for g in grads],
        lrs,
        beta=0.95,
        weight_decay=0.3,
        nesterov=nesterov,
        bias_correction=correction,
        angle=angle,
        scale=0.7,
    )
    settings: dict[str, Any] = {"bias_correction": correction, "angle": angle}
    optimizer = LionAR([w], 0.1, 0.95, 0.3, nesterov, **settings)
    optimizer.state[w]["update_scale"] = torch.tensor(0.7)
    for g, lr in zip(grads, lrs, strict=True):
        optimizer.param_groups[0]["lr"] = lr
        w.grad = g
        optimizer.step()
    np.testing.assert_allclose(w.detach().numpy(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("masters", "foreach"), [(False, False), (True, True)])
def test_norms_and_angles_stay_exact_for_thousands_of_updates(masters: bool, foreach: bool) -> None:
    """Measured in float64, with a rate that rises and falls, and rows that never move."""
    steps, shape = 2000, (12, 100)
    w = parameter(*shape)
    if masters:
        w = nn.Parameter(w.detach().to(torch.bfloat16))
    optimizer = LionAR([w], 1e-3, nesterov=True, master_weights=masters, foreach=foreach)
    kept = rows(w)
    draw = torch.Generator().manual_seed(0)
    constant = torch.randn(shape, generator=draw)  # so that errors could add up
    worst_angle = worst_norm = 0.0
    scale = lion_loop.size(0.9, nesterov=True)
    before = kept
    for i in range(steps):
        lr = 2e-3 * math.sin(math.pi * (i + 1) / (steps + 1)) ** 2
        optimizer.param_groups[0]["lr"] = lr
        grad = constant + 3 * torch.randn(shape, generator=draw)
        grad[:2] = 0
        w.grad = grad.to(w.dtype)
        optimizer.step()
        exact = optimizer.state[w]["master"] if masters else w
        after = rows(exact)
        turned = lion_loop.angles(before, after)
        assert (turned[:2] == 0).all()
        angle = math.sqrt(2 * lr * 0.1) * scale
        worst_angle = max(worst_angle, np.abs(turned[2:] - angle).max())
        norms = np.linalg.norm(after, axis=1) / np.linalg.norm(kept, axis=1)
        worst_norm = max(worst_norm, np.abs(norms - 1).max())
        before = after
    assert worst_angle < ROUNDING
    assert worst_norm < ROUNDING
    assert np.array_equal(rows(w)[:2], kept[:2])
    if masters:
        assert torch.equal(w, optimizer.state[w]["master"].to(torch.bfloat16))
    assert lion_loop.angles(kept, rows(w))[2:].min() > 0.5  # it has gone somewhere


def test_any_shape_of_rows() -> None:
    flat, conv = parameter(5, 18), parameter(5, 18)
    conv = nn.Parameter(conv.detach().view(5, 2, 3, 3))
    for w in (flat, conv):
        optimizer = LionAR([w], 1e-2)
        for i in range(5):
            draw = torch.Generator().manual_seed(i)
            w.grad = torch.randn(5, 18, generator=draw).view(w.shape)
            optimizer.step()
    torch.testing.assert_close(conv.detach().view(5, 18), flat.detach())
    assert optimizer.state[conv]["norm"].shape == (5, 1, 1, 1)


@pytest.mark.parametrize("lr", [1e-3, torch.tensor(1e-3)])
def test_rows_without_tangential_direction_keep_every_bit(lr: float | Tensor) -> None:
    w = parameter(4, 8)
    with torch.no_grad():
        w[1] = 0.3  # the sign of a constant gradient is radial there
    optimizer = LionAR([w], lr)
    before = w.detach().clone()
    for _ in range(20):
        w.grad = torch.zeros_like(w)
        w.grad[1] = 2.0
        w.grad[2] = torch.arange(8) - 3.0
        optimizer.step()
    assert torch.equal(w[[0, 1, 3]], before[[0, 1, 3]])
    assert not torch.equal(w[2], before[2])
    # What is dormant wakes up (residual warmup's first α above 0).
    w.grad = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    turned = lion_loop.angles(rows(before), rows(w))
    assert turned[0] == pytest.approx(full_angle(1e-3), abs=ROUNDING)


def test_nothing_moves_at_a_rate_of_zero() -> None:
    w = parameter(3, 7)
    before = w.detach().clone()
    optimizer = LionAR([w], 0.0)
    for _ in range(3):
        w.grad = torch.ones_like(w)
        w.grad[:, 0] = -1
        optimizer.step()
    assert torch.equal(w, before)


def test_the_linear_angle_follows_the_rate_from_its_peak() -> None:
    w = parameter(3, 50)
    optimizer = LionAR([w], 4e-3, angle="linear")
    assert optimizer.param_groups[0]["peak_lr"] == 4e-3
    for lr, share in ((4e-3, 1.0), (1e-3, 0.25), (2e-3, 0.5)):
        before = rows(w)
        optimizer.param_groups[0]["lr"] = lr
        w.grad = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
        optimizer.step()
        turned = lion_loop.angles(before, rows(w))
        np.testing.assert_allclose(turned, share * full_angle(4e-3), atol=ROUNDING)
    again = LionAR([parameter(3, 50)], 1.0, angle="linear")
    again.load_state_dict(optimizer.state_dict())
    assert again.param_groups[0]["peak_lr"] == 4e-3


def test_angles_above_a_right_one_count_as_such() -> None:
    w = parameter(3, 50)
    optimizer = LionAR([w], 1e-3)
    optimizer.state[w]["update_scale"] = torch.tensor(1e4)
    before = rows(w)
    w.grad = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    np.testing.assert_allclose(lion_loop.angles(before, rows(w)), math.pi / 2, atol=1e-6)


# ---------------------------------------------------------------------- what turns


def test_vectors_and_what_shall_not_turn_are_updated_as_by_liona() -> None:
    shapes = ((5,), (4, 1), (4, 3))
    turning, plain = ([parameter(*s) for s in shapes] for _ in range(2))
    a = LionAR([{"params": turning[:2]}, {"params": turning[2:], "rotational": False}], 1e-2)
    b = LionA(plain, 1e-2)
    for i in range(10):
        for group in (turning, plain):
            draw = torch.Generator().manual_seed(i)
            for p in group:
                p.grad = torch.randn(p.shape, generator=draw)
        a.step()
        b.step()
    for p, q in zip(turning, plain, strict=True):
        assert torch.equal(p, q)


@pytest.mark.parametrize("shape", [(5,), (4, 1), ()])
def test_what_has_no_rows_cannot_be_told_to_turn(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"rotational=True is not valid for .* of shape"):
        LionAR([parameter(*shape)], rotational=True)


def test_rows_of_norm_zero_are_refused_when_they_should_turn() -> None:
    linear = nn.Linear(4, 3)
    with torch.no_grad():
        linear.weight[1:] = 0
    for p in linear.parameters():
        p.grad = torch.ones_like(p)
    before = [p.detach().clone() for p in linear.parameters()]
    optimizer = LionAR(linear.named_parameters(), 0.0)
    optimizer.step()  # a checkpoint makes the state like this
    optimizer.param_groups[0]["lr"] = 1e-3
    said = (
        r"weight \(shape \(3, 4\)\): 2 of 3 rows have norm 0, the first is row 1.*rotational=False"
    )
    for _ in range(2):
        with pytest.raises(ValueError, match=said):
            optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(linear.parameters(), before, strict=True))
    apart = LionAR([{"params": [linear.weight], "rotational": False}])
    apart.step()
    assert not torch.equal(linear.weight, before[0])


def test_norms_of_zero_that_are_loaded_are_refused_too() -> None:
    w = parameter(3, 5)
    optimizer = LionAR([w])
    w.grad = torch.ones_like(w)
    optimizer.step()
    saved = optimizer.state_dict()
    saved["state"][0]["norm"] = torch.tensor([[1.0], [0.0], [1.0]])
    optimizer.load_state_dict(saved)
    with pytest.raises(ValueError, match="1 of 3 rows have norm 0"):
        optimizer.step()


def test_norms_that_are_loaded_take_the_place_of_those_at_the_start() -> None:
    """A checkpoint is loaded into weights that are zero as yet."""
    trained, empty = parameter(3, 5), nn.Parameter(torch.zeros(3, 5))
    a, b = LionAR([trained]), LionAR([empty], 0.0)
    for w, optimizer in ((trained, a), (empty, b)):
        w.grad = torch.zeros_like(w)
        optimizer.step()
    with torch.no_grad():
        empty.copy_(trained)
    b.load_state_dict(a.state_dict())
    for w, optimizer in ((trained, a), (empty, b)):
        w.grad = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
        optimizer.step()
    assert torch.equal(trained, empty)


# ---------------------------------------------------------------------- settings


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"weight_decay": 0.0}, "weight_decay=0 is not valid for parameters that turn"),
        ({"weight_decay": torch.tensor(0.0)}, "weight_decay=0 is not valid"),
        ({"lr": 100.0, "weight_decay": 1.0}, r"would turn rows by 3\.24 rad, more than π/2"),
        ({"angle": "cube"}, "angle='cube' is unknown"),
        ({"angle": "linear", "lr": 0.0}, "lr=0 is not valid with angle='linear'"),
        ({"rotational": "yes"}, "rotational='yes' is unknown"),
        ({"master_weights": None}, "master_weights=None is unknown"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LionAR([parameter(3, 4)], **settings)


@pytest.mark.parametrize(
    ("out_dim", "said"),
    [
        (2, r"out_dim=2 is not valid for a parameter of shape \(3, 4\): .* from 0 to 1"),
        (-1, "out_dim=-1 is not valid: it must be a whole number of at least 0"),
        (True, "out_dim=True is not valid"),
        (1.0, "out_dim=1.0 is not valid"),
    ],
)
def test_a_dimension_that_is_none_is_refused(out_dim: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        LionAR([{"params": [parameter(3, 4)], "out_dim": out_dim}])
    LionAR([{"params": [parameter(3)], "out_dim": 1}])  # nothing turns


@pytest.mark.parametrize("shape", [(1, 4), (4, 1)])
def test_rows_of_one_element_by_the_dimension_of_the_outputs(shape: tuple[int, int]) -> None:
    w = parameter(*shape)
    optimizer = LionAR([{"params": [w], "out_dim": 1}])
    w.grad = torch.ones(shape)
    optimizer.step()
    assert ("norm" in optimizer.state[w]) is (shape == (4, 1))


def test_groups_of_before_there_was_out_dim() -> None:
    optimizer = LionAR([parameter(3, 4)])
    old = optimizer.state_dict()
    del old["param_groups"][0]["out_dim"]
    optimizer.load_state_dict(old)
    assert optimizer.param_groups[0]["out_dim"] == 0


def test_no_decay_is_fine_where_nothing_turns() -> None:
    LionAR([parameter(5)], weight_decay=0.0)
    LionAR([parameter(5, 4)], weight_decay=0.0, rotational=False)


def test_low_precision_is_warned_about_once() -> None:
    low = [nn.Parameter(torch.ones(3, 4, dtype=torch.bfloat16)) for _ in range(2)]
    vector = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        optimizer = LionAR([{"params": low[:1]}, {"params": low[1:]}])
        for p in low:
            p.grad = torch.ones_like(p)
        optimizer.step()
    (once,) = said
    assert "bfloat16 weights lose turns" in str(once.message)
    assert "master_weights=True" in str(once.message)
    assert once.filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LionAR([*low, vector], master_weights=True)
        LionAR(low, rotational=False)
        LionAR([vector])


def test_low_precision_loses_small_angles() -> None:
    """What the warning says; with master weights the same rows turn."""
    turned = []
    for masters in (False, True):
        w = nn.Parameter(parameter(8, 64).detach().to(torch.bfloat16))
        before = rows(w)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            optimizer = LionAR([w], 1e-5, master_weights=masters)
        direction = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
        for _ in range(500):
            w.grad = direction.to(torch.bfloat16)
            optimizer.step()
        turned.append(lion_loop.angles(before, rows(w)).max() / (500 * full_angle(1e-5)))
    assert turned[0] < 0.5
    assert turned[1] == pytest.approx(1, abs=0.05)
