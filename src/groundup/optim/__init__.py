"""Optimizers: by name from a table, and our own, which bound their early updates; parameter groups.

gu.optim.create("muon", model, lr=2e-3), gu.optim.info("muon"), gu.optim.names()
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Not on first use: the module of the same name would take the function's place.
from groundup.optim.groups import groups

if TYPE_CHECKING:
    from groundup.optim import guard, rate, rrc
    from groundup.optim.adamw import AdamW
    from groundup.optim.entries import Entry
    from groundup.optim.guard import all_finite, guarded_step
    from groundup.optim.lion import LionA, LionAR
    from groundup.optim.muon import Muon
    from groundup.optim.registry import check, create, info, names
    from groundup.optim.rotational import RotationalAdamW, RotationalSGD
    from groundup.optim.rrc import RRC

_HOMES = {
    "AdamW": "adamw",
    "Entry": "entries",
    "LionA": "lion",
    "LionAR": "lion",
    "Muon": "muon",
    "RRC": "rrc",
    "RotationalAdamW": "rotational",
    "RotationalSGD": "rotational",
    "all_finite": "guard",
    "check": "registry",
    "create": "registry",
    "guarded_step": "guard",
    "info": "registry",
    "names": "registry",
}
_MODULES = ("guard", "rate", "rrc")

__all__ = [
    "RRC",
    "AdamW",
    "Entry",
    "LionA",
    "LionAR",
    "Muon",
    "RotationalAdamW",
    "RotationalSGD",
    "all_finite",
    "check",
    "create",
    "groups",
    "guard",
    "guarded_step",
    "info",
    "names",
    "rate",
    "rrc",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"groundup.optim.{_HOMES[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"groundup.optim.{name}")
    raise AttributeError(f"module 'groundup.optim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})
