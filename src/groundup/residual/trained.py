"""Whether weights look trained: norms begin with equal weights and do not end so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException

from groundup.residual.branches import Branch


def looks_trained(branches: Sequence[Branch]) -> bool:
    """Whether any norm of the first layer has weights that differ from one another.

    Every library starts the weights of a norm at one value (1, or 0 where 1 + w is what counts).
    A model without such norms, or on the meta device, cannot be told and counts as untrained.
    """
    try:
        return any(bool((weight != weight[0]).any()) for weight in _norm_weights(branches[0].block))
    except DataDependentOutputException:  # fake tensors have no values
        return False


def _norm_weights(block: nn.Module) -> Iterator[Tensor]:
    for module in block.modules():
        weight = getattr(module, "weight", None)
        if "Norm" in type(module).__name__ and isinstance(weight, Tensor) and weight.ndim == 1:
            local = weight.to_local() if hasattr(weight, "to_local") else weight  # FSDP2: a shard
            if local.device.type != "meta" and local.numel() > 1:
                yield local.detach().to(torch.float32)
