"""How a run ends before its time, for those who need not train to be told."""

from __future__ import annotations


class TrainingStopped(RuntimeError):
    """Training cannot go on; the message says where, why and what is kept."""


class ProcessLost(TrainingStopped):
    """Another process of the run is gone, or cannot be reached."""


class FailedElsewhere(ValueError):
    """Another process could not go on, and has said why."""
