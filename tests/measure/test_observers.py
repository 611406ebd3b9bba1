"""Observers: their numbers against a run taken apart by hand, and that they change nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

import groundup as gu
from groundup.measure import momentum_noise, observe, row_angles
from groundup.model import ModelConfig, Transformer

BATCH = 8


class Net(nn.Module):
    """Something of everything: convolution, running statistics, dropout, one ReLU used twice."""

    def __init__(self, relu: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.relu = relu()
        self.hidden = nn.Linear(16, 12)
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(12, 3, bias=False)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.conv(x)))
        x = self.relu(self.hidden(x.flatten(1)))
        return self.out(self.drop(x))


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net()


def batch(step: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1000 + step)
    x = torch.randn(BATCH, 1, 4, 4, generator=draw)
    return x, torch.randint(0, 3, (BATCH,), generator=draw)


def adamw(model: nn.Module) -> Optimizer:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)


def update(model: nn.Module, optimizer: Optimizer, step: int) -> Tensor:
    x, y = batch(step)
    loss = F.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


# ---------------------------------------------------------------------- what it measures


def test_updates() -> None:
    model = net()
    optimizer = adamw(model)
    observer = observe(model, optimizer, ["updates"], every=1)
    for step in range(3):
        before = weights(model)
        update(model, optimizer, step)
        after, found = weights(model), observer.latest
        old = torch.cat([w.double().flatten() for w in before.values()])
        new = torch.cat([w.double().flatten() for w in after.values()])
        assert found["update_norm"] == pytest.approx(float((new - old).norm()))
        assert found["relative_update"] == pytest.approx(float((new - old).norm() / old.norm()))
        cosine = F.cosine_similarity(old, new, dim=0)
        assert found["angle"] == pytest.approx(float(cosine.clamp(-1, 1).acos()), rel=1e-5)
        rows = []
        for name, w in before.items():
            pair = w.double(), after[name].double()
            assert found[f"update_norm/{name}"] == pytest.approx(float((pair[1] - pair[0]).norm()))
            if w.ndim > 1:
                cosines = F.cosine_similarity(*(t.flatten(1) for t in pair), dim=1)
                rows.append(cosines.clamp(-1, 1).acos())
                assert found[f"row_angle/{name}"] == pytest.approx(float(rows[-1].mean()), rel=1e-5)
            else:
                assert f"row_angle/{name}" not in found
        assert found["row_angle"] == pytest.approx(float(torch.cat(rows).mean()), rel=1e-5)
    assert not any("frozen" in name for name in found)


OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "AdamW": lambda p: torch.optim.AdamW(p, lr=1e-2, betas=(0.8, 0.9)),
    "AdamW, maximize": lambda p: torch.optim.AdamW(p, lr=1e-2, betas=(0.8, 0.9), maximize=True),
    "SGD": lambda p: torch.optim.SGD(p, lr=1e-2, momentum=0.8),
    "LionA": lambda p: gu.optim.LionA(p, lr=1e-2, beta=0.8),
    "LionAR": lambda p: gu.optim.LionAR(p, lr=1e-2, beta=0.8),
    "RotationalAdamW": lambda p: gu.optim.RotationalAdamW(p, lr=1e-2, betas=(0.8, 0.9)),
    "RotationalSGD": lambda p: gu.optim.RotationalSGD(p, lr=1e-2, momentum=0.8, weight_decay=1e-9),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_noise(name: str) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 3))
    optimizer = OPTIMIZERS[name](model.parameters())
    observer = observe(model, optimizer, ["gradients", "noise"], every=2, batch_size=BATCH)
    names = [n for n, _ in model.named_parameters()]
    m = [torch.zeros_like(p).double() for p in model.parameters()]
    for step in range(7):
        draw = torch.Generator().manual_seed(step)
        for p in model.parameters():
            p.grad = 1.0 + torch.randn(p.shape, generator=draw)
        g = [p.grad.double().clone() for p in model.parameters()]  # type: ignore[union-attr]
        optimizer.step()
        earlier = [x.flatten() for x in m]
        old = torch.cat(earlier)
        m = [0.8 * a + 0.2 * b for a, b in zip(m, g, strict=True)]
        if step % 2:
            continue
        found, flat = observer.latest, torch.cat([x.flatten() for x in g])
        assert found["grad_norm"] == pytest.approx(float(flat.norm()))
        if step == 0:
            assert set(found) == {"grad_norm"}
            continue
        assert found["momentum_cosine"] == pytest.approx(
            float(F.cosine_similarity(old, flat, dim=0))
        )
        seen = 1 - 0.8**step
        k = sum((0.2 * 0.8**i / seen) ** 2 for i in range(step))
        for key, a, b in [("phi", old, flat)] + [
            (f"phi/{n}", a, b) for n, a, b in zip(names, earlier, g, strict=True)
        ]:
            expected = by_bisection(a / seen, b.flatten(), k)
            assert found[key] == pytest.approx(expected, rel=1e-4, abs=1e-9)


def by_bisection(m_hat: Tensor, g: Tensor, k: float) -> float:
    """φ of (A − k·N)·(G − N) = D², the noise N between 0 and both A/k and G."""
    a, d, size = float(m_hat @ m_hat), max(0.0, float(m_hat @ g)), float(g @ g)
    low, high = 0.0, min(size, a / k)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if (a - k * middle) * (size - middle) > d * d else (low, middle)
    return (a - k * low) / low / BATCH


def momentum_run(model: nn.Module) -> Callable[[], None]:
    """Updates of an optimizer that does not count them; its optimizer is `.optimizer`."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.5)

    def step() -> None:
        for p in model.parameters():
            p.grad = 1.0 + torch.randn(p.shape)
        optimizer.step()

    step.optimizer = optimizer  # type: ignore[attr-defined]
    return step


@pytest.mark.parametrize("how", ["attached late", "loaded"])
def test_noise_of_an_optimizer_that_was_at_work(how: str) -> None:
    torch.manual_seed(1)
    model = nn.Linear(4, 3)
    step: Any = momentum_run(model)
    for _ in range(30):
        step()
    if how == "loaded":
        state = step.optimizer.state_dict()
        step = momentum_run(model)
        observer = observe(model, step.optimizer, ["gradients", "noise"], every=1, batch_size=BATCH)
        step.optimizer.load_state_dict(state)
    else:
        observer = observe(model, step.optimizer, ["gradients", "noise"], every=1, batch_size=BATCH)
    state = step.optimizer.state
    m = torch.cat([state[p]["momentum_buffer"].flatten() for p in model.parameters()]) / 2
    step()
    g = torch.cat([p.grad.flatten() for p in model.parameters()])  # type: ignore[union-attr]
    expected = by_bisection(m, g, momentum_noise(0.5))
    assert observer.latest["phi"] == pytest.approx(expected, rel=1e-4)


def test_a_loop_that_tells_the_step_gets_the_same_after_resuming() -> None:
    found = []
    for resumed in (False, True):
        torch.manual_seed(1)
        model = nn.Linear(4, 3)
        step: Any = momentum_run(model)
        observer = observe(model, step.optimizer, ["gradients", "noise"], every=1, batch_size=BATCH)
        for n in range(4):
            if resumed and n == 2:
                state = step.optimizer.state_dict()
                step = momentum_run(model)
                observer = observe(
                    model, step.optimizer, ["gradients", "noise"], every=1, batch_size=BATCH
                )
                step.optimizer.load_state_dict(state)
            observer.begin(n)
            step()
        found.append(observer.end())
    assert found[0] == found[1]
    assert "phi" in found[0]  # type: ignore[operator]


def test_noise_without_momentum() -> None:
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    observer = observe(model, optimizer, ["gradients", "noise"], every=1, batch_size=BATCH)
    for _ in range(2):
        model(torch.ones(1, 4)).sum().backward()
        optimizer.step()
    assert set(observer.latest) == {"grad_norm"}


def test_two_batch_sizes() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = adamw(model)
    observer = observe(model, optimizer, ["gradients", "noise"], every=2, batch_size=BATCH)
    x, y = torch.randn(BATCH, 4), torch.randint(0, 3, (BATCH,))
    each = []
    for i in range(BATCH):
        loss = F.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        each.append(
            torch.cat([g.flatten() for g in torch.autograd.grad(loss, [*model.parameters()])])
        )
    small, big = (float(torch.stack(each[:b]).mean(0).double().square().sum()) for b in (2, BATCH))
    signal = (BATCH * big - 2 * small) / (BATCH - 2)
    variance = (small - big) / (1 / 2 - 1 / BATCH)
    for step in range(2):
        observer.begin(step)
        for end in (2, 4, 6, 8):
            part = slice(end - 2, end)
            (F.cross_entropy(model(x[part]), y[part], reduction="sum") / BATCH).backward()
            observer.accumulated(end)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        optimizer.step()
        optimizer.zero_grad()
        values = observer.end()
        if step == 1:
            assert values is None
            continue
        assert values is not None
        assert values["phi_two_batches"] == pytest.approx(max(0.0, signal) / variance, rel=1e-4)
        assert values["grad_norm"] == pytest.approx(1e-3, rel=1e-3)  # as the optimizer got it


def test_representations_and_relus() -> None:
    model = net().eval()  # so that the same can be computed again
    optimizer = adamw(model)
    observer = observe(model, optimizer, ["rrc", "relus", "rank"], every=1)
    with torch.no_grad():
        model.hidden.bias[:5] = -100.0
        model.norm.bias[1] = -100.0
    for step in range(3):
        x, _ = batch(step)
        with torch.no_grad():
            conv = model.norm(model.conv(x))
            flat = conv.relu().flatten(1)
            hidden = model.hidden(flat)
        before = weights(model)
        update(model, optimizer, step)
        after, found = weights(model), observer.latest
        changes = []
        for name, inputs in (("hidden", flat), ("out", hidden.relu())):
            w, moved = before[f"{name}.weight"], after[f"{name}.weight"]
            change = (inputs @ (moved - w).T).norm() / (inputs @ w.T).norm()
            changes.append(float(change))
            assert found[f"rrc/{name}"] == pytest.approx(float(change), rel=1e-4)
        assert found["rrc"] == pytest.approx(sum(changes) / 2, rel=1e-4)
        dead = int((hidden <= 0).all(0).sum()) + int((conv <= 0).all(3).all(2).all(0).sum())
        assert dead >= 6
        assert found["dead_relus"] == found["dead_relus/relu"] == pytest.approx(dead / 16)
        for name in ("conv.weight", "hidden.weight", "out.weight"):
            values = torch.linalg.svdvals(before[name].flatten(1).double())
            exact = float(values.square().sum() / values[0] ** 2)
            assert found[f"stable_rank/{name}"] == pytest.approx(exact, rel=1e-2)


def test_some_rows_are_enough() -> None:
    torch.manual_seed(0)
    model = nn.Linear(6, 4)
    optimizer = adamw(model)
    x = torch.randn(3, 100, 6)
    observer = observe(model, optimizer, ["rrc"], every=1, rows=4, probe=x)
    before = model.weight.detach().clone()
    model(x).square().sum().backward()
    optimizer.step()
    some = x.reshape(300, 6)[[0, 100, 199, 299]]
    change = (some @ (model.weight - before).T).norm() / (some @ before.T).norm()
    assert observer.latest["rrc"] == pytest.approx(float(change), rel=1e-4)


def test_gpt2_has_its_weights_the_other_way_round() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=16, n_positions=8)
    model = GPT2LMHeadModel(config)
    optimizer = adamw(model)
    observer = observe(model, optimizer, ["rrc", "updates"], every=1)
    layer = model.transformer.h[0].mlp.c_fc
    inputs: list[Tensor] = []
    layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach()))
    before = layer.weight.detach().clone()
    tokens = torch.randint(0, 16, (2, 8))
    model(input_ids=tokens, labels=tokens).loss.backward()
    optimizer.step()
    assert len(inputs) == 2  # training, and the observer's, with other dropout
    x = inputs[1].reshape(-1, 8)
    change = (x @ (layer.weight - before)).norm() / (x @ before).norm()
    assert observer.latest["rrc/transformer.h.0.mlp.c_fc"] == pytest.approx(float(change), rel=1e-4)
    turned = row_angles(before.T, layer.weight.T).mean()
    found = observer.latest["row_angle/transformer.h.0.mlp.c_fc.weight"]
    assert found == pytest.approx(float(turned), rel=1e-9)
    # The head shares the embedding's weight, and is a linear layer of its own all the same.
    assert "rrc/lm_head" in observer.latest


def test_what_is_not_defined_is_left_out() -> None:
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.bias.zero_()
        model.weight[1].zero_()
    optimizer = adamw(model)
    observer = observe(model, optimizer, ["updates"], every=1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    found = observer.latest
    assert "update_norm/bias" in found
    assert "relative_update/bias" not in found
    assert "angle/bias" not in found
    assert "row_angle/weight" in found  # of the row that has one
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_totals_only() -> None:
    model = net()
    optimizer = adamw(model)
    observer = observe(model, optimizer, every=1, batch_size=BATCH, per_tensor=False)
    for step in range(2):
        update(model, optimizer, step)
    assert set(observer.latest) == {
        *("update_norm", "relative_update", "angle", "row_angle"),
        *("grad_norm", "momentum_cosine", "phi", "rrc", "stable_rank", "dead_relus"),
    }


# ---------------------------------------------------------------------- that it changes nothing


def trained(observed: bool, make: Callable[[Any], Optimizer], compiled: bool = False) -> list[Any]:
    """All that a run leaves behind: losses, weights, statistics, state, gradients, random state."""
    model = net()
    if compiled:
        model.hidden.compile(backend="eager")
    optimizer = make([p for p in model.parameters() if p.requires_grad])
    if observed:
        observe(model, optimizer, every=2, batch_size=BATCH)
    torch.manual_seed(7)
    left: list[Any] = [update(model, optimizer, step) for step in range(6)]
    left += [t.clone() for t in model.state_dict().values()]
    left += [p.grad for p in model.parameters() if p.grad is not None]
    left += [v for p in model.parameters() for v in optimizer.state.get(p, {}).values()]
    return [*left, torch.get_rng_state(), torch.tensor(model.training)]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", ["AdamW", "SGD", "LionA"])
def test_a_run_is_the_same_to_the_bit(name: str, compiled: bool) -> None:
    make = OPTIMIZERS[name]
    plain, observed = (trained(seen, make, compiled) for seen in (False, True))
    assert len(plain) == len(observed)
    assert all(torch.equal(a, b) for a, b in zip(plain, observed, strict=True))


def test_nothing_is_done_where_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    model = net()
    optimizer = adamw(model)
    observer = observe(model, optimizer, every=5, batch_size=BATCH)
    update(model, optimizer, 0)

    def fail(*_: Any) -> None:
        raise AssertionError

    for name in ("parts.Updates.before", "parts.Noise.before", "probing.run", "probing.Probe"):
        monkeypatch.setattr(f"groundup.measure.{name}", fail)
    for step in range(1, 5):
        update(model, optimizer, step)
    assert observer.step == 0
    with pytest.raises(AssertionError):
        update(model, optimizer, 5)


def test_no_hook_stays_in_the_modules() -> None:
    model = net()
    optimizer = adamw(model)
    observer = observe(model, optimizer, every=1)
    update(model, optimizer, 0)
    inner = [m for m in model.modules() if m is not model]
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in inner)
    observer.detach()
    assert not model._forward_pre_hooks
    update(model, optimizer, 1)
    assert observer.step == 0


def test_compiled_blocks_are_seen_and_not_compiled_again() -> None:
    from torch._dynamo.testing import CompileCounter

    def graphs(observed: bool) -> tuple[list[int], dict[str, float]]:
        torch._dynamo.reset()
        config = ModelConfig(layers=2, width=16, heads=2, vocab_size=32)
        model, counter = Transformer(config), CompileCounter()
        warmup = gu.attach(model, gu.depth.linear(T=2))
        warmup.check(torch.zeros(1, 4, dtype=torch.int64))
        for block in model.layers:
            block.compile(backend=counter)
        optimizer = adamw(model)
        observer = observe(model, optimizer, every=2, batch_size=4) if observed else None
        draw = torch.Generator().manual_seed(0)
        counts = []
        for step in range(5):
            warmup.at(step)
            tokens = torch.randint(0, 32, (4, 9), generator=draw)
            model(tokens[:, :-1], tokens[:, 1:]).total.backward()
            optimizer.step()
            optimizer.zero_grad()
            counts.append(counter.frame_count)
        return counts, {} if observer is None else observer.latest

    plain, _ = graphs(observed=False)
    counts, found = graphs(observed=True)
    assert counts == plain
    assert len([name for name in found if name.startswith("rrc/layers.")]) == 2 * 7


def test_a_model_compiled_as_a_whole() -> None:
    torch._dynamo.reset()
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    compiled = torch.compile(model, backend="eager")
    x = torch.randn(5, 4)
    optimizer = adamw(model)
    with observe(compiled, optimizer, ["rrc"], every=1) as observer:  # type: ignore[arg-type]
        compiled(x).sum().backward()
        optimizer.step()
    assert set(observer.latest) == {"rrc", "rrc/0", "rrc/2"}
    with observe(model, optimizer, ["rrc"], every=1, probe=[x]) as observer:
        compiled(x).sum().backward()
        optimizer.step()
    assert set(observer.latest) == {"rrc", "rrc/0", "rrc/2"}
    with observe(model, optimizer, ["rrc"], every=1):
        compiled(x).sum().backward()
        with pytest.raises(RuntimeError, match=r"no forward of Sequential.*probe"):
            optimizer.step()


def test_autocast_is_that_of_the_training_forward() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    optimizer = adamw(model)
    seen: list[torch.dtype] = []
    model[1].register_forward_pre_hook(lambda _, args: seen.append(args[0].dtype))
    observe(model, optimizer, ["rrc"], every=1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = model(torch.ones(3, 4)).sum()
    loss.backward()
    optimizer.step()
    assert seen == [torch.bfloat16] * 2
    assert not torch.is_autocast_enabled("cpu")


def test_evaluation_in_between_is_not_taken_for_training() -> None:
    model = nn.Linear(4, 2)
    optimizer = adamw(model)
    x = torch.randn(3, 4)
    calls: list[int] = []
    observe(model, optimizer, ["rrc"], every=1)
    model(x).sum().backward()
    with torch.no_grad():
        model(torch.randn(50, 4))
    model.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    optimizer.step()
    assert calls == [3]


# ---------------------------------------------------------------------- driving it


def test_it_counts_by_itself() -> None:
    model = net()
    optimizer = adamw(model)
    seen: list[tuple[int, dict[str, float]]] = []
    with observe(model, optimizer, ["updates"], every=3) as observer:
        observer.on_measure(lambda step, values: seen.append((step, values)))
        for step in range(8):
            update(model, optimizer, step)
        assert [step for step, _ in seen] == [0, 3, 6]
        assert observer.step == 6
        assert observer.latest == seen[-1][1]
    update(model, optimizer, 8)
    update(model, optimizer, 9)
    assert len(seen) == 3


def test_it_is_told() -> None:
    model = net()
    optimizer = adamw(model)
    observer = observe(model, optimizer, ["updates"], every=4)
    measured = []
    for step in range(10, 18):
        armed = observer.begin(step)
        update(model, optimizer, step)
        values = observer.end()
        assert armed == (values is not None) == (step % 4 == 0)
        measured.append(observer.step)
    assert measured[-1] == 16
    observer.begin(19)  # once, after resuming: from there on it counts
    update(model, optimizer, 19)
    update(model, optimizer, 20)
    assert observer.step == 20


def test_a_compiled_optimizer_step() -> None:
    torch._dynamo.reset()
    model = nn.Linear(3, 2)
    optimizer = adamw(model)
    observer = observe(model, optimizer, every=2, batch_size=BATCH)
    step = torch.compile(optimizer.step, backend="eager")
    for n in range(4):
        model(torch.randn(5, 3)).square().sum().backward()
        step()
        assert observer.step == n // 2 * 2
    assert observer.latest["update_norm"] > 0


def test_it_measures_what_a_leaky_relu_keeps_alive() -> None:
    torch.manual_seed(0)
    model = Net(nn.LeakyReLU)
    optimizer = adamw(model)
    observer = observe(model, optimizer, ["relus"], every=1)
    update(model, optimizer, 0)
    assert 0 <= observer.latest["dead_relus"] < 1


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("what='angels' is unknown.*updates", {"what": ["angels"]}),
        ("what='updates' is not valid: give a list", {"what": "updates"}),
        (r"what=\[\] is not valid", {"what": []}),
        ("what='noise' is not valid.*batch_size", {"what": ["gradients", "noise"]}),
        ("every=0", {"every": 0}),
        ("rows=0", {"rows": 0}),
        ("batch_size=0", {"batch_size": 0}),
        ("batch_size=8 would be ignored", {"what": ["updates"], "batch_size": 8}),
        ("probe would be ignored", {"what": ["updates"], "probe": torch.ones(1)}),
    ],
)
def test_refuses(message: str, kind: dict[str, Any]) -> None:
    model = net()
    with pytest.raises(ValueError, match=message):
        observe(model, adamw(model), **kind)


def test_refuses_what_does_not_apply() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.GELU())
    with pytest.raises(ValueError, match="what='relus'.*no ReLU"):
        observe(model, adamw(model), ["relus"])
    with pytest.raises(ValueError, match="no trainable parameter of Net"):
        observe(net(), adamw(model))
    norm = nn.LayerNorm(3)
    for word in ("rrc", "rank"):
        with pytest.raises(ValueError, match=f"what='{word}'"):
            observe(norm, adamw(norm), [word])
    known = net()
    assert "Net" in repr(observe(known, adamw(known)))


def test_refuses_wrong_counts() -> None:
    model = net()
    observer = observe(model, adamw(model), ["gradients", "noise"], batch_size=8)
    with pytest.raises(ValueError, match="step=-1"):
        observer.begin(-1)
    with pytest.raises(ValueError, match="sequences=9"):
        observer.accumulated(9)
    with pytest.raises(ValueError, match="accumulated.. would be ignored"):
        observe(model, adamw(model), ["updates"]).accumulated(1)
    assert math.isfinite(observer.begin(0))
