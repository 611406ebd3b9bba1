"""Observers in loops and models that are not the usual: closures, scalers, dropout, failures."""

from __future__ import annotations

import copy
import math
import pickle
import random
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.measure import observe, similarity

WIDTH, BRANCHES = 8, ["h.{l}.first", "h.{l}.second"]


class Block(nn.Module):
    def __init__(self, dropout: float = 0.0, in_place: bool = False) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.second = nn.Linear(WIDTH, WIDTH)
        self.dropout = nn.Dropout(dropout)
        self.in_place = in_place

    def forward(self, x: Tensor) -> Tensor:
        for branch in (self.first, self.second):
            y = branch(self.dropout(x.tanh()))
            x = x.add_(y) if self.in_place and not x.is_leaf else x + y
        return x


class Net(nn.Module):
    def __init__(self, layers: int = 3, times: int = 1, keyword: bool = False, **kind: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Linear(4, WIDTH)
        self.h = nn.ModuleList(Block(**kind) for _ in range(layers))
        self.head = nn.Linear(WIDTH, 5)
        self.times, self.keyword = times, keyword

    def forward(self, rows: Tensor) -> Tensor:
        x = self.embed(rows)
        for _ in range(self.times):
            for block in self.h:
                x = block(x=x) if self.keyword else block(x)
        return self.head(x)


def data(seed: int = 0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(16, 4, generator=draw), torch.randint(0, 5, (16,), generator=draw)


def closure_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> Any:
    def closure() -> Tensor:
        optimizer.zero_grad()
        inputs, targets = data(1)
        loss = F.cross_entropy(model(inputs), targets)
        loss.backward()
        return loss

    return closure


def update(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    closure_of(model, optimizer)()
    optimizer.step()


def true_norm(model: nn.Module) -> float:
    model = copy.deepcopy(model)
    inputs, targets = data(1)
    F.cross_entropy(model(inputs), targets).backward()
    return float(torch.cat([p.grad.flatten() for p in model.parameters()]).norm())  # type: ignore[union-attr]


@pytest.mark.parametrize("make", [torch.optim.AdamW, torch.optim.LBFGS])
@pytest.mark.parametrize("by_name", [False, True])
def test_gradients_made_inside_of_the_step(make: Any, by_name: bool) -> None:
    model = Net()
    optimizer = make(model.parameters(), lr=0.01)
    observer = observe(model, optimizer, ["gradients", "stream"], every=1, branches=BRANCHES)
    for _ in range(3):
        expected = true_norm(model)
        closure = closure_of(model, optimizer)
        optimizer.step(closure=closure) if by_name else optimizer.step(closure)
        assert observer.latest["grad_norm"] == pytest.approx(expected, rel=1e-5)


def test_a_fused_step_divides_by_the_scale() -> None:
    model = Net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    what = ["gradients", "noise"]
    observer = observe(model, optimizer, what, every=1, batch_size=16, branches=BRANCHES)
    expected = true_norm(model)
    inputs, targets = data(1)
    scaler.scale(F.cross_entropy(model(inputs), targets)).backward()
    scaler.step(optimizer)
    assert observer.latest["grad_norm"] == pytest.approx(expected, rel=1e-5)


def test_dropout_neither_hides_nor_draws() -> None:
    model = Net(dropout=0.3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with torch.no_grad():
        model.h[1].first.weight.zero_()
        model.h[1].first.bias.zero_()
        model.h[1].second.weight.zero_()
        model.h[1].second.bias.zero_()
    inputs, targets = data()
    what = ["similarity", "depth"]
    observer = observe(model, optimizer, what, probe=inputs, targets=targets, branches=BRANCHES)
    one = observer.look(0)
    torch.manual_seed(5)
    state = torch.get_rng_state(), random.getstate()
    two = observer.look(0)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert random.getstate() == state[1]
    assert model.training
    assert model.h[0].dropout.training
    assert similarity.compare(one["sketch/first/layers"][0], two["sketch/first/layers"][0]) == 1.0
    assert one["skip_loss/layers"][1] == 0.0


@pytest.mark.parametrize(
    "kind", [{"in_place": True}, {"times": 2}, {"keyword": True}], ids=lambda kind: next(iter(kind))
)
def test_layers_of_unusual_models(kind: dict[str, Any]) -> None:
    model = Net(**kind)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    inputs, targets = data()
    what = ["depth", "stream"]
    with observe(
        model, optimizer, what, probe=inputs, targets=targets, branches=BRANCHES
    ) as observer:
        found = observer.look(0)
    stream = [model.embed(inputs)]
    plain = copy.deepcopy(model)
    for block in plain.h:
        block.in_place = False
        stream.append(block(stream[-1]))
    cosines = [F.cosine_similarity(a, b, dim=-1).mean() for a, b in pairwise(stream[1:])]
    assert found["stream_next/layers"][:-1] == pytest.approx([float(c) for c in cosines], rel=1e-4)
    whole = F.cross_entropy(plain(inputs), targets)
    for l in range(3):
        without = copy.deepcopy(plain)
        for branch in (without.h[l].first, without.h[l].second):
            nn.init.zeros_(branch.weight)
            nn.init.zeros_(branch.bias)
        rise = float(F.cross_entropy(without(inputs), targets) - whole)
        assert found["skip_loss/layers"][l] == pytest.approx(rise, abs=1e-6)


def test_layers_on_both_sides_of_two_stacks_are_no_neighbours() -> None:
    import transformers

    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(vocab_size=40, **sizes))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ids = torch.randint(0, 40, (2, 6))
    probe = {"input_ids": ids, "decoder_input_ids": ids}
    found = observe(model, optimizer, ["stream"], probe=probe).look(0)
    for name in ("stream_next/layers", "branch_next/SelfAttention/layers"):
        assert [value is None for value in found[name]] == [False, True, False, True]


@pytest.mark.parametrize("what", ["stream", "depth"])
def test_a_look_that_fails_leaves_everything_as_it_was(what: str) -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs, targets = data()
    kind = {"probe": inputs, "targets": targets} if what == "depth" else {}
    observer = observe(model, optimizer, [what], every=1, branches=BRANCHES, **kind)
    hooks = {name: len(m._forward_hooks) for name, m in model.named_modules()}
    calls = 0

    def fails(*_: Any) -> None:
        nonlocal calls
        calls += not torch.is_grad_enabled()  # in a look
        if calls == 2:
            raise RuntimeError("out of memory")

    handle = model.h[2].register_forward_pre_hook(fails)
    calls = 1 if what == "stream" else 0
    with pytest.raises(RuntimeError, match="out of memory"):
        update(model, optimizer)
    handle.remove()
    assert {name: len(m._forward_hooks) for name, m in model.named_modules()} == hooks
    assert not any("forward" in m.__dict__ for m in model.modules())
    assert model.training
    assert not observer._parts[0].sight._kept if what == "depth" else True  # type: ignore[union-attr]
    update(model, optimizer)
    assert observer.step == 0


def test_a_copy_of_the_model_does_not_carry_the_observer_along() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    observer = observe(model, optimizer, ["stream"], every=1, branches=BRANCHES)
    other = pickle.loads(pickle.dumps(model))
    twin = copy.deepcopy(model)
    for copied in (other, twin):
        copied(data()[0])
    assert observer._last is not None
    assert observer._last.probe is None
    observer.detach()
    assert not model._forward_pre_hooks


def test_frozen_layers_and_sparse_gradients() -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(10, 4, sparse=True)
            self.net = Net()

        def forward(self, ids: Tensor) -> Tensor:
            return self.net(self.words(ids))

    model = Words()
    model.net.h[1].requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    branches = ["net.h.{l}.first", "net.h.{l}.second"]
    what = ["gradients", "updates"]
    observer = observe(model, optimizer, what, every=1, branches=branches)
    ids = torch.tensor([1, 1, 2])
    F.cross_entropy(model(ids), torch.tensor([0, 1, 2])).backward()
    gradients = [p.grad.to_dense() for p in model.parameters() if p.grad is not None]
    optimizer.step()
    found = observer.latest
    total = math.sqrt(sum(float(g.square().sum()) for g in gradients))
    assert found["grad_norm"] == pytest.approx(total, rel=1e-5)
    for name in ("grad_norm/layers", "update_norm/layers", "angle/layers"):
        assert [value is None for value in found[name]] == [False, True, False]
    optimizer.zero_grad()
    optimizer.step()  # without a gradient anywhere
    assert "grad_norm" not in observer.latest


def test_an_optimizer_around_another_that_moves_weights_itself_is_taken_as_a_whole() -> None:
    class Doubling(torch.optim.Optimizer):
        def __init__(self, optimizer: torch.optim.Optimizer) -> None:
            self.optimizer = optimizer
            params = [p for group in optimizer.param_groups for p in group["params"]]
            super().__init__(params, {})

        def step(self, closure: Any = None) -> None:
            self.optimizer.step()
            with torch.no_grad():
                for p in self.param_groups[0]["params"]:
                    p.add_(1.0)

    model = Net()
    optimizer = Doubling(torch.optim.SGD(model.parameters(), lr=0.0))
    observer = observe(model, optimizer, ["updates"], every=1, branches=BRANCHES)
    update(model, optimizer)
    count = sum(p.numel() for p in model.parameters())
    assert observer.latest["update_norm"] == pytest.approx(math.sqrt(count), rel=1e-5)


def test_targets_that_are_no_classes_are_refused_at_once() -> None:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs, targets = data()
    for wrong, said in ((targets.float(), "float32"), (targets.tolist(), "list")):
        with pytest.raises(ValueError, match=f"targets of .*{said} are not valid"):
            observe(
                model, optimizer, ["depth"], probe=inputs, targets=wrong, branches=BRANCHES  # type: ignore[arg-type]
            )  # fmt: skip


def test_a_buffer_that_is_replaced_comes_back() -> None:
    class Averaging(Net):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("average", torch.zeros(4))

        def forward(self, rows: Tensor) -> Tensor:
            self.average = 0.9 * self.average + 0.1 * rows.mean(0)
            return super().forward(rows + self.average)

    model = Averaging()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    observer = observe(model, optimizer, ["stream"], probe=data()[0], branches=BRANCHES)
    before = model.average
    observer.look(0)
    assert model.average is before
    assert not before.any()
