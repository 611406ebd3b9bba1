"""The tensors of a model and an optimizer under the names that they have in a checkpoint.

These are the names that the model's author gave, so that torch.compile and activation
checkpointing may differ between writing and reading.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate

from groundup.residual.names import stock_name, unwrap
from groundup.train.checkpoint.errors import CheckpointError

MODEL = "model."
STATE = "optimizer.state."
GROUPS = "optimizer.param_groups."


def of_model(model: nn.Module) -> dict[str, Tensor]:
    """Its parameters and persistent buffers, themselves."""
    # FSDP2 shards again here what a forward pass has left whole.
    state = unwrap(model).state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise CheckpointError(
                f"{name} in the model's state_dict is a {type(value).__name__}: a checkpoint holds "
                "tensors only"
            )
    return {f"{MODEL}{stock_name(name)}": value for name, value in state.items()}


def parameters(model: nn.Module) -> dict[Tensor, str]:
    """The name of each parameter; of a shared one the first. After `of_model`."""
    return {p: stock_name(name) for name, p in unwrap(model).named_parameters()}


def of_optimizer(model: nn.Module, optimizer: Any) -> dict[str, Tensor]:
    """The tensors in its state, and those among the settings of its groups. After `of_model`, and
    in all processes.

    Raises:
        CheckpointError: naming a parameter that is not the model's.
    """
    found: dict[str, Tensor] = {}
    names = parameters(model)
    for group in optimizer.param_groups:
        for p in group["params"]:
            if p not in names:
                raise CheckpointError(
                    f"the optimizer updates a tensor of shape {tuple(p.shape)} that is no "
                    "parameter of the model"
                )
    for p, entries in optimizer.state.items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                found[f"{STATE}{names[p]}.{key}"] = _summed(value)
    for group in optimizer.param_groups:
        for key, value in group.items():
            if isinstance(value, Tensor) and group["params"]:
                found[f"{GROUPS}{names[group['params'][0]]}.{key}"] = value
    return found


def _summed(value: Tensor) -> Tensor:
    """A sum that its processes hold the terms of (a norm over rows that are sharded) added up."""
    if not isinstance(value, DTensor) or not any(where.is_partial() for where in value.placements):
        return value
    whole = [Replicate() if where.is_partial() else where for where in value.placements]
    return value.redistribute(placements=whole)
