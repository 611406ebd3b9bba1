"""Residual warmup on our own decoder, in every placement."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch._dynamo.utils import counters

import groundup as gu
from groundup.model import ModelConfig, Transformer, initialize
from groundup.residual import find_branches

PLACEMENTS = ["pre", "post", "sandwich", "deepnorm", "lns", "output"]
TOKENS = torch.randint(0, 50, (2, 9), generator=torch.Generator().manual_seed(0))


def made(placement: str, layers: int = 3) -> Transformer:
    config = ModelConfig(vocab_size=50, layers=layers, width=16, heads=2, placement=placement)
    model = Transformer(config)
    initialize(model, seed=1)
    return model


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_branches_are_known(placement: str) -> None:
    found = find_branches(made(placement), None)
    assert [branch.layer for branch in found] == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("placement", ["pre", "sandwich", "lns", "output"])
def test_at_zero_it_is_a_model_without_layers(placement: str) -> None:
    model = made(placement)
    bare = Transformer(replace(model.config, layers=1))
    bare.load_state_dict(model.state_dict(), strict=False)
    bare.layers = torch.nn.ModuleList()
    gu.attach(model, gu.depth.linear(T=5))
    assert torch.equal(model(TOKENS), bare(TOKENS))


@pytest.mark.parametrize("placement", ["post", "deepnorm"])
def test_at_zero_it_is_a_chain_of_norms(placement: str) -> None:
    model = made(placement)
    k = (2 * 3) ** 0.25 if placement == "deepnorm" else 1.0
    x = model.embedding(TOKENS)
    for _ in range(2 * 3):  # every norm's weight is 1 at the start
        y = k * x
        x = y * (y.square().mean(-1, keepdim=True) + 1e-5).rsqrt()
    x = x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt()
    gu.attach(model, gu.depth.linear(T=5))
    torch.testing.assert_close(model(TOKENS), x @ model.head.weight.T)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_one_untouched_when_finished_and_linear_in_between(placement: str) -> None:
    model = made(placement)
    untouched = model(TOKENS)
    warmup = gu.attach(model, gu.depth.linear(T=5))
    warmup.at(4)
    between = model(TOKENS)
    warmup.at(15)
    assert torch.equal(model(TOKENS), untouched)
    assert not torch.allclose(between, untouched)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_folded_weights_give_the_same_logits_in_a_stock_model(placement: str) -> None:
    model = made(placement)
    warmup = gu.attach(model, gu.depth.stagewise_sqrt_l(T=5))
    warmup.at(8)
    # LayerNorm Scaling's 1/√l is folded too: what loads the weights is a plain Pre-LN model.
    stock = made("pre" if placement == "lns" else placement)
    stock.load_state_dict(warmup.folded_state_dict())
    torch.testing.assert_close(stock(TOKENS), model(TOKENS))


def test_fixed_scales_are_folded_inside_a_wrapper_too() -> None:
    outer = torch.nn.Module()
    outer.inner = made("lns")
    outer.forward = lambda tokens: outer.inner(tokens)
    warmup = gu.attach(outer, gu.depth.linear(T=2))
    warmup.at(3)
    stock = made("pre")
    weights = warmup.folded_state_dict()
    stock.load_state_dict({name.removeprefix("inner."): w for name, w in weights.items()})
    torch.testing.assert_close(stock(TOKENS), outer(TOKENS))


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_one_compiled_graph_for_training_and_one_for_evaluation(placement: str) -> None:
    torch._dynamo.reset()
    counters.clear()
    model = made(placement, layers=4)
    plain = copy.deepcopy(model)
    warmup = gu.attach(model, gu.depth.linear(T=1))
    for block in model.layers:
        block.compile(backend="aot_eager")
    warmup.check(TOKENS)
    assert counters["stats"]["unique_graphs"] == 0  # the proof runs eagerly
    targets = TOKENS.roll(-1, 1)
    for step in range(7):
        warmup.at(step)
        model(TOKENS, targets).total.backward()
        if step == 1:
            assert counters["stats"]["unique_graphs"] == 1
            with torch.no_grad():
                model(TOKENS, targets)
    assert warmup.finished
    assert counters["stats"]["unique_graphs"] == 2
    torch.testing.assert_close(model(TOKENS), plain(TOKENS))


def test_inductor_compiles_once_and_follows_alpha() -> None:
    torch._dynamo.reset()
    counters.clear()
    model = made("pre", layers=3)
    eager = copy.deepcopy(model)
    warmup = gu.attach(model, gu.depth.linear(T=2))
    twin = gu.attach(eager, gu.depth.linear(T=2))
    for block in model.layers:
        block.compile()
    warmup.check(TOKENS)
    for step in range(8):
        warmup.at(step)
        twin.at(step)
        torch.testing.assert_close(model(TOKENS), eager(TOKENS))
    assert counters["stats"]["unique_graphs"] == 1
