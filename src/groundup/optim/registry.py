"""Optimizers made by name: our own, torch's, and those of pytorch_optimizer where it is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from groundup._check import unknown, within
from groundup.optim.entries import Entry
from groundup.optim.grouping import groups
from groundup.optim.table import info, locate, parameters

# Where torch has fused kernels; elsewhere (on meta, say) it is left to torch.
_FUSED_ON = {"cpu", "cuda", "mps", "xpu"}


def create(
    name: str,
    params: nn.Module | Iterable[Any],
    *,
    lr: float | Tensor | None = None,
    weight_decay: float | None = None,
    by_layer: bool = False,
    **options: Any,
) -> torch.optim.Optimizer:
    """A new optimizer.

    Args:
        name: see `info`; `names` lists the table.
        params: a model, whose parameters `groundup.optim.groups` puts in groups (matrices with
            weight decay; the output head with it, but never turned; norms, biases and embeddings
            without; for Muon hidden matrices apart); or parameters, or groups, which are taken as
            they are.
        lr, weight_decay: the entry's defaults where left out.
        by_layer: of a model, groups of their own for each layer.
        options: the other arguments of the class; those left out have the entry's defaults. A
            ``fused`` implementation is taken where there is one and all parameters allow it.

    Raises:
        ValueError: for an unknown name or option (with the nearest that exist), an option that the
            class would swallow and ignore, a weight decay for an optimizer that has none, a package
            that is not installed, and what the class itself refuses.

    Example:
        >>> model = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2), 3)
        >>> optimizer = create("adamw", model, lr=2e-3)
        >>> [(g["name"], g["lr"], g["weight_decay"]) for g in optimizer.param_groups]
        [('matrices', 0.002, 0.1), ('no-decay', 0.002, 0.0)]
    """
    entry = info(name)
    cls = locate(name, entry.where)
    chosen = _settings(entry, cls, lr, weight_decay, options)
    if isinstance(params, nn.Module):
        decay = chosen.get("weight_decay", 0.0)
        params = groups(params, decay, by_layer=by_layer, muon=entry.matrices_only)
    elif by_layer:
        raise ValueError("by_layer=True would be ignored: it needs the model, not its parameters")
    # Torch fills a group's dict in: a copy, so that the same groups can be given again.
    given = [dict(item) if isinstance(item, Mapping) else item for item in params]
    if not given:
        raise ValueError("params is empty: there is nothing to optimize")
    _refuse_what_cannot_work(entry, cls, given)
    if _may_fuse(entry, given, chosen):
        chosen["fused"] = True
    try:
        optimizer = cls(given, **chosen)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"{name}: {error}") from error
    if entry.prepare is not None:
        entry.prepare(optimizer)
    return optimizer


def check(
    name: str,
    *,
    lr: float | None = None,
    weight_decay: float | None = None,
    **options: Any,
) -> None:
    """Refuse what `create` would refuse, before there is a model; and an optimizer that cannot
    make an update of dense gradients by ``optimizer.step()``.

    Raises:
        ValueError: as `create`.
    """
    weight = nn.Parameter(torch.eye(2))
    group: dict[str, Any] = {"params": [weight]}
    if info(name).matrices_only:
        group["use_muon"] = True
    optimizer = create(name, [group], lr=lr, weight_decay=weight_decay, **options)
    weight.grad = torch.ones_like(weight)
    try:
        optimizer.step()
    except Exception as error:  # whatever a class of somebody else's raises
        raise ValueError(
            f"optimizer={name!r} is not valid here: an update fails with {error}"
        ) from error


# ---------------------------------------------------------------------- settings


def _settings(
    entry: Entry,
    cls: type[torch.optim.Optimizer],
    lr: float | Tensor | None,
    weight_decay: float | None,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """What the class is called with: the entry's defaults and, over them, what was given."""
    named = parameters(entry.name, cls)
    given = dict(options)
    if lr is not None:
        if not isinstance(lr, Tensor):
            within("lr", lr, 0.0, float("inf"))
        given["lr"] = lr
    if weight_decay is not None:
        within("weight_decay", weight_decay, 0.0, float("inf"))
        if "weight_decay" in named:
            given["weight_decay"] = weight_decay
        else:
            _refuse_decay(entry.name, weight_decay)
    valid = [*named, *entry.through_kwargs]
    for option in given:
        if option not in valid:
            raise unknown(f"{entry.name}: option", option, valid)
    chosen = {**entry.defaults, **given}
    missing = [key for key, p in named.items() if p.default is p.empty and key not in chosen]
    if missing:
        raise ValueError(f"{entry.name} needs {', '.join(missing)} as well")
    return chosen


def _refuse_decay(name: str, weight_decay: float | None) -> None:
    if weight_decay:
        raise ValueError(
            f"weight_decay={weight_decay!r} would be ignored: {name} has no weight decay; give 0"
        )


def _refuse_what_cannot_work(entry: Entry, cls: type, given: list[Any]) -> None:
    if "weight_decay" not in parameters(entry.name, cls):
        for group in given:
            if isinstance(group, Mapping):
                _refuse_decay(entry.name, group.get("weight_decay"))
    if not entry.sharded and _are_sharded(given):
        raise ValueError(
            f"{entry.name} is not valid for parameters sharded by FSDP2: its norms of whole "
            "tensors fail on them (tried with torch 2.13 and pytorch_optimizer 4.1)"
        )


def _may_fuse(entry: Entry, given: list[Any], chosen: Mapping[str, Any]) -> bool:
    """Whether nothing was said of the implementation and torch's fused one takes all parameters."""
    if entry.fused == "no" or (entry.fused == "plain" and _are_sharded(given)):
        return False
    if any(chosen.get(key) is not None for key in ("fused", "foreach", "differentiable")):
        return False
    return all(p.device.type in _FUSED_ON and p.is_floating_point() for p in _tensors(given))


def _are_sharded(given: list[Any]) -> bool:
    from torch.distributed.tensor import DTensor  # takes most of a second to import

    return any(isinstance(p, DTensor) for p in _tensors(given))


def _tensors(given: Iterable[Any]) -> Iterable[Tensor]:
    for item in given:
        if isinstance(item, Mapping):
            inner = item["params"]
            yield from _tensors([inner] if isinstance(inner, Tensor) else inner)
        else:
            yield item[1] if isinstance(item, tuple) else item
