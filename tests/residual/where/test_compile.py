"""torch.compile: one graph for the whole warmup, and never a graph of another scaling."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter

import groundup as gu
from tests.fresh_compiler import fresh_compiler  # noqa: F401
from tests.residual.toy import Net, reference
from tests.residual.where.models import (
    FINISHED,
    LAYERS,
    T,
    alphas,
    attach,
    by_hand,
    inputs,
    llama,
    net,
    tokens,
)

HOW = ["whole", "blocks", "wrapped blocks"]
ONE = [1.0] * LAYERS


@pytest.fixture
def backend() -> CompileCounter:
    return CompileCounter()


@pytest.fixture
def no_recompilation() -> Iterator[None]:
    with torch._dynamo.config.patch(error_on_recompile=True):
        yield


def compiled(model: Net, how: str, backend: Callable | str) -> Callable[[Tensor], Tensor]:
    if how == "whole":
        return torch.compile(model, backend=backend, fullgraph=True)
    for number, block in enumerate(model.layers):
        if how == "blocks":
            block.compile(backend=backend, fullgraph=True)
        else:
            model.layers[number] = torch.compile(block, backend=backend, fullgraph=True)
    return model


class TestOneGraph:
    """From the first update to after the last, followed as in a training loop."""

    @pytest.mark.parametrize("how", HOW)
    @pytest.mark.usefixtures("no_recompilation")
    def test_toy(self, how: str, backend: CompileCounter) -> None:
        model, x = net(), inputs()
        plain = copy.deepcopy(model)
        warmup = attach(model)
        call = compiled(model, how, backend)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        warmup.follow(optimizer)
        for step in range(FINISHED + 3):
            plain.load_state_dict(model_state(model))
            out = call(x)
            torch.testing.assert_close(out, reference(plain, x, alphas(step)))
            out.square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        assert warmup.finished
        assert backend.frame_count == 1

    @pytest.mark.usefixtures("no_recompilation")
    def test_llama_as_a_whole(self, backend: CompileCounter) -> None:
        model, ids = llama(layers=2), tokens()
        plain = copy.deepcopy(model)
        warmup = gu.attach(model, gu.depth.linear(T=T))
        call = torch.compile(model, backend=backend, fullgraph=True)
        for step in range(T * 2 + 2):
            warmup.at(step)
            expected = by_hand(plain, alphas(step, 2))(ids, labels=ids, use_cache=False)
            out = call(ids, labels=ids, use_cache=False)
            torch.testing.assert_close(out.logits, expected.logits)
            out.loss.backward()
        assert warmup.finished
        assert backend.frame_count == 1

    @pytest.mark.usefixtures("no_recompilation")
    def test_resumed_where_some_layers_are_at_one_already(self, backend: CompileCounter) -> None:
        model, x = net(), inputs()
        plain = copy.deepcopy(model)
        warmup = attach(model)
        warmup.at(2 * T + 1)
        call = compiled(model, "whole", backend)
        warmup.check(x)
        for step in range(2 * T + 1, FINISHED + 2):
            warmup.at(step)
            torch.testing.assert_close(call(x), reference(plain, x, alphas(step)))
        assert backend.frame_count == 1

    def test_inductor(self) -> None:
        model, x = net(layers=2), inputs()
        plain = copy.deepcopy(model)
        warmup = attach(model)
        torch._dynamo.utils.counters.clear()
        call = torch.compile(model, fullgraph=True)  # inductor
        for step in (0, 1, 2, 3, 4, 5):
            warmup.at(step)
            for p, q in zip(model.parameters(), plain.parameters(), strict=True):
                p.grad = q.grad = None
            out, expected = call(x), reference(plain, x, alphas(step, 2))
            torch.testing.assert_close(out, expected)
            out.square().sum().backward()
            expected.square().sum().backward()
            for (name, p), q in zip(model.named_parameters(), plain.parameters(), strict=True):
                torch.testing.assert_close(p.grad, q.grad, msg=name)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1

    @pytest.mark.parametrize("how", ["whole", "blocks"])
    def test_one_for_training_and_one_for_evaluation_however_often_they_alternate(
        self, how: str, backend: CompileCounter
    ) -> None:
        model, x = net(), inputs()
        plain = copy.deepcopy(model)
        warmup = attach(model)
        call = compiled(model, how, backend)
        for step in range(FINISHED + 2):
            warmup.at(step)
            model.train()
            call(x).sum().backward()
            model.eval()
            with torch.no_grad():
                torch.testing.assert_close(call(x), reference(plain, x, alphas(step)))
        assert backend.frame_count == 2


@pytest.mark.parametrize("how", HOW)
class TestNeverAGraphOfAnotherScaling:
    """Whatever is done to a model that was compiled and has run, its numbers are right."""

    def test_attached_after_compiled_calls(self, how: str, backend: CompileCounter) -> None:
        model, x = net(), inputs()
        plain = copy.deepcopy(model)
        call = compiled(model, how, backend)
        call(x).sum().backward()
        torch.testing.assert_close(call(x), reference(plain, x, ONE))
        warmup = attach(model)
        for step in (0, 3, FINISHED, 1):
            warmup.at(step)
            torch.testing.assert_close(call(x), reference(plain, x, alphas(step)))
        assert backend.frame_count == 2

    def test_detached_and_attached_again(self, how: str, backend: CompileCounter) -> None:
        model, x = net(), inputs()
        plain = copy.deepcopy(model)
        warmup = attach(model)
        call = compiled(model, how, backend)
        warmup.at(3)
        torch.testing.assert_close(call(x), reference(plain, x, alphas(3)))
        with pytest.warns(UserWarning, match="before every α is 1"):
            warmup.detach()
        torch.testing.assert_close(call(x), reference(plain, x, ONE))
        warmup = attach(model)
        torch.testing.assert_close(call(x), reference(plain, x, alphas(0)))
        warmup.at(5)
        torch.testing.assert_close(call(x), reference(plain, x, alphas(5)))
        assert backend.frame_count == 2  # the first attachment's graph serves the second too

    def test_folded(self, how: str, backend: CompileCounter) -> None:
        model, x = net(), inputs()
        plain = copy.deepcopy(model)
        warmup = attach(model)
        call = compiled(model, how, backend)
        warmup.at(3)
        call(x)
        stock = net(seed=1)
        stock.load_state_dict(warmup.folded_state_dict())
        torch.testing.assert_close(stock(x), reference(plain, x, alphas(3)))
        warmup.fold_()
        torch.testing.assert_close(call(x), reference(plain, x, alphas(3)))

    def test_compiled_after_layers_were_let_go_eagerly(
        self, how: str, backend: CompileCounter
    ) -> None:
        model, x = net(), inputs()
        plain = copy.deepcopy(model)
        warmup = attach(model)
        model(x)
        warmup.at(2 * T + 1)  # two layers are at 1: not multiplied any more
        model(x)
        call = compiled(model, how, backend)
        for step in (5, 6, 1, FINISHED + 1, 0):
            warmup.at(step)
            torch.testing.assert_close(call(x), reference(plain, x, alphas(step)))


def test_of_a_compiled_optimizer_step_only_the_update_is_compiled() -> None:
    """And not the bookkeeping in the optimizer's hooks, which would be compiled again and again."""
    graphs = []
    for followed in (False, True):
        torch._dynamo.reset()
        backend = CompileCounter()
        model = net()
        plain = copy.deepcopy(model)
        warmup = attach(model)
        # A rate that is no tensor is a constant of the graph: not what is tested here.
        optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.01))
        if followed:
            warmup.follow(optimizer)
        update = torch.compile(optimizer.step, backend=backend)
        for step in range(FINISHED + 2):
            warmup.at(step) if not followed else None
            plain.load_state_dict(model.state_dict())
            assert warmup.updates == step
            out = model(inputs())
            torch.testing.assert_close(out, reference(plain, inputs(), alphas(step)))
            out.square().mean().backward()
            update()
            optimizer.zero_grad()
        graphs.append(backend.frame_count)
    # One more: the step in the parameter groups, at first a constant of the graph, then a variable.
    assert graphs[1] <= graphs[0] + 1


def test_a_compiled_function_around_the_model_that_ran_before_attach(
    backend: CompileCounter,
) -> None:
    model, x = net(), inputs()
    plain = copy.deepcopy(model)

    @torch.compile(backend=backend, fullgraph=True)
    def loss(x: Tensor) -> Tensor:
        return model(x).square().mean()

    loss(x)
    warmup = attach(model)
    for step in (0, 1, 5, FINISHED, FINISHED + 1):
        warmup.at(step)
        torch.testing.assert_close(loss(x), reference(plain, x, alphas(step)).square().mean())
    assert backend.frame_count == 2


def test_attached_to_the_compiled_model(backend: CompileCounter) -> None:
    model, x = net(), inputs()
    plain = copy.deepcopy(model)
    call = torch.compile(model, backend=backend, fullgraph=True)
    warmup = attach(call)
    for step in (0, 1, 5, FINISHED):
        warmup.at(step)
        torch.testing.assert_close(call(x), reference(plain, x, alphas(step)))
    assert set(warmup.folded_state_dict()) == set(plain.state_dict())


def test_a_copy_of_a_compiled_model_follows(backend: CompileCounter) -> None:
    """An average of the weights of a model whose blocks are compiled."""
    model, x = net(), inputs()
    plain = copy.deepcopy(model)
    compiled(model, "blocks", backend)
    warmup = attach(model)
    average = torch.optim.swa_utils.AveragedModel(model)
    model(x)
    for step in (0, 3, FINISHED):
        warmup.at(step)
        torch.testing.assert_close(model(x), reference(plain, x, alphas(step)))
        torch.testing.assert_close(average(x), reference(plain, x, alphas(step)))


def model_state(model: nn.Module) -> dict[str, Tensor]:
    """Under stock names, whether the blocks are wrapped or not."""
    return {name.replace("_orig_mod.", ""): p for name, p in model.state_dict().items()}
