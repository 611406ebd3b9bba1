"""Training: a recipe, a folder, a loop.

What is here is loaded on first use: a recipe alone needs no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from groundup._lazy import lazily

if TYPE_CHECKING:
    from groundup.train.errors import TrainingStopped
    from groundup.train.evaluating import EvaluateConfig
    from groundup.train.recipe import (
        MeasureConfig,
        OptimizerConfig,
        RateConfig,
        Recipe,
        ResidualConfig,
        TrainConfig,
    )
    from groundup.train.signals import Interrupted
    from groundup.train.spikes.config import SpikesConfig
    from groundup.train.trained import Trained, open_trained
    from groundup.train.trainer import train

_HOMES = {
    "EvaluateConfig": "evaluating",
    "Interrupted": "signals",
    "MeasureConfig": "recipe",
    "OptimizerConfig": "recipe",
    "RateConfig": "recipe",
    "Recipe": "recipe",
    "ResidualConfig": "recipe",
    "SpikesConfig": "spikes.config",
    "TrainConfig": "recipe",
    "Trained": "trained",
    "TrainingStopped": "errors",
    "open_trained": "trained",
    "train": "trainer",
}

__all__ = [
    "EvaluateConfig",
    "Interrupted",
    "MeasureConfig",
    "OptimizerConfig",
    "RateConfig",
    "Recipe",
    "ResidualConfig",
    "SpikesConfig",
    "TrainConfig",
    "Trained",
    "TrainingStopped",
    "open_trained",
    "train",
]

__getattr__, __dir__ = lazily(__name__, _HOMES)
