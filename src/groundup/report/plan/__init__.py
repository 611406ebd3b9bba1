"""The figure of a plan: rate, weight decay and α of recipes that have not run yet."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from groundup.experiment.preview import OF_LAYERS, OfLayers, Preview, alike
from groundup.report import heat, style
from groundup.report.moments import AlphaMap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_POINTS = 1200
_LINES = 7  # as many as can be told apart
_MAPS = 4

Named = tuple[list[str], Preview]


def figure(previews: Sequence[Preview], until: int | None = None) -> Figure:
    """Panels over the first `until` updates (None: all): the rate, the share of the weights that
    weight decay takes a step, α of each layer, and its part of the rate where layers have rates of
    their own. Variants that share a course share a line.

    Returns:
        a matplotlib figure, to be saved.
    """
    last = max(p.steps for p in previews)
    last = last if until is None else min(until, last)
    every, decays = _lines(previews)
    courses = every[:_LINES]
    maps = [one for what in OF_LAYERS for one in _maps(what, previews)]
    heights = [1.9] + [1.5] * any(decays[:_LINES]) + [1.5] * len(maps)
    with style.styled():
        fig = style.new_figure(0.55 + sum(heights))
        grid = fig.subplots(
            len(heights), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
        )[:, 0]
        panels = iter(grid)
        rate = next(panels)
        title = "learning rate" + _first(_LINES, len(every))
        handles = _curves(rate, [p for _, p in courses], Preview.rate, title, last)
        if len(courses) == 1:
            _mark(rate, courses[0][1], last)
        if any(decays[:_LINES]):
            title = "weight decay a step, rate · λ"
            _curves(next(panels), decays[:_LINES], Preview.decay, title, last)
        image: Any = None
        for axes, (what, title, names, p) in zip(panels, maps, strict=True):
            values = _map(what, names, p, last)
            image = heat.draw(axes, values, single=len(previews) == 1, what=title)
        if maps:
            heat.bar(fig, image, list(grid[-len(maps) :]), "")
        style.updates_axis(grid[-1], last)
        grid[-1].set_xlim(0, last)
        style.legend(fig, handles, [_together(names) for names, _ in courses])
    return fig


def _lines(previews: Sequence[Preview]) -> tuple[list[Named], list[Preview | None]]:
    """The courses that get a line, with their variants, and for each a preview that decays by it,
    if there is one. One line for each rate, unless variants of one rate decay differently."""
    decaying = [p for p in previews if p.decays]
    rates, decays = (alike(decaying, key) for key in (_rate_key, _decay_key))
    key = _decay_key if len(decays) > len(rates) else _rate_key
    courses = alike(previews, key)
    by_key = {key(p): p for p in decaying}
    return courses, [by_key.get(key(p)) for _, p in courses]


def _maps(
    what: OfLayers, previews: Sequence[Preview]
) -> list[tuple[OfLayers, str, list[str], Preview]]:
    """The heat maps of `what`, with their titles."""
    found = alike([p for p in previews if what.schedule(p)], what.key)
    title = what.title + _first(_MAPS, len(found))
    return [(what, title, *one) for one in found[:_MAPS]]


def _first(shown: int, of: int) -> str:
    return f", the first {shown} of {of} courses" if of > shown else ""


def _rate_key(p: Preview) -> Hashable:
    return p.rate_key


def _decay_key(p: Preview) -> Hashable:
    return p.decay_key


def _curves(
    axes: Axes,
    previews: Sequence[Preview | None],
    value: Callable[[Preview, int], float],
    what: str,
    last: int,
) -> list[Any]:
    style.titled(axes, what)
    handles = []
    for i, preview in enumerate(previews):
        if preview is None:
            continue
        look = style.look(i)
        at = _steps(preview, last)
        handles += axes.plot(
            at,
            [value(preview, step) for step in at],
            color=look.colour,
            linestyle=look.dash,
            linewidth=1.7,
        )
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    axes.yaxis.set_major_formatter(lambda value, _: style.scientific(value))
    axes.locator_params(axis="y", nbins=5)
    return handles


def _steps(preview: Preview, last: int) -> list[int]:
    """Evenly spread updates, with every one at which something begins or ends."""
    end = min(preview.steps, last)
    joints = {at for joint in preview.factor.joints() for at in (joint - 1, joint)}
    spread = {round(x) for x in np.linspace(0, end - 1, min(end, _POINTS))}
    return sorted(spread | {at for at in joints if at < end})


def _mark(axes: Axes, preview: Preview, last: int) -> None:
    """What the factor's segments are, above the curve."""
    marks = [(at, said, style.MUTED) for at, said in preview.segments if 0 < at < last]
    axes.set_ylim(0, axes.get_ylim()[1] * (1.06 + 0.12 * min(4, len(marks))))
    style.mark(axes, marks)


def _map(what: OfLayers, names: Sequence[str], p: Preview, last: int) -> AlphaMap:
    schedule = what.schedule(p)
    assert schedule is not None
    columns = min(last, 800)
    rows = [what.values(p, int((i + 0.5) * last / columns)) for i in range(columns)]
    return AlphaMap((_together(names),), np.array(rows), schedule.end(p.depth), float(last))


def _together(names: Sequence[str]) -> str:
    if len(names) <= 2:
        return ", ".join(names)
    return f"{names[0]}, {len(names) - 1} more"
