"""The Transformer layers of torch.nn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from tests.residual.zoo.specimen import Specimen, seeded

_SIZES: dict[str, Any] = {"d_model": 16, "nhead": 2, "dim_feedforward": 24, "batch_first": True}

_NORMS = ("norm1", "norm2", "norm3")


def _encoder(**settings: Any) -> Callable[[], nn.Module]:
    return lambda: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(**_SIZES, **settings),
        num_layers=3,
        norm=nn.LayerNorm(16),
        enable_nested_tensor=not settings.get("norm_first", False),
    )


def _decoder(**settings: Any) -> Callable[[], nn.Module]:
    return lambda: nn.TransformerDecoder(
        nn.TransformerDecoderLayer(**_SIZES, **settings), num_layers=3, norm=nn.LayerNorm(16)
    )


def _both(**settings: Any) -> Callable[[], nn.Module]:
    return lambda: nn.Transformer(**_SIZES, num_encoder_layers=3, num_decoder_layers=2, **settings)


def _source() -> dict[str, Any]:
    return {"src": seeded(2, 7, 16)}


def _target_and_memory() -> dict[str, Any]:
    return {"tgt": seeded(2, 5, 16), "memory": seeded(2, 7, 16)}


def _source_and_target() -> dict[str, Any]:
    return _source() | {"tgt": seeded(2, 5, 16)}


# An nn.Transformer asks its first layer how to run; what is left without layers is the last norm.
def _norm_of(name: str) -> Callable[[nn.Module, dict[str, Any]], torch.Tensor]:
    return lambda model, inputs: model.get_submodule(name)(inputs.get("tgt", inputs.get("src")))


SPECIMENS = [
    Specimen(
        "TransformerEncoderLayer",
        "torch.nn",
        _encoder(),
        _source,
        {"layers": 3},
        norms=_NORMS[:2],
        remark="the fused path for inference is off meanwhile",
    ),
    Specimen(
        "TransformerEncoderLayer, norm_first",
        "torch.nn",
        _encoder(norm_first=True, activation="gelu"),
        _source,
        {"layers": 3},
        bare=_norm_of("norm"),
        remark="the fused path for inference is off meanwhile",
    ),
    Specimen(
        "TransformerDecoderLayer",
        "torch.nn",
        _decoder(),
        _target_and_memory,
        {"layers": 3},
        branches=3,
        norms=_NORMS,
    ),
    Specimen(
        "TransformerDecoderLayer, norm_first",
        "torch.nn",
        _decoder(norm_first=True),
        _target_and_memory,
        {"layers": 3},
        branches=3,
        bare=_norm_of("norm"),
    ),
    Specimen(
        "Transformer",
        "torch.nn",
        _both(),
        _source_and_target,
        {"encoder.layers": 3, "decoder.layers": 2},
        branches={"encoder.layers": 2, "decoder.layers": 3},
        norms={"encoder.layers": _NORMS[:2], "decoder.layers": _NORMS},
        remark="the fused path for inference is off meanwhile",
    ),
    Specimen(
        "Transformer, norm_first",
        "torch.nn",
        _both(norm_first=True),
        _source_and_target,
        {"encoder.layers": 3, "decoder.layers": 2},
        branches={"encoder.layers": 2, "decoder.layers": 3},
        bare=_norm_of("decoder.norm"),
        remark="the fused path for inference is off meanwhile",
    ),
]
