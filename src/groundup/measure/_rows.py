"""Sums over rows of weights, in float64, wherever the rows lie (plain tensors and FSDP2's)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from groundup.optim.rows import whole_rows

_CHUNK = 1 << 22  # elements worked on at once: 32 MiB of float64


def local_rows(tensor: Tensor) -> Tensor:
    """The rows of `tensor` on this rank, detached; all of them where they are cut up."""
    return whole(whole_rows(tensor.detach()))


def whole(tensor: Tensor) -> Tensor:
    """`tensor` itself, detached, gathered from all ranks where it is sharded."""
    tensor = tensor.detach()
    return tensor.full_tensor() if _is_distributed(tensor) else tensor  # type: ignore[attr-defined]


def chunks(*tensors: Tensor) -> Iterator[list[Tensor]]:
    """Tensors of one shape as float64 matrices [some rows, columns], a few rows at a time.

    A vector is one row.
    """
    matrices = [t.reshape(1, -1) if t.ndim < 2 else t.flatten(1) for t in tensors]
    count, columns = matrices[0].shape
    step = max(1, _CHUNK // max(1, columns))
    for start in range(0, max(1, count), step):  # once where a rank has no rows
        yield [m[start : start + step].to(torch.float64) for m in matrices]


def over_ranks(sums: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """`sums` [tensors, …] of what `local_rows` gave, added up over the ranks that share a tensor.

    One all-reduce for all tensors that are sharded alike; none for plain ones.
    """
    alike: dict[tuple, list[int]] = {}
    for index, tensor in enumerate(tensors):
        if _is_distributed(tensor) and not _is_distributed(whole_rows(tensor)):
            shared: Any = tensor
            alike.setdefault((shared.device_mesh, shared.placements), []).append(index)
    if not alike:
        return sums
    from torch.distributed.tensor import DTensor, Partial

    result = sums.clone()
    for (mesh, placements), indices in alike.items():
        kinds = [p if p.is_replicate() else Partial() for p in placements]
        part = DTensor.from_local(sums[indices], mesh, kinds, run_check=False)
        result[indices] = part.full_tensor()
    return result


def _is_distributed(tensor: Tensor) -> bool:
    # Not by class: torch.distributed.tensor takes half a second to import.
    return hasattr(tensor, "placements")
