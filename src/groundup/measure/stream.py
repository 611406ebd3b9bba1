"""The residual stream: how large it is, and how much a layer turns it."""

from __future__ import annotations

import torch
from torch import Tensor


def token_norms(x: Tensor) -> Tensor:
    """‖x‖₂ of each token: [N] float32 from [..., d]; float64 from float64."""
    return torch.linalg.vector_norm(_tokens(x), dim=-1)


def token_cosines(a: Tensor, b: Tensor) -> Tensor:
    """⟨a, b⟩/(‖a‖·‖b‖) of each token: [N] float32 from [..., d]; nan where one of them is 0.

    Raises:
        ValueError: the shapes differ.
    """
    if a.shape != b.shape:
        raise ValueError(f"b has shape {list(b.shape)}, but must have that of a, {list(a.shape)}")
    first, second = _tokens(a), _tokens(b)
    return (first * second).sum(-1) / (token_norms(first) * token_norms(second))


def _tokens(x: Tensor) -> Tensor:
    rows = x.detach().flatten(0, -2) if x.ndim > 1 else x.detach()[None]
    return rows.to(torch.promote_types(rows.dtype, torch.float32))
