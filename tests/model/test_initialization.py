from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from groundup.model import PLACEMENTS, ModelConfig, Transformer, initialize

CUT_AT_THREE = 0.98658  # standard deviation of N(0, 1) given |x| ≤ 3


def build(**fields) -> Transformer:
    return Transformer(ModelConfig(**{"vocab_size": 512, "width": 128, "layers": 3, **fields}))


def matrices(model: Transformer) -> dict[tuple[int, str], Tensor]:
    """(layer from 1, projection) → weight."""
    found = {}
    for name, weight in model.named_parameters():
        if name.startswith("layers.") and weight.ndim == 2:
            _, index, _, _, projection, _ = name.split(".")
            found[int(index) + 1, projection] = weight
    return found


def assert_std(weight: Tensor, expected: float) -> None:
    """Within five standard errors."""
    assert weight.std().item() == pytest.approx(expected, rel=5 / math.sqrt(2 * weight.numel()))
    assert abs(weight.mean().item()) < 5 * expected / math.sqrt(weight.numel())


def test_cut_constant() -> None:
    """Var = 1 - 2·3·φ(3)/(Φ(3) - Φ(-3))."""
    density = math.exp(-4.5) / math.sqrt(2 * math.pi)
    assert math.sqrt(1 - 6 * density / math.erf(3 / math.sqrt(2))) == pytest.approx(
        CUT_AT_THREE, abs=1e-5
    )


@pytest.mark.parametrize(
    ("init", "factor"),
    [
        ("normal", lambda l: 1.0),
        ("ds", lambda l: 1 / math.sqrt(2 * l)),
        ("scaled", lambda l: 1 / math.sqrt(6)),
    ],
)
def test_truncated_normals(init: str, factor) -> None:
    model = build(init=init, init_std=0.05)
    for (layer, projection), weight in matrices(model).items():
        std = 0.05 * (factor(layer) if projection in ("output", "down") else 1.0)
        assert_std(weight, CUT_AT_THREE * std)
        assert 2.8 * std < weight.abs().max() <= 3 * std * (1 + 1e-6)
    for weight in (model.embedding.weight, model.head.weight):
        assert_std(weight, CUT_AT_THREE * 0.05)
        assert weight.abs().max() <= 0.15 * (1 + 1e-6)


def test_deepnorm_gains() -> None:
    model = build(init="deepnorm", heads=4, kv_heads=2, feed_forward=256)
    shrunk = (8 * 3) ** -0.25
    shapes = {"query": 256, "key": 192, "value": 192, "output": 256, "gate": 384, "up": 384}
    for (_, projection), weight in matrices(model).items():
        gain = 1.0 if projection in ("query", "key") else shrunk
        assert_std(weight, gain * math.sqrt(2 / shapes.get(projection, 384)))
    largest = max(w.abs().max() / w.std() for w in matrices(model).values())
    assert largest > 3.5  # not cut
    assert_std(model.embedding.weight, CUT_AT_THREE * 0.02)
    assert_std(model.head.weight, CUT_AT_THREE * 0.02)


def test_embedding_std_is_not_cut_and_touches_nothing_else() -> None:
    model, plain = build(embedding_std=0.5), build()
    assert_std(model.embedding.weight, 0.5)
    assert model.embedding.weight.abs().max() > 1.75
    for name, weight in model.named_parameters():
        if name != "embedding.weight":
            assert torch.equal(weight, plain.get_parameter(name))


@pytest.mark.parametrize("init", ["normal", "ds", "scaled", "deepnorm"])
def test_paired_across_placements(init: str) -> None:
    expected = dict(build(init=init).named_parameters())
    for placement in PLACEMENTS:
        for name, weight in build(init=init, placement=placement, qk_norm=True).named_parameters():
            if weight.ndim == 1:
                assert torch.equal(weight, torch.ones_like(weight))
            else:
                assert torch.equal(weight, expected[name])


@pytest.mark.parametrize(
    ("fields", "start"),
    [
        ({"gain": "rezero"}, 0.0),
        ({"gain": "rezero", "gain_init": 0.5}, 0.5),
        ({"gain": "layerscale", "layers": 18}, 0.1),
        ({"gain": "layerscale", "layers": 24}, 1e-5),
        ({"gain": "layerscale", "layers": 25}, 1e-6),
        ({"gain": "layerscale", "gain_init": 0.0}, 0.0),
        ({"drop_path": 0.3}, None),
    ],
)
def test_gains_start_as_published_and_change_no_other_weight(
    fields: dict, start: float | None
) -> None:
    small = {"width": 16, "heads": 2, "vocab_size": 32, "feed_forward": 24}
    model = build(**small, **fields)
    plain = dict(build(**small, layers=model.config.layers).named_parameters())
    found = dict(model.named_parameters())
    gains = {name: found.pop(name) for name in list(found) if ".gains." in name}
    assert bool(gains) == (start is not None)
    assert all(torch.equal(gain, torch.full_like(gain, start)) for gain in gains.values())
    assert found.keys() == plain.keys()
    assert all(torch.equal(weight, plain[name]) for name, weight in found.items())


def test_depends_on_the_seed_and_the_name_only() -> None:
    model = build()
    weights = [w.clone() for w in model.parameters() if w.ndim == 2]
    assert len({round(w.flatten()[0].item(), 9) for w in weights}) == len(weights)
    initialize(model, seed=1)
    other = [w.clone() for w in model.parameters() if w.ndim == 2]
    assert not any(torch.equal(a, b) for a, b in zip(weights, other, strict=True))
    torch.manual_seed(5)
    initialize(model, seed=0)
    again = [w for w in model.parameters() if w.ndim == 2]
    assert all(torch.equal(a, b) for a, b in zip(weights, again, strict=True))


def test_same_numbers_in_every_process() -> None:
    first = build().layers[1].feed_forward.branch.down.weight.flatten()[:3]
    assert first.tolist() == pytest.approx([-0.01967606, -0.00803523, -0.00248180], rel=1e-5)


def test_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    build()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("tied", [False, True])
def test_meta_then_empty_then_initialize(placement: str, tied: bool) -> None:
    config = ModelConfig(vocab_size=31, width=32, layers=3, placement=placement, tied=tied)
    with torch.device("meta"):
        model = Transformer(config)
    assert all(parameter.is_meta for parameter in model.parameters())
    with pytest.raises(ValueError, match="meta"):
        initialize(model, seed=0)
    initialize(model.to_empty(device="cpu"), seed=0)
    direct = Transformer(config)
    assert model.state_dict().keys() == direct.state_dict().keys()
    tokens = torch.arange(12).reshape(2, 6)
    assert torch.equal(model(tokens), direct(tokens))


def test_lower_precision_gets_the_same_numbers_rounded() -> None:
    model = build().bfloat16()
    initialize(model, seed=0)
    for name, weight in build().named_parameters():
        assert torch.equal(model.get_parameter(name), weight.bfloat16())


def test_wrappers_do_not_change_the_numbers() -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    plain, wrapped = build(), build()
    for l, layer in enumerate(wrapped.layers):
        wrapped.layers[l] = torch.compile(checkpoint_wrapper(layer))
    initialize(wrapped, seed=0)
    for weight, expected in zip(wrapped.parameters(), plain.parameters(), strict=True):
        assert torch.equal(weight, expected)
