"""Dead units: those that a ReLU holds at 0 for every input of a batch, and so never learn from
it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

RELUS: tuple[type[nn.Module], ...] = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.RReLU)
"""torch's activations that treat inputs below 0 in a way of their own. A leaky one's unit is never
dead, but always on its lower slope."""

RELU_NAMES = ("ReLUSquaredActivation",)
"""The same in other libraries, by class name (squared ReLU of transformers)."""


def unit_dimension(inputs: Tensor) -> int:
    """Which dimension counts units: channels (1) of [N, C, H, W] and [N, C, D, H, W], else the
    last."""
    return 1 if inputs.ndim in (4, 5) else inputs.ndim - 1


def dead_units(inputs: Tensor, dimension: int | None = None) -> Tensor:
    """Which units of a ReLU have an input of 0 or below for the whole batch: [units] bool.

    Args:
        inputs: what goes into the ReLU, [..., units], or [N, channels, height, width].
        dimension: which one counts the units; `unit_dimension` unless given.

    Raises:
        ValueError: fewer than two dimensions: there is no batch.
    """
    if inputs.ndim < 2:
        raise ValueError(
            f"inputs have shape {list(inputs.shape)}, but need a batch and units: two dimensions"
        )
    dimension = unit_dimension(inputs) if dimension is None else dimension
    units = inputs.detach().movedim(dimension, -1).flatten(0, -2)
    return (units <= 0).all(0)


def dead_share(inputs: Tensor, dimension: int | None = None) -> Tensor:
    """The share of dead units among all, in [0, 1]: 0-dim float64.

    Args, Raises: as for `dead_units`.

    Example:
        >>> dead_share(torch.tensor([[1.0, -1.0], [-2.0, -0.5]]))
        tensor(0.5000, dtype=torch.float64)
    """
    return dead_units(inputs, dimension).to(torch.float64).mean()
