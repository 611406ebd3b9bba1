"""groundup: warmup for Transformer training, on depth, learning rate and update.

The idea in one line: *a warmup is a pure function of the step*. `groundup.schedules` holds those
functions and imports no torch; everything else is loaded on first use, so that
``import groundup`` stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from groundup.schedules import depth, factor

if TYPE_CHECKING:
    from groundup import measure, model, optim, residual
    from groundup.optim import rate
    from groundup.residual import Warmup, attach
    from groundup.schedules import advise, suggest

__version__ = "0.1.0"

_MODULES = {
    name: f"groundup.{name}"
    for name in (
        "data",
        "evaluate",
        "export",
        "hf",
        "measure",
        "model",
        "optim",
        "report",
        "residual",
        "schedules",
        "train",
    )
} | {"rate": "groundup.optim.rate"}
_NAMES = {
    "Warmup": "groundup.residual",
    "advise": "groundup.schedules",
    "attach": "groundup.residual",
    "suggest": "groundup.schedules",
}

__all__ = [
    "Warmup",
    "advise",
    "attach",
    "depth",
    "factor",
    "measure",
    "model",
    "optim",
    "rate",
    "residual",
    "suggest",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'groundup' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES, *_NAMES})
