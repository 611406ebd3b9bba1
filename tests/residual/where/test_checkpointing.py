"""Activation checkpointing and gradient accumulation: the gradients are those of the plain loop."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    CheckpointImpl,
    apply_activation_checkpointing,
    checkpoint_wrapper,
)
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import groundup as gu
from tests.residual.toy import Block, Net, reference
from tests.residual.where.models import (
    FINISHED,
    T,
    alphas,
    attach,
    by_hand,
    ends,
    inputs,
    llama,
    net,
    tokens,
)

STEPS = (0, 3, FINISHED, 5)  # α = 0, between, all let go, and back


def assert_gradients(
    model: nn.Module, warmup: gu.Warmup, plain: Net, call: Callable[[Tensor], Tensor]
) -> None:
    """At several steps, the gradients through `call` are those of α written out."""
    x = inputs()
    for step in STEPS:
        warmup.at(step)
        model.zero_grad()
        plain.zero_grad()
        call(x).square().sum().backward()
        reference(plain, x, alphas(step)).square().sum().backward()
        wanted = dict(plain.named_parameters())
        for name, p in model.named_parameters():
            stock = name.replace("_checkpoint_wrapped_module.", "")
            torch.testing.assert_close(p.grad, wanted[stock].grad, msg=f"{stock}, step {step}")


@pytest.mark.parametrize("reentrant", [True, False])
class TestCheckpoint:
    def test_around_blocks(self, reentrant: bool) -> None:
        model = net()
        plain = copy.deepcopy(model)

        def forward(x: Tensor) -> Tensor:
            x = model.stem(x)
            for block in model.layers:
                x = checkpoint(block, x, use_reentrant=reentrant)
            return x

        model.forward = forward
        warmup = attach(model)
        assert_gradients(model, warmup, plain, model)

    def test_around_runs_of_blocks(self, reentrant: bool) -> None:
        model = net()
        plain = copy.deepcopy(model)
        model.forward = lambda x: checkpoint_sequential(
            list(model.layers), 2, model.stem(x), use_reentrant=reentrant
        )
        warmup = attach(model)
        assert_gradients(model, warmup, plain, model)

    def test_inside_a_branch(self, reentrant: bool) -> None:
        model = net()
        plain = copy.deepcopy(model)
        for block in model.layers:
            whole = block.mix.forward
            block.mix.forward = lambda x, whole=whole: checkpoint(whole, x, use_reentrant=reentrant)
        warmup = attach(model)
        assert_gradients(model, warmup, plain, model)

    def test_hugging_face(self, reentrant: bool) -> None:
        model, ids = llama(layers=2).train(), tokens()
        plain = copy.deepcopy(model)
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        warmup = gu.attach(model, gu.depth.linear(T=T))
        for step in (0, 3, 4, 1):
            warmup.at(step)
            model.zero_grad()
            model(ids, labels=ids, use_cache=False).loss.backward()
            expected = by_hand(plain, alphas(step, 2))
            expected(ids, labels=ids, use_cache=False).loss.backward()
            for (name, p), q in zip(model.named_parameters(), expected.parameters(), strict=True):
                torch.testing.assert_close(p.grad, q.grad, msg=f"{name}, step {step}")


@pytest.mark.parametrize("implementation", CheckpointImpl)
@pytest.mark.parametrize("what", ["blocks", "ends"])
@pytest.mark.parametrize("first", ["attached", "wrapped"])
def test_checkpoint_wrapper(first: str, what: str, implementation: CheckpointImpl) -> None:
    """Also around the very modules that end branches: they go on counting as those modules."""
    model = net()
    plain = copy.deepcopy(model)
    warmup = attach(model) if first == "attached" else None
    wanted = {module for pair in ends(model) for module in pair}
    apply_activation_checkpointing(
        model,
        lambda module: checkpoint_wrapper(module, checkpoint_impl=implementation),
        lambda module: module in wanted if what == "ends" else isinstance(module, Block),
    )
    warmup = warmup or attach(model)
    assert_gradients(model, warmup, plain, model)
    warmup.at(3)
    stock = net(seed=1)
    stock.load_state_dict(warmup.folded_state_dict())
    torch.testing.assert_close(stock(inputs()), reference(plain, inputs(), alphas(3)))


def test_accumulated_micro_batches_see_one_alpha_and_count_as_one_update() -> None:
    model, x = net(), inputs(6)
    plain = copy.deepcopy(model)
    warmup = attach(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    warmup.follow(optimizer)
    for update in range(FINISHED + 2):
        plain.load_state_dict(model.state_dict())
        plain.zero_grad()
        for part in x.split(2):
            assert warmup.updates == update
            (model(part).square().mean() / 3).backward()
        reference(plain, x, alphas(update)).square().mean().backward()
        for (name, p), q in zip(model.named_parameters(), plain.named_parameters(), strict=True):
            torch.testing.assert_close(p.grad, q[1].grad, msg=f"{name}, update {update}")
        optimizer.step()
        optimizer.zero_grad()
    assert warmup.updates == FINISHED + 2
