"""The numbers in an optimizer's parameter groups, by name: read, and written in place.

A name is a key of the group ("lr", "weight_decay", "momentum", "eps"), or "beta1", "beta2", … for
the entries of its "betas". A number in a 0-dimensional tensor is filled, never replaced: a compiled
or captured optimizer goes on reading the same tensor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from groundup._check import is_number

Group = dict[str, Any]

_BETA = re.compile(r"beta([1-9])")
# Not settings of the algorithm: counters, labels, and what other schedules keep there.
_APART = re.compile(r"lr|layer|step|.*_step|initial_.*|peak_lr|(base|max|min)_(lr|momentum)")


def names(group: Group) -> list[str]:
    """The names of all settings in `group` that are numbers, other than the rate."""
    found = [key for key, value in group.items() if _is_setting(value)]
    found += [f"beta{i}" for i, _ in enumerate(_betas(group), start=1)]
    return [name for name in found if not _APART.fullmatch(name)]


def has(group: Group, name: str) -> bool:
    return _is_setting(held(group, name))


def held(group: Group, name: str) -> Any:
    """What holds the value, a number or a tensor; None where there is none."""
    if name in group:
        return group[name]
    betas = _betas(group)
    return betas[_beta_index(name)] if _beta_index(name) in range(len(betas)) else None


def read(group: Group, name: str) -> float:
    """The value, a Python number (of a tensor on a GPU this waits for it)."""
    value = held(group, name)
    return float(value.detach() if isinstance(value, Tensor) else value)


def write(group: Group, name: str, value: float) -> None:
    """Fill the tensor with `value`, or put the number in its place."""
    found = held(group, name)
    if isinstance(found, Tensor):
        found.fill_(value)
    else:
        put(group, name, value)


def put(group: Group, name: str, value: float | Tensor) -> None:
    """Replace what holds the value."""
    if name in group:
        group[name] = value
        return
    betas = list(group["betas"])
    betas[_beta_index(name)] = value
    group["betas"] = type(group["betas"])(betas)


def unshare(groups: Sequence[Group], which: Iterable[str]) -> None:
    """Give each group its own tensor: torch hands the one default to all groups."""
    for name in which:
        seen: set[int] = set()
        for group in groups:
            value = held(group, name)
            if isinstance(value, Tensor) and id(value) in seen:
                put(group, name, value.detach().clone())
            seen.add(id(value))


def _betas(group: Group) -> Sequence[Any]:
    betas = group.get("betas")
    return betas if isinstance(betas, tuple | list) else ()


def _beta_index(name: str) -> int:
    found = _BETA.fullmatch(name)
    return int(found[1]) - 1 if found else -1


def _is_setting(value: Any) -> bool:
    return is_number(value) or (isinstance(value, Tensor) and value.numel() == 1)
