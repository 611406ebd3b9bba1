"""RRC correction: its scale against a computation on plain numbers, and what it leaves alone."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

import groundup as gu
from groundup.optim import RRC

BATCH = 16
STATIONARY = 150  # updates, at β = 0.8


def weights(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    shapes = [(6, 5), (4, 6), (4,)]
    return [nn.Parameter(torch.randn(s, generator=draw).to(dtype)) for s in shapes]


def gradients(step: int, params: list[nn.Parameter]) -> list[Tensor]:
    """A mean of its own for each tensor, and noise as large as it."""
    draw = torch.Generator().manual_seed(100 + step)
    found = []
    for i, p in enumerate(params):
        mean = torch.randn(p.shape, generator=torch.Generator().manual_seed(i)) * (i + 1) / 2
        found.append((mean + torch.randn(p.shape, generator=draw)).to(p.dtype))
    return found


def update(optimizer: Optimizer, params: list[nn.Parameter], step: int, zero: tuple[int, ...] = ()):
    for i, (p, g) in enumerate(zip(params, gradients(step, params), strict=True)):
        p.grad = torch.zeros_like(g) if i in zero else g
    optimizer.step()


class ByHand:
    """The scales of a sequence of gradients, in Python floats, from the formulas as written."""

    def __init__(self, beta: float, nesterov: bool = False, averaging: float = 0.9) -> None:
        self.beta, self.nesterov, self.averaging = beta, nesterov, averaging
        self.m: dict[int, Tensor] = {}
        self.n: dict[int, int] = {}
        self.history: dict[int, list[list[float]]] = {}

    def see(self, i: int, gradient: Tensor) -> None:
        g = gradient.double()
        if i not in self.n and not g.any():
            return
        n = self.n.get(i, 0)  # of the gradients before this one
        if n > 0:
            m_hat = self.m[i] / (1 - self.beta**n)
            ones = [(1 - self.beta) * self.beta**j / (1 - self.beta**n) for j in range(n)]
            products = [float((a * b).sum()) for a, b in ((m_hat, m_hat), (m_hat, g), (g, g))]
            self.history.setdefault(i, []).append([*products, sum(w * w for w in ones)])
        self.n[i] = n + 1
        self.m[i] = self.beta * self.m.get(i, torch.zeros_like(g)) + (1 - self.beta) * g

    def averages(self, i: int) -> list[float]:
        entries = self.history[i]
        share = [self.averaging ** (len(entries) - 1 - j) for j in range(len(entries))]
        return [
            sum(s * e[k] for s, e in zip(share, entries, strict=True)) / sum(share)
            for k in range(4)
        ]

    def scale(self, members: list[int], phi: float | None = None) -> float:
        n = max((self.n.get(i, 1) for i in members), default=1)
        known = [self.averages(i) for i in members if i in self.history]
        if phi is None:
            phi = self.estimate(known)
        return self.cosine(STATIONARY, 0.0) / self.cosine(n, phi)

    def estimate(self, known: list[list[float]]) -> float:
        """The equations of groundup.measure.split_by_momentum, by bisection for the noise N."""
        if not known:
            return 1e15
        a, d, g = (sum(entry[i] for entry in known) for i in range(3))
        k = sum(entry[2] * entry[3] for entry in known) / g
        low, high = 0.0, min(g, a / k)
        for _ in range(200):
            middle = (low + high) / 2
            # Falls from A·G − D² to −D² between.
            if (a - k * middle) * (g - middle) > max(0.0, d) ** 2:
                low = middle
            else:
                high = middle
        return (a - k * low) / low / BATCH if low > 0 else 1e15

    def cosine(self, n: int, phi: float) -> float:
        m = [(1 - self.beta) * self.beta ** (n - 1 - i) for i in range(n)]
        if self.nesterov:
            m = [self.beta * w for w in m]
            m[-1] += 1 - self.beta
        m = [w / sum(m) for w in m]
        inner = phi + m[-1] / BATCH
        return inner / math.sqrt((phi + sum(w * w for w in m) / BATCH) * (phi + 1))


Make = Callable[..., Optimizer]
_ADAM: dict[str, Any] = {"lr": 1e-2, "betas": (0.8, 0.9)}
_SGD: dict[str, Any] = {"lr": 1e-2, "momentum": 0.8}
_LION: dict[str, Any] = {"lr": 1e-2, "beta": 0.8}

# What makes it, and whether its momentum is Nesterov's.
OWN: dict[str, tuple[Make, bool]] = {
    "AdamW": (partial(gu.optim.AdamW, **_ADAM), False),
    "LionA": (partial(gu.optim.LionA, **_LION), False),
    "LionA, Nesterov": (partial(gu.optim.LionA, **_LION, nesterov=True), True),
    "LionAR": (partial(gu.optim.LionAR, **_LION), False),
    "RotationalAdamW": (partial(gu.optim.RotationalAdamW, **_ADAM), False),
    "RotationalSGD": (partial(gu.optim.RotationalSGD, **_SGD), False),
}

_L2: dict[str, Any] = _SGD | {"weight_decay": 0.1}
# The same, and the β that the correction has to be told.
FOREIGN: dict[str, tuple[Make, dict[str, float], bool]] = {
    "AdamW": (partial(torch.optim.AdamW, **_ADAM, weight_decay=0.3), {}, False),
    "AdamW, foreach": (partial(torch.optim.AdamW, **_ADAM, foreach=True), {}, False),
    "AdamW, tensor": (partial(torch.optim.AdamW, **_ADAM | {"lr": torch.tensor(1e-2)}), {}, False),
    "AdamW, maximize": (partial(torch.optim.AdamW, **_ADAM, maximize=True), {}, False),
    "SGD": (partial(torch.optim.SGD, **_SGD), {}, False),
    "SGD, Nesterov": (partial(torch.optim.SGD, **_SGD, nesterov=True), {}, True),
    "SGD with L2": (partial(torch.optim.SGD, **_L2), {"beta": 0.8}, False),
    "SGD, Nesterov, L2": (partial(torch.optim.SGD, **_L2, nesterov=True), {"beta": 0.8}, True),
    "RMSprop": (partial(torch.optim.RMSprop, lr=1e-2), {"beta": 0.8}, False),
}


@pytest.mark.parametrize("name", OWN)
def test_own_optimizers_scale_each_tensor(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, nesterov = OWN[name]
    params, seen = weights(), []
    optimizer = make(params)
    rrc = RRC(optimizer, batch_size=BATCH)
    optimizer.register_step_pre_hook(
        lambda o, *_: seen.append([float(o.state[p]["update_scale"]) for p in params])
    )
    hand = ByHand(0.8, nesterov)
    for step in range(12):
        zero = (1,) if step < 3 else ()  # a branch that wakes up later
        update(optimizer, params, step, zero)
        for i, p in enumerate(params):
            assert p.grad is not None
            hand.see(i, p.grad)
        expected = [hand.scale([i]) for i in range(3)]
        assert seen[-1] == pytest.approx(expected, rel=1e-3)
        assert rrc.latest()["rrc_scale"] == pytest.approx(sum(expected) / 3, rel=1e-3)
    assert all("update_scale" not in optimizer.state[p] for p in params)


@pytest.mark.parametrize("name", OWN)
def test_own_optimizers_obey_the_scale(name: str) -> None:
    """The first update is a(0) times as large as without; of those that turn, the angle is."""
    make, nesterov = OWN[name]
    turns = name.startswith(("LionAR", "Rotational"))
    moved = []
    for correct in (False, True):
        params = weights()
        before = [p.detach().clone() for p in params]
        optimizer = make(params) if turns else make(params, weight_decay=0.0)
        if correct:
            RRC(optimizer, batch_size=BATCH)
        update(optimizer, params, 0)
        measure = gu.measure.row_angles if turns else gu.measure.update_norm
        moved.append([measure(b, p).mean() for p, b in zip(params[:2], before[:2], strict=True)])
    a = ByHand(0.8, nesterov).cosine(STATIONARY, 0.0)
    for without, corrected in zip(*moved, strict=True):
        assert float(corrected / without) == pytest.approx(a, rel=1e-3)


@pytest.mark.parametrize("name", FOREIGN)
def test_other_optimizers_have_their_rate_scaled(name: str) -> None:
    """Against the same optimizer with the rates and decays written by hand."""
    make, kind, nesterov = FOREIGN[name]
    params, plain = weights(), weights()
    groups = [{"params": params[:2]}, {"params": params[2:], "lr": 3e-2}]
    if name == "AdamW, tensor":
        groups[1]["lr"] = torch.tensor(3e-2)
    optimizer = make(groups)
    by_hand = make(
        [{**g, "params": p} for g, p in zip(groups, (plain[:2], plain[2:]), strict=True)]
    )
    RRC(optimizer, batch_size=BATCH, **kind)
    hand = ByHand(0.8, nesterov)
    kept = [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
    decoupled = name.startswith("AdamW")
    for step in range(8):
        zero = (1,) if step < 3 else ()
        for i, g in enumerate(gradients(step, params)):
            hand.see(i, torch.zeros_like(g) if i in zero else g)
        for group, members, (lr, decay) in zip(
            by_hand.param_groups, ([0, 1], [2]), kept, strict=True
        ):
            scale = hand.scale(members)
            group["lr"] = lr * scale
            group["weight_decay"] = decay / scale if decoupled else decay
        update(optimizer, params, step, zero)
        update(by_hand, plain, step, zero)
        assert [(g["lr"], g["weight_decay"]) for g in optimizer.param_groups] == kept
        for p, q in zip(params, plain, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", [OWN["LionA"][0], FOREIGN["AdamW"][0]], ids=["own", "other"])
def test_phi_that_is_given(make: Make) -> None:
    params = weights()
    optimizer = make(params)
    rrc = RRC(optimizer, batch_size=BATCH, phi="given")
    hand = ByHand(0.8)
    for step, phi in enumerate([None, 0.3, None, 0.0, math.inf]):
        if phi is not None:
            rrc.observe(torch.tensor(phi) if step == 1 else phi)
        last = [1e15, 0.3, 0.3, 0.0, 1e15][step]
        update(optimizer, params, step)
        expected = hand.cosine(STATIONARY, 0.0) / hand.cosine(step + 1, last)
        assert rrc.latest()["rrc_scale"] == pytest.approx(expected, rel=1e-5)
    assert all(g["rrc_phi"] == math.inf for g in optimizer.param_groups)


def test_gradients_that_point_back_carry_no_signal() -> None:
    params = weights()
    optimizer = gu.optim.LionA(params, lr=1e-2, beta=0.8)
    rrc = RRC(optimizer, batch_size=BATCH)
    hand = ByHand(0.8)
    for step in range(3):
        for i, p in enumerate(params):
            p.grad = (-1.0) ** step * gradients(0, params)[i]
            hand.see(i, p.grad)
        optimizer.step()
    assert hand.history[0][-1][1] < 0
    expected = [hand.scale([i]) for i in range(3)]
    assert rrc.latest()["rrc_scale"] == pytest.approx(sum(expected) / 3, rel=1e-4)


def test_width_limits_the_correction() -> None:
    params = weights()
    optimizer = gu.optim.LionA(params, lr=1e-2, beta=0.8)
    rrc = RRC(optimizer, batch_size=BATCH, width=20)
    update(optimizer, params, 0)
    a = ByHand(0.8).cosine(STATIONARY, 0.0) ** 2
    assert rrc.latest()["rrc_scale"] == pytest.approx(math.sqrt(a + (1 - a) / 20))


RESUMED: dict[str, tuple[Make, dict[str, Any]]] = {
    "LionA": (OWN["LionA"][0], {}),
    "RotationalAdamW": (partial(gu.optim.RotationalAdamW, lr=1e-2, master_weights=True), {}),
    "AdamW": (FOREIGN["AdamW"][0], {}),
    "SGD with L2": (FOREIGN["SGD with L2"][0], {"beta": 0.8}),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_run_goes_on_to_the_bit(name: str, dtype: torch.dtype) -> None:
    make, kind = RESUMED[name]
    params = weights(dtype)
    optimizer = make(params)
    RRC(optimizer, batch_size=BATCH, **kind)
    for step in range(4):
        update(optimizer, params, step)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    again = [nn.Parameter(p.detach().clone()) for p in params]
    resumed = make(again)
    rrc = RRC(resumed, batch_size=BATCH, **kind)
    resumed.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    for step in range(4, 8):
        update(optimizer, params, step)
        update(resumed, again, step)
        assert rrc.latest()["rrc_scale"] < 1
    for p, q in zip(params, again, strict=True):
        assert torch.equal(p, q)
        assert optimizer.state[p]["noise"].dtype == torch.float32
        assert torch.equal(optimizer.state[p]["noise"], resumed.state[q]["noise"])


def test_a_checkpoint_does_not_depend_on_what_follows() -> None:
    params = weights()
    optimizer = FOREIGN["SGD with L2"][0](params)
    RRC(optimizer, batch_size=BATCH, beta=0.8)
    update(optimizer, params, 0)
    state = copy.deepcopy(optimizer.state_dict())
    fresh = FOREIGN["SGD with L2"][0](weights())
    RRC(fresh, batch_size=BATCH, beta=0.8)
    fresh.load_state_dict(state)
    update(fresh, [p for g in fresh.param_groups for p in g["params"]], 1)
    assert torch.equal(state["state"][0]["noise"], optimizer.state[params[0]]["noise"])


@pytest.mark.parametrize("name", ["LionA", "AdamW"])
def test_detached_leaves_the_optimizer_as_it_was(name: str) -> None:
    make = OWN[name][0] if name == "LionA" else FOREIGN[name][0]
    params = weights()
    optimizer = make(params)
    plain = make(weights())
    rrc = RRC(optimizer, batch_size=BATCH, phi="given")
    rrc.observe(0.1)
    update(optimizer, params, 0)
    rrc.detach()
    update(plain, [p for g in plain.param_groups for p in g["params"]], 0)
    mine, theirs = optimizer.state_dict(), plain.state_dict()
    assert mine["param_groups"] == theirs["param_groups"]
    assert mine["state"][0].keys() == theirs["state"][0].keys()
    before = [p.detach().clone() for p in params]
    update(optimizer, params, 1)
    assert all(not torch.equal(p, b) for p, b in zip(params, before, strict=True))


def test_attached_to_an_optimizer_at_work() -> None:
    """The momentum is as old as the optimizer; without a count of updates, as old as can be."""
    for name, n in (("AdamW", 31.0), ("SGD", math.inf)):
        params = weights()
        optimizer = FOREIGN[name][0](params)
        for step in range(30):
            update(optimizer, params, step)
        rrc = RRC(optimizer, batch_size=BATCH)
        update(optimizer, params, 30)
        assert all(float(optimizer.state[p]["noise"][0]) == n for p in params)
        hand = ByHand(0.8)
        for step in range(31):
            for i, g in enumerate(gradients(step, params)):
                hand.see(i, g)
        known = [[*hand.history[i][-1]] for i in range(3)]  # of this update alone
        expected = hand.cosine(STATIONARY, 0.0) / hand.cosine(STATIONARY, hand.estimate(known))
        assert rrc.latest()["rrc_scale"] == pytest.approx(expected, rel=2e-3)


def test_an_update_that_raises_leaves_the_rate() -> None:
    params = weights()
    optimizer = FOREIGN["AdamW"][0](params)
    RRC(optimizer, batch_size=BATCH)
    for p in params:
        p.grad = torch.ones_like(p)

    def closure() -> float:
        raise KeyError

    with pytest.raises(KeyError):
        optimizer.step(closure)
    update(optimizer, params, 0)
    assert optimizer.param_groups[0]["lr"] == 1e-2
    assert optimizer.param_groups[0]["weight_decay"] == 0.3


def test_a_gradient_scaler_that_skips_an_update() -> None:
    """Of a fused optimizer it calls `step` all the same."""
    params = weights()
    optimizer = torch.optim.AdamW(params, lr=1e-2, fused=True)
    RRC(optimizer, batch_size=BATCH)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for step in range(4):
        for p, g in zip(params, gradients(step, params), strict=True):
            p.grad = scaler.scale(g.clone())
        if step == 2:
            params[0].grad[0, 0] = math.inf  # type: ignore[index]
        if step == 0:
            with pytest.raises(RuntimeError, match="unscale_"):
                scaler.step(optimizer)
            del optimizer.grad_scale, optimizer.found_inf  # which the scaler left behind
        scaler.unscale_(optimizer)
        before = optimizer.state[params[0]].get("noise", torch.zeros(6)).clone()
        scaler.step(optimizer)
        scaler.update()
        now = optimizer.state[params[0]]["noise"]
        assert float(now[0]) == [1, 2, 2, 3][step]
        assert torch.equal(now, before) == (step == 2)
        assert all(p.isfinite().all() for p in params)


def test_a_compiled_step_is_compiled_once() -> None:
    from torch._dynamo.testing import CompileCounter

    for make in (OWN["LionA"][0], FOREIGN["AdamW, tensor"][0]):
        torch._dynamo.reset()
        params, plain = weights(), weights()
        optimizer, eager = make(params), make(plain)
        rrc, other = RRC(optimizer, batch_size=BATCH), RRC(eager, batch_size=BATCH)
        counter = CompileCounter()
        compiled = torch.compile(optimizer.step, backend=counter)
        counts = []
        for step in range(8):
            for p, q, g in zip(params, plain, gradients(step, params), strict=True):
                p.grad, q.grad = g.clone(), g.clone()
            compiled()
            eager.step()
            counts.append(counter.frame_count)
            assert rrc.latest() == pytest.approx(other.latest(), rel=1e-5)
        assert counts[3:] == [counts[3]] * 5
        for p, q in zip(params, plain, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-6)


def sgd(**kind: Any) -> Optimizer:
    return torch.optim.SGD(weights(), lr=0.1, **kind)


@pytest.mark.parametrize(
    ("message", "wrong"),
    [
        ("batch_size=0", lambda: RRC(sgd(momentum=0.9), batch_size=0)),
        ("phi='batches'", lambda: RRC(sgd(momentum=0.9), batch_size=8, phi="batches")),
        ("averaging=1", lambda: RRC(sgd(momentum=0.9), batch_size=8, averaging=1.0)),
        ("width=0", lambda: RRC(sgd(momentum=0.9), batch_size=8, width=0)),
        ("beta=0.9 would be ignored", lambda: RRC(sgd(momentum=0.9), batch_size=8, beta=0.9)),
        ("beta=None.*SGD", lambda: RRC(sgd(), batch_size=8)),
        ("beta=None", lambda: RRC(sgd(momentum=0.9, weight_decay=0.1), batch_size=8)),
        ("beta=0 .*given", lambda: RRC(sgd(), batch_size=8, beta=0.0)),
        ("beta=1.5", lambda: RRC(sgd(), batch_size=8, beta=1.5)),
        ("LBFGS", lambda: RRC(torch.optim.LBFGS(weights()), batch_size=8, beta=0.9)),
        ("phi=-1", lambda: RRC(sgd(), batch_size=8, beta=0.0, phi="given").observe(-1.0)),
    ],
)  # fmt: skip
def test_refuses(message: str, wrong: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=message):
        wrong()


def test_refuses_to_be_told_what_it_measures() -> None:
    with pytest.raises(RuntimeError, match='phi="given"'):
        RRC(sgd(momentum=0.9), batch_size=8).observe(0.1)


def test_refuses_sparse_gradients() -> None:
    table = nn.Embedding(5, 3, sparse=True)
    optimizer = torch.optim.SGD(table.parameters(), lr=0.1, momentum=0.9)
    RRC(optimizer, batch_size=8)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(ValueError, match=r"\[5, 3\] is sparse"):
        optimizer.step()


def test_one_correction_an_optimizer() -> None:
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2, 2))])
    rrc = RRC(optimizer, batch_size=8)
    with pytest.raises(ValueError, match="has an RRC correction already"):
        RRC(optimizer, batch_size=8)
    rrc.detach()
    RRC(optimizer, batch_size=8)
