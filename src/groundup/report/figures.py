"""The report's figures, each a function from a `Study` to a matplotlib figure.

`figure("gap", runs)` draws one of them; `FIGURES` is the table of all, in the page's order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from groundup._check import unknown
from groundup.report import captions, curves, heat, moments, style
from groundup.report.curves import Curve
from groundup.report.runs import Run
from groundup.report.table import Study, Variant, evaluations, pairs, study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FIGURES", "NothingToShow", "Spec", "figure"]

_EVAL_MARKS = 40


class NothingToShow(ValueError):
    """These runs do not have what the figure shows."""


@dataclass(frozen=True)
class Spec:
    """A figure of the report: how to draw it and what to say about it."""

    title: str
    draw: Callable[[Study], Figure]
    caption: Callable[[Study], str]


def figure(name: str, runs: Sequence[Run], baseline: str | None = None) -> Figure:
    """Draws a figure of the report: "loss", "gap", "alpha", "rate" or "grad_norm".

    Raises:
        NothingToShow: (a ValueError) if the runs have nothing of the kind.
    """
    if name not in FIGURES:
        raise unknown("figure", name, FIGURES)
    return FIGURES[name].draw(study(runs, baseline))


def draw_loss(group: Study) -> Figure:
    """Training loss, smoothed over raw, with the evaluations as markers."""
    window = curves.window(group.runs)
    with style.styled():
        fig, axes = _single("loss, nats per token")
        handles = []
        for variant, look in _looks(group):
            _raw(axes, group, variant, "loss", look)
            smoothed = [_smoothed(run, "loss", window) for run in variant.runs]
            handles.append(_mean_line(axes, smoothed, look))
            _eval_marks(axes, [evaluations(run) for run in variant.runs], look)
        style.updates_axis(axes, curves.last(group.runs))
        axes.set_ylim(*_loss_limits(group, window))
        style.legend(fig, handles, [v.name for v in group.variants])
    return fig


def draw_gap(group: Study) -> Figure:
    """Training and evaluation loss minus the baseline's, paired by seed."""
    paired = [(v, pairs(v, group.baseline)) for v in group.others]
    paired = [(variant, both) for variant, both in paired if both]
    if not paired:
        raise NothingToShow("no run has a baseline of the same seed to be compared with")
    window = curves.window(group.runs)
    looks = style.looks(group)
    with style.styled():
        fig, axes = _single("loss minus the baseline’s, nats per token")
        axes.axhline(0, color=style.MUTED, linewidth=1)
        handles, shown = [], []
        for variant, both in paired:
            look = looks[variant.name]
            lines = [curves.difference(run, base, "loss", window) for run, base in both]
            handles.append(_mean_line(axes, lines, look, width=1.7))
            marks = [_eval_gaps(run, base) for run, base in both]
            _eval_marks(axes, marks, look)
            shown += [*lines, *(_as_curve(m) for m in marks if m)]
        style.updates_axis(axes, curves.last(group.runs))
        _gap_limits(axes, shown, curves.last(group.runs))
        style.mark(axes, _gap_moments(group))
        style.legend(fig, handles, [variant.name for variant, _ in paired])
    return fig


def draw_rate(group: Study) -> Figure:
    """Learning rate; variants that share it share a line."""
    looks = style.looks(group)
    same: dict[bytes, list[Variant]] = {}
    for variant in group.variants:
        same.setdefault(variant.runs[0].series["rate"].tobytes(), []).append(variant)
    with style.styled():
        fig, axes = _single("learning rate")
        handles, names = [], []
        for variants in same.values():
            look = looks[variants[0].name] if len(same) > 1 else style.Look(style.INK, "-", "o")
            line = curves.series(variants[0].runs[0], "rate")
            handles.append(_line(axes, line, look, width=1.7))
            names.append(", ".join(style.label(v.name, 20) for v in variants))
        style.updates_axis(axes, curves.last(group.runs))
        axes.set_ylim(0, 1.16 * axes.get_ylim()[1])
        axes.yaxis.set_major_formatter(lambda value, _: style.scientific(value))
        axes.locator_params(axis="y", nbins=5)
        style.mark(axes, moments.decay(group))
        style.legend(fig, handles, names)
    return fig


def draw_grad_norm(group: Study) -> Figure:
    """Gradient norm before clipping, on a logarithmic axis."""
    window = curves.window(group.runs)
    if not any((run.series["grad_norm"] > 0).any() for run in group.runs):
        raise NothingToShow("no run recorded its gradient norm")
    with style.styled():
        fig, axes = _single("gradient norm, log scale")
        axes.set_yscale("log")
        handles = []
        for variant, look in _looks(group):
            _raw(axes, group, variant, "grad_norm", look)
            smoothed = [_level(run, window) for run in variant.runs]
            handles.append(_mean_line(axes, smoothed, look))
        style.updates_axis(axes, curves.last(group.runs))
        _log_ticks(axes)
        style.legend(fig, handles, [v.name for v in group.variants])
    return fig


def draw_alpha(group: Study) -> Figure:
    """α over updates and layers, a heat map per distinct schedule."""
    maps = moments.alpha_maps(group)
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
    return fig


def _looks(group: Study) -> list[tuple[Variant, style.Look]]:
    """Variants with their looks, in the order of the study."""
    looks = style.looks(group)
    return [(variant, looks[variant.name]) for variant in group.variants]


def _single(what: str) -> tuple[Figure, Axes]:
    fig = style.new_figure()
    axes = fig.subplots()
    style.titled(axes, what)
    return fig, axes


def _smoothed(run: Run, name: str, window: int) -> Curve:
    steps, values = curves.series(run, name)
    return steps, curves.smooth(values, window)


def _level(run: Run, window: int) -> Curve:
    """Geometric moving average of the gradient norm: a single peak does not lift it."""
    steps, norms = curves.series(run, "grad_norm")
    logs = np.log(np.where(norms > 0, norms, np.nan))
    return steps, np.exp(curves.smooth(logs, window))


def _line(axes: Axes, curve: Curve, look: style.Look, width: float, alpha: float = 1.0) -> Any:
    x, y = curves.thin(*curve)
    return axes.plot(x, y, color=look.colour, linestyle=look.dash, linewidth=width, alpha=alpha)[0]


def _raw(axes: Axes, group: Study, variant: Variant, name: str, look: style.Look) -> None:
    """The recorded values, faint, unless there are too many runs for that to be of use."""
    if len(group.runs) > curves.RAW_RUNS:
        return
    for run in variant.runs:
        x, y = curves.thin(*curves.series(run, name))
        axes.plot(x, y, color=look.colour, linewidth=0.6, alpha=0.22, zorder=1.2)


def _mean_line(axes: Axes, lines: Sequence[Curve], look: style.Look, width: float = 1.6) -> Any:
    """The mean over seeds in full, and each seed thin behind it."""
    if len(lines) > 1:
        for curve in lines:
            x, y = curves.thin(*curve, points=400)
            axes.plot(x, y, color=look.colour, linewidth=0.7, alpha=0.5, zorder=1.8)
    return _line(axes, curves.average(lines), look, width)


def _eval_marks(axes: Axes, seeds: Sequence[dict[int, float]], look: style.Look) -> None:
    """The mean over seeds of what was evaluated after each update that all of them have."""
    steps = sorted(set.intersection(*(set(points) for points in seeds)))
    if len(steps) > _EVAL_MARKS:
        chosen = np.linspace(0, len(steps) - 1, _EVAL_MARKS).round().astype(int)
        steps = [steps[i] for i in chosen]
    means = [float(np.mean([points[step] for points in seeds])) for step in steps]
    axes.plot(
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
    room = 0.06 * (max(highs) - min(lows)) or 0.1
    return min(lows) - room, max(highs) + room


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
    axes.yaxis.set_major_formatter(lambda value, _: _signed(value))
    if whole.max() > high or whole.min() < low:
        peak = whole.max() if whole.max() > high else whole.min()
        axes.annotate(
            f"beginning off the scale: up to {_signed(float(peak))}",
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


def _gap_moments(group: Study) -> list[tuple[float, str, str]]:
    return [*moments.warmup_ends(group), *moments.decay(group)]


def _log_ticks(axes: Axes) -> None:
    """Plain numbers at 1, 2 and 5 of each decade; decades only where there are many."""
    from matplotlib.ticker import LogLocator, NullLocator

    low, high = axes.get_ylim()
    subs = (1.0, 2.0, 5.0) if high / low < 300 else (1.0,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=9))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: style.short(value))


def _signed(value: float) -> str:
    return "0" if abs(value) < 1e-12 else f"{value:+.3g}".replace("-", "−")


FIGURES: dict[str, Spec] = {
    "loss": Spec("Loss", draw_loss, captions.loss),
    "gap": Spec("Gap to the baseline", draw_gap, captions.gap),
    "alpha": Spec("Residual warmup: α of each layer", draw_alpha, captions.alpha),
    "rate": Spec("Learning rate", draw_rate, captions.rate),
    "grad_norm": Spec("Gradient norm", draw_grad_norm, captions.grad_norm),
}
