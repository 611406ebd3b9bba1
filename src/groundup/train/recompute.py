"""Activation checkpointing (Chen et al. 2016, arXiv:1604.06174): memory for time, by layer."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

_OPS = (
    "mm",
    "addmm",
    "bmm",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_fused_attention_overrideable",
)
"""What is dear to compute again, of torch.ops.aten."""


def recompute(layers: nn.ModuleList, what: str) -> None:
    """Wrap each layer, in place. `what`: "none"; "full" keeps a layer's input only; "ops" also what
    its matrix products and its attention give."""
    if what == "none":
        return
    # Takes half a second to import.
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    settings: dict[str, Any] = {}
    if what == "ops":
        settings["context_fn"] = partial(_contexts, _ops())
    for index, layer in enumerate(layers):
        layers[index] = checkpoint_wrapper(layer, **settings)


def _contexts(ops: list[Any]) -> Any:
    from torch.utils.checkpoint import create_selective_checkpoint_contexts

    return create_selective_checkpoint_contexts(ops)


def _ops() -> list[Any]:
    aten, own = torch.ops.aten, torch.ops.groundup.attention_one_by_one.default
    return [own, *(getattr(aten, name).default for name in _OPS if hasattr(aten, name))]
