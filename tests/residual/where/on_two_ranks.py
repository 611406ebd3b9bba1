"""What `test_distributed` checks on each of two ranks, against one process with α written out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed._composable.replicate import replicate
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Partial, Placement, Replicate, Shard, init_device_mesh
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel as DDP

import groundup as gu
from groundup.residual import BranchError
from tests.residual.toy import Net, reference
from tests.residual.where.models import (
    FINISHED,
    LAYERS,
    alphas,
    attach,
    ends,
    hook_by_hand,
    inputs,
    net,
)
from tests.residual.where.ranks import WORLD

STEPS = (0, 3, FINISHED, 5)
X = inputs(2 * WORLD)
UPDATES = 5  # before the checkpoint


def mine() -> Tensor:
    """The rows of this rank."""
    return X.chunk(WORLD)[dist.get_rank()]


def whole(value: Tensor) -> Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value


def same_everywhere(value: object) -> bool:
    values: list[object] = [None] * WORLD
    dist.all_gather_object(values, value)
    return all(v == values[0] for v in values)


def stock(names: Iterable[str]) -> list[str]:
    return [n.replace("_checkpoint_wrapped_module.", "").removeprefix("module.") for n in names]


def assert_gradients(
    model: nn.Module, call: Callable[[Tensor], Tensor], warmup: gu.Warmup, x: Tensor | None = None
) -> None:
    """At several steps the gradients are those of one process on the whole batch."""
    x = mine() if x is None else x
    for step in STEPS:
        warmup.at(step)
        model.zero_grad()
        call(x).square().mean().backward()
        plain = net()
        reference(plain, X, alphas(step)).square().mean().backward()
        wanted = {name: p.grad for name, p in plain.named_parameters()}
        grads = [whole(p.grad) for p in model.parameters()]
        for name, grad in zip(stock(n for n, _ in model.named_parameters()), grads, strict=True):
            torch.testing.assert_close(grad, wanted[name], msg=f"{name}, step {step}")
        assert same_everywhere([warmup.updates, *warmup.alphas().tolist()])
        assert same_everywhere([getattr(e, "residual_alpha", 1.0) for p in ends(model) for e in p])


def assert_folded(warmup: gu.Warmup, step: int = 3) -> None:
    """A stock model that loads the folded weights computes the same."""
    warmup.at(step)
    plain = net(seed=1)
    plain.load_state_dict({name: whole(w) for name, w in warmup.folded_state_dict().items()})
    torch.testing.assert_close(plain(X), reference(net(), X, alphas(step)))


# ---------------------------------------------------------------------- DDP


def check_ddp_attached_before(_: Path) -> None:
    for options in (
        {},
        {"find_unused_parameters": True},
        {"static_graph": True},
        {"gradient_as_bucket_view": True},
    ):
        model = net()
        warmup = attach(model)
        assert_gradients(model, DDP(model, **options), warmup)
        assert_folded(warmup)


def check_ddp_attached_after(_: Path) -> None:
    for options in ({}, {"find_unused_parameters": True}, {"static_graph": True}):
        model = DDP(net(), **options)
        warmup = attach(model)  # under the names of the model inside
        assert_gradients(model.module, model, warmup)
        assert_folded(warmup)


def check_ddp_compiled(_: Path) -> None:
    torch._dynamo.reset()
    model = net()
    warmup = attach(model)
    assert_gradients(model, torch.compile(DDP(model), backend="eager"), warmup)


def check_ddp_says_which_branch_does_not_run(_: Path) -> None:
    model = net()
    model.layers[1].mix.forward = lambda x: x * 0
    attach(model)
    _assert_bypass_is_said(DDP(model, find_unused_parameters=True))


def _assert_bypass_is_said(model: nn.Module) -> None:
    with pytest.raises(BranchError, match=r"layers\.1\.mix\.out ran 0 times"):
        model(mine())


def check_replicate(_: Path) -> None:
    model = net()
    warmup = attach(model)
    replicate(model)
    assert_gradients(model, model, warmup)


def check_ddp_average_follows(_: Path) -> None:
    model = DDP(net())
    warmup = attach(model)
    average = torch.optim.swa_utils.AveragedModel(model)
    for step in (0, 3, FINISHED):
        warmup.at(step)
        torch.testing.assert_close(average(X), reference(net(), X, alphas(step)))


# ---------------------------------------------------------------------- FSDP2


def sharded(model: Net, *, with_ends: bool = False, **options) -> Net:
    for block, pair in zip(model.layers, ends(model), strict=True):
        for module in pair if with_ends else ():
            fully_shard(module, **options)
        fully_shard(block, **options)
    fully_shard(model, **options)
    return model


def check_fsdp(_: Path) -> None:
    for options in ({}, {"reshard_after_forward": False}):
        model = net()
        warmup = attach(model)
        sharded(model, **options)
        assert_gradients(model, model, warmup)
        assert_folded(warmup)
        model = sharded(net(), **options)
        warmup = attach(model)
        assert_gradients(model, model, warmup)
        assert_folded(warmup)


def check_fsdp_of_the_very_ends(_: Path) -> None:
    """fully_shard gives a module another class, before attach or after it."""
    for first in ("attached", "sharded"):
        model = net()
        warmup = attach(model) if first == "attached" else None
        sharded(model, with_ends=True)
        warmup = warmup or attach(model)
        assert_gradients(model, model, warmup)
        assert_folded(warmup)
        warmup.at(FINISHED)
        assert all(isinstance(module, FSDPModule) for pair in ends(model) for module in pair)
        # Each of them takes part in what is said to all: here, not to reduce yet.
        model.zero_grad()
        warmup.at(3)
        model.set_requires_gradient_sync(False)
        (model(mine()[:1]).square().mean() / 2).backward()
        model.set_requires_gradient_sync(True)
        (model(mine()[1:]).square().mean() / 2).backward()
        plain = net()
        reference(plain, X, alphas(3)).square().mean().backward()
        for p, q in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(whole(p.grad), q.grad)
        warmup.at(FINISHED)
        warmup.detach()
        torch.testing.assert_close(model(X), reference(net(), X, [1.0] * LAYERS))
        warmup = attach(model)
        warmup.at(3)
        torch.testing.assert_close(model(X), reference(net(), X, alphas(3)))


def check_fsdp_in_mixed_precision(_: Path) -> None:
    """To the bit as the same sharded model with α as floats in hooks."""
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for with_ends in (False, True):
        model = net()
        warmup = attach(model)
        sharded(model, with_ends=with_ends, mp_policy=policy)
        for step in STEPS:
            warmup.at(step)
            plain = sharded(net(), with_ends=with_ends, mp_policy=policy)
            hook_by_hand(plain, torch.tensor(alphas(step)).tolist())
            outs = []
            for each in (model, plain):
                each.zero_grad()
                outs.append(each(mine()))
                outs[-1].float().square().mean().backward()
            assert outs[0].dtype == torch.bfloat16
            assert torch.equal(*outs), step
            for (name, p), q in zip(model.named_parameters(), plain.parameters(), strict=True):
                assert p.grad.dtype == torch.float32
                assert torch.equal(whole(p.grad), whole(q.grad)), (name, step)


def check_fsdp_from_the_meta_device(_: Path) -> None:
    for first in ("attached", "sharded"):
        with torch.device("meta"):
            model = Net()
        warmup = attach(model) if first == "attached" else None
        sharded(model)
        warmup = warmup or attach(model)
        warmup.at(3)
        model.to_empty(device="cpu")
        options = StateDictOptions(full_state_dict=True)
        set_model_state_dict(model, net().state_dict(), options=options)
        torch.testing.assert_close(model(mine()), reference(net(), mine(), alphas(3)))
        assert_gradients(model, model, warmup)
        assert_folded(warmup)


def check_fsdp_compiled_blocks(_: Path) -> None:
    for with_ends in (False, True):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        model = net()
        warmup = attach(model)
        for block in model.layers:
            block.compile(backend="eager", fullgraph=not with_ends)
        sharded(model, with_ends=with_ends)
        assert_gradients(model, model, warmup)
        if not with_ends:  # a sharded module is a graph break
            assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def check_fsdp_with_activation_checkpointing(_: Path) -> None:
    model = net()
    for number, block in enumerate(model.layers):
        model.layers[number] = checkpoint_wrapper(block)
    sharded(model)
    warmup = attach(model)
    for step in STEPS:
        warmup.at(step)
        model.zero_grad()
        model(mine()).square().mean().backward()
        plain = net()
        reference(plain, X, alphas(step)).square().mean().backward()
        for p, q in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(whole(p.grad), q.grad)
    assert_folded(warmup)


def check_fsdp_says_which_branch_does_not_run(_: Path) -> None:
    model = net()
    model.layers[1].mix.forward = lambda x: x * 0
    attach(sharded(model))
    _assert_bypass_is_said(model)


def check_fsdp_proof_ahead(_: Path) -> None:
    model = sharded(net())
    warmup = attach(model)
    warmup.check(mine())
    assert_gradients(model, model, warmup)


def check_fsdp_folded_in_place(_: Path) -> None:
    model = sharded(net())
    warmup = attach(model)
    warmup.at(3)
    assert all(isinstance(w, DTensor) for w in warmup.folded_state_dict().values())
    model(mine())
    warmup.fold_()
    torch.testing.assert_close(model(X), reference(net(), X, alphas(3)))


def check_fsdp_an_overflow_on_one_rank_is_counted_on_none(_: Path) -> None:
    for fused in (True, False):
        model = sharded(net())
        warmup = attach(model)
        optimizer = torch.optim.AdamW(model.parameters(), fused=fused, foreach=not fused)
        warmup.follow(optimizer)
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        for overflow, counted in ((False, 1), (True, 1), (False, 2)):
            scaler.scale(model(mine()).sum()).backward()
            if overflow and dist.get_rank() == 1:
                model.stem.weight.grad.to_local()[0, 0] = float("inf")
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            assert warmup.updates == counted, (fused, warmup.updates, counted)
            assert same_everywhere(warmup.updates)


# ---------------------------------------------------------------------- checkpoints (DCP)


def check_saving(folder: Path) -> None:
    """Saved by two ranks; a resumed run must have the losses of the updates that follow."""
    model = sharded(net())
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    warmup = attach(model).follow(optimizer)
    train(model, optimizer, UPDATES)
    for flat in (False, True):
        options = StateDictOptions(flatten_optimizer_state_dict=flat)
        weights, state = get_state_dict(model, optimizer, options=options)
        dcp.save({"model": weights, "optimizer": state}, checkpoint_id=folder / f"flat-{flat}")
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights, state = get_state_dict(model, optimizer, options=options)
    if dist.get_rank() == 0:
        torch.save((weights, state), folder / "whole.pt")
    assert warmup.updates == UPDATES
    losses = train(model, optimizer, 4)
    if dist.get_rank() == 0:
        (folder / "losses.json").write_text(json.dumps(losses))
    dist.barrier()


def train(model: nn.Module, optimizer: torch.optim.Optimizer, updates: int) -> list[float]:
    """Losses of the whole batch, each rank on its rows."""
    losses = []
    x = mine() if dist.is_initialized() else X
    for _ in range(updates):
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if dist.is_initialized():
            loss = loss.detach()
            dist.all_reduce(loss)
            loss /= WORLD
        losses.append(loss.item())
    return losses


def resume(model: Net, folder: Path, flat: bool) -> list[float]:
    """Load what `check_saving` saved, with the calls that torch's documentation shows."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    warmup = attach(model).follow(optimizer)
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    weights, state = get_state_dict(model, optimizer, options=options)
    assert warmup.updates == 0  # making the optimizer's state is no update
    loaded = {"model": weights, "optimizer": state}
    dcp.load(loaded, checkpoint_id=folder / f"flat-{flat}")
    set_state_dict(
        model,
        optimizer,
        model_state_dict=loaded["model"],
        optim_state_dict=loaded["optimizer"],
        options=options,
    )
    assert warmup.updates == UPDATES
    assert all(g["residual_warmup_step"] == UPDATES for g in optimizer.param_groups)
    return train(model, optimizer, 4)


def check_loading_on_two_ranks(folder: Path) -> None:
    losses = json.loads((folder / "losses.json").read_text())
    for flat in (False, True):
        assert resume(sharded(net(seed=5)), folder, flat) == losses


def check_loading_a_whole_state_from_rank_0(folder: Path) -> None:
    model = sharded(net(seed=5))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    warmup = attach(model).follow(optimizer)
    weights, state = ({}, {})
    if dist.get_rank() == 0:
        weights, state = torch.load(folder / "whole.pt", weights_only=True)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    # One by one: set_state_dict takes an empty first argument to mean that there is no model.
    set_model_state_dict(model, weights, options=options)
    set_optimizer_state_dict(model, optimizer, state, options=options)
    assert warmup.updates == UPDATES
    assert train(model, optimizer, 4) == json.loads((folder / "losses.json").read_text())


def check_loading_before_follow_is_warned_about(folder: Path) -> None:
    """DCP loads only what the optimizer asks for, and one that is not followed asks for no step."""
    model = sharded(net(seed=5))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    warmup = attach(model)
    loaded = {"optimizer": get_optimizer_state_dict(model, optimizer)}
    dcp.load(loaded, checkpoint_id=folder / "flat-False")
    with pytest.warns(UserWarning, match="not followed yet"):
        warmup.follow(optimizer)


# ---------------------------------------------------------------------- tensor parallel


def split(model: Net, **rowwise) -> Net:
    mesh = init_device_mesh("cpu", (WORLD,))
    plan = {
        "mix.inp": ColwiseParallel(),
        "mix.out": RowwiseParallel(**rowwise),
        "mlp.0": ColwiseParallel(),
        "mlp.2": RowwiseParallel(**rowwise),
    }
    for block in model.layers:
        parallelize_module(block, mesh, plan)
    return model


def check_tensor_parallel(_: Path) -> None:
    for first in ("attached", "split"):
        model = net()
        warmup = attach(model) if first == "attached" else None
        split(model)
        warmup = warmup or attach(model)
        assert_gradients(model, model, warmup, X)
        assert_folded(warmup)
        warmup.fold_()
        torch.testing.assert_close(model(X), reference(net(), X, alphas(3)))


def check_tensor_parallel_compiled(_: Path) -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = split(net())
    for block in model.layers:
        block.compile(backend="aot_eager")
    assert_gradients(model, model, attach(model), X)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def check_branches_that_return_dtensors(_: Path) -> None:
    """α is a plain tensor, the output it multiplies a distributed one, of whatever placement."""
    layouts: list[Placement] = [Replicate(), Shard(0), Partial()]
    for layout in layouts:
        model = split(net(), use_local_output=False, output_layouts=layout)
        attach(model).at(3)
        plain = net()
        h = plain.stem(X).detach()
        out = model.layers[2].mix(h)
        assert isinstance(out, DTensor)
        assert out.placements == (layout,)
        expected = alphas(3)[2] * plain.layers[2].mix(h)
        torch.testing.assert_close(out.full_tensor(), expected)
        out.full_tensor().square().sum().backward()
        expected.square().sum().backward()
        grad = model.layers[2].mix.out.weight.grad
        torch.testing.assert_close(whole(grad), plain.layers[2].mix.out.weight.grad)


def check_sequence_parallel(_: Path) -> None:
    """The residual stream itself is a DTensor, sharded over the sequence."""
    mesh = init_device_mesh("cpu", (WORLD,))
    model = net()
    warmup = attach(model)
    row = {"output_layouts": Shard(0), "use_local_output": False}
    plan = {
        "norm1": SequenceParallel(sequence_dim=0, use_local_output=False),
        "mix.inp": ColwiseParallel(input_layouts=Shard(0)),
        "mix.out": RowwiseParallel(**row),
        "norm2": SequenceParallel(sequence_dim=0, use_local_output=False),
        "mlp.0": ColwiseParallel(input_layouts=Shard(0)),
        "mlp.2": RowwiseParallel(**row),
    }
    parallelize_module(model, mesh, {"stem": ColwiseParallel(**row)})
    for block in model.layers:
        parallelize_module(block, mesh, plan)
    assert_gradients(model, lambda x: whole(model(x)), warmup, X)


def check_tensor_parallel_inside_fsdp(_: Path) -> None:
    mesh = init_device_mesh("cpu", (1, WORLD), mesh_dim_names=("data", "tensor"))
    model = net()
    warmup = attach(model)
    plan = {
        "mix.inp": ColwiseParallel(),
        "mix.out": RowwiseParallel(),
        "mlp.0": ColwiseParallel(),
        "mlp.2": RowwiseParallel(),
    }
    for block in model.layers:
        parallelize_module(block, mesh["tensor"], plan)
    sharded(model, mesh=mesh["data"])
    assert_gradients(model, model, warmup, X)
    assert_folded(warmup)
