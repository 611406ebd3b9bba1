"""Models that are programs rather than packages, and one that nobody knows.

nanoGPT, nanochat and torchtitan are not installed to test here. Their blocks are written in the
shape that those have: the same names of modules, the same order of operations, and blocks that say
which module they come from, because that is what their rows are found by.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from tests.residual.zoo.specimen import Specimen, seeded, tokens


def _as_in(module: str, name: str = "Block") -> Callable[[type[nn.Module]], type[nn.Module]]:
    def rename(cls: type[nn.Module]) -> type[nn.Module]:
        cls.__name__, cls.__module__ = name, module
        return cls

    return rename


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, last: str = "c_proj") -> None:
        super().__init__()
        self.heads, self.last = heads, last
        self.c_attn = nn.Linear(width, 3 * width)
        self.add_module(last, nn.Linear(width, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.c_attn(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*parts, is_causal=True)
        return self.get_submodule(self.last)(mixed.transpose(1, 2).flatten(2))


class _FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc = nn.Linear(width, 2 * width)
        self.c_proj = nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c_proj(F.gelu(self.c_fc(x)))


@_as_in("model")
class _NanoGPT(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = _Attention(width, heads=2), _FeedForward(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


@_as_in("nanochat.gpt")
class _Nanochat(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attn, self.mlp = _Attention(width, heads=2), _FeedForward(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(F.rms_norm(x, x.shape[-1:]))
        return x + self.mlp(F.rms_norm(x, x.shape[-1:]))


class _SwiGLU(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.w1, self.w3 = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width)
        self.w2 = nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


@_as_in("torchtitan.models.llama3.model.model", "TransformerBlock")
class _Titan(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention, self.feed_forward = _Attention(width, 2, "wo"), _SwiGLU(width)
        self.attention_norm, self.ffn_norm = nn.RMSNorm(width), nn.RMSNorm(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x + self.attention(self.attention_norm(x))
        return h + self.feed_forward(self.ffn_norm(h))


@_as_in("torchtitan.models.llama3.model", "Llama3TransformerBlock")
class _NewerTitan(_Titan):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x + self.attention(self.attention_norm(x))
        return h + self.feed_forward(self.ffn_norm(h))


class _Decoder(nn.Module):
    def __init__(self, block: type[nn.Module], layers: int = 3, width: int = 16) -> None:
        super().__init__()
        blocks = nn.ModuleList(block(width) for _ in range(layers))
        self.transformer = nn.ModuleDict({"wte": nn.Embedding(64, width), "h": blocks})
        self.lm_head = nn.Linear(width, 64, bias=False)

    def forward(self, idx: torch.Tensor) -> torch.Tensor:
        x = self.transformer["wte"](idx)
        for block in self.transformer["h"]:
            x = block(x)
        return self.lm_head(x)


class _Llama3(nn.Module):
    def __init__(self, block: type[nn.Module], layers: int = 3, width: int = 16) -> None:
        super().__init__()
        self.tok_embeddings = nn.Embedding(64, width)
        self.layers = nn.ModuleDict({str(l): block(width) for l in range(layers)})
        self.output = nn.Linear(width, 64, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        h = self.tok_embeddings(tokens)
        for layer in self.layers.values():
            h = layer(h)
        return self.output(h)


class _ConvBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv1(self.norm1(x).relu())
        return x + self.conv2(self.norm2(y).relu())


class _ResNet(nn.Module):
    """A ResNet with pre-activation; every stage halves the resolution and doubles the width."""

    def __init__(self, depths: tuple[int, ...] = (3, 2), width: int = 4) -> None:
        super().__init__()
        widths = [width * 2**stage for stage in range(len(depths))]
        self.downs = nn.ModuleList(
            nn.Conv2d(before, after, 2, stride=2)
            for before, after in zip([3, *widths], widths, strict=False)
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(_ConvBlock(w) for _ in range(depth)))
            for w, depth in zip(widths, depths, strict=True)
        )
        self.head = nn.Linear(widths[-1], 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = image
        for down, stage in zip(self.downs, self.stages, strict=True):
            x = stage(down(x))
        return self.head(x.mean(dim=(-2, -1)))


def _resnet() -> nn.Module:
    model = _ResNet()
    model(seeded(4, 3, 16, 16))  # statistics of batches that are not the ones they start with
    return model


def _idx() -> dict[str, Any]:
    return {"idx": tokens()}


def _tokens() -> dict[str, Any]:
    return {"tokens": tokens()}


SPECIMENS = [
    Specimen("nanoGPT", "model.py", lambda: _Decoder(_NanoGPT), _idx, {"transformer.h": 3}),
    Specimen("nanochat", "nanochat", lambda: _Decoder(_Nanochat), _idx, {"transformer.h": 3}),
    Specimen("Llama 3 (0.2.2)", "torchtitan", lambda: _Llama3(_Titan), _tokens, {"layers": 3}),
    Specimen("Llama 3", "torchtitan", lambda: _Llama3(_NewerTitan), _tokens, {"layers": 3}),
    Specimen(
        "ResNet, two stages",
        "plain torch",
        _resnet,
        lambda: {"image": seeded(2, 3, 16, 16)},
        {"stages.0": 3, "stages.1": 2},
        branches=1,
        patterns=["stages.0.{l}.conv2", "stages.1.{l}.conv2"],
    ),
]
