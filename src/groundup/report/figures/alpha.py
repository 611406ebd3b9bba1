"""α over updates and layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from groundup.report import heat, moments, style
from groundup.report.figures._base import NothingToShow
from groundup.report.table import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_alpha(group: Study) -> Figure:
    """α over updates and layers, a heat map per distinct schedule."""
    maps, left_out = moments.alpha_maps(group)
    if not maps:
        raise NothingToShow("no variant warms up its residual branches")
    with style.styled():
        fig = style.new_figure(3.2 if len(maps) == 1 else 0.75 + 1.25 * len(maps))
        grid = fig.subplots(len(maps), 1, sharex=True, squeeze=False)[:, 0]
        image: Any = None
        for axes, found in zip(grid, maps, strict=True):
            image = heat.draw(axes, found, single=len(maps) == 1)
        style.updates_axis(grid[-1], maps[0].last)
        grid[-1].set_xlim(0, maps[0].last)
        heat.bar(fig, image, list(grid), "α")
        if left_out:
            style.remark(fig, f"The first {len(maps)} of {len(maps) + left_out} schedules.")
    return fig
