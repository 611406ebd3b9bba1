"""Warmups as pure functions of the step. Imports no torch."""

from groundup.schedules import depth, factor
from groundup.schedules.depth import DepthSchedule
from groundup.schedules.factor import Factor
from groundup.schedules.length import Length, Suggestion, suggest

__all__ = ["DepthSchedule", "Factor", "Length", "Suggestion", "depth", "factor", "suggest"]
