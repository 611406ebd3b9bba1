"""Training: a recipe, a folder, a loop."""

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
from groundup.train.trainer import TrainingStopped, train

__all__ = [
    "Interrupted",
    "MeasureConfig",
    "OptimizerConfig",
    "RateConfig",
    "Recipe",
    "ResidualConfig",
    "SpikesConfig",
    "TrainConfig",
    "TrainingStopped",
    "train",
]
