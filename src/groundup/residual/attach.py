"""`attach`: residual warmup on a model, in one line."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from groundup._check import count
from groundup.residual import scale
from groundup.residual.branches import find_branches
from groundup.residual.warmup import Warmup
from groundup.schedules import DepthSchedule


def attach(
    model: nn.Module,
    schedule: DepthSchedule,
    *,
    branches: Sequence[str] | None = None,
    depth: int | None = None,
) -> Warmup:
    """Multiply the residual branches of `model` by α(l, step) (ProRes, arXiv:2603.05369).

    Parameter names stay the stock ones. α is exact under ``.to(torch.bfloat16)``, after
    construction on the meta device, after a move, after loading. A ``deepcopy`` of the model keeps
    the α it was copied with: attach to an average of the weights (EMA) on its own, after
    `groundup.residual.remove_scaling`, or it stays at the α of its beginning.

    Args:
        model: any module; `groundup.model.Transformer` names its own branches.
        schedule: one of `groundup.depth`.
        branches: for any other model, the modules that end its residual branches (the last
            operation before the addition), by name with ``{l}`` for the layer:
            ``["layers.{l}.attn.wo", "layers.{l}.mlp.w2"]``.
        depth: the number of layers L of the whole model, where `model` is only a part of it (a
            pipeline stage). Default: the highest layer number in the names, plus one.

    Example:
        >>> warmup = groundup.attach(model, groundup.depth.linear(T=1000))  # doctest: +SKIP
        >>> warmup.follow(optimizer)                                         # doctest: +SKIP

    Raises:
        ValueError: if the model is unknown and no branches are given, a pattern matches nothing or
            unequally over the layers, depth is below the number of layers found, or the model is
            attached already.
    """
    if not isinstance(schedule, DepthSchedule):
        raise ValueError(
            f"schedule={schedule!r} is not valid: make one with groundup.depth, such as "
            "groundup.depth.linear(T=1000)"
        )
    found = find_branches(model, branches)
    if taken := [branch.name for branch in found if scale.alpha_of(branch.module) is not None]:
        raise ValueError(
            f"{taken[0]} is scaled already: detach() its Warmup first (for a deepcopy of an "
            "attached model: groundup.residual.remove_scaling(model))"
        )
    layers = found[-1].layer + 1
    depth = layers if depth is None else count("depth", depth)
    if depth < layers:
        raise ValueError(f"depth={depth} is not valid: the model has a layer number {layers}")
    return Warmup(model, schedule, depth, found)
