"""Little models, and the same with α written out by hand: what the tests here compare with."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Sequence

import torch
from torch import nn

import groundup as gu
from tests.residual.toy import PATTERNS, Net

T = 2  # the first layer's warmup; short, so that all α are 1 after a few updates
LAYERS = 4
FINISHED = T * LAYERS


def alphas(step: int, layers: int = LAYERS) -> list[float]:
    """α of `gu.depth.linear(T)`, from its formula."""
    return [min(step / (T * l), 1.0) for l in range(1, layers + 1)]


def attach(model: nn.Module, **kwargs) -> gu.Warmup:
    return gu.attach(model, gu.depth.linear(T=T), branches=PATTERNS, **kwargs)


def net(seed: int = 0, layers: int = LAYERS) -> Net:
    torch.manual_seed(seed)
    return Net(layers=layers)


def ends(model: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    """The two ends of branches in each layer of a `Net` or a Llama, found by hand."""
    if isinstance(model, Net):
        return [(block.mix.out, block.mlp[2]) for block in model.layers]
    blocks = [m for m in model.modules() if type(m).__name__ == "LlamaDecoderLayer"]
    return [(block.self_attn.o_proj, block.mlp.down_proj) for block in blocks]


def by_hand(model: nn.Module, values: Sequence[float]) -> nn.Module:
    """A copy of a model that nothing is attached to, with α as Python floats in forward hooks."""
    return hook_by_hand(copy.deepcopy(model), values)


def hook_by_hand(model: nn.Module, values: Sequence[float]) -> nn.Module:
    """The same on the model itself, for those that cannot be copied."""
    for pair, alpha in zip(ends(model), values, strict=True):
        for module in pair:
            module.register_forward_hook(lambda _m, _args, y, alpha=alpha: alpha * y)
    return model


def llama(layers: int = 3, **config) -> nn.Module:
    importlib.import_module("tests.torchvision_shim")  # before transformers
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=40,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=32,
            **config,
        )
    )
    for p in model.parameters():  # 0.02 is so little that α would hardly show in the logits
        if p.ndim > 1:
            nn.init.normal_(p, std=0.2)
    return model


def tokens() -> torch.Tensor:
    return torch.randint(0, 40, (2, 7), generator=torch.Generator().manual_seed(0))


def inputs(rows: int = 4) -> torch.Tensor:
    return torch.randn(rows, 8, generator=torch.Generator().manual_seed(1))
