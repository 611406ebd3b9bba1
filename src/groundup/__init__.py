"""groundup: warmup for Transformer training, on depth, learning rate and update.

The idea in one line: *a warmup is a pure function of the step*. `groundup.schedules` holds those
functions and imports no torch; everything else is loaded on first use, so that
``import groundup`` stays light.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from groundup._lazy import lazily
from groundup.schedules import depth, factor

if TYPE_CHECKING:
    from groundup import measure, model, optim, residual
    from groundup.optim import rate
    from groundup.residual import Warmup, attach
    from groundup.schedules import advise, suggest

__version__ = "0.1.0"

_MODULES = (
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
_NAMES = {
    "Warmup": "residual",
    "advise": "schedules",
    "attach": "residual",
    "rate": "optim",
    "suggest": "schedules",
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

__getattr__, __dir__ = lazily(__name__, _NAMES | {name: name for name in _MODULES})
