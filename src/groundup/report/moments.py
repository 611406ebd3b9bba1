"""When things happen in a run: α over its layers, the end of residual warmup, the rate's decay.

α is recomputed from the recipe, not read: it is a pure function of the step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from groundup.report import style
from groundup.report.curves import decay_start
from groundup.report.runs import Run
from groundup.report.table import Study, Variant
from groundup.schedules import depth
from groundup.schedules.depth import DepthSchedule

__all__ = ["AlphaMap", "alpha_maps", "decay", "schedule_of", "warmup_ends"]

_COLUMNS = 400
_MAPS = 6
_LABELS = 4
_LENGTHS = ("T", "total", "fraction", "S")

Looks = Mapping[str, style.Look]
Moment = tuple[float, str, str]
"""Completed updates, label (empty where there are too many to be read), colour."""


@dataclass(frozen=True)
class AlphaMap:
    """α over updates 0 to `last` (rows) and layers (columns), of variants that share it."""

    variants: tuple[str, ...]
    values: NDArray[np.float64]
    end: float
    last: float


def schedule_of(run: Run) -> DepthSchedule | None:
    """The run's residual schedule; None if its recipe has none, or none that is known here."""
    name = run.setting("residual", "schedule")
    if not isinstance(name, str) or name == "none" or run.layers is None:
        return None
    lengths = {key: run.setting("residual", key) for key in _LENGTHS}
    given = {key: value for key, value in lengths.items() if value is not None}
    if "fraction" in given:
        given["steps"] = run.planned
    try:
        return depth.by_name(name, **given)
    except (TypeError, ValueError):
        return None


def alpha_maps(group: Study) -> tuple[list[AlphaMap], int]:
    """One map per distinct schedule, the first six, all over the same updates; and how many
    schedules are left out."""
    found = [(v, schedule_of(v.runs[0]), v.runs[0].layers) for v in group.variants]
    known = [(v.name, s, layers) for v, s, layers in found if s is not None and layers]
    if not known:
        return [], 0
    run_length = max(run.updates for run in group.runs)
    ends = [s.end(layers) for _, s, layers in known]
    rising = [end for end in ends if math.isfinite(end)]
    last = float(min(run_length, 1.25 * max(rising))) if rising else float(run_length)
    at = (np.arange(_COLUMNS) + 0.5) * last / _COLUMNS
    maps: dict[bytes, AlphaMap] = {}
    for (name, s, layers), end in zip(known, ends, strict=True):
        values = np.array([s(float(t), layers) for t in at])
        key = values.tobytes() + bytes([values.shape[1] % 256])
        names = (*maps[key].variants, name) if key in maps else (name,)
        maps[key] = AlphaMap(names, values, end, last)
    found_maps = list(maps.values())
    return found_maps[:_MAPS], max(0, len(found_maps) - _MAPS)


def warmup_ends(group: Study, looks: Looks | None = None) -> list[Moment]:
    """The updates after which every layer of a variant is at α = 1, within the run."""
    ends: dict[float, list[Variant]] = {}
    for variant in group.variants:
        run = variant.runs[0]
        schedule = schedule_of(run)
        if schedule is not None and run.layers:
            end = schedule.end(run.layers)
            if 0 < end < max(run.updates for run in group.runs):
                ends.setdefault(end, []).append(variant)
    if len(ends) == 1:
        return [(end, "residual warmup ends", style.INK) for end in ends]
    return _named(ends, "warmup ends", looks or style.looks(group))


def decay(group: Study, looks: Looks | None = None) -> list[Moment]:
    """The updates at which the rate begins to fall; without names if it is one for all."""
    starts: dict[int, list[Variant]] = {}
    for variant in group.variants:
        start = next((s for s in map(decay_start, variant.runs) if s is not None), None)
        if start is not None:
            starts.setdefault(start, []).append(variant)
    if len(starts) == 1:
        return [(start, "rate decay begins", style.INK) for start in starts]
    return _named(starts, "decay", looks or style.looks(group))


def _named(
    moments: Mapping[float, list[Variant]] | Mapping[int, list[Variant]], what: str, looks: Looks
) -> list[Moment]:
    few = len(moments) <= _LABELS
    return [
        (
            at,
            f"{style.label(variants[0].name, 16)}: {what}" if few else "",
            looks[variants[0].name].colour,
        )
        for at, variants in moments.items()
    ]
