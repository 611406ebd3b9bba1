"""Distributed checkpoints of a model and its optimizer, for tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

Maker = Callable[[Iterable[Any]], torch.optim.Optimizer]


def loaded(model: nn.Module, make: Maker, checkpoint: Path) -> torch.optim.Optimizer:
    """The optimizer of `model`, both as they were saved; the weights were 0 before."""
    with torch.no_grad():  # as after to_empty(): there are no norms yet
        for p in model.parameters():
            p.zero_()
    optimizer = make(model.parameters())
    weights, state = get_state_dict(model, optimizer)
    found = {"model": weights, "optimizer": state}
    dcp.load(found, checkpoint_id=checkpoint)
    set_state_dict(
        model, optimizer, model_state_dict=found["model"], optim_state_dict=found["optimizer"]
    )
    return optimizer
