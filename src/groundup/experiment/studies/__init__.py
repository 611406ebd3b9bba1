"""The studies: what has been published of warmup, asked again."""

from __future__ import annotations

import importlib

from groundup._check import unknown
from groundup.experiment.studies.study import SCALES, Claim, Setting, Study

__all__ = ["NAMES", "SCALES", "Claim", "Setting", "Study", "named"]

NAMES = (
    "placement",
    "schedules",
    "depth",
    "deep",
    "dynamics",
    "relatives",
    "need-for-warmup",
    "rate-and-residual",
    "resnet",
)
"""In the order of docs/results.md; each is a module of this package, with `STUDY` in it."""


def named(name: str) -> Study:
    """The study of a name.

    Raises:
        ValueError: if there is none; the message lists them.
    """
    if name not in NAMES:
        raise unknown("study", name, NAMES)
    module = importlib.import_module(f"groundup.experiment.studies.{name.replace('-', '_')}")
    study: Study = module.STUDY
    return study
