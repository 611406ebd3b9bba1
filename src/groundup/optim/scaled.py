"""One update made larger or smaller, its weight decay left alone, with any torch optimizer.

Decoupled decay is multiplied by the rate (torch's AdamW: w ← w·(1 − η·λ) − η·u), so that an update
of c·u has rate c·η and decay λ/c.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from groundup._check import positive

_Rate = TypeVar("_Rate", float, Tensor)


def scaled(rate: _Rate, weight_decay: float, scale: float) -> tuple[_Rate, float]:
    """Rate and decoupled weight decay that make the update `scale` times as large: c·η, λ/c.

    Both as they are for a scale of 1. A rate in a tensor is not written to.
    """
    return (rate, weight_decay) if scale == 1.0 else (rate * scale, weight_decay / scale)


@contextlib.contextmanager
def scaled_update(
    optimizer: torch.optim.Optimizer,
    scales: Sequence[float],
    decoupled: Sequence[bool] | None = None,
) -> Iterator[None]:
    """Within, group i has the rate c·lr and the weight decay λ/c, c = scales[i] > 0.

    Where ``decoupled[i]`` is False, λ stays as it is: decay that is added to the gradient (L2) is
    scaled with the update. Afterwards, also after an exception, the groups hold the very objects
    that they held before. A rate in a tensor is replaced meanwhile, not filled: several groups may
    share one. An ``optimizer.step`` compiled with such a rate is not compiled again.

    Not for optimizers that turn weights, whose angle √(2·lr·λ) this leaves as it is: theirs is
    ``state[p]["update_scale"]``.

    Raises:
        ValueError: if a scale is not a finite number above 0, or their number is not that of the
            groups.

    Example:
        >>> weight = torch.nn.Parameter(torch.ones(1))
        >>> optimizer = torch.optim.AdamW([weight], lr=1.0, weight_decay=0.5)
        >>> with scaled_update(optimizer, [0.25]):
        ...     optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]
        (0.25, 2.0)
    """
    groups = optimizer.param_groups
    divide = [True] * len(groups) if decoupled is None else list(decoupled)
    for field, given in (("scales", scales), ("decoupled", divide)):
        if len(given) != len(groups):
            raise ValueError(
                f"{field} has length {len(given)}, which is not valid: the optimizer has "
                f"{len(groups)} groups"
            )
    for i, scale in enumerate(scales):
        positive(f"scales[{i}]", scale)
    fields: tuple[str, ...] = ("lr", "weight_decay")
    kept = [{key: group[key] for key in fields if key in group} for group in groups]
    try:
        for group, scale, divided in zip(groups, scales, divide, strict=True):
            rate, decay = scaled(group["lr"], group.get("weight_decay", 0.0), scale)
            group["lr"] = rate
            if divided and "weight_decay" in group:
                group["weight_decay"] = decay
        yield
    finally:
        for group, before in zip(groups, kept, strict=True):
            group.update(before)
