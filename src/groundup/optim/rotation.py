"""Turning the rows of a weight by an angle: the geometry of rotational updates, as pure functions.

A weight in front of a normalization acts through its direction alone, and what an update does to it
is an angle. Rotational updates (arXiv:2305.17212) set that angle and keep the norm.
"""

from __future__ import annotations

import torch
from torch import Tensor

from groundup.optim.rows import row_dots, row_norms

# Taking the radial part away leaves an error of a few of its roundings. A row must not be turned by
# its full angle along that noise.
_NOISE = 16.0 * torch.finfo(torch.float32).eps
# The square of a smaller norm leaves the range of float32.
_TINY = 1e-18


def rotate_rows(
    weight: Tensor,
    direction: Tensor,
    angle: float | Tensor,
    norm: float | Tensor,
    out_dim: int = 0,
) -> Tensor:
    """Each row of `weight` turned by `angle` towards `direction`, and put onto the norm `norm`.

    w ← P(w·cos θ + ‖w‖·d·sin θ): d is the tangential part of the direction at norm 1, and
    P(x) = norm·x/‖x‖. A new tensor; in float32 exact to a rounding of the weight, also where θ² is
    lost beside 1. A row that does not turn (θ = 0; a direction that is zero, or radial to within
    rounding; ‖w‖ = 0) stays as it is, bit by bit.

    Args:
        weight: [out, in, …] float32, whole rows or a DTensor.
        direction: of the same shape and any length; its radial part is removed.
        angle: radians, for all rows or [out, 1, …].
        norm: ℓ2 norm that the rows are to have, for all or [out, 1, …].
        out_dim: what numbers the rows; 1 for [in, out], with angles and norms [1, out].

        rotate_rows(torch.tensor([[1.0, 0.0]]), torch.tensor([[5.0, 3.0]]), math.pi / 2, 2.0)
        # tensor([[0., 2.]]) within rounding
    """
    return turn_rows(weight, *tangent(weight, direction, out_dim), angle, norm, out_dim)


def tangent(weight: Tensor, direction: Tensor, out_dim: int = 0) -> tuple[Tensor, Tensor]:
    """`direction` without its radial part, d − w·⟨w, d⟩/‖w‖² in each row, and its norm [out, 1, …].

    The norm is exactly 0 where nothing but rounding is left: a direction that is zero or radial.
    Not a number stays not a number. Shapes and dtypes as in `rotate_rows`.
    """
    length = row_norms(weight, out_dim).clamp(min=_TINY)
    share = row_dots(weight, direction, out_dim) / length / length
    rest = torch.addcmul(direction, weight, share, value=-1.0)
    left = row_norms(rest, out_dim)
    noise = (_NOISE * length * share.abs()).clamp(min=_TINY)
    return rest, torch.where(left <= noise, torch.zeros_like(left), left)


def turn_rows(
    weight: Tensor,
    tangential: Tensor,
    length: Tensor,
    angle: float | Tensor,
    norm: float | Tensor,
    out_dim: int = 0,
) -> Tensor:
    """`rotate_rows` along a direction that is tangential already: the two results of `tangent`."""
    angle = torch.as_tensor(angle, dtype=torch.float32)
    before = row_norms(weight, out_dim)
    still = (length == 0.0) | (before <= _TINY) | (angle == 0.0)
    sideways = (before * torch.sin(angle) / length).masked_fill(still, 0.0)
    # cos θ − 1 in the form that keeps θ²; added to the weight, where w·cos θ would round it away.
    inwards = (-2.0 * torch.sin(angle / 2.0) ** 2 + 0.0 * length).masked_fill(still, 0.0)
    turned = (tangential * sideways).addcmul_(weight, inwards).add_(weight)
    scale = (norm / row_norms(turned, out_dim)).masked_fill(still, 1.0)
    return turned.mul_(scale)
