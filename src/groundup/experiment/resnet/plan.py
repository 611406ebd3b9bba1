"""The study's runs at each scale."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from groundup._check import unknown
from groundup.experiment.resnet.config import ARMS, ResNetRun

Scale = Literal["cpu", "gpu", "paper"]
SCALES = (1.0, 8.0, 128.0)
"""What the first updates are multiplied by."""

SEEDS = (0, 1, 2, 3, 4)

# AdamW†, whose updates are bounded. SGD's, 128 times those of its best rate on the digits (0.1),
# let weights, gains and classifier grow past 10⁷ within ten updates; at a rate low enough for them
# the unscaled run is far from its best.
_ADAMW = ResNetRun(optimizer="adamw", rate=4e-3, weight_decay=0.1)
_CIFAR = replace(_ADAMW, data="dataset:uoft-cs/cifar10", augment="crop-flip")
_BASES = {
    "cpu": replace(_ADAMW, data="digits", width=8, batch=50, epochs=30, phase=3),
    "gpu": replace(_CIFAR, batch=256, epochs=30, phase=3),
    "paper": replace(_CIFAR, batch=128, epochs=200, phase=5),
}


def configurations(
    scale: Scale, data: str | None = None, seeds: Sequence[int] = SEEDS
) -> list[ResNetRun]:
    """Every arm with every scale of the updates, seed by seed.

    Args:
        scale: ``cpu``, scikit-learn's digits and a quarter of the parameters: all sixty took 39
            minutes of one core on a busy machine; ``gpu``, CIFAR-10, meant for half an hour of one
            H200 and never run; ``paper``, 200 epochs of it.
        data: instead of the scale's own: ``cifar10:PATH`` for local files.
        seeds: of each variant.

    Raises:
        ValueError: for an unknown scale.
    """
    change = {} if data is None else {"data": data}
    return [replace(run, seed=seed) for seed in seeds for run in _variants(_base(scale), change)]


def _base(scale: str) -> ResNetRun:
    if scale not in _BASES:
        raise unknown("scale", scale, _BASES)
    return _BASES[scale]


def _variants(base: ResNetRun, change: Mapping[str, Any]) -> list[ResNetRun]:
    return [replace(base, arm=arm, scale=s, **change) for arm in ARMS for s in SCALES]


@dataclass(frozen=True)
class ResNetArm:
    """A variant as the studies train it: a process for each run."""

    run: ResNetRun
    suffix: str = ".json"
    value: str = "test_error"

    @property
    def peak(self) -> float:
        return self.run.rate

    def configuration(self, variant: str, peak: float, seed: int) -> str:
        """The text of the file that says what is trained."""
        return replace(self.run, rate=peak, seed=seed).to_json()

    def command(self, file: str, folder: str) -> list[str]:
        """Trains what `file` says in `folder`."""
        return [sys.executable, "-m", "groundup.experiment.resnet", file, folder]


def study_arms(scale: Scale) -> Callable[[Mapping[str, Any]], dict[str, ResNetArm]]:
    """Changes of the fields of a run, with ``data.source`` for ``data`` as recipes have it → the
    arms by name, such as ``standard-128``."""
    base = _base(scale)

    def arms(change: Mapping[str, Any]) -> dict[str, ResNetArm]:
        own = dict(change)
        text = dict(own.pop("data", {}))
        if "source" in text:
            own["data"] = text.pop("source")
        if text:
            raise ValueError(f"data.{min(text)} would be ignored: the ResNet study has no text")
        return {run.variant: ResNetArm(run) for run in _variants(base, own)}

    return arms
