"""Gains and stochastic depth: what they do to values, gradients, graphs, optimizers and runs."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

import groundup as gu
from groundup.model import PLACEMENTS, ModelConfig, Transformer
from groundup.model.gain import survivors
from groundup.optim.grouping import groups
from groundup.train.recompute import recompute

TOKENS = torch.arange(20).reshape(2, 10) % 17
L = 4


def made(placement: Any = "pre", **fields: Any) -> Transformer:
    config = ModelConfig(
        vocab_size=17, width=32, layers=L, heads=4, placement=placement, init_std=0.2, **fields
    )
    return Transformer(config)


def gradients(model: Transformer) -> dict[str, Tensor]:
    """Of a training forward whose random numbers are always the same."""
    torch.manual_seed(3)
    model(TOKENS, TOKENS).total.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], **near: float) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(
            value, expected[name], msg=lambda m, name=name: f"{name}: {m}", **near
        )


# ---------------------------------------------------------------------- gains


@pytest.mark.parametrize("placement", ["pre", "lns"])
def test_rezero_starts_as_no_layer_and_its_numbers_learn_first(placement: str) -> None:
    model = made(placement, gain="rezero")
    bare = model.head(model.norm(model.embedding(TOKENS)))
    assert torch.equal(model(TOKENS), bare)
    for name, gradient in gradients(model).items():
        learns = ".gains." in name or not name.startswith("layers.")
        assert bool((gradient != 0).any()) == learns, name


@pytest.mark.parametrize("gain", ["rezero", "layerscale"])
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_alpha_multiplies_the_gain(placement: str, gain: str) -> None:
    """In the middle of warmup the model is one whose gains are α·γ."""
    model = made(placement, gain=gain, gain_init=0.7)
    scaled = copy.deepcopy(model)
    warmup = gu.attach(model, gu.depth.linear(T=2))
    warmup.at(3)
    warmup.check(TOKENS)
    for layer, alpha in zip(scaled.layers, (1.0, 0.75, 0.5, 0.375), strict=True):
        for parameter in layer.gains.parameters():
            parameter.data.mul_(alpha)
    torch.testing.assert_close(model(TOKENS), scaled(TOKENS))
    assert not torch.allclose(model(TOKENS), made(placement, gain=gain, gain_init=0.7)(TOKENS))


def test_what_is_measured_is_what_is_added() -> None:
    """A branch of the first layer is given the same stream, whatever its gain."""
    seen = {}
    for start in (0.5, 2.0):
        model = made(gain="layerscale", gain_init=start)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        with gu.measure.observe(model, optimizer, ["stream"], probe=TOKENS) as observer:
            values = observer.look(0)
        seen[start] = values["branch_norm/attention/layers"][0]
    assert seen[2.0] == pytest.approx(4 * seen[0.5])


def test_gains_are_never_decayed_nor_turned() -> None:
    for gain, each in (("rezero", 1), ("layerscale", 2)):
        model = made(gain=gain)
        names = {id(p): name for name, p in model.named_parameters()}
        for group in groups(model, muon=True, by_layer=True):
            gains = [p for p in group["params"] if ".gains." in names[id(p)]]
            if group["layer"] is not None and not group["use_muon"]:
                assert (group["weight_decay"], group["rotational"]) == (0.0, False)
                assert len(gains) == each
            else:
                assert not gains


# ---------------------------------------------------------------------- stochastic depth


def test_survivors_are_as_many_as_they_should_be() -> None:
    p, sequences = 0.6, 20_000
    torch.manual_seed(0)
    kept = torch.stack([
        torch.stack(pair) for pair in survivors(torch.zeros(sequences, 1, 1), L, p)
    ]).flatten(2)  # fmt: skip
    assert kept.shape == (L, 2, sequences)
    for l in range(1, L + 1):
        survival = 1 - p * l / L
        values = kept[l - 1].double()
        assert ((values == 0) | (values - 1 / survival).abs().lt(1e-6)).all()
        error = math.sqrt(survival * (1 - survival) / (2 * sequences))
        assert (values > 0).double().mean().item() == pytest.approx(survival, abs=5 * error)
        assert values.mean().item() == pytest.approx(1, abs=5 * error / survival)
    together = torch.corrcoef(kept.flatten(0, 1)) - torch.eye(2 * L)
    assert together.abs().max() < 5 / math.sqrt(sequences)  # each branch by itself


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_training_leaves_out_what_was_drawn_and_evaluating_nothing(placement: str) -> None:
    model = made(placement, drop_path=0.9).double()
    plain = made(placement).double()
    assert plain.state_dict().keys() == model.state_dict().keys()
    before = torch.get_rng_state()
    assert torch.equal(model.eval()(TOKENS), plain(TOKENS))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(3)
    kept = survivors(torch.zeros(2, 1, 1, dtype=torch.float64), L, 0.9)
    assert {bool(factor) for pair in kept for factor in torch.cat(pair).flatten()} == {True, False}
    for l, pair in enumerate(kept):
        for pattern, factor in zip(plain.residual_branches, pair, strict=True):
            end = plain.get_submodule(pattern.format(l=l))
            end.register_forward_hook(lambda module, args, y, factor=factor: factor * y)
    torch.manual_seed(3)
    torch.testing.assert_close(model.train()(TOKENS), plain(TOKENS), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("what", ["full", "ops"])
def test_what_is_computed_again_is_the_same(what: str) -> None:
    model = made(gain="layerscale", drop_path=0.5)
    again = copy.deepcopy(model)
    recompute(again.layers, what)
    found = {
        name.replace("_checkpoint_wrapped_module.", ""): g for name, g in gradients(again).items()
    }
    assert_same(found, gradients(model))


@pytest.mark.parametrize("placement", ["pre", "post"])
def test_dormant_layers_may_be_skipped(placement: str) -> None:
    found = {}
    for dormant in ("run", "skip"):
        model = made(placement, gain="rezero", gain_init=0.5, drop_path=0.5)
        warmup = gu.attach(model, gu.depth.cascade(T=2, S=2), dormant=dormant)
        warmup.at(3)
        warmup.check(TOKENS)
        found[dormant] = gradients(model)
    run, skip = found["run"], found["skip"]
    missing = run.keys() - skip.keys()
    if placement == "pre":
        assert {name.split(".")[1] for name in missing} == {"2", "3"}
    assert all((run[name] == 0).all() for name in missing)
    assert_same(skip, {name: run[name] for name in skip})


# ---------------------------------------------------------------------- both


def test_one_graph_serves_all_layers() -> None:
    torch._dynamo.reset()
    counters.clear()
    model = made(gain="rezero", gain_init=0.5, drop_path=0.5)
    eager = copy.deepcopy(model)
    for one in (model, eager):
        gu.attach(one, gu.depth.linear(T=2)).at(1)
    for block in model.layers:
        block.compile(backend="aot_eager", fullgraph=True)
    for _ in range(2):
        assert_same(gradients(model), gradients(eager), rtol=1e-4, atol=1e-5)
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("gain", ["rezero", "layerscale"])
def test_lower_precision(gain: str) -> None:
    model = made(gain=gain, gain_init=0.5, drop_path=0.5)
    torch.manual_seed(0)
    wanted = model(TOKENS)
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(0)
        found = model(TOKENS)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), wanted, rtol=0.1, atol=0.1)
    streams: list[torch.dtype] = []
    model.norm.register_forward_pre_hook(lambda module, args: streams.append(args[0].dtype))
    model.bfloat16()(TOKENS)
    assert streams == [torch.bfloat16]
