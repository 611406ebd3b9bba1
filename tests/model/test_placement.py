from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._dynamo.utils import counters

from groundup.model import PLACEMENTS, ModelConfig, Transformer, initialize

TOKENS = torch.arange(20).reshape(2, 10) % 17


def config(placement: str, **fields) -> ModelConfig:
    return ModelConfig(vocab_size=17, width=32, layers=4, heads=4, placement=placement, **fields)


def branch_ends(model: Transformer) -> list[list[nn.Module]]:
    return [
        [model.get_submodule(pattern.format(l=l)) for pattern in model.residual_branches]
        for l in range(model.config.layers)
    ]


def times_alpha(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
    return output * module.alpha


def scale(model: Transformer, alphas: list[float]) -> None:
    """What residual warmup does: a hook without a closure, and a tensor per layer."""
    for ends, alpha in zip(branch_ends(model), alphas, strict=True):
        tensor = torch.tensor(alpha)
        for end in ends:
            end.alpha = tensor
            end.register_forward_hook(times_alpha)


@pytest.mark.parametrize("placement", ["pre", "sandwich", "lns", "output"])
def test_at_zero_the_layers_are_the_identity(placement: str) -> None:
    model = Transformer(config(placement, init_std=0.3))
    scale(model, [0.0] * 4)
    expected = F.linear(model.norm(model.embedding(TOKENS)), model.head.weight)
    assert torch.equal(model(TOKENS), expected)


@pytest.mark.parametrize(("placement", "k"), [("post", 1.0), ("deepnorm", 8**0.25)])
def test_at_zero_the_layers_are_a_chain_of_norms(placement: str, k: float) -> None:
    model = Transformer(config(placement, init_std=0.3))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.copy_(torch.linspace(0.5, 1.5, 32).roll(len(name)))
    scale(model, [0.0] * 4)
    x = model.embedding(TOKENS)
    for layer in model.layers:
        x = layer.feed_forward.norm(k * layer.attention.norm(k * x))
    torch.testing.assert_close(model(TOKENS), model.head(model.norm(x)), rtol=0, atol=0)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_residual_branches_run_once_and_are_what_is_added(placement: str) -> None:
    model = Transformer(config(placement))
    calls: list[nn.Module] = []
    for ends in branch_ends(model):
        for end in ends:
            end.register_forward_hook(lambda module, args, output: calls.append(module))
    model(TOKENS)
    assert calls == [end for ends in branch_ends(model) for end in ends]
    names = {name.rsplit(".", 1)[-1] for name in model.residual_branches}
    assert names == ({"post_norm"} if placement in ("sandwich", "output") else {"output", "down"})


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_one_graph_serves_all_layers(placement: str) -> None:
    torch._dynamo.reset()
    counters.clear()
    model = Transformer(config(placement, kv_heads=2, qk_norm=True))
    eager = copy.deepcopy(model)
    alphas = [0.1, 0.4, 0.7, 1.0]
    scale(model, alphas)
    scale(eager, alphas)
    for block in model.layers:
        block.compile(backend="aot_eager", fullgraph=True)
    for trained in (model, eager):
        optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
        for _ in range(2):
            trained(TOKENS, TOKENS).total.backward()
            optimizer.step()
            optimizer.zero_grad()
            for ends in branch_ends(trained):
                ends[0].alpha.add_(0.01)
    assert counters["stats"]["unique_graphs"] == 1
    for compiled, expected in zip(model.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(compiled, expected, rtol=1e-4, atol=1e-5)


def factors(model: Transformer) -> list[Tensor]:
    return [branch.factor for l in model.layers for branch in (l.attention, l.feed_forward)]


EXACT = [torch.tensor(1 / math.sqrt(l), dtype=torch.float32) for l in (1, 2, 3, 4) for _ in "af"]


def assert_exact(model: Transformer) -> None:
    for factor, expected in zip(factors(model), EXACT, strict=True):
        assert factor.dtype == torch.float32
        assert factor.ndim == 0
        assert torch.equal(factor, expected)


def test_lns_factor_is_exact_whatever_happens_to_the_model() -> None:
    model = Transformer(config("lns"))
    assert_exact(model)
    assert_exact(model.to(torch.bfloat16))
    assert model(TOKENS).dtype == torch.bfloat16
    assert_exact(copy.deepcopy(model))
    assert_exact(model.to_empty(device="cpu"))
    assert_exact(model.float())
    assert all(f.dtype == torch.float64 for f in factors(model.double()))
    assert not any("factor" in name for name in model.state_dict())


def test_lns_factor_survives_meta() -> None:
    source = Transformer(config("lns"))
    with torch.device("meta"):
        emptied, assigned = Transformer(config("lns")), Transformer(config("lns"))
    assert assigned(TOKENS.to("meta")).is_meta
    emptied.to_empty(device="cpu")
    emptied.bfloat16().to_empty(device="cpu")
    assert_exact(emptied)
    initialize(emptied.float(), seed=0)
    assigned.load_state_dict(source.state_dict(), assign=True)
    assert_exact(assigned)
    assert torch.equal(emptied(TOKENS), source(TOKENS))
    assert torch.equal(assigned(TOKENS), source(TOKENS))


def test_stock_multipliers_make_lns_a_pre_norm_model() -> None:
    lns, pre = Transformer(config("lns", init_std=0.2)), Transformer(config("pre"))
    multipliers = lns.stock_multipliers()
    assert multipliers["layers.3.feed_forward.norm.weight"] == 0.5
    assert len(multipliers) == 8
    weights = {name: w * multipliers.get(name, 1.0) for name, w in lns.state_dict().items()}
    pre.load_state_dict(weights)
    torch.testing.assert_close(pre(TOKENS), lns(TOKENS), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(Transformer(config("pre", init_std=0.2))(TOKENS), lns(TOKENS))


@pytest.mark.parametrize("placement", sorted(set(PLACEMENTS) - {"lns"}))
def test_other_placements_need_no_multipliers(placement: str) -> None:
    assert Transformer(config(placement)).stock_multipliers() == {}
