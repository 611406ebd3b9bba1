"""RotationalAdamW and RotationalSGD against a loop over rows, and what an optimizer must do."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from groundup.optim.equilibrium import EquilibriumOptimizer
from groundup.optim.lion import LionAR
from groundup.optim.rotational import RotationalAdamW, RotationalSGD, adamw_angle, sgd_angle
from tests.optim.rotational_loop import Adam, Momentum, Row
from tests.optim.rotational_on_two_ranks import MAKERS, net, resume
from tests.optim.test_rotation import between, close
from tests.residual.where import ranks

SHAPES = [(6, 5), (4, 3, 2), (5,), (3, 1)]  # the last two do not turn
KINDS: dict[str, Callable[..., EquilibriumOptimizer]] = {
    "adamw": RotationalAdamW,
    "sgd": lambda params, **kw: RotationalSGD(params, **{"lr": 1e-3, "weight_decay": 0.1} | kw),
    "nesterov": lambda params, **kw: KINDS["sgd"](params, nesterov=True, **kw),
}
BASES: dict[str, Callable[[], Adam | Momentum]] = {
    "adamw": lambda: Adam(0.9, 0.95),
    "sgd": lambda: Momentum(0.9),
    "nesterov": lambda: Momentum(0.9, nesterov=True),
}
both = pytest.mark.parametrize("kind", ["adamw", "sgd"])


def parameters(seed: int = 0, shapes: Sequence[tuple[int, ...]] = SHAPES) -> list[nn.Parameter]:
    g = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=g)) for shape in shapes]


class Gradients:
    """Half steady, half new in each step; the same for whoever asks with the same seed."""

    def __init__(self, seed: int = 1) -> None:
        self._g = torch.Generator().manual_seed(seed)
        self._steady: dict[int, Tensor] = {}

    def fill(self, params: Sequence[Tensor]) -> None:
        for i, p in enumerate(params):
            steady = self._steady.setdefault(i, torch.randn(p.shape, generator=self._g))
            p.grad = (steady + torch.randn(p.shape, generator=self._g)).to(p.dtype)


def train(optimizer: torch.optim.Optimizer, steps: int, gradients: Gradients) -> None:
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for _ in range(steps):
        gradients.fill(params)
        optimizer.step()


def assert_same(a: Sequence[Tensor], b: Sequence[Tensor]) -> None:
    for p, q in zip(a, b, strict=True):
        assert torch.equal(p, q)


# ---------------------------------------------------------------------- the update


@pytest.mark.parametrize("kind", [*KINDS, "lionar"])
@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize("masters", [False, True])
def test_weights_in_out_are_turned_as_their_transpose(
    kind: str, foreach: bool, masters: bool
) -> None:
    """And the norms along the inputs stay, those along the outputs do not."""
    make: Callable[..., torch.optim.Optimizer] = {**KINDS, "lionar": LionAR}[kind]
    dtype = torch.bfloat16 if masters else torch.float64
    plain = parameters(shapes=[(6, 5), (4, 7)])
    ours, theirs = (
        [nn.Parameter(f(p.detach()).to(dtype).contiguous()) for p in plain]
        for f in (torch.t, torch.clone)
    )
    settings = {"lr": 0.02, "weight_decay": 0.3, "foreach": foreach, "master_weights": masters}
    optimizers = (
        make([{"params": ours, "out_dim": 1}], **settings),
        make([{"params": theirs}], **settings),
    )
    before = [p.detach().clone() for p in ours]
    gradients = Gradients()
    for _ in range(100):
        gradients.fill(theirs)
        for p, q in zip(ours, theirs, strict=True):
            p.grad = q.grad.T.contiguous()
        for optimizer in optimizers:
            optimizer.step()
    norm = "norm" if kind == "lionar" else "row_norm"
    for p, q, first in zip(ours, theirs, before, strict=True):
        mine, other = optimizers[0].state[p], optimizers[1].state[q]
        exact = mine["master"] if masters else p.detach()
        assert mine[norm].shape == (1, p.shape[1])
        close(exact, (other["master"] if masters else q.detach()).T, 0, 3e-5 if masters else 1e-7)
        close(exact.norm(dim=0), first.double().norm(dim=0), rtol=3e-7)
        assert (exact.norm(dim=1) / first.norm(dim=1) - 1).abs().max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("foreach", [False, True])
def test_against_a_loop_over_rows(kind: str, foreach: bool) -> None:
    params = parameters()
    rows = [Row(w.numpy(), BASES[kind]()) for p in params[:2] for w in p.detach().flatten(1)]
    optimizer = KINDS[kind](params, lr=0.02, weight_decay=0.3, foreach=foreach)
    gradients = Gradients()
    for _ in range(40):
        gradients.fill(params)
        grads = [g for p in params[:2] for g in p.grad.flatten(1)]
        for row, g in zip(rows, grads, strict=True):
            row.turn(g.double().numpy(), lr=0.02, weight_decay=0.3)
        optimizer.step()
    found = [w for p in params[:2] for w in p.detach().flatten(1)]
    for row, w in zip(rows, found, strict=True):
        np.testing.assert_allclose(w.numpy(), row.w, rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("correction", "scale"),
    [
        ("none", lambda n: 1.0),
        ("inverse", lambda n: 1 - 0.9**n),
        ("inverse-sqrt", lambda n: math.sqrt(1 - 0.9 ** (2 * n))),
    ],
)
def test_corrections_multiply_the_angle(correction: Any, scale: Callable[[int], float]) -> None:
    (p,) = parameters(shapes=[(3, 6)])
    rows = [Row(w.numpy(), Adam(0.9, 0.95), lambda n: 0.5 * scale(n)) for w in p.detach()]
    optimizer = RotationalAdamW([p], lr=0.02, bias_correction=correction, maximize=True)
    optimizer.state[p]["update_scale"] = torch.tensor(0.5)
    gradients = Gradients()
    for _ in range(20):
        gradients.fill([p])
        for row, g in zip(rows, p.grad, strict=True):
            row.turn(-g.double().numpy(), lr=0.02, weight_decay=0.1)
        optimizer.step()
    for row, w in zip(rows, p.detach(), strict=True):
        np.testing.assert_allclose(w.numpy(), row.w, rtol=0, atol=1e-5)


@pytest.mark.parametrize("foreach", [False, True])
@pytest.mark.parametrize(
    ("mine", "torchs", "settings"),
    [
        (RotationalAdamW, torch.optim.AdamW, {"betas": (0.8, 0.99), "eps": 1e-4}),
        (RotationalAdamW, torch.optim.AdamW, {"betas": (0.0, 0.9), "maximize": True}),
        (RotationalSGD, torch.optim.SGD, {"momentum": 0.8}),
        (RotationalSGD, torch.optim.SGD, {"momentum": 0.8, "nesterov": True, "maximize": True}),
    ],
)
def test_others_are_updated_as_by_torch(
    mine: Any, torchs: Any, settings: dict[str, Any], foreach: bool
) -> None:
    a, b = parameters(), parameters()
    settings = settings | {"lr": 0.02, "weight_decay": 0.3, "foreach": foreach}
    train(mine(a, rotational=False, **settings), 20, Gradients())
    train(torchs(b, **settings), 20, Gradients())
    for p, q in zip(a, b, strict=True):
        close(p.detach(), q.detach().double(), rtol=1e-5, atol=1e-6)


def test_momentum_of_others_is_corrected_as_said() -> None:
    (p,) = parameters(shapes=[(4,)])
    optimizer = RotationalAdamW([p], lr=0.1, weight_decay=0.0, bias_correction="inverse")
    before, p.grad = p.detach().clone(), torch.ones(4)
    optimizer.step()
    close(before - p.detach(), 0.1 * 0.1 * (1 - 0.9), rtol=1e-4)  # lr·m·(1 − β), m = 1 − β


def test_update_scale_leaves_decay_alone() -> None:
    (p,) = parameters(shapes=[(4,)])
    optimizer = RotationalAdamW([p], lr=0.1, weight_decay=0.5)
    optimizer.state[p]["update_scale"] = torch.tensor(0.0)
    before, p.grad = p.detach().clone(), torch.ones(4)
    optimizer.step()
    close(p.detach(), before.double() * 0.95, rtol=1e-6)


@both
@pytest.mark.parametrize(("angle", "factor"), [("sqrt", 0.5), ("linear", 0.25)])
def test_angle_follows_the_rate(kind: str, angle: Any, factor: float) -> None:
    expected = {"adamw": adamw_angle(1e-3, 0.1), "sgd": sgd_angle(1e-3, 0.1)}[kind]
    for lr in (1e-3, torch.tensor(1e-3)):
        (p,) = parameters(shapes=[(50, 20)])
        optimizer = KINDS[kind]([p], lr=lr, angle=angle)
        gradients, turned = Gradients(), []
        for scale in (1.0, 0.25):
            optimizer.param_groups[0]["lr"] = lr * scale
            before = p.detach().clone()
            gradients.fill([p])
            optimizer.state.clear()  # so that the angle is exactly that of the rate
            optimizer.step()
            turned.append(between(before, p.detach()))
        close(turned[0], expected, rtol=1e-3)
        close(turned[1], factor * expected, rtol=1e-3)


def test_a_rate_of_zero_moves_nothing() -> None:
    params = parameters()
    before = copy.deepcopy(params)
    optimizer = RotationalAdamW(params, lr=0.0)
    train(optimizer, 3, Gradients())
    assert_same(params, before)


@both
def test_norms_stay(kind: str) -> None:
    (p,) = parameters(shapes=[(16, 64)])
    norm = p.detach().double().norm(dim=1)
    train(KINDS[kind]([p], lr=0.05), 1500, Gradients())
    close(p.detach().double().norm(dim=1), norm, rtol=3e-7)


# ---------------------------------------------------------------------- rows that start late


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_without_a_gradient_waits_and_then_starts_like_any_other(kind: str) -> None:
    """Behind a residual branch at α = 0, gradients are exactly zero."""
    late, fresh = parameters(shapes=[(4, 30)])[0], parameters(shapes=[(4, 30)])[0]
    ours, other = KINDS[kind]([late]), KINDS[kind]([fresh])
    before, gradients = late.detach().clone(), Gradients()
    for _ in range(50):
        gradients.fill([late])
        late.grad[:2] = 0.0
        ours.step()
    assert torch.equal(late[:2], before[:2])
    assert not torch.equal(late[2:], before[2:])
    for _ in range(20):
        gradients.fill([fresh])
        late.grad = fresh.grad.clone()
        was = late.detach().clone()
        ours.step()
        other.step()
        close(between(was[:2], late.detach()[:2]), between(was[:2], fresh.detach()[:2]), rtol=2e-3)
        close(late.detach()[:2], fresh.detach()[:2].double(), rtol=0, atol=2e-5)


def test_updates_of_zero_do_not_count() -> None:
    """Rows that are used now and then, such as experts of a mixture, without momentum."""
    (p,) = parameters(shapes=[(3, 6)])
    rows = [Row(w.numpy(), Momentum(0.0)) for w in p.detach()]
    optimizer, gradients = RotationalSGD([p], lr=0.1, weight_decay=0.1, momentum=0.0), Gradients()
    for step in range(30):
        gradients.fill([p])
        p.grad[step % 3] = 0.0
        for row, g in zip(rows, p.grad, strict=True):
            row.turn(g.double().numpy(), lr=0.1, weight_decay=0.1)
        optimizer.step()
    for row, w in zip(rows, p.detach(), strict=True):
        np.testing.assert_allclose(w.numpy(), row.w, rtol=0, atol=1e-5)


@both
def test_a_radial_gradient_turns_nothing(kind: str) -> None:
    (p,) = parameters(shapes=[(4, 30)])
    optimizer = KINDS[kind]([p])
    before = p.detach().clone()
    # Adam's direction is the sign of the first gradient.
    with torch.no_grad():
        p.copy_(before.sign() if kind == "adamw" else before)
    before = p.detach().clone()
    p.grad = before * 0.3
    optimizer.step()
    assert torch.equal(p, before)


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        ("adamw", {"lr": -1.0}, "lr=-1.0"),
        ("adamw", {"lr": "fast"}, "lr='fast'"),
        ("adamw", {"lr": torch.ones(2)}, "lr of shape"),
        ("adamw", {"weight_decay": math.nan}, "weight_decay=nan"),
        ("adamw", {"weight_decay": 0.0}, "weight_decay=0 .*rotational=False"),
        ("sgd", {"weight_decay": 0.0}, "weight_decay=0 .*rotational=False"),
        ("adamw", {"lr": 3.0, "weight_decay": 20.0}, "π/2"),
        ("adamw", {"betas": (1.0, 0.9)}, r"betas\[0\]=1"),
        ("adamw", {"betas": (0.9,)}, "betas"),
        ("adamw", {"eps": 0.0}, "eps=0.0"),
        ("adamw", {"angle": "cubic"}, "angle='cubic'"),
        ("adamw", {"angle": "linear", "lr": 0.0}, "lr=0"),
        ("adamw", {"bias_correction": "invers"}, "did you mean 'inverse'"),
        ("adamw", {"rotational": "yes"}, "rotational='yes'"),
        ("adamw", {"rotational": True}, "rotational=True"),
        ("adamw", {"foreach": "no"}, "foreach='no'"),
        ("sgd", {"momentum": 1.0}, "momentum=1"),
        ("sgd", {"momentum": 0.0, "nesterov": True}, "nesterov"),
    ],
)
def test_bad_settings_are_refused_at_once(kind: str, settings: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        KINDS[kind](parameters(), **settings)
    optimizer = KINDS[kind](parameters())
    with pytest.raises(ValueError, match=words):
        optimizer.add_param_group({"params": parameters()} | settings)
    assert len(optimizer.param_groups) == 1
    train(optimizer, 1, Gradients())


def test_no_decay_is_right_where_nothing_turns() -> None:
    vectors, matrices = parameters(shapes=[(5,), (3, 1)]), parameters(shapes=[(4, 4)])
    groups = [{"params": vectors}, {"params": matrices, "rotational": False}]
    train(RotationalAdamW(groups, weight_decay=0.0), 2, Gradients())


@both
def test_a_row_of_norm_zero_is_refused(kind: str) -> None:
    params = parameters()
    with torch.no_grad():
        params[0][3] = 0.0
    with pytest.raises(
        ValueError, match=r"parameter 0 .*: 1 of 6 rows have norm 0, the first is row 3"
    ):
        train(KINDS[kind](params), 1, Gradients())
    train(KINDS[kind](params, rotational=False), 1, Gradients())


@both
def test_a_row_of_norm_zero_is_refused_late_and_before_anything_moves(kind: str) -> None:
    """At a rate of 0 a checkpoint makes the state that it loads, maybe before the weights."""
    good, bad = parameters(shapes=[(4, 3), (4, 3)])
    with torch.no_grad():
        bad.zero_()
    optimizer = KINDS[kind]([{"params": [good]}, {"params": [bad]}], lr=0.0)
    train(optimizer, 1, Gradients())
    before = good.detach().clone()
    for group in optimizer.param_groups:
        group["lr"] = 1e-3
    with pytest.raises(ValueError, match="4 of 4 rows have norm 0"):
        train(optimizer, 1, Gradients())
    assert torch.equal(good, before)


@both
def test_it_refuses_to_be_captured(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundup.optim.own.capturing", lambda: True)
    with pytest.raises(RuntimeError, match="each replay of a CUDA graph"):
        train(KINDS[kind](parameters()), 1, Gradients())


def test_sparse_and_complex_are_refused() -> None:
    with pytest.raises(ValueError, match="complex"):
        RotationalAdamW([nn.Parameter(torch.ones(2, 2, dtype=torch.complex64))])
    embedding = nn.Embedding(4, 3, sparse=True)
    optimizer = RotationalAdamW(embedding.named_parameters())
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match="weight .*sparse"):
        optimizer.step()


# ---------------------------------------------------------------------- as an optimizer


@pytest.mark.parametrize("kind", KINDS)
def test_foreach_gives_the_same_numbers(kind: str) -> None:
    shapes = [*SHAPES, (6, 5), (2,)]
    a, b = parameters(shapes=shapes), parameters(shapes=shapes)
    train(KINDS[kind](a, foreach=True), 10, Gradients())
    train(KINDS[kind](b, foreach=False), 10, Gradients())
    assert_same(a, b)


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_state_goes_on_bit_by_bit(kind: str, dtype: torch.dtype) -> None:
    def make(params: list[nn.Parameter]) -> EquilibriumOptimizer:
        return KINDS[kind](params, master_weights=True, angle="linear")

    a = [nn.Parameter(p.detach().to(dtype)) for p in parameters()]
    optimizer, gradients = make(a), Gradients()
    train(optimizer, 5, gradients)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    b = copy.deepcopy(a)
    resumed = make(b)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    again = copy.deepcopy(gradients)
    train(optimizer, 5, gradients)
    train(resumed, 5, again)
    assert_same(a, b)
    for p, q in zip(a, b, strict=True):
        assert optimizer.state[p].keys() == resumed.state[q].keys()
        for key, value in optimizer.state[p].items():
            assert value.dtype == torch.float32
            assert torch.equal(value, resumed.state[q][key]), key
    assert resumed.param_groups[0]["peak_lr"] == optimizer.param_groups[0]["peak_lr"]


@both
def test_low_precision(kind: str) -> None:
    exact = [
        nn.Parameter(p.detach().bfloat16().float()) for p in parameters(shapes=[(8, 40), (5,)])
    ]
    rounded = [nn.Parameter(p.detach().bfloat16()) for p in exact]
    plain = copy.deepcopy(rounded)
    with pytest.warns(UserWarning, match="bfloat16 .*master_weights=True") as said:
        train(KINDS[kind](plain, lr=1e-4), 1, Gradients())
    assert said[0].filename == __file__
    train(KINDS[kind](rounded, lr=1e-4, master_weights=True), 300, Gradients())
    gradients = Gradients()
    optimizer = KINDS[kind](exact, lr=1e-4)
    for _ in range(300):
        gradients.fill(rounded)
        for p, q in zip(exact, rounded, strict=True):
            p.grad = q.grad.float()
        optimizer.step()
    assert_same([p.bfloat16() for p in exact], rounded)


def test_a_new_group_and_parameters_without_gradients() -> None:
    used, unused, added = parameters(shapes=[(3, 4), (3, 4), (3, 4)])
    before = unused.detach().clone()
    optimizer = RotationalAdamW([used, unused])
    used.grad = torch.ones(3, 4)
    optimizer.step()
    optimizer.add_param_group({"params": [added], "lr": 0.1, "layer": 3})
    added.grad = torch.ones(3, 4)
    was = added.detach().clone()
    optimizer.step()
    assert torch.equal(unused, before)
    assert unused not in optimizer.state
    close(between(was, added.detach()), adamw_angle(0.1, 0.1), rtol=1e-4)


def test_closure_copies_and_schedulers() -> None:
    params = parameters(shapes=[(3, 4)])
    optimizer = RotationalAdamW(params)
    loss = optimizer.step(lambda: sum(p.square().sum() for p in params))
    assert loss.item() == pytest.approx(params[0].square().sum().item())
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
    train(optimizer, 1, Gradients())
    scheduler.step()
    twin = copy.deepcopy(optimizer)
    train(optimizer, 2, Gradients())
    train(twin, 2, Gradients())
    assert_same(params, twin.param_groups[0]["params"])


@both
def test_one_compiled_graph_for_all_rates(kind: str) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    a, b = parameters(), parameters()
    eager, compiled = KINDS[kind](a, lr=torch.tensor(0.02)), KINDS[kind](b, lr=torch.tensor(0.02))
    step, gradients = torch.compile(compiled.step, backend="aot_eager"), Gradients()
    for i in range(5):
        gradients.fill(a)
        for p, q in zip(a, b, strict=True):
            q.grad = p.grad.clone()
        for optimizer in (eager, compiled):
            optimizer.param_groups[0]["lr"].fill_(0.02 / (i + 1))
        eager.step()
        step()
    for p, q in zip(a, b, strict=True):
        close(q.detach(), p.detach().double(), rtol=1e-5, atol=1e-6)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


# ---------------------------------------------------------------------- on two ranks

CHECKS = "tests.optim.rotational_on_two_ranks"


@pytest.mark.parametrize("name", ranks.names(CHECKS))
def test_on_two_ranks(name: str, outcomes: dict[str, str]) -> None:
    assert not outcomes[name], outcomes[name]


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
@pytest.mark.parametrize("i", range(len(MAKERS)))
def test_what_two_ranks_saved_is_resumed_by_one_process(
    i: int, folder: Path, outcomes: dict[str, str]
) -> None:
    ends = torch.load(folder / f"{i}.pt", weights_only=True)
    resumed = resume(net(), MAKERS[i], folder / str(i))
    for p, q in zip(resumed.parameters(), ends, strict=True):
        close(p.detach(), q.double(), rtol=1e-4, atol=1e-5)
