"""Heat maps of what was measured in each layer over updates, one per variant, in one scale."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from groundup.report import heat, hover, style
from groundup.report.figures._base import (
    MAPS,
    NothingToShow,
    Read,
    best,
    layered,
    length,
    looks_of,
    marked,
    over_seeds,
    seeds_of,
)
from groundup.report.figures._scale import FITTED, fit, sound
from groundup.report.measured import Measured
from groundup.report.runs import Run
from groundup.report.table import Study, Variant

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 3  # branches side by side


@dataclass(frozen=True)
class Column:
    """One quantity: a map for each variant, under this title."""

    title: str
    read: Read


@dataclass(frozen=True)
class Below:
    """A panel of lines under the maps, for their variants; it returns handles and names."""

    draw: Callable[[Axes, Study, Study], tuple[list[Any], list[str]]]


@dataclass(frozen=True)
class Maps:
    """A figure of heat maps.

    Attributes:
        columns: the quantities, from what the runs have; those that no run has are left out.
        shade: what a shade stands for, beside the bar.
        missing: why there is nothing to show, if so.
        log, unit: the scale, see `heat.fitted`.
        below: the panel under the maps, if there is one.
    """

    columns: Callable[[Study], Sequence[Column]]
    shade: str
    missing: str
    log: bool = False
    unit: bool = False
    below: Below | None = None

    def draw(self, group: Study) -> Figure:
        """Draws it."""
        columns = self.columns(group)[:_COLUMNS]
        part, remark = best(group, MAPS, lambda v: any(seeds_of(v, c.read) for c in columns))
        if not part.variants:
            raise NothingToShow(self.missing)
        cells = {
            (i, j): _cropped(over_seeds(seeds))
            for i, variant in enumerate(part.variants)
            for j, column in enumerate(columns)
            if (seeds := seeds_of(variant, column.read))
        }
        kept = sound(part)
        ours: list[Any] = []
        others: list[Any] = []
        for (i, _), found in cells.items():
            (ours if part.variants[i].name in kept else others).append(found.values)
        scale = heat.fitted(ours, self.log, self.unit, others)
        remark = " ".join([remark] * bool(remark) + [FITTED] * bool(others))
        last = length(part.runs, list(cells.values()))
        rows = len(part.variants)
        heights = [2.5 if rows == 1 else 1.25] * rows + [1.9] * (self.below is not None)
        with style.styled():
            fig = style.new_figure(0.75 + sum(heights))
            grid = fig.add_gridspec(len(heights), len(columns), height_ratios=heights)
            drawn: dict[tuple[int, int], Any] = {}
            for (i, j), found in cells.items():
                axes = fig.add_subplot(grid[i, j])
                drawn[i, j] = heat.measured(axes, found, last, scale)
                style.updates_axis(axes, last)
                axes.set_xlim(0, last)
                style.titled(axes, _title(part.variants[i], columns, i, j))
                if len(columns) > 1:
                    axes.locator_params(axis="x", nbins=6 // len(columns))
                    axes.set_xlabel("updates" if j == len(columns) - 1 else "", loc="right")
                if any(column == j and row > i for row, column in cells):
                    axes.set_xlabel("")
                    axes.tick_params(labelbottom=False)
            maps = [image.axes for image in drawn.values()]
            heat.scale_bar(fig, next(iter(drawn.values())), maps, self.shade, scale)
            if self.below is not None:
                handles, names = self.below.draw(fig.add_subplot(grid[rows, :]), group, part)
                style.legend(fig, handles, names)
            style.remark(fig, remark)
        return fig


def profile(read: Read, title: str, log: bool = False, zero: bool = False) -> Below:
    """The last measurement of each variant, layer by layer."""

    def draw(axes: Axes, group: Study, part: Study) -> tuple[list[Any], list[str]]:
        there = [variant for variant in part.variants if seeds_of(variant, read)]
        looks, lines = looks_of(group, part), {}
        style.titled(axes, title)
        for variant in there:
            seeds = seeds_of(variant, read)
            look = looks[variant.name]
            if len(seeds) > 1:
                for seed in seeds:
                    axes.plot(*_layers(seed), color=look.colour, linewidth=0.7, alpha=0.5)
            x, y = _layers(over_seeds(seeds))
            how = marked(look, len(x))
            (drawn,) = axes.plot(x, y, color=look.colour, linestyle=look.dash, **how)
            lines[variant.name] = hover.line(drawn, variant.name)
        if log:
            axes.set_yscale("log")
        kept = sound(part)
        fit(axes, lines, kept)
        if zero:
            axes.axhline(0, color=style.MUTED, linewidth=0.7)
            ours = [np.asarray(line.get_ydata()) for name, line in lines.items() if name in kept]
            _fit_to_deep_layers(axes, ours)
        if log:
            style.log_axis(axes)
        _layers_axis(axes)
        return list(lines.values()), list(lines)

    return Below(draw)


def _fit_to_deep_layers(axes: Axes, lines: Sequence[Any]) -> None:
    """Where the first layer is worth many times any other, let it leave the scale, and say so."""
    if not lines:
        return
    first = np.nanmax([line[0] for line in lines])
    others = np.concatenate([line[1:] for line in lines])
    others = others[np.isfinite(others)]
    if not len(others) or not others.max() > 0 or first < 4 * others.max():
        return
    room = 0.1 * (others.max() - min(0.0, others.min()))
    axes.set_ylim(min(0.0, others.min()) - room, others.max() + 2.5 * room)
    axes.annotate(
        f"layer 1 is off the scale: up to {style.short(float(f'{first:.3g}'))}",
        xy=(0.16, 1),
        xycoords="axes fraction",
        xytext=(4, -2),
        textcoords="offset points",
        va="top",
        fontsize=9.2,
        color=style.MUTED,
        bbox={"facecolor": style.PAPER, "edgecolor": "none", "pad": 1, "alpha": 0.85},
        zorder=6,
    )


def largest(read: Read, title: str) -> Below:
    """The largest value over the layers, over updates."""

    def draw(axes: Axes, group: Study, part: Study) -> tuple[list[Any], list[str]]:
        there = [variant for variant in part.variants if seeds_of(variant, read)]
        looks, lines, ends = looks_of(group, part), {}, []
        style.titled(axes, title)
        for variant in there:
            found = over_seeds([_over_layers(m) for m in seeds_of(variant, read)])
            look = looks[variant.name]
            ends.append(found)
            how = marked(look, len(found.steps))
            (drawn,) = axes.plot(
                found.steps, found.values, color=look.colour, linestyle=look.dash, **how
            )
            lines[variant.name] = hover.line(drawn, variant.name)
        fit(axes, lines, sound(part))
        style.updates_axis(axes, length(group.runs, ends))
        return list(lines.values()), list(lines)

    return Below(draw)


def _title(variant: Variant, columns: Sequence[Column], i: int, j: int) -> str:
    """Over each map its variant; of several side by side, over the first, which leaves it room,
    and over the first row also what each column shows."""
    if len(columns) == 1:
        return style.label(f"layer · {variant.name}", 50)
    lines = [style.label(columns[j].title, 46 // len(columns))] if i == 0 else []
    return "\n".join([*lines, style.label(f"layer · {variant.name}", 46) if j == 0 else " "])


def _cropped(found: Measured) -> Measured:
    """Without the last layer if it never has a value: it has no next one to be compared with."""
    if found.values.shape[1] > 1 and np.isnan(found.values[:, -1]).all():
        return Measured(found.steps, found.values[:, :-1])
    return found


def _layers(found: Measured) -> tuple[Any, Any]:
    return np.arange(1, found.values.shape[1] + 1), found.last


def _over_layers(found: Measured) -> Measured:
    there = np.isfinite(found.values).any(axis=1)
    return Measured(found.steps[there], np.nanmax(found.values[there], axis=1))


def _layers_axis(axes: Axes) -> None:
    low, high = axes.get_xlim()
    axes.set_xlim(max(low, 0.5), math.floor(high) + 0.5)
    axes.set_xlabel("layer", loc="right", labelpad=1)
    axes.locator_params(axis="x", nbins=8, integer=True)


def _one(name: str) -> Callable[[Study], Sequence[Column]]:
    return lambda group: [Column("", layered(name))]


def _branches(pattern: str, first: Sequence[Column] = ()) -> Callable[[Study], Sequence[Column]]:
    """A column for each branch that any run has measured."""

    def columns(group: Study) -> Sequence[Column]:
        before, after = pattern.split("*")
        names = dict.fromkeys(
            key[len(before) : -len(after)]
            for run in group.runs
            for key in run.measured
            if key.startswith(before) and key.endswith(after)
        )
        found = [Column(_plain(b), layered(f"{before}{b}{after}")) for b in names]
        return [*(c for c in first if any(c.read(run) for run in group.runs)), *found]

    return columns


def _plain(name: str) -> str:
    return name.replace("_", " ")


def _similarity(run: Run) -> Measured | None:
    """The mean over branches of the similarity with the last sketch."""
    found = list(run.similarity.values())
    if not found:
        return None
    alike = [m for m in found if m.values.shape == found[0].values.shape]
    return Measured(alike[0].steps, np.mean([m.values for m in alike], axis=0))


_STREAM = "no run measured the stream ([measure] what)"

ACTIVATIONS = Maps(
    _one("stream_norm/layers"),
    "norm of the stream, log scale",
    _STREAM,
    log=True,
    below=profile(layered("stream_norm/layers"), "at the end of the run, log scale", log=True),
)
BRANCHES = Maps(_branches("branch_ratio/*/layers"), "branch / stream, log scale", _STREAM, log=True)
NEIGHBOURS = Maps(
    _branches("branch_next/*/layers", [Column("stream", layered("stream_next/layers"))]),
    "cosine with the next",
    _STREAM,
    unit=True,
)
ALIKE = Maps(
    _one("stream_alike/layers"),
    "cosine between tokens",
    _STREAM,
    unit=True,
    below=profile(layered("stream_alike/layers"), "at the end of the run"),
)
SIMILARITY = Maps(
    lambda group: [Column("", _similarity)],
    "cosine with the last",
    "no run kept sketches of its branches ([measure] what: similarity)",
    unit=True,
)
GRADIENTS = Maps(
    _one("grad_norm/layers"),
    "norm, log scale",
    "no run measured its gradients by layer ([measure] what)",
    log=True,
)
ANGLES = Maps(
    _one("angle/layers"),
    "angle, radians, log scale",
    "no run measured its updates by layer ([measure] what)",
    log=True,
)
ATTENTION = Maps(
    _one("attention_uniform/layers"),
    "entropy, share of the largest",
    "no run measured its attention ([measure] what)",
    unit=True,
    below=largest(layered("attention_logit/layers"), "largest logit of all layers"),
)
LAYERS = Maps(
    _one("skip_loss/layers"),
    "loss increase, nats, log scale",
    "no run measured what its layers are worth ([measure] what: depth)",
    log=True,
    below=profile(
        layered("skip_loss/layers"),
        "at the end of the run, nats per token",
        zero=True,
    ),
)
