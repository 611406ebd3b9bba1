"""The decoder: sizes, placements of the norms, initializations. Knows nothing of training."""

from __future__ import annotations

from groundup.model.config import ModelConfig
from groundup.model.initialization import INITIALIZATIONS, initialize
from groundup.model.kinds import LanguageModel
from groundup.model.loss import Losses, losses
from groundup.model.placement import PLACEMENTS
from groundup.model.presets import PRESETS, preset
from groundup.model.resolution import resolved
from groundup.model.transformer import Transformer

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
