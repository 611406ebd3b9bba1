"""What all figures share: which variants are drawn, lines with their seeds, values over seeds."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from groundup.report import curves, heldout, hover, style
from groundup.report.curves import Curve
from groundup.report.measured import Measured
from groundup.report.runs import Run
from groundup.report.table import Study, Variant

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINES, MAPS = 12, 6
"""As many variants as can be told apart as lines, and as have room as maps."""

Read = Callable[[Run], Measured | None]
"""What a figure shows of a run; None: it was not measured."""


class NothingToShow(ValueError):
    """These runs do not have what the figure shows."""


def best(group: Study, limit: int, has: Callable[[Variant], bool]) -> tuple[Study, str]:
    """At most `limit` of the variants that have what a figure shows, and a sentence on the others.

    They are the baseline and those that end with the lowest held-out loss, in the study's order.
    """
    having = [variant for variant in group.variants if has(variant)]
    baseline = group.baseline if group.baseline in having else None
    if len(having) <= limit:
        return replace(group, variants=tuple(having), baseline=baseline), ""
    ranked = sorted((v for v in having if v is not baseline), key=_final_loss)
    chosen = [v for v in (baseline, *ranked) if v is not None][:limit]
    kept = replace(group, variants=tuple(v for v in having if v in chosen), baseline=baseline)
    left_out = len(having) - limit
    lowest = f"the {len(chosen) - (baseline is not None)} of lowest held-out loss"
    shown = f"the baseline and {lowest}" if baseline else lowest
    return kept, f"Drawn: {shown}; {left_out} of {len(having)} variants are left out."


def unpaired(group: Study) -> str:
    """Why no run of a study has a gap to a baseline."""
    if apart := heldout.note(group.runs):
        return f"no run has a baseline to be compared with: {apart[0].lower()}{apart[1:-1]}"
    if group.baseline is None and not group.counterparts:
        return (
            "no run has a baseline: one without residual warmup and with the same settings "
            "otherwise. --baseline NAME compares all with one variant"
        )
    return "no run has a baseline of the same seed to be compared with"


def single(what: str) -> tuple[Figure, Axes]:
    """A figure with one pair of axes, whose vertical axis is called `what`."""
    fig = style.new_figure()
    axes = fig.subplots()
    style.titled(axes, what)
    return fig, axes


def line(axes: Axes, curve: Curve, look: style.Look, width: float = 1.6, **how: Any) -> Any:
    """A curve in the look of a variant."""
    x, y = curves.thin(*curve)
    return axes.plot(x, y, color=look.colour, linestyle=look.dash, linewidth=width, **how)[0]


def mean_line(
    axes: Axes,
    seeds: Sequence[Curve],
    look: style.Look,
    name: str,
    width: float = 1.6,
    **how: Any,
) -> Any:
    """The mean over seeds in full, shown under `name`, and each seed thin behind it."""
    if len(seeds) > 1:
        for curve in seeds:
            x, y = curves.thin(*curve, points=400)
            axes.plot(x, y, color=look.colour, linewidth=0.7, alpha=0.5, zorder=1.8)
    return hover.line(line(axes, curves.average(seeds), look, width, **how), name)


def marked(look: style.Look, count: int) -> dict[str, Any]:
    """Markers, so that a line of few points shows them, and is told apart in grey print."""
    return {
        "marker": look.marker,
        "markersize": 4.5,
        "markeredgecolor": style.PAPER,
        "markeredgewidth": 0.6,
        "markevery": max(1, count // 24),
    }


def layered(name: str) -> Read:
    """Reads a quantity that has a value per layer."""

    def read(run: Run) -> Measured | None:
        found = run.measured.get(name)
        return found if found is not None and found.values.ndim == 2 else None

    return read


def seeds_of(variant: Variant, read: Read) -> list[Measured]:
    """What was measured in the variant's runs, where any of it is finite."""
    found = [read(run) for run in variant.runs]
    return [m for m in found if m is not None and np.isfinite(m.values).any()]


def over_seeds(seeds: Sequence[Measured]) -> Measured:
    """The mean over seeds, at the steps that all of them have, of the values that are there."""
    alike = [m for m in seeds if m.values.shape[1:] == seeds[0].values.shape[1:]]
    steps = alike[0].steps
    for other in alike[1:]:
        steps = np.intersect1d(steps, other.steps)
    if not len(steps):
        return alike[0]
    rows = np.array([m.values[np.searchsorted(m.steps, steps)] for m in alike])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mean of empty slice")
        return Measured(steps, np.nanmean(rows, axis=0))


def length(runs: Sequence[Run], found: Sequence[Measured] = ()) -> float:
    """Where the axis of updates ends."""
    ends = [int(m.steps[-1]) for m in found if len(m.steps)]
    return float(max([curves.last(runs), *ends]))


def looks_of(group: Study, part: Study) -> Mapping[str, style.Look]:
    """The looks of `part`'s variants, which are those that they have in the whole `group`."""
    looks = style.looks(group)
    return {variant.name: looks[variant.name] for variant in part.variants}


def _final_loss(variant: Variant) -> float:
    finals = [run.final_eval for run in variant.runs]
    losses = [final[1] for final in finals if final is not None]
    return math.fsum(losses) / len(losses) if losses else math.inf
