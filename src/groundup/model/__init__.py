"""The decoder: sizes, placements of the norms, initializations. Knows nothing of training.

What is here is loaded on first use: sizes alone need no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from groundup._lazy import lazily

if TYPE_CHECKING:
    from groundup.model.config import ModelConfig
    from groundup.model.initialization import INITIALIZATIONS, initialize
    from groundup.model.kinds import LanguageModel
    from groundup.model.loss import Losses, losses
    from groundup.model.placement import PLACEMENTS
    from groundup.model.presets import PRESETS, preset
    from groundup.model.resolution import resolved
    from groundup.model.transformer import Transformer

_HOMES = {
    "INITIALIZATIONS": "initialization",
    "PLACEMENTS": "placement",
    "PRESETS": "presets",
    "LanguageModel": "kinds",
    "Losses": "loss",
    "ModelConfig": "config",
    "Transformer": "transformer",
    "initialize": "initialization",
    "losses": "loss",
    "preset": "presets",
    "resolved": "resolution",
}

__all__ = [
    "INITIALIZATIONS",
    "PLACEMENTS",
    "PRESETS",
    "LanguageModel",
    "Losses",
    "ModelConfig",
    "Transformer",
    "initialize",
    "losses",
    "preset",
    "resolved",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
