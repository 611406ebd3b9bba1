"""Rotary positions: queries and keys are turned by an angle that grows with the position."""

from __future__ import annotations

import torch
from torch import Tensor

from groundup.model.config import ModelConfig


class Rotary:
    """Cosine and sine of the angles position·theta^(-2i/D), each [T, D], float32 or float64.

    Su et al. 2021, arXiv:2104.09864. Element i is paired with i + D/2, as by Llama in Hugging
    Face, so the D/2 angles come twice.

    Computed once per forward: a buffer would be rounded by `.to(torch.bfloat16)` and wiped by
    `to_empty`. Passed to the layers as an object: with a `MixedPrecisionPolicy`, FSDP rounds
    every floating-point tensor among a layer's arguments to the compute dtype, also inside
    tuples, dicts and dataclasses, but not inside a plain class.
    """

    def __init__(self, cos: Tensor, sin: Tensor) -> None:
        self.cos = cos
        self.sin = sin

    @classmethod
    def of(cls, length: int, config: ModelConfig, like: Tensor) -> Rotary:
        """The angles of positions 0 to length - 1, on the device of `like`; float64 if it is."""
        dtype = torch.promote_types(like.dtype, torch.float32)
        pairs = torch.arange(0, config.head_dim, 2, dtype=dtype, device=like.device)
        positions = torch.arange(length, dtype=dtype, device=like.device)
        angles = positions[:, None] * config.rope_theta ** (-pairs / config.head_dim)
        angles = torch.cat((angles, angles), dim=-1)
        return cls(angles.cos(), angles.sin())

    def turn(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Turns each pair (x_i, x_{i+D/2}) of x [..., T, D] in float32; returns it in `dtype`."""
        first, second = x.chunk(2, dim=-1)
        return (x * self.cos + torch.cat((-second, first), dim=-1) * self.sin).to(dtype)
