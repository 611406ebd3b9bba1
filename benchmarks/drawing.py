"""The figure of scaling.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from laws import LAWS


def draw(results: Sequence[dict[str, Any]], order: Sequence[str], path: Path) -> None:
    """A panel for each axis, in this order: seconds of a step with their fit, or of compiling."""
    from groundup.report.style import COLOURS, new_figure, styled, titled

    axes_of = {one["axis"]: one for one in results}
    panels = [name for name in order if name in axes_of]
    with styled():
        figure = new_figure(2.1 * -(-len(panels) // 2))
        grid = figure.subplots(-(-len(panels) // 2), 2, squeeze=False)
        for axes in grid.flat[len(panels) :]:
            axes.remove()
        for axes, name in zip(grid.flat, panels, strict=False):
            one = axes_of[name]
            if "graphs" in one["points"][0]:
                titled(axes, "compiling, s (processor)")
                _draw_compiling(axes, one, COLOURS)
                continue
            _draw_axis(axes, one, COLOURS[0])
            titled(axes, "a step, ms")
        figure.savefig(path, dpi=120)


def _draw_axis(axes: Any, one: dict[str, Any], colour: str) -> None:
    kind = next(iter(one["points"][0]["seconds"]))
    x = [point["value"] for point in one["points"]]
    spans = [point["seconds"][kind] for point in one["points"]]
    y = [1e3 * span["value"] for span in spans]
    ends = (
        [1e3 * (s["value"] - s["low"]) for s in spans],
        [1e3 * (s["high"] - s["value"]) for s in spans],
    )
    axes.errorbar(x, y, ends, fmt="o", color=colour, markersize=3.5, elinewidth=1)
    if fit := one["fit"].get(kind):
        fine = [x[0] + (x[-1] - x[0]) * k / 50 for k in range(51)]
        axes.plot(fine, [1e3 * t for t in LAWS[fit["law"]].at(fit, fine)], color=colour, lw=1)
    axes.set_ylim(0)
    axes.set_xlabel(one["axis"], loc="right")


def _draw_compiling(axes: Any, one: dict[str, Any], colours: Sequence[str]) -> None:
    for with_warmup, colour in zip((False, True), colours, strict=False):
        chosen = [point for point in one["points"] if point["warmup"] is with_warmup]
        x = [point["layers"] for point in chosen]
        y = [point["seconds"]["cpu"] for point in chosen]
        said = "with warmup" if with_warmup else "without"
        axes.plot(x, y, "o-", color=colour, markersize=3.5, label=said)
    axes.set_ylim(0)
    axes.set_xlabel("layers", loc="right")
    axes.legend(frameon=False)
