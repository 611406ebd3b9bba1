"""Warmups as pure functions of the step. Imports no torch."""

from groundup.schedules import depth, factor
from groundup.schedules.advice import Advice, advise
from groundup.schedules.depth import DepthSchedule
from groundup.schedules.factor import Factor
from groundup.schedules.length import Length, Suggestion, suggest

__all__ = [
    "Advice",
    "DepthSchedule",
    "Factor",
    "Length",
    "Suggestion",
    "advise",
    "depth",
    "factor",
    "suggest",
]
