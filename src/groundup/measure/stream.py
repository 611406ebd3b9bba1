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


def alikeness(x: Tensor) -> Tensor:
    """Mean cosine between different tokens of a sequence, [] float32; float64 from float64.

    Of n tokens (‖Σ u‖² − n)/(n·(n − 1)), where u is a token's x/‖x‖, which needs no n × n cosines;
    mean over sequences. Near 1 all tokens point the same way, and what follows can hardly tell them
    apart: rank collapse (arXiv:2103.03404, arXiv:2206.03126). Tokens that are 0 have no direction
    and are left out; nan where fewer than two are left.

    Args:
        x: [N, …, T, d], the batch first: N sequences, whose tokens are all of …·T. [T, d] is one
            sequence. Of [T, N, d] it would compare across the batch.

    Raises:
        ValueError: x has less than two dimensions.
    """
    if x.ndim < 2:
        raise ValueError(f"x has shape {list(x.shape)}, but must be [T, d] or [N, …, T, d]")
    sequences = x.detach()[None] if x.ndim == 2 else x.detach().flatten(1, -2)
    wide = sequences.to(torch.promote_types(x.dtype, torch.float32))
    units = torch.nn.functional.normalize(wide, dim=-1)
    n = units.square().sum((1, 2))
    together = units.sum(1).square().sum(-1)
    return torch.where(n > 1.5, (together - n) / (n * (n - 1)), torch.nan).nanmean()


def _tokens(x: Tensor) -> Tensor:
    rows = x.detach().flatten(0, -2) if x.ndim > 1 else x.detach()[None]
    return rows.to(torch.promote_types(rows.dtype, torch.float32))
