"""Rows of a weight: the incoming weights of one output unit, which rotational updates turn.

A tensor of shape [out, in, …] has `out` rows of all that follows flattened. Where another dimension
numbers the output units, it is given as `out_dim`: 1 for weights stored [in, out] (the Conv1D of
transformers), whose "rows" are columns; results of a number for each row are [1, out] then.

Under FSDP2 (DTensor sharded by rows, or replicated) every row lies whole on one rank, and the local
shard is all that is needed: no communication. Sharded any other way (tensor parallelism by columns,
FSDP2 with out_dim=1) the DTensor itself is used and PyTorch reduces over the ranks.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn


def stored_in_out(module: nn.Module) -> bool:
    """Whether a module's weight is [in, out]: the Conv1D of transformers (GPT-2), a linear map."""
    if not any(kind.__name__ == "Conv1D" for kind in type(module).__mro__):  # FSDP2 subclasses it
        return False
    weight = getattr(module, "weight", None)
    return hasattr(module, "nf") and isinstance(weight, Tensor) and weight.ndim == 2


def turns(parameter: Tensor, rotational: bool | None, out_dim: int = 0) -> bool:
    """Whether a parameter is treated row by row in a group of this setting.

    None: if it has rows that can turn, of two elements or more ([out, 1] has none: the direction of
    a single number is its sign). True: it must have them; False: it is not.

    Raises:
        ValueError: for True and a parameter without such rows; for an `out_dim` that a parameter of
            two dimensions or more does not have, unless `rotational` is False.
    """
    if rotational is not False and 2 <= parameter.ndim <= out_dim:
        raise ValueError(
            f"out_dim={out_dim} is not valid for a parameter of shape {tuple(parameter.shape)}: "
            f"it must be a whole number from 0 to {parameter.ndim - 1}"
        )
    within = [n for dim, n in enumerate(parameter.shape) if dim != out_dim]
    able = parameter.ndim >= 2 and math.prod(within) >= 2
    if rotational and not able:
        raise ValueError(
            f"rotational=True is not valid for a parameter of shape {tuple(parameter.shape)}: it "
            "has no rows of two elements or more; leave it to a group with rotational=False"
        )
    return able if rotational is None else rotational


def whole_rows(tensor: Tensor, out_dim: int = 0) -> Tensor:
    """The part of `tensor` on this rank if that holds whole rows, otherwise `tensor` itself.

    Shares memory with it, so that writing into the result writes into the parameter.
    """
    placements = _placements(tensor)
    by_rows = placements is not None and all(_by_rows(p, out_dim) for p in placements)
    return local(tensor) if by_rows else tensor


def local(tensor: Tensor) -> Tensor:
    """The part of `tensor` on this rank (shared memory), for what is done element by element."""
    return tensor if _placements(tensor) is None else tensor.to_local()  # type: ignore[attr-defined]


def dealt_like(part: Tensor, tensor: Tensor) -> Tensor:
    """The inverse of `local`: the distributed tensor whose part on this rank is `part`.

    `part` itself where `tensor` is a plain one.
    """
    if _placements(tensor) is None:
        return part
    from torch.distributed.tensor import DTensor  # takes half a second to import

    assert isinstance(tensor, DTensor)
    return DTensor.from_local(
        part,
        tensor.device_mesh,
        tensor.placements,
        run_check=False,
        shape=tensor.shape,
        stride=tensor.stride(),
    )


def placed_like(tensor: Tensor, other: Tensor) -> Tensor:
    """A distributed tensor with its parts on the ranks where those of `other` are."""
    placements = _placements(other)
    if placements is None or _placements(tensor) == placements:
        return tensor
    return tensor.redistribute(placements=placements)  # type: ignore[attr-defined]


def row_norms(tensor: Tensor, out_dim: int = 0) -> Tensor:
    """ℓ2 norm of each row: [out, 1, …], of as many dimensions as `tensor`.

    In float32 whatever the dtype of `tensor`, but float64.
    """
    dims, dtype = _within_row(tensor, out_dim), torch.promote_types(tensor.dtype, torch.float32)
    return _summed(torch.linalg.vector_norm(tensor, dim=dims, keepdim=True, dtype=dtype))


def row_dots(a: Tensor, b: Tensor, out_dim: int = 0) -> Tensor:
    """Inner product of each row of `a` with that of `b`: [out, 1, …]."""
    return _summed((a * b).sum(dim=_within_row(a, out_dim), keepdim=True))


def _summed(tensor: Tensor) -> Tensor:
    """Reduced over the ranks now and once, rather than at each use."""
    placements = _placements(tensor)
    if placements is None or not any(p.is_partial() for p in placements):
        return tensor
    from torch.distributed.tensor import Replicate

    whole = [Replicate() if p.is_partial() else p for p in placements]
    return tensor.redistribute(placements=whole)  # type: ignore[attr-defined]


def _within_row(tensor: Tensor, out_dim: int) -> tuple[int, ...]:
    if tensor.ndim < 2:  # torch takes an empty list of dimensions for all of them
        raise ValueError(
            f"a tensor of shape {tuple(tensor.shape)} has no rows: two dimensions or more are valid"
        )
    return tuple(dim for dim in range(tensor.ndim) if dim != out_dim)


def _placements(tensor: Tensor) -> tuple[Any, ...] | None:
    # Not by class: a process without distributed tensors need not import them.
    return getattr(tensor, "placements", None)


def _by_rows(placement: Any, out_dim: int) -> bool:
    # Shard and the strided one (FSDP2 over tensor parallelism) have a `dim`, Partial has none.
    return placement.is_replicate() or getattr(placement, "dim", None) == out_dim
