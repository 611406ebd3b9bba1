"""Optimizers by name: our own, torch's, and those of pytorch_optimizer where it is installed."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from groundup._check import unknown, within
from groundup.optim.entries import ENTRIES, Entry
from groundup.optim.groups import groups

_TABLE = {entry.name: entry for entry in ENTRIES}
_BY_CLASS = {entry.where.rpartition(":")[2].lower(): entry for entry in ENTRIES}
_PACKAGES = {"torch": "torch.optim", "pytorch_optimizer": "pytorch_optimizer"}
# Where torch has fused kernels; elsewhere (on meta, say) it is left to torch.
_FUSED_ON = {"cpu", "cuda", "mps", "xpu"}


def names(installed: bool = True) -> list[str]:
    """The names of the table; with ``installed=False`` also those whose package is missing."""
    return [name for name, entry in _TABLE.items() if not installed or _is_there(entry.where)]


def info(name: str) -> Entry:
    """What is known of an optimizer.

    Args:
        name: one of `names` or its class (case and ``_`` for ``-`` do not matter), a class of
            torch.optim ("Rprop" or "torch:Rprop"), or one of pytorch_optimizer
            ("pytorch_optimizer:Prodigy").
            Of the latter two nothing is known but the defaults of the class.

    Raises:
        ValueError: for an unknown name, or a class whose package is not installed.
    """
    entry = _TABLE.get(name.lower().replace("_", "-")) or _BY_CLASS.get(name.lower())
    if entry is not None:
        return entry
    package, _, cls = name.rpartition(":")
    package = package or "torch"
    if package not in _PACKAGES or (package == "torch" and cls not in _classes(torch.optim)):
        valid = [*_TABLE, *_classes(torch.optim), "pytorch_optimizer:<class>"]
        raise unknown("optimizer", name, valid)
    where = f"{_PACKAGES[package]}:{cls}"
    parameters = _parameters(name, _locate(name, where))
    known = {key: p.default for key, p in parameters.items() if p.default is not p.empty}
    return Entry(name, where, f"{cls} of {package}", "", known, decay="unknown", warmup="unknown")


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
    cls = _locate(name, entry.where)
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
    parameters = _parameters(entry.name, cls)
    given = dict(options)
    if lr is not None:
        if not isinstance(lr, Tensor):
            within("lr", lr, 0.0, float("inf"))
        given["lr"] = lr
    if weight_decay is not None:
        within("weight_decay", weight_decay, 0.0, float("inf"))
        if "weight_decay" in parameters:
            given["weight_decay"] = weight_decay
        else:
            _refuse_decay(entry.name, weight_decay)
    valid = [*parameters, *entry.through_kwargs]
    for option in given:
        if option not in valid:
            raise unknown(f"{entry.name}: option", option, valid)
    chosen = {**entry.defaults, **given}
    missing = [key for key, p in parameters.items() if p.default is p.empty and key not in chosen]
    if missing:
        raise ValueError(f"{entry.name} needs {', '.join(missing)} as well")
    return chosen


def _refuse_decay(name: str, weight_decay: float | None) -> None:
    if weight_decay:
        raise ValueError(
            f"weight_decay={weight_decay!r} would be ignored: {name} has no weight decay; give 0"
        )


def _parameters(name: str, cls: type) -> dict[str, inspect.Parameter]:
    """The named arguments of a class, but for its parameters."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    found = inspect.signature(cls).parameters
    if "params" not in found:
        raise ValueError(f"{name} is made of something else than parameters: construct it yourself")
    return {key: p for key, p in found.items() if p.kind in named and key != "params"}


def _refuse_what_cannot_work(entry: Entry, cls: type, given: list[Any]) -> None:
    if "weight_decay" not in _parameters(entry.name, cls):
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
    return any(isinstance(p, DTensor) for p in _tensors(given))


def _tensors(given: Iterable[Any]) -> Iterable[Tensor]:
    for item in given:
        if isinstance(item, Mapping):
            inner = item["params"]
            yield from _tensors([inner] if isinstance(inner, Tensor) else inner)
        else:
            yield item[1] if isinstance(item, tuple) else item


# ---------------------------------------------------------------------- classes


def _classes(module: ModuleType) -> list[str]:
    found = inspect.getmembers(module, inspect.isclass)
    base = torch.optim.Optimizer
    return [key for key, cls in found if issubclass(cls, base) and cls is not base]


def _is_there(where: str) -> bool:
    """Without importing anything heavy."""
    module, _, cls = where.partition(":")
    package = module.partition(".")[0]
    if package not in ("torch", "groundup"):
        return find_spec(package) is not None
    try:
        return hasattr(importlib.import_module(module), cls)
    except ImportError:
        return False


def _locate(name: str, where: str) -> type[torch.optim.Optimizer]:
    module, _, cls = where.partition(":")
    package = module.partition(".")[0]
    try:
        place = importlib.import_module(module)
    except ImportError as error:
        install = package if package == "pytorch_optimizer" else "torch"
        raise ValueError(
            f"optimizer={name!r} is {cls} of {module}, which cannot be imported ({error}): "
            f"pip install -U {install}"
        ) from None
    if cls not in _classes(place):
        near = difflib.get_close_matches(cls, _classes(place), n=5, cutoff=0.0)
        raise unknown(f"optimizer={name!r}: class", cls, [*near, f"the others of {module}"])
    return getattr(place, cls)
