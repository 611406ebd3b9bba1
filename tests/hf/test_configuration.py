from __future__ import annotations

import importlib
from typing import Any

import pytest

import groundup.hf as hf
from tests.hf.decoders import PLACEMENTS


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"placement": "sandwhich"}, "placement='sandwhich'.*'sandwich'"),
        ({"placement": "lns"}, "placement='lns' is unknown"),
        ({"qk_norm": "heads"}, "qk_norm='heads' is not valid.*'width'"),
        ({"qk_norm": 1}, "qk_norm=1 is not valid"),
        ({"vocab_size": 0}, "vocab_size=0"),
        ({"hidden_size": 4.5}, "hidden_size=4.5"),
        ({"num_hidden_layers": -1}, "num_hidden_layers=-1"),
        ({"rms_norm_eps": 0}, "rms_norm_eps=0"),
        ({"initializer_range": -0.1}, "initializer_range=-0.1"),
        ({"num_attention_heads": 5}, "num_attention_heads=5.*hidden_size=768"),
        ({"num_key_value_heads": 5}, "num_key_value_heads=5.*num_attention_heads=12"),
        ({"hidden_size": 36}, "num_attention_heads=12.*size 3"),
        ({"head_dim": 7}, "size 7"),
    ],
)
def test_bad_values_are_refused_by_name(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        hf.GroundupConfig(**fields)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("qk_norm", [False, True, "width"])
def test_what_is_written_is_read(placement: str, qk_norm: bool | str) -> None:
    config = hf.GroundupConfig(
        vocab_size=33,
        hidden_size=32,
        num_attention_heads=4,
        num_key_value_heads=1,
        placement=placement,
        qk_norm=qk_norm,
        eos_token_id=3,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 7.0},
        head_dim=16,
    )
    again = hf.GroundupConfig.from_dict(config.to_dict())
    assert again.to_dict() == config.to_dict()
    assert (again.placement, again.qk_norm) == (placement, qk_norm)
    assert (again.head_dim, again.num_key_value_heads, again.eos_token_id) == (16, 1, 3)
    assert again.rope_parameters["rope_theta"] == 7.0


def test_registering_twice_is_registering_once() -> None:
    from transformers import AutoConfig

    importlib.reload(hf)
    assert isinstance(AutoConfig.for_model("groundup"), hf.GroundupConfig)
