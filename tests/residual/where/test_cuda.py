"""What only a GPU can show: CUDA graphs, moves between devices, offloading, no waiting."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import CPUOffloadPolicy, fully_shard
from torch.profiler import ProfilerActivity, profile

from tests.fresh_compiler import fresh_compiler  # noqa: F401
from tests.residual.toy import Net, reference
from tests.residual.where.models import FINISHED, LAYERS, alphas, attach, inputs, net

if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

STEPS = (0, 1, 3, FINISHED, 5, 0)


@pytest.fixture
def x() -> Tensor:
    return inputs().cuda()


def grads(model: torch.nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in model.parameters()]


def expected(plain: Net, x: Tensor, step: int) -> tuple[Tensor, list[Tensor]]:
    plain.zero_grad()
    out = reference(plain, x, alphas(step))
    out.square().sum().backward()
    return out.detach(), grads(plain)


class TestGraphs:
    def test_a_captured_training_step_reads_alpha_at_every_replay(self, x) -> None:
        model = net().cuda()
        plain = copy.deepcopy(model)
        warmup = attach(model)
        warmup.check(x)

        def forward_backward() -> Tensor:
            for p in model.parameters():
                p.grad.zero_()
            out = model(x)
            out.square().sum().backward()
            return out

        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                forward_backward()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = forward_backward()
        for step in STEPS:
            warmup.at(step)
            graph.replay()
            wanted, wanted_grads = expected(plain, x, step)
            torch.testing.assert_close(out, wanted)
            torch.testing.assert_close(grads(model), wanted_grads)

    def test_capturing_a_followed_optimizer_is_refused(self, x) -> None:
        model = net().cuda()
        warmup = attach(model)
        optimizer = torch.optim.AdamW(model.parameters(), capturable=True)
        warmup.follow(optimizer)
        for _ in range(3):
            model(x).sum().backward()
            optimizer.step()
        graph = torch.cuda.CUDAGraph()
        with (
            pytest.raises(RuntimeError, match="while a CUDA graph is captured"),
            torch.cuda.graph(graph),
        ):
            optimizer.step()
        assert warmup.updates == 3

    def test_capturing_with_alpha_left_on_the_cpu_is_refused(self, x) -> None:
        """A scalar of the CPU is an argument of a kernel, which the graph would keep."""
        model = net()
        warmup = attach(model)
        warmup.check(x.cpu())
        model.cuda()
        graph = torch.cuda.CUDAGraph()
        with (
            pytest.raises(RuntimeError, match=r"before capturing"),
            torch.no_grad(),
            torch.cuda.graph(graph),
        ):
            model(x)

    def test_graphed_blocks(self, x) -> None:
        model = net().cuda()
        plain = copy.deepcopy(model)
        warmup = attach(model)
        warmup.check(x)  # a graphed block runs no Python in which branches could be counted
        samples = tuple((torch.randn_like(x, requires_grad=True),) for _ in model.layers)
        blocks = torch.cuda.make_graphed_callables(tuple(model.layers), samples)
        assert tuple(model.layers) == blocks
        for step in STEPS:
            warmup.at(step)
            model.zero_grad()
            out = model(x)
            out.square().sum().backward()
            wanted, wanted_grads = expected(plain, x, step)
            torch.testing.assert_close(out, wanted)
            torch.testing.assert_close(grads(model), wanted_grads)

    def test_reduce_overhead(self, x) -> None:
        model = net().cuda()
        plain = copy.deepcopy(model)
        warmup = attach(model)
        torch._dynamo.utils.counters.clear()
        call = torch.compile(model, mode="reduce-overhead", fullgraph=True)
        for step in (0, 0, 0, *STEPS, *range(FINISHED + 2)):
            warmup.at(step)
            model.zero_grad()
            torch.compiler.cudagraph_mark_step_begin()
            out = call(x)
            out.square().sum().backward()
            wanted, wanted_grads = expected(plain, x, step)
            torch.testing.assert_close(out, wanted)
            torch.testing.assert_close(grads(model), wanted_grads)
        counters = torch._dynamo.utils.counters
        assert counters["stats"]["unique_graphs"] == 1
        assert counters["inductor"]["cudagraph_skips"] == 0


class TestDevices:
    def test_there_and_back_during_the_warmup(self, x) -> None:
        model = net()
        plain = copy.deepcopy(model)
        warmup = attach(model)
        for step, device in enumerate(["cpu", "cuda", "cuda", "cpu", "cuda", "cpu"] * 2):
            warmup.at(step)  # before the move: the next forward finds α on the other device
            model.to(device)
            out = model(x.to(device)).cpu()
            torch.testing.assert_close(out, reference(plain, x.cpu(), alphas(step)))
            warmup.at(step)
            for pair in ((b.mix.out, b.mlp[2]) for b in model.layers):
                for module in pair:
                    alpha = getattr(module, "residual_alpha", None)
                    assert alpha is None or alpha.device.type == device

    def test_a_copy_on_the_other_device_follows(self, x) -> None:
        model = net().cuda()
        plain = copy.deepcopy(model).cpu()
        warmup = attach(model)
        average = torch.optim.swa_utils.AveragedModel(model, device="cpu")
        for step in STEPS:
            warmup.at(step)
            torch.testing.assert_close(average(x.cpu()), reference(plain, x.cpu(), alphas(step)))

    def test_from_the_meta_device(self, x) -> None:
        with torch.device("meta"):
            model = Net()
        warmup = attach(model)
        warmup.at(3)
        model.to_empty(device="cuda")
        model.load_state_dict(net().state_dict())
        for step in (3, 4):
            torch.testing.assert_close(model(x), reference(net().cuda(), x, alphas(step)))
            warmup.at(4)

    @pytest.mark.parametrize("compiled", [False, True])
    def test_fsdp_with_weights_on_the_cpu(self, compiled: bool, x, tmp_path: Path) -> None:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl", store=dist.FileStore(str(tmp_path / "s"), 1), rank=0, world_size=1
        )
        try:
            mesh = dist.init_device_mesh("cuda", (1,))
            model, plain = net(), net().cuda()
            warmup = attach(model)
            for block in model.layers:
                if compiled:
                    block.compile(fullgraph=True)
                fully_shard(block, mesh=mesh, offload_policy=CPUOffloadPolicy())
            fully_shard(model, mesh=mesh, offload_policy=CPUOffloadPolicy())
            for step in STEPS:
                warmup.at(step)
                model.zero_grad()
                out = model(x)
                out.square().sum().backward()
                wanted, wanted_grads = expected(plain, x, step)
                torch.testing.assert_close(out, wanted)
                for p, g in zip(model.parameters(), wanted_grads, strict=True):
                    assert p.grad.device.type == "cpu"
                    torch.testing.assert_close(p.grad.full_tensor().cpu(), g.cpu())
        finally:
            dist.destroy_process_group()


class TestPrecision:
    @pytest.mark.parametrize("fused", [True, False])
    def test_an_overflow_in_half_precision_is_not_counted(self, fused: bool, x) -> None:
        model = net().cuda()
        warmup = attach(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=fused)
        warmup.follow(optimizer)
        scaler = torch.amp.GradScaler("cuda", init_scale=4.0)
        counted = 0
        for factor in (float("inf"), 1.0, 1.0, float("inf"), 1.0):
            before = model.stem.weight.clone()
            with torch.autocast("cuda", torch.float16):
                loss = model(x).float().sum() * factor
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            counted += factor == 1.0
            assert warmup.updates == counted
            assert torch.equal(model.stem.weight, before) is (factor != 1.0)

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_alpha_is_not_rounded_to_the_dtype(self, dtype: torch.dtype, x) -> None:
        model = net().cuda().to(dtype)
        plain = copy.deepcopy(model)
        warmup = attach(model)
        for step in (1, 3, 5):
            warmup.at(step)
            values = torch.tensor(alphas(step)).tolist()
            assert torch.equal(model(x.to(dtype)), reference(plain, x.to(dtype), values))


class TestNoWaiting:
    def test_neither_writing_nor_reading_alpha_waits_for_the_gpu(self, x) -> None:
        model = net().cuda()
        warmup = attach(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        warmup.follow(optimizer)
        model(x).sum().backward()
        optimizer.step()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(FINISHED + 2):
                model(x).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
            warmup.at(3)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert warmup.updates == 3

    def test_writing_copies_nothing_from_the_host(self, x) -> None:
        """Values are arguments of a kernel; and the kernels are not more for more layers."""
        kernels = []
        for layers in (LAYERS, 4 * LAYERS):
            model = net(layers=layers).cuda()
            warmup = attach(model)
            model(x)
            warmup.at(1)
            torch.cuda.synchronize()
            with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
                warmup.at(2)
                torch.cuda.synchronize()
            names = [e.name for e in seen.events() if e.device_type.name == "CUDA"]
            assert names
            assert not [name for name in names if "HtoD" in name]
            kernels.append(len(names))
        assert kernels[0] == kernels[1]
