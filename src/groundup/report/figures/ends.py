"""Where runs end against a setting: depth, length of the warmup, whatever a sweep varies."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from groundup.report import hover, style
from groundup.report.figures._base import LINES, NothingToShow
from groundup.report.figures._courses import Course, courses, ended, number, numeric
from groundup.report.runs import Run
from groundup.report.table import Study, perplexity, spike_score, spread
from groundup.schedules.length import parse_length

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS = 3
_LOG_FROM = 8  # times the least value
_LABEL = 0.05  # of the axis, at least, from one label to the next
_LEAST_TOP = 0.1  # percent: no spike at all is not drawn as a range around 0
_UNNAMED = "came to an end"  # the only line, beside crosses
_DEPTH, _WARMUP = "model.layers", "rate.warmup"

Outcome = Callable[[Run], float | None]
"""A number of a run; infinite: it diverged; None: there is none."""


def draw_depth_perplexity(group: Study) -> Figure:
    """Perplexity at the end against the number of layers."""
    found = _over_depth(group)
    with style.styled():
        fig = style.new_figure()
        axes = fig.subplots()
        style.titled(axes, "perplexity at the end")
        handles = _lines(axes, found, ended, perplexity)
        _depth_axis(axes, found)
        _finish(fig, handles, found, "depth")
    return fig


def draw_depth_spikes(group: Study) -> Figure:
    """Spike score of loss and gradient norm against the number of layers."""
    found = _over_depth(group)
    with style.styled():
        fig = style.new_figure(4.4)
        grid = fig.subplots(2, 1, sharex=True)
        titles = ("loss spikes, % of updates", "gradient spikes, % of updates")
        handles: dict[str, Any] = {}
        for axes, title, which in zip(grid, titles, ("loss", "grad_norm"), strict=True):
            style.titled(axes, title)
            handles |= _lines(axes, found, partial(_spikes, which=which), _plain)
            top = max(axes.get_ylim()[1], _LEAST_TOP)
            axes.set_ylim(-0.04 * top, top)
        grid[0].set_xlabel("")
        _depth_axis(grid[1], found)
        _finish(fig, handles, found, "depth")
    return fig


def draw_warmup_length(group: Study) -> Figure:
    """Held-out loss at the end against the length of the rate's warmup, as a share of the run."""
    found = courses(group, _WARMUP, _warmup)
    if not found:
        raise NothingToShow("the runs do not differ in the length of the rate’s warmup")
    with style.styled():
        fig = style.new_figure()
        axes = fig.subplots()
        style.titled(axes, "held-out loss at the end, nats per token")
        handles = _lines(axes, found, ended, _plain)
        _value_axis(axes, found, "rate warmup, % of the run", lambda x: f"{100 * x:.3g}")
        _finish(fig, handles, found, "the warmup")
    return fig


def draw_sweep(group: Study) -> Figure:
    """Held-out loss at the end against each numeric setting that differs, a panel each."""
    axes_of = _swept(group)
    if not axes_of:
        raise NothingToShow("no other numeric setting was varied")
    with style.styled():
        fig = style.new_figure(3.2 if len(axes_of) == 1 else 0.5 + 2.2 * len(axes_of))
        grid = fig.subplots(len(axes_of), 1, squeeze=False)[:, 0]
        handles: dict[str, Any] = {}
        for axes, (key, found) in zip(grid, axes_of.items(), strict=True):
            style.titled(axes, "held-out loss at the end, nats per token")
            handles = _lines(axes, found, ended, _plain)
            _value_axis(axes, found, key, style.short)
            if len(axes_of) > 1:
                style.own_legend(axes, list(handles.values()), list(handles))
        _finish(fig, handles if len(axes_of) == 1 else {}, found, key)
    return fig


def _over_depth(group: Study) -> list[Course]:
    found = courses(group, _DEPTH, lambda run: run.layers)
    if not found:
        raise NothingToShow("the runs do not differ in depth")
    return found


def _swept(group: Study) -> dict[str, list[Course]]:
    """The lines over each setting that has any, those of most values first; a setting that only
    changes with one before it is that one under another name."""
    found = {
        key: lines
        for key in numeric(group)
        if key not in (_DEPTH, _WARMUP) and (lines := courses(group, key, number(key)))
    }
    ranked = sorted(found, key=lambda key: -max(len(c.points) for c in found[key]))
    chosen: dict[str, list[Course]] = {}
    for key in ranked:
        if not any(key in course.along for lines in chosen.values() for course in lines):
            chosen[key] = found[key]
    return dict(list(chosen.items())[:_PANELS])


def _warmup(run: Run) -> float | None:
    """The length of the rate's warmup as a share of the run; None where it is not a length."""
    value = run.setting("rate", "warmup")
    try:
        length = parse_length("warmup", value) if isinstance(value, str) else value
    except ValueError:
        return None
    if isinstance(length, bool) or not isinstance(length, int | float):
        return None  # in tokens
    return length / run.planned if isinstance(length, int) else length


def _lines(
    axes: Axes, found: Sequence[Course], outcome: Outcome, shown: Callable[[float], float]
) -> dict[str, Any]:
    """A line for each course: mean over seeds, bars from the lowest to the highest. Where a run
    diverged there is a cross on top instead: the mean of the others would flatter the point.

    Returns:
        handles for a legend, by name.
    """
    handles: dict[str, Any] = {}
    crosses = []
    if _least_of(found, outcome) == math.inf:
        raise NothingToShow("none of the runs came to an end with a finite loss")
    for i, course in enumerate(_shown(found, outcome)):
        look = style.look(i)
        x, mean, low, high = [], [], [], []
        for value, runs in course.points.items():
            ends = [end for end in map(outcome, runs) if end is not None]
            crosses += [(value, look.colour)] * any(math.isinf(end) for end in ends)
            over = spread(ends)
            if over is not None and max(ends) < math.inf:
                x.append(value)
                mean.append(shown(over.mean))
                low.append(shown(min(ends)))
                high.append(shown(max(ends)))
        axes.vlines(x, low, high, color=look.colour, linewidth=1.0, alpha=0.7)
        (drawn,) = axes.plot(
            x,
            mean,
            color=look.colour,
            linestyle=look.dash,
            linewidth=1.6,
            marker=look.marker,
            markersize=5.5,
            markeredgecolor=style.PAPER,
            markeredgewidth=0.6,
        )
        name = course.name or _UNNAMED
        handles[name] = hover.line(drawn, name)
    if crosses:
        handles["diverged"] = _crosses(axes, crosses)
    return handles


def _crosses(axes: Axes, crosses: Sequence[tuple[float, str]]) -> Any:
    """One for each diverged point, side by side where they have one value."""
    from matplotlib.lines import Line2D
    from matplotlib.transforms import ScaledTranslation

    axes.margins(y=0.16)
    # A value at which all runs diverged belongs on the axis too.
    axes.update_datalim([(value, 0.0) for value, _ in crosses], updatey=False)
    axes.autoscale_view()
    beside: dict[float, int] = {}
    figure = axes.get_figure(root=True)
    assert figure is not None
    how: dict[str, Any] = {
        "marker": "x",
        "markersize": 5.5,
        "markeredgewidth": 1.6,
        "linestyle": "none",
    }
    for value, colour in crosses:
        i = beside[value] = beside.get(value, -1) + 1
        across = ScaledTranslation((i + 1) // 2 * (-1) ** i * 6 / 72, 0, figure.dpi_scale_trans)
        axes.plot(
            [value],
            [0.95],
            color=colour,
            transform=axes.get_xaxis_transform() + across,
            clip_on=False,
            label="diverged",
            **how,
        )
    return Line2D([], [], color=style.MUTED, **how)


def _shown(found: Sequence[Course], outcome: Outcome) -> list[Course]:
    """As many lines as can be told apart: those that get lowest, in the order they came in."""
    lowest = sorted(found, key=lambda course: _least_of([course], outcome))[:LINES]
    return [course for course in found if course in lowest]


def _least_of(found: Sequence[Course], outcome: Outcome) -> float:
    runs = [run for course in found for runs in course.points.values() for run in runs]
    ends = [outcome(run) for run in runs]
    return min((end for end in ends if end is not None), default=math.inf)


def _finish(fig: Figure, handles: dict[str, Any], found: Sequence[Course], what: str) -> None:
    style.legend(fig, list(handles.values()), list(handles))
    said = []
    if len(found) > LINES:
        said.append(f"Drawn: the {LINES} lines that get lowest, of {len(found)}.")
    along = list(dict.fromkeys(key for course in found for key in course.along))
    if along:
        more = f" and {len(along) - 3} more" if len(along) > 3 else ""
        said.append(f"With {what} changes also: {', '.join(along[:3])}{more}.")
    unfinished = sum(
        ended(run) is None for course in found for runs in course.points.values() for run in runs
    )
    if unfinished:
        said.append(f"Not drawn: {unfinished} that did not come to an end.")
    style.remark(fig, " ".join(said))


def _depth_axis(axes: Axes, found: Sequence[Course]) -> None:
    axes.set_xticks(sorted({x for course in found for x in course.points}))
    axes.set_xlabel("layers", loc="right", labelpad=1)
    axes.xaxis.set_major_formatter(lambda value, _: style.short(value))


def _value_axis(
    axes: Axes, found: Sequence[Course], what: str, said: Callable[[float], str]
) -> None:
    """An axis with the values that occur, logarithmic if they span much and none is 0."""
    from matplotlib.ticker import FixedLocator, NullLocator

    values = sorted({x for course in found for x in course.points})
    if values[0] > 0 and values[-1] >= _LOG_FROM * values[0]:
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(_apart(values, axes.get_xscale() == "log")))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda value, _: said(value))
    axes.set_xlabel(what, loc="right", labelpad=1)


def _apart(values: Sequence[float], log: bool) -> list[float]:
    """Those of rising values whose labels have room."""
    at = [math.log(value) for value in values] if log else list(values)
    kept = [0]
    for i in range(1, len(at)):
        if at[i] - at[kept[-1]] >= _LABEL * (at[-1] - at[0]):
            kept.append(i)
    return [values[i] for i in kept]


def _spikes(run: Run, which: str) -> float | None:
    found = spike_score([run], which)
    return None if found is None else found.percent


def _plain(value: float) -> float:
    return value
