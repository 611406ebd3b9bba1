from __future__ import annotations

import dataclasses
from typing import Any, get_args

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from groundup.model import INITIALIZATIONS, PLACEMENTS, PRESETS, ModelConfig, Transformer, preset
from groundup.model.config import GainName, InitializationName, PlacementName
from groundup.model.gain import GAINS


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def on_meta(config: ModelConfig) -> Transformer:
    with torch.device("meta"):
        return Transformer(config)


# Name: width, feed-forward, layers, heads, and the size the name promises.
TABLE = {
    "71M": (512, 1368, 12, 8, 71e6),
    "130M": (768, 2048, 12, 12, 130e6),
    "350M": (1024, 2736, 24, 16, 350e6),
    "1.3B": (2048, 5632, 24, 32, 1.3e9),
    "3B": (2560, 6848, 32, 32, 3e9),
    "7B": (4096, 11008, 32, 32, 7e9),
}


@pytest.mark.parametrize("name", TABLE)
def test_presets_are_the_published_sizes(name: str) -> None:
    width, feed_forward, layers, _, promised = TABLE[name]
    config = preset(name)
    assert (config.width, config.feed_forward, config.layers, config.heads) == TABLE[name][:4]
    per_layer = 4 * width**2 + 3 * width * feed_forward + 2 * width
    expected = 2 * 32000 * width + layers * per_layer + width
    assert config.parameters() == expected == count(on_meta(config))
    assert config.parameters(embedding=False) == expected - 32000 * width
    assert config.parameters() == pytest.approx(promised, rel=0.12)


@pytest.mark.parametrize("layers", [12, 24, 48, 72, 96, 120])
def test_depth_study(layers: int) -> None:
    config = preset("71M", layers=layers)
    assert config.parameters() == 2 * 32000 * 512 + 512 + layers * 3_150_848
    assert config.parameters() == count(on_meta(config))


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize(
    ("qk_norm", "gain"), [(False, "layerscale"), (True, "rezero"), ("width", "none")]
)
def test_parameters_of_every_variant(placement: str, tied: bool, qk_norm: Any, gain: Any) -> None:
    config = preset(
        "tiny",
        vocab_size=101,
        placement=placement,
        tied=tied,
        qk_norm=qk_norm,
        kv_heads=2,
        gain=gain,
    )
    model = on_meta(config)
    assert config.parameters() == count(model)
    without = count(model) if tied else count(model) - model.embedding.weight.numel()
    assert config.parameters(embedding=False) == without


def test_flops_are_those_torch_counts() -> None:
    """Three times a counted forward; norms, which the formula counts in N, multiply nothing."""
    length = 32
    config = preset("tiny", vocab_size=101, layers=3)
    model = Transformer(config)
    tokens = torch.zeros(1, length, dtype=torch.int64)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(tokens)
    norms = sum(p.numel() for p in model.parameters() if p.ndim == 1)
    counted = 3 * counter.get_total_flops() / length
    assert config.flops_per_token(length) == counted + 6 * norms


@pytest.mark.parametrize(("width", "expected"), [(512, 1368), (768, 2048), (1024, 2736), (64, 176)])
def test_default_feed_forward_is_llamas(width: int, expected: int) -> None:
    assert ModelConfig(width=width).feed_forward_width == expected


def test_registries_are_the_literals() -> None:
    assert set(get_args(PlacementName)) == set(PLACEMENTS)
    assert set(get_args(InitializationName)) == set(INITIALIZATIONS)
    assert set(get_args(GainName)) == set(GAINS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"heads": 3}, "heads=3 is not valid: it must divide width=64"),
        ({"kv_heads": 3}, "kv_heads=3 is not valid: it must divide heads=4"),
        ({"kv_heads": 8}, "kv_heads=8 is not valid: it must divide heads=4"),
        ({"width": 20}, "heads=4 is not valid: it cuts width=20 into heads of 5"),
        ({"width": 0}, "width=0 is not valid: it must be a whole number"),
        ({"layers": -1}, "layers=-1 is not valid: it must be a whole number"),
        ({"layers": 2.0}, "layers=2.0 is not valid: it must be a whole number"),
        ({"layers": True}, "layers=True is not valid: it must be a whole number"),
        ({"width": None}, "width=None is not valid: it must be a whole number"),
        ({"vocab_size": 0}, "vocab_size=0 is not valid: it must be a whole number"),
        ({"feed_forward": 0}, "feed_forward=0 is not valid: it must be"),
        ({"rope_theta": 0.0}, "rope_theta=0.0 is not valid: it must be a finite number above 0"),
        ({"norm_eps": float("nan")}, "norm_eps=nan is not valid: it must be a finite number"),
        ({"init_std": float("inf")}, "init_std=inf is not valid: it must be a finite number"),
        ({"init_std": "0.02"}, "init_std='0.02' is not valid: it must be a finite number"),
        ({"embedding_std": 0}, "embedding_std=0 is not valid: it must be a finite number above 0"),
        ({"z_loss": -1e-4}, "z_loss=-0.0001 is not valid: it must be a finite number of at least"),
        ({"tied": 1}, "tied=1 is not valid: it must be true or false"),
        ({"tied": "width"}, "tied='width' is not valid: it must be true or false"),
        ({"qk_norm": 1}, "qk_norm=1 is not valid: it must be true or false or 'width'"),
        ({"qk_norm": "head"}, "qk_norm='head' is not valid: it must be true or false or 'width'"),
        ({"placement": "sandwhich"}, "placement='sandwhich' is unknown: did you mean 'sandwich'"),
        ({"placement": None}, "placement=None is unknown"),
        ({"init": "scale"}, "init='scale' is unknown: did you mean 'scaled'"),
        ({"gain": "layer-scale"}, "gain='layer-scale' is unknown: did you mean 'layerscale'"),
        ({"gain_init": 0.1}, "gain_init=0.1 would be ignored: gain='none'"),
        ({"gain": "rezero", "gain_init": float("nan")}, "gain_init=nan is not valid: it must be a"),
        ({"gain": "rezero", "gain_init": True}, "gain_init=True is not valid: it must be a finite"),
        ({"drop_path": -0.1}, "drop_path=-0.1 is not valid: it must be a finite number in [0.0"),
        ({"drop_path": 1}, "drop_path=1 is not valid: it must be below 1"),
        ({"hf_config": {"model_type": "llama"}, "gain": "rezero"}, "gain='rezero' would be ignor"),
        ({"hf_config": {"model_type": "llama"}, "drop_path": 0.1}, "drop_path=0.1 would be ignor"),
    ],
)
def test_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError) as error:
        ModelConfig(**fields)
    assert message in str(error.value)


def test_vocabulary_is_needed_where_it_is_used() -> None:
    with pytest.raises(ValueError, match="vocab_size"):
        Transformer(ModelConfig())
    with pytest.raises(ValueError, match="vocab_size"):
        ModelConfig().parameters()


def test_preset_errors_and_overrides() -> None:
    with pytest.raises(ValueError, match="preset='130m' is unknown: did you mean '130M'"):
        preset("130m")
    with pytest.raises(ValueError, match="field='layer' is unknown: did you mean 'layers'"):
        preset("71M", layer=3)
    assert preset("1.3B", width=1024).feed_forward_width == 2736
    assert preset("1.3B", width=1024, feed_forward=4096).feed_forward_width == 4096
    assert preset("71M", vocab_size=None).vocab_size is None
    assert PRESETS["tiny"].vocab_size is None


def test_every_field_has_its_help() -> None:
    source = __import__("inspect").getsource(ModelConfig)
    lines = [line.strip() for line in source.splitlines()]
    for field in dataclasses.fields(ModelConfig):
        at = next(i for i, line in enumerate(lines) if line.startswith(f"{field.name}: "))
        assert lines[at + 1].startswith('"""')
