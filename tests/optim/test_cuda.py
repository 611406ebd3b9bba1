"""What the CPU cannot show: foreach and compiled kernels, rates in tensors, graphs, no waiting."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

import groundup as gu

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

Make = Callable[..., torch.optim.Optimizer]
OWN: dict[str, Make] = {
    "AdamW, inverse": lambda p, **k: gu.optim.AdamW(p, bias_correction="inverse", **k),
    "LionA": lambda p, **k: gu.optim.LionA(p, nesterov=True, **k),
    "LionAR": lambda p, **k: gu.optim.LionAR(p, bias_correction="inverse", **k),
    "RotationalAdamW": lambda p, **k: gu.optim.RotationalAdamW(p, **k),
    "RotationalSGD": lambda p, **k: gu.optim.RotationalSGD(p, **k),
}


def model(device: str) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 32)).to(device)


def train(net: nn.Module, optimizer: torch.optim.Optimizer, updates: int = 20,
          step: Callable[[], Any] | None = None) -> list[Tensor]:  # fmt: skip
    draw = torch.Generator().manual_seed(1)
    for _ in range(updates):
        x, y = (torch.randn(16, n, generator=draw) for n in (64, 32))
        device = next(net.parameters()).device
        loss = nn.functional.mse_loss(net(x.to(device)), y.to(device))
        optimizer.zero_grad()
        loss.backward()
        (step or optimizer.step)()
    return [p.detach().cpu() for p in net.parameters()]


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("foreach", [None, False, True])
def test_the_numbers_of_the_cpu(name: str, foreach: bool | None) -> None:
    here, there = model("cpu"), model("cuda")
    before = [p.detach().clone() for p in here.parameters()]
    expected = train(here, OWN[name](here.parameters(), lr=1e-3, weight_decay=0.1, foreach=False))
    found = train(there, OWN[name](there.parameters(), lr=1e-3, weight_decay=0.1, foreach=foreach))
    for a, b, start in zip(expected, found, before, strict=True):
        # Signs of gradients that are nearly 0 differ: a few weights may be 2·η·s off.
        assert (a - b).norm() < 0.05 * (a - start).norm()


@pytest.mark.parametrize("name", OWN)
def test_compiled_with_a_scheduled_rate_in_a_tensor(name: str) -> None:
    def run(compiled: bool) -> tuple[list[Tensor], int]:
        net = model("cuda")
        rate = torch.tensor(1e-3, device="cuda")
        optimizer = OWN[name](net.parameters(), lr=rate, weight_decay=0.1)
        counter = CompileCounter()
        step = torch.compile(optimizer.step, backend=counter) if compiled else optimizer.step
        schedule = gu.rate.schedule(optimizer, gu.factor.linear(10) >> gu.factor.hold())

        def update() -> None:
            step()
            schedule.step()

        weights = train(net, optimizer, step=update)
        assert optimizer.param_groups[0]["lr"] is rate
        return weights, counter.frame_count

    (eager, _), (compiled, graphs) = run(False), run(True)
    assert graphs <= 2
    for a, b in zip(eager, compiled, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OWN)
def test_no_update_waits_for_the_gpu(name: str) -> None:
    net = model("cuda")
    optimizer = OWN[name](net.parameters(), lr=1e-3, weight_decay=0.1)
    schedule = gu.rate.schedule(optimizer, gu.factor.linear(10) >> gu.factor.hold())
    train(net, optimizer, updates=3)  # state is made, checks of it may wait
    net(torch.randn(4, 64, device="cuda")).sum().backward()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step()
        schedule.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_rrc_of_own_optimizers_does_not_wait_either() -> None:
    net = model("cuda")
    optimizer = gu.optim.LionAR(net.parameters(), lr=1e-3)
    gu.optim.RRC(optimizer, batch_size=16)
    train(net, optimizer, updates=3)
    net(torch.randn(4, 64, device="cuda")).sum().backward()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        optimizer.step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_state_from_the_cpu_goes_on() -> None:
    net = model("cpu")
    optimizer = gu.optim.LionAR(net.parameters(), lr=1e-3)
    train(net, optimizer, updates=5)
    there = copy.deepcopy(net).cuda()
    moved = gu.optim.LionAR(there.parameters(), lr=1e-3)
    moved.load_state_dict(optimizer.state_dict())
    for a, b in zip(train(net, optimizer, 5), train(there, moved, 5), strict=True):
        assert (a - b).norm() < 1e-3 * a.norm()


def test_the_rate_is_not_written_into_a_cuda_graph() -> None:
    optimizer = torch.optim.AdamW(
        model("cuda").parameters(), lr=torch.tensor(1e-3, device="cuda"), capturable=True
    )
    schedule = gu.rate.schedule(optimizer, gu.factor.linear(10))
    message = "while a CUDA graph is captured"
    with pytest.raises(RuntimeError, match=message), torch.cuda.graph(torch.cuda.CUDAGraph()):
        schedule.step()
