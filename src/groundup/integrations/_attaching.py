"""What the callbacks have in common: when to attach, with which schedule, at which step."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable
from typing import Any

from torch import nn

from groundup.residual import Warmup, attach
from groundup.schedules import DepthSchedule, depth, suggest

ScheduleOrLength = DepthSchedule | Callable[[int], DepthSchedule] | None
"""A schedule; a function of the run's number of steps that returns one; None: one as advised."""

log = logging.getLogger("groundup.integrations")


class Attaching:
    """Makes the `Warmup` of a model once it is known how long the run will be.

    Raises:
        ValueError: for a schedule that is neither of the three.
        TypeError: for an option that `groundup.attach` does not have.
    """

    def __init__(self, schedule: ScheduleOrLength, options: dict[str, Any]) -> None:
        if schedule is not None and not callable(schedule):
            raise ValueError(
                f"schedule={schedule!r} is not valid: give one of groundup.depth, such as "
                "groundup.depth.linear(T=1000), a function of the number of steps, or nothing"
            )
        inspect.signature(attach).bind_partial(**options)
        self._schedule = schedule
        self._options = options

    def resumed(self, model: nn.Module, steps: Callable[[], int], step: int) -> Warmup:
        """Attach to a model that has had `step` updates, in a run of `steps()` updates."""
        schedule = self._chosen(model, steps)
        if step:
            return self.trained(model, schedule, step)
        return attach(model, schedule, **self._options)

    def trained(self, model: nn.Module, schedule: DepthSchedule, step: int) -> Warmup:
        """Attach to a model whose weights belong to `step`."""
        with warnings.catch_warnings(action="ignore"):  # that they look trained
            warmup = attach(model, schedule, **self._options)
        warmup.at(step)
        return warmup

    def _chosen(self, model: nn.Module, steps: Callable[[], int]) -> DepthSchedule:
        if isinstance(self._schedule, DepthSchedule):
            return self._schedule
        if self._schedule is not None:
            return self._schedule(steps())
        # How deep the model counts only attaching knows; with α = 1 it changes nothing.
        probe = attach(model, depth.none(), **self._options)
        probe.detach()
        suggestion = suggest(probe.depth, steps())
        log.info("residual warmup: %s", suggestion.reason)
        return depth.linear(T=suggestion.T)


def told(warmup: Warmup) -> dict[str, float]:
    """What a training log says about it."""
    alphas = warmup.alphas()
    return {
        "residual_alpha_min": alphas.min().item(),
        "residual_alpha_mean": alphas.mean().item(),
        "layers_awake": float((alphas == 1).sum()),
    }


def warn_of_an_early_end(warmup: Warmup, export: str) -> None:
    """Say how to export a model whose training ended in mid-warmup."""
    if not warmup.finished:
        warnings.warn(
            f"training ended at step {warmup.updates}, before every layer was awake ({warmup!r}): "
            f"a stock model with these weights computes something else. Export with {export}",
            stacklevel=3,
        )
