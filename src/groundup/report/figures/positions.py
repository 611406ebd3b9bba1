"""Held-out loss by position in the sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from groundup.report import hover, style
from groundup.report.curves import Curve
from groundup.report.figures._base import LINES, NothingToShow, best, looks_of, marked
from groundup.report.runs import Run
from groundup.report.table import Study, Variant

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw_positions(group: Study) -> Figure:
    """Loss at the last evaluation over the position, and its gap to the baseline's."""
    part, remark = best(group, LINES, lambda v: any(by_position(run) for run in v.runs))
    if not part.variants:
        raise NothingToShow("no run measured its loss by position ([measure] what: positions)")
    looks = looks_of(group, part)
    gaps = {v.name: found for v in part.others if (found := _gaps(v, group))}
    with style.styled():
        fig = style.new_figure(4.4 if gaps else 3.2)
        grid = fig.subplots(2 if gaps else 1, 1, sharex=True, squeeze=False)[:, 0]
        style.titled(grid[0], "held-out loss at the end, nats per token")
        handles = []
        for variant in part.variants:
            curves = [curve for run in variant.runs if (curve := by_position(run))]
            handles.append(_line(grid[0], curves, looks[variant.name], variant.name))
        if gaps:
            style.titled(grid[1], "minus the baseline’s")
            grid[1].axhline(0, color=style.MUTED, linewidth=1)
            grid[1].yaxis.set_major_formatter(lambda value, _: style.signed(value))
            for name, seeds in gaps.items():
                _line(grid[1], seeds, looks[name], name)
        grid[-1].set_xscale("log")
        grid[-1].xaxis.set_major_formatter(lambda value, _: style.short(value))
        grid[-1].set_xlabel("position in the sequence", loc="right", labelpad=1)
        style.legend(fig, handles, [v.name for v in part.variants])
        style.remark(fig, remark)
    return fig


def by_position(run: Run) -> Curve | None:
    """The middle of each bin of positions, counted from 1, and the loss in it at the last
    evaluation; None if there is none."""
    loss, bins = run.measured.get("loss/positions"), run.measured.get("loss_bins")
    if loss is None or bins is None or loss.last.ndim != 1 or bins.last.ndim != 1:
        return None
    edges, values = bins.last, loss.last
    if len(edges) != len(values) + 1 or not np.isfinite(values).any():
        return None
    return np.sqrt((edges[:-1] + 1) * edges[1:]), values


def _gaps(variant: Variant, group: Study) -> list[Curve]:
    """Loss minus that of the baseline's run of the same seed, where their bins are the same."""
    found = []
    for run, base in group.pairs(variant):
        ours, theirs = by_position(run), by_position(base)
        if ours and theirs and np.array_equal(ours[0], theirs[0]):
            found.append((ours[0], ours[1] - theirs[1]))
    return found


def _line(axes: Axes, seeds: list[Curve], look: style.Look, name: str) -> Any:
    alike = [y for x, y in seeds if np.array_equal(x, seeds[0][0])]
    x = seeds[0][0]
    if len(alike) > 1:
        for y in alike:
            axes.plot(x, y, color=look.colour, linewidth=0.7, alpha=0.5, zorder=1.8)
    how = marked(look, len(x))
    (drawn,) = axes.plot(x, np.mean(alike, axis=0), color=look.colour, linestyle=look.dash, **how)
    return hover.line(drawn, name)
