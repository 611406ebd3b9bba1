"""Curves of every update: loss, gap to the baseline, learning rate, gradient norm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from groundup.report import curves, hover, moments, style
from groundup.report.curves import Curve
from groundup.report.figures._base import (
    LINES,
    NothingToShow,
    best,
    line,
    looks_of,
    mean_line,
    single,
    unpaired,
)
from groundup.report.runs import Run
from groundup.report.table import Study, Variant, evaluations

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_EVAL_MARKS = 40


def draw_loss(group: Study) -> Figure:
    """Training loss, smoothed over raw, with the evaluations as markers."""
    part, remark = best(group, LINES, lambda variant: _recorded(variant, "loss"))
    if not part.variants:
        raise NothingToShow("no run recorded a finite loss")
    window, looks = curves.window(group.runs), looks_of(group, part)
    with style.styled():
        fig, axes = single("loss, nats per token")
        handles = []
        for variant in part.variants:
            look = looks[variant.name]
            _raw(axes, group, variant, "loss", look)
            smoothed = [_smoothed(run, "loss", window) for run in variant.runs]
            handles.append(mean_line(axes, smoothed, look, variant.name))
            _eval_marks(axes, [evaluations(run) for run in variant.runs], look, variant.name)
        style.updates_axis(axes, curves.last(part.runs))
        axes.set_ylim(*_loss_limits(part, window))
        style.legend(fig, handles, [v.name for v in part.variants])
        style.remark(fig, remark)
    return fig


def draw_gap(group: Study) -> Figure:
    """Training and evaluation loss minus the baseline's, paired by seed."""
    part, remark = best(group, LINES, lambda v: v is group.baseline or bool(group.pairs(v)))
    paired = [(v, group.pairs(v)) for v in part.others]
    if not paired:
        raise NothingToShow(unpaired(group))
    window, looks = curves.window(group.runs), looks_of(group, part)
    last = curves.last(part.runs)
    with style.styled():
        fig, axes = single("loss minus the baseline’s, nats per token")
        axes.axhline(0, color=style.MUTED, linewidth=1)
        handles, shown = [], []
        for variant, both in paired:
            look = looks[variant.name]
            lines = [curves.difference(run, base, "loss", window) for run, base in both]
            handles.append(mean_line(axes, lines, look, variant.name, width=1.7))
            marks = [_eval_gaps(run, base) for run, base in both]
            _eval_marks(axes, marks, look, variant.name)
            shown += [*lines, *(_as_curve(m) for m in marks if m)]
        style.updates_axis(axes, last)
        _gap_limits(axes, shown, last)
        style.mark(axes, [*moments.warmup_ends(part, looks), *moments.decay(part, looks)])
        style.legend(fig, handles, [variant.name for variant, _ in paired])
        style.remark(fig, remark)
    return fig


def draw_rate(group: Study) -> Figure:
    """Learning rate; variants that share it share a line."""
    same: dict[bytes, list[Variant]] = {}
    for variant in group.variants:
        same.setdefault(variant.runs[0].series["rate"].tobytes(), []).append(variant)
    first = {variants[0].name: variants for variants in same.values()}
    part, remark = best(group, LINES, lambda v: v.name in first and _recorded(v, "rate"))
    if not part.variants:
        raise NothingToShow("no run recorded its learning rate")
    looks: Mapping[str, style.Look] = looks_of(group, part)
    if len(part.variants) == 1:
        looks = {part.variants[0].name: style.Look(style.INK, "-", "o")}
    with style.styled():
        fig, axes = single("learning rate")
        handles, names = [], []
        for variant in part.variants:
            curve = curves.series(variant.runs[0], "rate")
            names.append(_together(first[variant.name]))
            handle = line(axes, curve, looks[variant.name], width=1.7)
            handles.append(hover.line(handle, names[-1]))
        style.updates_axis(axes, curves.last(group.runs))
        axes.set_ylim(0, 1.16 * axes.get_ylim()[1])
        axes.yaxis.set_major_formatter(lambda value, _: style.scientific(value))
        axes.locator_params(axis="y", nbins=5)
        style.mark(axes, moments.decay(part, looks))
        style.legend(fig, handles, names)
        style.remark(fig, remark)
    return fig


def draw_grad_norm(group: Study) -> Figure:
    """Gradient norm before clipping, on a logarithmic axis."""
    window = curves.window(group.runs)
    part, remark = best(group, LINES, lambda variant: _recorded(variant, "grad_norm"))
    if not part.variants:
        raise NothingToShow("no run recorded its gradient norm")
    looks = looks_of(group, part)
    with style.styled():
        fig, axes = single("gradient norm, log scale")
        handles = []
        for variant in part.variants:
            look = looks[variant.name]
            _raw(axes, group, variant, "grad_norm", look)
            smoothed = [_level(run, window) for run in variant.runs]
            handles.append(mean_line(axes, smoothed, look, variant.name))
        style.updates_axis(axes, curves.last(part.runs))
        style.log_axis(axes)
        style.legend(fig, handles, [v.name for v in part.variants])
        style.remark(fig, remark)
    return fig


def _recorded(variant: Variant, name: str) -> bool:
    return any((run.series[name] > 0).any() for run in variant.runs)


def _together(variants: Sequence[Variant]) -> str:
    names = [style.label(variant.name, 20) for variant in variants]
    return ", ".join(names) if len(names) < 3 else f"{names[0]} and {len(names) - 1} more"


def _smoothed(run: Run, name: str, window: int) -> Curve:
    steps, values = curves.series(run, name)
    return steps, curves.smooth(values, window)


def _level(run: Run, window: int) -> Curve:
    """Geometric moving average of the gradient norm: a single peak does not lift it."""
    steps, norms = curves.series(run, "grad_norm")
    logs = np.log(np.where(norms > 0, norms, np.nan))
    return steps, np.exp(curves.smooth(logs, window))


def _raw(axes: Axes, group: Study, variant: Variant, name: str, look: style.Look) -> None:
    """The recorded values, faint, unless there are too many runs for that to be of use."""
    if len(group.runs) > curves.RAW_RUNS:
        return
    for run in variant.runs:
        x, y = curves.thin(*curves.series(run, name))
        axes.plot(x, y, color=look.colour, linewidth=0.6, alpha=0.22, zorder=1.2)


def _eval_marks(axes: Axes, seeds: Sequence[dict[int, float]], look: style.Look, name: str) -> None:
    """The mean over seeds of what was evaluated after each update that all of them have."""
    steps = sorted(set.intersection(*(set(points) for points in seeds)))
    if len(steps) > _EVAL_MARKS:
        chosen = np.linspace(0, len(steps) - 1, _EVAL_MARKS).round().astype(int)
        steps = [steps[i] for i in chosen]
    means = [float(np.mean([points[step] for points in seeds])) for step in steps]
    (marks,) = axes.plot(
        steps,
        means,
        linestyle="none",
        marker=look.marker,
        markersize=5,
        markerfacecolor=look.colour,
        markeredgecolor=style.PAPER,
        markeredgewidth=0.7,
        zorder=4,
        clip_on=True,
    )
    hover.line(marks, f"{name}, evaluation")


def _eval_gaps(run: Run, base: Run) -> dict[int, float]:
    ours, theirs = evaluations(run), evaluations(base)
    return {step: ours[step] - theirs[step] for step in sorted(ours.keys() & theirs.keys())}


def _as_curve(points: dict[int, float]) -> Curve:
    return np.array(list(points), dtype=np.float64), np.array(list(points.values()))


def _loss_limits(group: Study, window: int) -> tuple[float, float]:
    """From the lowest value to what the loss is after the first 6% of the run."""
    lows, highs = [], []
    for run in group.runs:
        steps, values = _smoothed(run, "loss", window)
        later = values[steps >= 0.06 * curves.last(group.runs)] if len(values) > 50 else values
        later = later[np.isfinite(later)]
        evals = [loss for _, loss in run.evals]
        if len(later):
            lows.append(min([float(later.min()), *evals]))
            highs.append(float(later.max()))
    if not lows:
        raise NothingToShow("no run recorded a finite loss")
    # One that blew up does not flatten the others.
    high = min(max(highs), 3 * float(np.median(highs)))
    room = 0.06 * (high - min(lows)) or 0.1
    return min(lows) - room, high + room


def _gap_limits(axes: Axes, lines: Sequence[Curve], last: int) -> None:
    """Fits the axis to the run after its first tenth; says how far the beginning leaves it."""
    whole = np.concatenate([y for _, y in lines])
    later = np.concatenate([y[x >= 0.1 * last] for x, y in lines])
    whole, later = whole[np.isfinite(whole)], later[np.isfinite(later)]
    if not len(whole):
        raise NothingToShow("the runs and the baseline have no finite loss in common")
    if not len(later) or np.ptp(whole) < 2.5 * max(np.ptp(later), np.abs(later).max()):
        later = whole
    low, high = min(0.0, float(later.min())), max(0.0, float(later.max()))
    room = 0.08 * (high - low) or 0.01
    # The labels of the moments stand on top, the remark on the beginning at the bottom.
    low, high = low - (room if later is whole else 2 * room), high + 3.2 * room
    axes.set_ylim(low, high)
    axes.yaxis.set_major_formatter(lambda value, _: style.signed(value))
    if whole.max() > high or whole.min() < low:
        peak = whole.max() if whole.max() > high else whole.min()
        axes.annotate(
            f"beginning off the scale: up to {style.signed(float(peak))}",
            xy=(1, 0),
            xycoords="axes fraction",
            xytext=(-3, 4),
            textcoords="offset points",
            ha="right",
            fontsize=9.2,
            color=style.MUTED,
            zorder=6,
            bbox={"facecolor": style.PAPER, "edgecolor": "none", "pad": 1, "alpha": 0.85},
        )
