"""`gu.rate`: factors written into an optimizer's parameter groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

from groundup._lazy import lazily

if TYPE_CHECKING:
    from groundup.optim.rate.scheduler import GROUP_KEY, RateSchedule
    from groundup.optim.rate.scheduling import schedule

_HOMES = {"GROUP_KEY": "scheduler", "RateSchedule": "scheduler", "schedule": "scheduling"}

__all__ = ["GROUP_KEY", "RateSchedule", "schedule"]

__getattr__, __dir__ = lazily(__name__, _HOMES)
