"""The same decoder twice: ours, and in transformers, with the weights copied name by name."""

from __future__ import annotations

from typing import Any

import torch

import groundup.hf as hf
from groundup.model import ModelConfig, Transformer

PLACEMENTS = ("deepnorm", "output", "post", "pre", "sandwich")
QK_NORMS = (False, True, "width")
CASES = [(placement, qk_norm) for placement in PLACEMENTS for qk_norm in QK_NORMS]
FEW = [(placement, QK_NORMS[i % 3]) for i, placement in enumerate(PLACEMENTS)]
V, L = 29, 3

# The norms of a branch, by what they are called in groundup.model: before (-1) or after it (1).
_SIDE = {
    "pre": {"norm": -1},
    "post": {"norm": 1},
    "sandwich": {"norm": -1, "post_norm": 1},
    "deepnorm": {"norm": 1},
    "output": {"post_norm": 1},
}
_NORMS = {
    "attention": {-1: "input_layernorm", 1: "post_attention_layernorm"},
    "feed_forward": {-1: "pre_feedforward_layernorm", 1: "post_feedforward_layernorm"},
}
_MODULES = {
    "attention.branch.query": "self_attn.q_proj",
    "attention.branch.key": "self_attn.k_proj",
    "attention.branch.value": "self_attn.v_proj",
    "attention.branch.output": "self_attn.o_proj",
    "attention.branch.query_norm": "self_attn.q_norm",
    "attention.branch.key_norm": "self_attn.k_norm",
    "feed_forward.branch.gate": "mlp.gate_proj",
    "feed_forward.branch.up": "mlp.up_proj",
    "feed_forward.branch.down": "mlp.down_proj",
}
_OUTSIDE = {"embedding": "model.embed_tokens", "norm": "model.norm", "head": "lm_head"}


def ours(placement: str, qk_norm: bool | str, **more: Any) -> Transformer:
    """A decoder whose norms are not 1 and whose branches are not small."""
    config = ModelConfig(
        **{
            "vocab_size": V,
            "width": 32,
            "layers": L,
            "heads": 4,
            "kv_heads": 2,
            "feed_forward": 40,
            "rope_theta": 500.0,
            "norm_eps": 1e-3,
            "placement": placement,
            "qk_norm": qk_norm,
        }
        | more
    )
    model = Transformer(config)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.3 * noise if parameter.ndim == 1 else 0.3 * noise)
    return model


def configured(c: ModelConfig, **more: Any) -> hf.GroundupConfig:
    return hf.GroundupConfig(
        vocab_size=c.vocab_size,
        hidden_size=c.width,
        intermediate_size=c.feed_forward,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        num_key_value_heads=c.kv_heads,
        rms_norm_eps=c.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
        tie_word_embeddings=c.tied,
        max_position_embeddings=64,
        placement=c.placement,
        qk_norm=c.qk_norm,
        **more,
    )


def theirs(model: Transformer, **more: Any) -> hf.GroundupForCausalLM:
    """The decoder in transformers, in evaluation mode."""
    copy = hf.GroundupForCausalLM(configured(model.config, **more)).eval()
    state = {
        renamed(name, model.config.placement): value for name, value in model.state_dict().items()
    }
    if model.config.tied:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    copy.load_state_dict(state)
    return copy


def renamed(name: str, placement: str) -> str:
    module = name.removesuffix(".weight")
    if module in _OUTSIDE:
        return f"{_OUTSIDE[module]}.weight"
    _, number, inside = module.split(".", 2)
    if inside not in _MODULES:
        branch, norm = inside.split(".")
        return f"model.layers.{number}.{_NORMS[branch][_SIDE[placement][norm]]}.weight"
    return f"model.layers.{number}.{_MODULES[inside]}.weight"


def tokens(batch: int = 2, length: int = 11, seed: int = 0) -> torch.Tensor:
    return torch.randint(V, (batch, length), generator=torch.Generator().manual_seed(seed))
