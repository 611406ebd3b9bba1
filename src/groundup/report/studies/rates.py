"""What each arm came to at the peak rates that were tried, beside its baseline."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from groundup.report import style
from groundup.report.studies.findings import ArmFindings, Findings
from groundup.report.studies.reach import reach

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw", "panels"]

_SIDE_BY_SIDE = 4  # arms of a panel, for two beside each other
_HEIGHT, _LEGEND, _REST = 1.6, 0.15, 0.4  # inches
_FEW = 2  # rates that make a line
_CENTRED: dict[str, Any] = {"ha": "center", "va": "center"}

Panel = tuple[ArmFindings, ...]


def panels(found: Findings) -> list[Panel]:
    """The arms for which rates were tried, a panel for each baseline and those compared with it, or
    with one of these."""
    groups: dict[str, list[ArmFindings]] = {}
    for arm in found.arms:
        if sum(one.ended for one in arm.tuned) >= _FEW:
            groups.setdefault(_root(arm.name, found), []).append(arm)
    return [tuple(group) for group in groups.values()]


def _root(arm: str, found: Findings) -> str:
    while arm in found.study.baselines:
        arm = found.study.baselines[arm]
    return arm


def draw(shown: list[Panel], found: Findings) -> Figure:
    """Loss against rate; a cross on top for a run that diverged, an arrow for one that ended far
    above the others, a ring around the rate chosen."""
    tried = [one.value for arms in shown for arm in arms for one in arm.tuned]
    values = [value for value in tried if value is not None]
    lowest = min(values, default=0.0)
    cut = reach([value - lowest for value in values])
    top = lowest + 1.1 * cut if cut else math.inf
    columns = 1 if len(shown) == 1 or max(map(len, shown)) > _SIDE_BY_SIDE else 2
    height = -(-len(shown) // columns)
    legend = -(-max(map(len, shown)) // (3 - columns))
    with style.styled():
        figure = style.new_figure(_REST + (_HEIGHT + _LEGEND * legend) * height)
        grid = figure.subplots(height, columns, squeeze=False, sharey=True).ravel()
        for axes in grid[len(shown) :]:
            axes.set_axis_off()
        for axes, arms in zip(grid, shown, strict=False):
            _panel(axes, arms, found, 3 - columns, top)
        if cut:
            grid[0].set_ylim(lowest - 0.1 * cut, top)
        lost = any(_lost(arm) for arms in shown for arm in arms)
        crosses = "; a cross at the top: it diverged" if lost else ""
        high = "; an arrow: it ended above what is shown" if cut else ""
        style.remark(figure, "peak rate; a ring: the one that was chosen" + crosses + high)
    return figure


def _panel(axes: Axes, arms: Panel, found: Findings, legend_columns: int, top: float) -> None:
    for i, arm in enumerate(arms):
        is_baseline = arm.name not in found.study.baselines
        look = style.baseline_look() if is_baseline else style.look(i)
        known = [(one.peak, one.value) for one in arm.tuned if one.value is not None]
        lost = _lost(arm)
        axes.plot(
            *zip(*known, strict=True) if known else ((), ()),
            color=look.colour,
            linestyle=look.dash,
            marker=look.marker,
            markersize=4.5,
            label=style.label(arm.name),
        )
        ring: dict[str, Any] = {"marker": "o", "markersize": 10, "markerfacecolor": "none"}
        for peak, value in known:
            if peak == arm.peak:
                axes.plot([peak], [value], color=look.colour, linestyle="none", **ring)
        across = axes.get_xaxis_transform()
        height = 0.97 - 0.25 * i / len(arms)  # arms side by side hide nothing of each other
        axes.plot(lost, [height] * len(lost), "x", color=look.colour, transform=across)
        for peak in (peak for peak, value in known if value > top):
            axes.text(peak, height, "↑", color=look.colour, transform=across, **_CENTRED)
    ticks = sorted({one.peak for arm in arms for one in arm.tuned})
    axes.set_xscale("log")
    axes.set_xticks(ticks, [style.short(tick) for tick in ticks], fontsize=8)
    axes.minorticks_off()
    axes.margins(x=0.08, y=0.12)
    place: dict[str, Any] = {"loc": "lower left", "bbox_to_anchor": (-0.02, 1.0)}
    axes.legend(fontsize=8, ncols=legend_columns, labelspacing=0.2, **place)


def _lost(arm: ArmFindings) -> list[float]:
    return [one.peak for one in arm.tuned if one.ended and one.value is None]
