"""Updates only where all is finite: to the bit the plain ones, or nothing; and without waiting."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import groundup as gu
from groundup.model import ModelConfig, Transformer
from groundup.optim import all_finite, create, guarded_step, info, names
from groundup.optim.guard import waits
from tests.residual.where import ranks

CHECKS = "tests.optim.guard_on_two_ranks"

Optimizer = torch.optim.Optimizer
Make = Callable[[Sequence[nn.Parameter]], Optimizer]


def named(name: str, **options: Any) -> Make:
    def make(params: Sequence[nn.Parameter]) -> Optimizer:
        if not info(name).matrices_only:
            return create(name, params, **options)
        groups = [{"params": [p], "use_muon": p.ndim == 2} for p in params]
        return create(name, groups, **options)

    return make


def with_rrc(make: Make) -> Make:
    def made(params: Sequence[nn.Parameter]) -> Optimizer:
        optimizer = make(params)
        gu.optim.RRC(optimizer, batch_size=8)
        return optimizer

    return made


SKIPPING: dict[str, Make] = {
    **{name: named(name) for name in ("adamw", "adam", "sgd")},
    "adamw, amsgrad": named("adamw", amsgrad=True),
    "torch AdamW": lambda params: torch.optim.AdamW(params, fused=True),
    "adagrad, fused": named("adagrad", fused=True),
}
WAITING: dict[str, Make] = {
    **{name: named(name) for name in names() if name not in SKIPPING},
    "adamw, inverse": named("adamw", bias_correction="inverse"),
    "adamw, foreach": named("adamw", foreach=True),
    "adamw, rrc": with_rrc(named("adamw")),
    "lionar, rrc": with_rrc(named("lionar")),
    "sgd without momentum": named("sgd", momentum=0.0),
}
ALL = SKIPPING | WAITING


def weights(device: str = "cpu") -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(s, generator=draw).to(device)) for s in ((6, 4), (5,), (3, 2))]


def backward(params: Sequence[nn.Parameter], step: int, bad: float | None = None) -> Tensor:
    """Gradients of an update, added to what is there, and clipped; whether they are finite."""
    draw = torch.Generator().manual_seed(step)
    for p in params:
        g = torch.randn(p.shape, generator=draw)
        if bad is not None and p is params[1]:
            g[step % 5] = bad
        (p * g.to(p.device)).sum().backward()
    return all_finite(nn.utils.clip_grad_norm_(params, 1.0))


def everything(optimizer: Optimizer, params: Sequence[nn.Parameter]) -> list[Any]:
    return copy.deepcopy([[p.detach() for p in params], optimizer.state_dict()])


def same(a: Any, b: Any) -> bool:
    """To the bit: NaN is NaN, and 0 is not −0."""
    if isinstance(a, Tensor):
        as_bytes = (t.detach().contiguous().view(-1).view(torch.uint8) for t in (a, b))
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*as_bytes)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def check_against_a_twin(make: Make, bads: Sequence[float | None]) -> None:
    """One sees bad gradients here and there, the other never does and knows no guard."""
    params, untroubled = weights(), weights()
    optimizer, twin = make(params), make(untroubled)
    for step, bad in enumerate(bads):
        before = everything(optimizer, params)
        guarded_step(optimizer, backward(params, step, bad))
        if bad is None:
            backward(untroubled, step)
            twin.step()
            twin.zero_grad()
            assert not same(everything(optimizer, params)[0], before[0])
        else:
            assert same(everything(optimizer, params), before)
        optimizer.zero_grad(set_to_none=step % 2 == 0)
        assert same(everything(optimizer, params), everything(twin, untroubled))
        assert not hasattr(optimizer, "found_inf")


# ---------------------------------------------------------------------- the update, or nothing


@pytest.mark.parametrize("name", ALL)
def test_is_the_plain_update_or_nothing(name: str) -> None:
    """The first gradient is bad, one later on, and two in a row."""
    bads = [math.nan, None, None, math.inf, None, -math.inf, math.nan, None]
    check_against_a_twin(ALL[name], bads)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(["adamw", "sgd"]), st.lists(st.sampled_from([None, math.nan]), max_size=7))
def test_wherever_bad_gradients_are(name: str, bads: list[float | None]) -> None:
    check_against_a_twin(SKIPPING[name], bads)


@pytest.mark.parametrize("name", ["adamw", "liona"])
@pytest.mark.parametrize("finite", [True, False])
def test_takes_what_the_host_knows(name: str, finite: bool) -> None:
    (optimizer, params), (twin, others) = has_updated(ALL[name]), has_updated(ALL[name])
    for p in (*params, *others):
        p.grad = torch.full_like(p, 0.5)
    guarded_step(optimizer, finite)
    if finite:
        twin.step()
    assert same(everything(optimizer, params), everything(twin, others))
    with pytest.raises(ValueError, match=r"finite=1\.0 is not valid.*or a bool"):
        guarded_step(optimizer, 1.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["adamw", "liona"])
@pytest.mark.parametrize(
    ("finite", "updates"),
    [(True, True), (False, False), (1.0, True), (0.0, False), (math.nan, False)],
)
def test_takes_a_flag_as_a_bool_or_a_number(name: str, finite: float, updates: bool) -> None:
    params = weights()
    optimizer = ALL[name](params)
    for _ in range(2):
        before = everything(optimizer, params)
        backward(params, 0)
        guarded_step(optimizer, torch.tensor(finite))
        assert same(everything(optimizer, params), before) is not updates
        backward(params, 1)
        optimizer.step()  # now it has state


@given(st.lists(st.floats(width=32), min_size=1, max_size=4))
def test_all_finite(values: list[float]) -> None:
    found = all_finite(*(torch.tensor(value) for value in values))
    assert found.dtype == torch.bool
    assert found.ndim == 0
    assert bool(found) == all(map(math.isfinite, values))
    assert bool(all_finite(torch.tensor(values))) == bool(found)


def test_refuses_a_flag_with_dimensions() -> None:
    with pytest.raises(ValueError, match=r"finite of shape \(1,\) is not valid"):
        guarded_step(named("adamw")(weights()), torch.ones(1))


def test_leaves_nothing_behind_when_a_step_raises() -> None:
    params = weights()
    optimizer = SKIPPING["adamw"](params)
    backward(params, 0)
    optimizer.step()

    def fails(*_: Any) -> None:
        raise KeyError

    optimizer.register_step_pre_hook(fails)
    with pytest.raises(KeyError):
        guarded_step(optimizer, torch.tensor(True))
    assert not hasattr(optimizer, "found_inf")


@pytest.mark.parametrize("name", ["adamw", "liona"])
def test_what_follows_counts_made_updates(name: str) -> None:
    model = Transformer(ModelConfig(layers=2, width=8, heads=2, vocab_size=8))
    optimizer = create(name, model)
    warmup = gu.attach(model, gu.depth.linear(T=10))
    warmup.follow(optimizer)
    tokens = torch.arange(8)[None]
    counts = []
    for factor in (1.0, math.nan, 1.0):
        (factor * model(tokens, tokens).total).backward()
        guarded_step(optimizer, all_finite(nn.utils.clip_grad_norm_(model.parameters(), 1.0)))
        optimizer.zero_grad()
        counts.append(warmup.updates)
    assert counts == [1, 1, 2]


# ---------------------------------------------------------------------- without waiting


class Waited(Exception):
    pass


class NoWaiting(TorchDispatchMode):
    """Refuses what makes the host wait for a GPU: a number of a tensor, or a copy from there."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        given, came = (
            {leaf.device.type for leaf in tree_leaves(values) if isinstance(leaf, Tensor)}
            for values in ((args, kwargs), made)
        )
        if func is torch.ops.aten._local_scalar_dense.default or (
            "cuda" in given and "cpu" in came
        ):
            raise Waited(str(func))
        return made


def has_updated(make: Make, device: str = "cpu") -> tuple[Optimizer, list[nn.Parameter]]:
    """Has made one update and has gradients for the next."""
    params = [nn.Parameter(torch.ones(p.shape, device=device)) for p in weights()]
    optimizer = make(params)
    for step in range(2):
        if step:
            optimizer.step()
        for p in params:
            p.grad = torch.ones_like(p)
    return optimizer, params


@pytest.mark.parametrize("name", ALL)
def test_says_whether_it_waits(name: str) -> None:
    optimizer, params = has_updated(ALL[name])
    with NoWaiting():
        finite = all_finite(torch.stack([p.grad.sum() for p in params if p.grad is not None]))
        if name in SKIPPING:
            assert not waits(optimizer)
            guarded_step(optimizer, finite)
        else:
            assert waits(optimizer)
            with pytest.raises(Waited):
                guarded_step(optimizer, finite)


@pytest.mark.parametrize("name", [n for n in SKIPPING if "sgd" not in n and "adagrad" not in n])
def test_nothing_of_a_gpu_is_read(name: str) -> None:
    """On tensors that only say they are on one (of sgd and adagrad torch has none such)."""
    with FakeTensorMode():
        optimizer, params = has_updated(SKIPPING[name], "cuda")
        norm = nn.utils.clip_grad_norm_(params, 1.0)
        with NoWaiting():
            guarded_step(optimizer, all_finite(norm))
            with pytest.raises(Waited):
                norm.cpu()
        waiting, _ = has_updated(WAITING["adamw, foreach"], "cuda")
        with pytest.raises(DataDependentOutputException):
            guarded_step(waiting, all_finite(norm))


@contextmanager
def no_synchronization() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", [n for n in SKIPPING if "adagrad" not in n])
@pytest.mark.parametrize("bad", [None, math.nan])
def test_nothing_waits_for_the_gpu(name: str, bad: float | None) -> None:
    params, untroubled = weights("cuda"), weights("cuda")
    optimizer, twin = SKIPPING[name](params), SKIPPING[name](untroubled)
    for one, theirs in ((optimizer, params), (twin, untroubled)):
        backward(theirs, 0)
        one.step()
        one.zero_grad()
    finite = backward(params, 1, bad)
    with no_synchronization():
        guarded_step(optimizer, finite)
    optimizer.zero_grad()
    if bad is None:
        backward(untroubled, 1)
        twin.step()
    assert same(everything(optimizer, params), everything(twin, untroubled))


def test_waits_for_state_that_is_not_there_yet() -> None:
    """Made by an update that is skipped, SGD's momentum is what the memory held."""
    params = weights()
    optimizer = SKIPPING["sgd"](params)
    backward(params[:2], 0)
    assert waits(optimizer)
    optimizer.step()
    assert not waits(optimizer)
    backward(params, 1)
    assert waits(optimizer)


def test_a_subclass_may_do_more_than_the_kernel() -> None:
    class Counting(torch.optim.AdamW):
        updates = 0

        def step(self, closure: Any = None) -> Any:
            self.updates += 1
            return super().step(closure)

    optimizer, _ = has_updated(lambda params: Counting(params, fused=True))
    assert waits(optimizer)
    guarded_step(optimizer, torch.tensor(False))
    assert optimizer.updates == 1


def test_waits_once_a_state_of_another_kernel_is_loaded() -> None:
    optimizer, _ = has_updated(SKIPPING["adamw"])
    other, _ = has_updated(WAITING["adamw, foreach"])
    optimizer.load_state_dict(other.state_dict())
    assert waits(optimizer)
    guarded_step(optimizer, torch.tensor(True))


# ---------------------------------------------------------------------- on two ranks


@pytest.mark.parametrize("name", ranks.names(CHECKS))
def test_on_two_ranks(name: str, outcomes: dict[str, str]) -> None:
    assert not outcomes[name], outcomes[name]
