"""What an optimizer keeps that is no tensor: counts and flags in its groups, numbers in its state.

Many optimizers keep their step count there. Beside a checkpoint's tensors it stands as JSON.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def gather(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """{"groups": one table a group, "state": parameter name → table}, plain values only."""
    names = _names(model)
    state = {
        names[parameter]: table
        for parameter, entries in optimizer.state.items()
        if parameter in names and (table := _plain(entries))
    }
    return {"groups": [_plain(group) for group in optimizer.param_groups], "state": state}


def restore(model: nn.Module, optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Write what `gather` found back."""
    for group, table in zip(optimizer.param_groups, saved["groups"], strict=True):
        _write(group, table)
    parameters = {name: parameter for parameter, name in _names(model).items()}
    for name, table in saved["state"].items():
        _write(optimizer.state[parameters[name]], table)


def _names(model: nn.Module) -> dict[Tensor, str]:
    return {parameter: name for name, parameter in model.named_parameters()}


def _plain(table: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key != "params" and _is_plain(value)}


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_plain(one) for one in value)
    return value is None or isinstance(value, bool | int | float | str)


def _write(table: dict[str, Any], saved: dict[str, Any]) -> None:
    for key, value in saved.items():
        table[key] = tuple(value) if isinstance(table.get(key), tuple) else value
