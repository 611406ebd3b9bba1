"""Training: a recipe, a folder, a loop."""

from groundup.train.recipe import (
    OptimizerConfig,
    RateConfig,
    Recipe,
    ResidualConfig,
    TrainConfig,
)
from groundup.train.signals import Interrupted
from groundup.train.trainer import TrainingStopped, train

__all__ = [
    "Interrupted",
    "OptimizerConfig",
    "RateConfig",
    "Recipe",
    "ResidualConfig",
    "TrainConfig",
    "TrainingStopped",
    "train",
]
