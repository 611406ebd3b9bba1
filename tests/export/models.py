"""Small decoders with weights that leave nothing out: no norm is 1 and no branch is small."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from groundup.model import ModelConfig, Transformer

V = 53
LAYERS = 3
QK_NORMS = (False, True, "width")
CLASSES = {
    ("pre", False): "LlamaForCausalLM",
    ("pre", True): "Qwen3ForCausalLM",
    ("lns", False): "LlamaForCausalLM",
    ("lns", True): "Qwen3ForCausalLM",
    ("sandwich", False): "Glm4ForCausalLM",
    ("output", True): "Exaone4ForCausalLM",
    ("output", "width"): "Olmo2ForCausalLM",
}
"""Placement and qk_norm → the stock class; all others are GroundupForCausalLM."""
STOCK = [("pre", False), ("pre", True), ("sandwich", False), ("output", True), ("output", "width")]
"""One decoder of each stock class."""


def decoder(placement: str, qk_norm: bool | str, **settings: Any) -> Transformer:
    values = {
        "vocab_size": V, "width": 32, "layers": LAYERS, "heads": 4, "kv_heads": 2,
        "rope_theta": 300.0, "norm_eps": 1e-3, "init_std": 0.2, **settings,
    }  # fmt: skip
    config = ModelConfig(placement=placement, qk_norm=qk_norm, **values)
    model = Transformer(config).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def some_tokens(rows: int = 2, length: int = 11) -> Tensor:
    return torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(6))


def difference(found: Tensor, wanted: Tensor) -> float:
    """The largest, relative to the largest logit."""
    return ((found - wanted).abs().max() / wanted.abs().max()).item()


def by_recomputation(model: Transformer, tokens: Tensor, new: int) -> Tensor:
    """Greedy continuation of [1, T] tokens without any cache."""
    for _ in range(new):
        tokens = torch.cat((tokens, model(tokens)[:, -1:].argmax(-1)), dim=1)
    return tokens
