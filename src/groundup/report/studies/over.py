"""Lines over arms, layers and updates: means over seeds, and the seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from groundup.experiment.studies.shown import Course, Layers, Lines
from groundup.report import style
from groundup.report.studies.findings import ArmFindings, Findings, RunFindings
from groundup.report.table import perplexity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Line", "courses", "draw_courses", "draw_layers", "draw_points", "layers", "points"]

_DECADES = 4  # of values by layer: below that is noise
_FEW = 2  # points that make a line


@dataclass(frozen=True)
class Line:
    """A line of a figure.

    Attributes:
        label: in the legend.
        seeds: of each seed the points (x, y), by rising x.
        lost: at which x a run diverged.
        is_baseline: whether others are compared with it.
    """

    label: str
    seeds: tuple[tuple[tuple[float, float], ...], ...]
    lost: tuple[float, ...] = ()
    is_baseline: bool = False

    @property
    def mean(self) -> list[tuple[float, float]]:
        """Means over the seeds that have a point, by rising x."""
        at: dict[float, list[float]] = {}
        for seed in self.seeds:
            for x, y in seed:
                at.setdefault(x, []).append(y)
        return [(x, math.fsum(ys) / len(ys)) for x, ys in sorted(at.items())]


def points(figure: Lines, found: Findings) -> list[Line]:
    """A line for each label that has two arms with a result, or one that diverged."""
    read = _VALUES.get(figure.value) or _number(figure, found)
    lines = []
    for label, places in figure.lines.items():
        arms = {name: arm for name in places if (arm := found.arm(name)) is not None}
        at: dict[int, list[tuple[float, float]]] = {}
        for name, arm in sorted(arms.items(), key=lambda pair: places[pair[0]]):
            for run in arm.runs:
                if run.value is not None and (y := read(run)) is not None:
                    at.setdefault(run.seed, []).append((places[name], y))
        lost = tuple(places[name] for name, arm in arms.items() if arm.diverged or arm.hopeless)
        line = Line(label, tuple(map(tuple, at.values())), lost, _are_baselines(arms, found))
        if len(line.mean) >= _FEW or line.lost:
            lines.append(line)
    return lines


def layers(figure: Layers, found: Findings) -> list[Line]:
    """A line for each arm that was measured: values by layer, the first is 1."""

    def read(arm: ArmFindings, run: RunFindings) -> Sequence[tuple[float, float | None]]:
        known = run.measured.get(figure.measured)
        if known is None:
            return ()
        until = [i for i, step in enumerate(known.steps) if step <= figure.at * run.updates]
        row = known.values[until[-1]] if until else ()
        return [(float(l), value) for l, value in enumerate(row, start=1)]

    return _of_arms(figure.arms, found, read)


def courses(figure: Course, found: Findings) -> list[Line]:
    """A line for each arm that was measured: values by completed updates."""

    def paired(arm: ArmFindings, run: RunFindings) -> Sequence[tuple[float, float | None]]:
        base = found.arm(found.study.baselines[arm.name])
        same = (one for one in (base.runs if base else ()) if one.seed == run.seed)
        theirs = [_course(figure, one) for one in same if one.value is not None]
        below = {x: y for course in theirs for x, y in course if y is not None}
        course = [(x, y) for x, y in _course(figure, run) if y is not None]
        return [(x, y - below[x]) for x, y in course if x in below]

    def own(_: ArmFindings, run: RunFindings) -> Sequence[tuple[float, float | None]]:
        return _course(figure, run)

    return _of_arms(figure.arms, found, paired if figure.paired else own)


def _course(figure: Course, run: RunFindings) -> Sequence[tuple[float, float | None]]:
    last = math.inf if figure.until is None else figure.until
    if figure.measured == "loss":
        step = run.updates / max(1, len(run.losses))
        course = [((i + 0.5) * step, value) for i, value in enumerate(run.losses)]
    elif figure.measured == "evaluation":
        course = [(float(step), value) for step, value in run.evaluations]
    else:
        known = run.measured.get(figure.measured)
        pairs = zip(known.steps, known.values, strict=True) if known else ()
        course = [(float(step), _mean(value)) for step, value in pairs]
    return [(x, y) for x, y in course if x <= last]


def draw_points(figure: Lines, lines: list[Line]) -> Figure:
    """Bars reach from the lowest to the highest seed, crosses stand for what diverged."""
    heights = {line.label: 0.96 - 0.05 * i for i, line in enumerate(lines)}

    def draw(axes: Axes, line: Line, look: style.Look) -> Any:
        ranges: dict[float, list[float]] = {}
        for seed in line.seeds:
            for x, y in seed:
                ranges.setdefault(x, []).append(y)
        xs = list(ranges)
        low, high = ([end(ranges[x]) for x in xs] for end in (min, max))
        axes.vlines(xs, low, high, color=look.colour, linewidth=1.0, alpha=0.7)
        across = axes.get_xaxis_transform()
        crosses = [heights[line.label]] * len(line.lost)
        axes.plot(line.lost, crosses, "x", color=look.colour, transform=across)
        return axes.plot(*_columns(line.mean), marker=look.marker, **_stroke(look))[0]

    drawn, axes = _figure(figure.title, lines, draw)
    axes.set_xlabel(figure.axis, loc="right", labelpad=1)
    ticks = sorted({x for line in lines for x in (*line.lost, *(x for x, _ in line.mean))})
    if figure.log:
        axes.set_xscale("log")
    axes.set_xticks(ticks, [style.short(tick) for tick in ticks])
    axes.minorticks_off()
    if not any(y for line in lines for seed in line.seeds for _, y in seed):
        axes.set_ylim(-0.05, 1)  # unless told, an axis about nothing but 0 goes as far below it
    style.remark(drawn, "a cross: a run of it diverged" if any(l.lost for l in lines) else "")
    return drawn


def draw_layers(figure: Layers, lines: list[Line]) -> Figure:
    """Values by layer."""
    drawn, axes = _figure(figure.title, lines, _seeds_and_mean)
    axes.set_xlabel("layer", loc="right", labelpad=1)
    axes.locator_params(axis="x", nbins=12, integer=True)
    if figure.log:
        style.log_axis(axes, _DECADES)
        _remark_on_the_rest(drawn, lines)
    return drawn


def draw_courses(figure: Course, lines: list[Line]) -> Figure:
    """Values by updates."""
    # In a paired one the baseline is the line at 0.
    drawn, axes = _figure(figure.title, lines, _seeds_and_mean, single=not figure.paired)
    if figure.paired:
        axes.axhline(0, color=style.baseline_look().colour, linewidth=1.0, zorder=0)
    if figure.log:
        style.log_axis(axes)
        _remark_on_the_rest(drawn, lines)
    style.updates_axis(axes, max(x for line in lines for x, _ in line.mean))
    return drawn


def _remark_on_the_rest(drawn: Figure, lines: list[Line]) -> None:
    ys = [y for line in lines for points in (line.mean, *line.seeds) for _, y in points]
    style.remark(drawn, "" if min(ys) > 0 else "what is not above 0 is left out")


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _figure(
    title: str,
    lines: list[Line],
    draw: Callable[[Axes, Line, style.Look], Any],
    single: bool = True,
) -> tuple[Figure, Axes]:
    with style.styled():
        figure = style.new_figure()
        axes = figure.subplots()
        style.titled(axes, title)
        handles, coloured = [], 0
        # The look of a baseline is one: several would not be told apart.
        single = single and sum(line.is_baseline for line in lines) == 1
        for line in lines:
            grey = single and line.is_baseline
            look = style.baseline_look() if grey else style.look(coloured)
            coloured += not grey
            handles.append(draw(axes, line, look))
        style.legend(figure, handles, [line.label for line in lines])
    return figure, axes


def _seeds_and_mean(axes: Axes, line: Line, look: style.Look) -> Any:
    for seed in line.seeds if len(line.seeds) > 1 else ():
        axes.plot(*zip(*seed, strict=True), color=look.colour, linewidth=0.6, alpha=0.45)
    return axes.plot(*zip(*line.mean, strict=True), **_stroke(look))[0]


def _stroke(look: style.Look) -> dict[str, Any]:
    return {"color": look.colour, "linestyle": look.dash, "linewidth": 1.6, "markersize": 5}


def _of_arms(
    names: Sequence[str],
    found: Findings,
    read: Callable[[ArmFindings, RunFindings], Sequence[tuple[float, float | None]]],
) -> list[Line]:
    lines = []
    for name in names:
        if (arm := found.arm(name)) is None:
            continue
        # One that has not come to its end has no "at the end", and its parts are others.
        ended = [run for run in arm.runs if run.value is not None]
        known = [tuple((x, y) for x, y in read(arm, run) if y is not None) for run in ended]
        line = Line(name, tuple(filter(None, known)), (), _are_baselines({name: arm}, found))
        if len(line.mean) >= _FEW:
            lines.append(line)
    return lines


def _are_baselines(arms: Mapping[str, ArmFindings], found: Findings) -> bool:
    return arms.keys() <= set(found.study.baselines.values())


def _number(figure: Lines, found: Findings) -> Callable[[RunFindings], float | None]:
    for column in found.study.columns:
        if column.key == figure.value:
            return lambda run: column.factor * n if (n := run.numbers.get(column.key)) else n
    raise ValueError(f"value={figure.value!r} of the figure {figure.name!r} is none of a run's")


def _mean(value: Any) -> float | None:
    known = [v for v in value if v is not None] if isinstance(value, tuple) else [value]
    return float(np.mean(known)) if known and None not in known else None


_VALUES: dict[str, Callable[[RunFindings], float | None]] = {
    "loss": lambda run: run.value,
    "perplexity": lambda run: None if run.value is None else perplexity(run.value),
    "gradient spikes": lambda run: (
        run.spikes["grad_norm"][0] if "grad_norm" in run.spikes else None
    ),
    "loss spikes": lambda run: run.spikes["loss"][0] if "loss" in run.spikes else None,
}
