"""Training: a recipe, a folder, a loop."""

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
from groundup.train.trainer import TrainingStopped, train

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
