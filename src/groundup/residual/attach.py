"""`attach`: residual warmup on a model, in one line."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Sequence

from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from groundup._check import unknown
from groundup.residual import scale
from groundup.residual.branches import Branch, find_branches
from groundup.residual.names import unwrap
from groundup.residual.numbering import number
from groundup.residual.trained import looks_trained
from groundup.residual.warmup import Warmup
from groundup.schedules import DepthSchedule
from groundup.schedules.depth import DORMANT, WAITING


def attach(
    model: nn.Module,
    schedule: DepthSchedule,
    *,
    branches: Sequence[str] | None = None,
    depth: int | None = None,
    layers: Collection[int] | None = None,
    stacks: str = "each",
    dormant: str = "run",
) -> Warmup:
    """Multiply the residual branches of `model` by α(l, step) (ProRes, arXiv:2603.05369).

    Parameter names stay the stock ones. α is exact under ``.to(torch.bfloat16)``, after
    construction on the meta device, after a move, after loading. A ``deepcopy`` of the model shares
    its α, so that an average of the weights (EMA) is warmed up along with it.

    Args:
        model: a model of transformers, timm, torch.nn, torchtitan or nanoGPT that the table
            `groundup.residual.architectures` knows, `groundup.model.Transformer`, or any other
            with `branches`. It may be compiled, sharded or wrapped (DDP, FSDP2, PEFT) already.
        schedule: one of `groundup.depth`.
        branches: for any other model, the modules that end its residual branches (the last
            operation before the addition), by name with ``{l}`` for the layer:
            ``["layers.{l}.attn.wo", "layers.{l}.mlp.w2"]``. Each text before ``{l}`` is a stack.
        depth: the number of layers L of the whole model, where `model` is only a part of it (a
            pipeline stage). Default: the highest layer number in the names, plus one.
        layers: only these layers (numbers as in the modules' names, from 0), counted l = 1, 2, …
            among themselves: those that were added to a trained model. Default: all.
        stacks: in a model with several stacks (encoder and decoder) ``"each"`` counts the layers
            of every stack from 1, ``"through"`` goes on counting from one stack to the next.
        dormant: what is done with layers that the schedule declares dormant (`cascade`,
            `stagewise-0`; see `DepthSchedule.dormant`). ``"run"`` computes them, at α = 0.
            ``"skip"`` computes neither their forward nor their backward in training, which makes
            it faster: their weights get no gradient, and so no weight decay. Such a layer must give
            what it is given at α = 0 (pre-norm), or say in a method ``silent`` what it gives;
            the first forward proves it. DDP needs ``find_unused_parameters=True`` meanwhile.

    Example:
        >>> warmup = groundup.attach(model, groundup.depth.linear(T=1000))  # doctest: +SKIP
        >>> warmup.follow(optimizer)                                         # doctest: +SKIP

    Raises:
        ValueError: if the model is unknown and no branches are given, a pattern matches nothing or
            unequally over the layers, depth is below the number of layers found, layers names one
            that is not there, or the model is attached already; if dormant layers are to be skipped
            and the schedule has none, or DDP would wait for their gradients.

    Warns:
        UserWarning: if the schedule starts at 0 and the weights are trained ones, whose layers it
            would silence.
    """
    if not isinstance(model, nn.Module):
        swapped = " (model comes first, then schedule)" if isinstance(schedule, nn.Module) else ""
        raise ValueError(f"model of type {type(model).__name__} is no torch.nn.Module{swapped}")
    if not isinstance(schedule, DepthSchedule):
        raise ValueError(
            f"schedule={schedule!r} is not valid: make one with groundup.depth, such as "
            "groundup.depth.linear(T=1000)"
        )
    rest = _may_rest(model, schedule, dormant)
    model = unwrap(model)
    found, numbering = number(find_branches(model, branches), depth, layers, stacks)
    if taken := [branch.name for branch in found if scale.alpha_of(branch.module) is not None]:
        raise ValueError(
            f"{taken[0]} is scaled already: detach() its Warmup first (for a deepcopy of an "
            "attached model: groundup.residual.remove_scaling(model))"
        )
    for branch in found:
        if isinstance(branch.module, LazyModuleMixin):  # becomes another class when it has run
            raise ValueError(
                f"{branch.name} is a {type(branch.module).__name__}, which has no weights yet: run "
                "the model once, then attach"
            )
    warmup = Warmup(model, schedule, found, numbering, rest)
    silent = any(0.0 in schedule(0, depth) for depth in numbering.depths)
    if silent and layers is None:  # who chooses layers knows which are new
        _warn_of_trained(model, found, warmup)
    return warmup


def _may_rest(model: nn.Module, schedule: DepthSchedule, dormant: str) -> bool:
    if dormant not in DORMANT:
        raise unknown("dormant", dormant, DORMANT)
    if dormant == "run":
        return False
    if schedule.name not in WAITING:
        raise ValueError(
            f"dormant='skip' is not valid: {schedule.name} declares no layer dormant, only "
            f"{' and '.join(WAITING)} do"
        )
    ddp = nn.parallel.DistributedDataParallel
    if isinstance(model, ddp) and not model.find_unused_parameters:
        raise ValueError(
            "dormant='skip' is not valid: DDP waits for the gradients of all weights; make it with "
            "find_unused_parameters=True"
        )
    return True


def _warn_of_trained(model: nn.Module, branches: Sequence[Branch], warmup: Warmup) -> None:
    if looks_trained(branches):
        warnings.warn(
            f"the weights of this {type(model).__name__} look trained, and {warmup.schedule.name} "
            "starts at α = 0, which silences its layers. To resume, load the optimizer it was "
            "trained with or say warmup.at(step); to fine-tune, leave warmup off; for layers that "
            "were added, say layers=[…]",
            stacklevel=3,
        )
