"""The size of an update: ‖Δw‖, ‖Δw‖/‖w‖, and the angle by which it turns the weights.

The three measures of early updates of arXiv:2410.23922 that need the weights alone. Everything is
computed in float64 from w and Δw = w' − w, which is exact there for weights in float32 or shorter.

The angle comes from ‖w‖², ‖Δw‖² and ⟨w, Δw⟩, by the arc tangent rather than the arc cosine:

    sin ∝ √(‖w‖²·‖Δw‖² − ⟨w, Δw⟩²),   cos ∝ ‖w‖² + ⟨w, Δw⟩

The arc cosine of a cosine near 1 cannot tell angles below 1e-8 from 0. This is off by at most about
3e-8·‖Δw‖/‖w‖: an angle of 1e-7 between rows keeps seven digits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from groundup.measure._rows import chunks, local_rows, over_ranks


def update_norm(before: Tensor, after: Tensor) -> Tensor:
    """‖w' − w‖, the ℓ2 norm of an update: 0-dim float64.

    Args:
        before: w, of any shape; a sharded DTensor is summed over its ranks.
        after: w', of the same shape.

    Raises:
        ValueError: the shapes differ.
    """
    return _tensor_sums(before, after)[1].sqrt()


def relative_update(before: Tensor, after: Tensor) -> Tensor:
    """‖w' − w‖/‖w‖: 0-dim float64; infinite if only w is 0, nan if both are.

    Args, Raises: as for `update_norm`.
    """
    weight, update, _ = _tensor_sums(before, after)
    return (update / weight).sqrt()


def angle(before: Tensor, after: Tensor) -> Tensor:
    """The angle between w and w', each taken as one long vector: 0-dim float64, in radians [0, π].

    nan where w or w' is 0, and no angle is defined.

    Example:
        >>> angle(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 2.0]))
        tensor(1.5708, dtype=torch.float64)

    Args, Raises: as for `update_norm`.
    """
    return angle_of(_tensor_sums(before, after))


def row_angles(before: Tensor, after: Tensor) -> Tensor:
    """The angle between each row of w and of w': [rows] float64, in radians.

    A row is what one output unit multiplies its inputs by: [out, in, …] has `out` of them. nan
    where a row is 0 before or after. Of a DTensor that is sharded by rows, those on this rank.

    Raises:
        ValueError: the shapes differ, or there are fewer than two dimensions.
    """
    if before.ndim < 2:
        raise ValueError(
            f"before has shape {list(before.shape)}, but rows need two dimensions at least: "
            "angle() takes a vector as one"
        )
    return angle_of(row_sums(before, after))


def row_sums(before: Tensor, after: Tensor) -> Tensor:
    """‖w‖², ‖Δw‖² and ⟨w, Δw⟩ of each row on this rank: [rows, 3] float64. A vector is one row."""
    if before.shape != after.shape:
        raise ValueError(
            f"after has shape {list(after.shape)}, but must have that of before, "
            f"{list(before.shape)}"
        )
    parts = []
    for w, moved in chunks(local_rows(before), local_rows(after)):
        delta = moved - w
        parts.append(
            torch.stack([(a * b).sum(1) for a, b in ((w, w), (delta,) * 2, (w, delta))], 1)
        )
    return torch.cat(parts)


def angle_of(sums: Tensor) -> Tensor:
    """The angle from ‖w‖², ‖Δw‖² and ⟨w, Δw⟩ (see above): [..., 3] → [...]."""
    weight, update, dot = sums.unbind(-1)
    sine = (weight * update - dot * dot).clamp_min(0.0).sqrt()
    moved = weight + 2 * dot + update  # ‖w'‖²
    turned = torch.atan2(sine, weight + dot)
    # Cancellation leaves a w' of 0 with a norm of the size of the rounding of ‖w‖.
    undefined = (weight == 0) | (moved <= 1e-30 * weight)
    return torch.where(undefined, torch.nan, turned)


def _tensor_sums(before: Tensor, after: Tensor) -> Tensor:
    return over_ranks(row_sums(before, after).sum(0)[None], [before])[0]
