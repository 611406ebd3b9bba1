"""Optimizers: by name from a table, and our own, which bound their early updates; parameter groups.

gu.optim.create("muon", model, lr=2e-3), gu.optim.info("muon"), gu.optim.names()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from groundup._lazy import lazily

if TYPE_CHECKING:
    from groundup.optim import guard, rate, rrc
    from groundup.optim.adamw import AdamW
    from groundup.optim.entries import Entry
    from groundup.optim.grouping import groups
    from groundup.optim.guard import all_finite, guarded_step
    from groundup.optim.lion import LionA, LionAR
    from groundup.optim.muon import Muon
    from groundup.optim.registry import check, create
    from groundup.optim.rotational import RotationalAdamW, RotationalSGD
    from groundup.optim.rrc import RRC
    from groundup.optim.table import info, names

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
    "groups": "grouping",
    "guard": "guard",
    "guarded_step": "guard",
    "info": "table",
    "names": "table",
    "rate": "rate",
    "rrc": "rrc",
}

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

__getattr__, __dir__ = lazily(__name__, _HOMES)
