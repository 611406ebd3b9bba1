"""What a run will cost, before anyone pays: memory by kind, FLOPs, hours, checkpoints on disk."""

from groundup.train.cost.activations import Activations
from groundup.train.cost.estimate import Device, Estimate, Option, estimate
from groundup.train.cost.live import LiveBytes
from groundup.train.cost.memory import Memory, Moment
from groundup.train.cost.state import OptimizerCost

__all__ = [
    "Activations",
    "Device",
    "Estimate",
    "LiveBytes",
    "Memory",
    "Moment",
    "OptimizerCost",
    "Option",
    "estimate",
]
