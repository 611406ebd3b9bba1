"""What an optimizer keeps that is no tensor: counts and flags in its groups, numbers in its state.

Many optimizers keep their step count there. Beside a checkpoint's tensors it stands as JSON.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from groundup.train.checkpoint import names
from groundup.train.checkpoint.errors import CheckpointError

# Which kernels make the update: those that fit the tensors of this process, not of the one that
# saved (torch's fused SGD takes no shards).
_OF_THE_PROCESS = {"fused", "foreach", "capturable"}


def gather(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """{"groups": one table a group, "state": parameter name → table}, plain values only.

    Raises:
        CheckpointError: naming what is kept for a parameter and is neither plain nor a tensor.
    """
    state = {}
    known = names.parameters(model)
    for parameter, entries in optimizer.state.items():
        for key, value in entries.items():
            if not isinstance(value, Tensor) and not _is_plain(value):
                raise CheckpointError(
                    f"{type(optimizer).__name__} keeps {key!r}, a {type(value).__name__}, for "
                    f"{known[parameter]}: a checkpoint holds tensors and plain values only"
                )
        if table := _plain(entries):
            state[known[parameter]] = table
    return {"groups": [_plain(group) for group in optimizer.param_groups], "state": state}


def restore(model: nn.Module, optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Write what `gather` found back."""
    for group, table in zip(optimizer.param_groups, saved["groups"], strict=True):
        _write(group, {key: table[key] for key in table if key not in _OF_THE_PROCESS})
    parameters = {name: parameter for parameter, name in names.parameters(model).items()}
    for name, table in saved["state"].items():
        _write(optimizer.state[parameters[name]], table)


def _plain(table: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key != "params" and _is_plain(value)}


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(one) for one in value)
    return value is None or isinstance(value, bool | int | float | str)


def _write(table: dict[str, Any], saved: dict[str, Any]) -> None:
    for key, value in saved.items():
        now = table.get(key)
        if isinstance(now, Tensor) and isinstance(value, int | float):
            now.fill_(value)  # a rate that torch.compile shall see change
        else:
            table[key] = tuple(value) if isinstance(now, tuple) else value
