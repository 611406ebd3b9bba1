"""The look of the figures: colours, line styles, axes. Matplotlib is imported on first use.

Every colour drawn is one of the named ones here, so that the page can exchange each for a CSS
variable and follow the reader's light or dark mode.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from groundup.report.table import Study

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, GRID, PAPER = "#1f2429", "#626b74", "#e3e6e9", "#fefefe"
"""Text; axes and labels; grid lines; background."""
BASELINE_COLOUR = "#555d65"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b0588c", "#b87a00", "#7a5fc0", "#3a8fc4")
"""Okabe–Ito's colours, darkened where they would be too pale on white."""

SIZE = (5.2, 3.2)
_DASHES: tuple[Any, ...] = (
    "-",
    (0, (1.2, 1.2)),
    (0, (6, 1.5, 1.2, 1.5)),
    (0, (8, 2)),
    (0, (6, 1.2, 1.2, 1.2, 1.2, 1.2)),
)
_BASELINE_DASH = (0, (3.5, 1.3))
_MARKERS = "osD^vP*"

_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10.2,
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.linewidth": 0.7,
    "axes.titlesize": 10.2,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "figure.facecolor": PAPER,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "legend.borderpad": 0,
    "legend.columnspacing": 1.4,
    "lines.solid_capstyle": "round",
    "path.simplify": True,
}


@dataclass(frozen=True)
class Look:
    """How one variant is drawn in every figure."""

    colour: str
    dash: Any
    marker: str


def looks(group: Study) -> dict[str, Look]:
    """One look per variant: the baseline grey and dashed, the others coloured."""
    result = {}
    if group.baseline:
        result[group.baseline.name] = baseline_look()
    return result | {variant.name: look(i) for i, variant in enumerate(group.others)}


def baseline_look() -> Look:
    """The look of what others are compared with."""
    return Look(BASELINE_COLOUR, _BASELINE_DASH, "X")


def look(i: int) -> Look:
    """The look of the i-th of several lines, counted from 0."""
    dash = _DASHES[(i + i // len(COLOURS)) % len(_DASHES)]
    return Look(COLOURS[i % len(COLOURS)], dash, _MARKERS[i % len(_MARKERS)])


@contextmanager
def styled() -> Iterator[None]:
    """Matplotlib set up from its own defaults, whatever the user's matplotlibrc says."""
    import matplotlib

    fonts = logging.getLogger("matplotlib.font_manager")
    level = fonts.level
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_RC)
        fonts.setLevel(logging.ERROR)
        try:
            yield
        finally:
            fonts.setLevel(level)


def new_figure(height: float = SIZE[1]) -> Figure:
    """An empty figure in the report's size, laid out so that nothing is cut."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.05)
    return Figure(figsize=(SIZE[0], height), layout=layout)


def titled(axes: Axes, what: str) -> None:
    """Names the vertical axis, on top, where it is read first and takes no width."""
    axes.set_title(what, color=MUTED, pad=7)


def updates_axis(axes: Axes, last: float) -> None:
    """The horizontal axis: completed updates, from 0."""
    axes.set_xlim(0, 1.012 * max(last, 1))
    axes.set_xlabel("updates", loc="right", labelpad=1)
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    axes.locator_params(axis="x", nbins=6, integer=True)


def short(value: float) -> str:
    """10000 → 10k, -0.5 → −0.5, 0.0001 → 1e−4."""
    if abs(value) >= 1e9:
        text = f"{value / 1e9:g}G"
    elif abs(value) >= 1e6:
        text = f"{value / 1e6:g}M"
    elif abs(value) >= 1e4:
        text = f"{value / 1e3:g}k"
    elif 0 < abs(value) < 1e-3:
        text = scientific(value)
    else:
        text = f"{value:.4g}"
    return text.replace("-", "−")


def scientific(value: float) -> str:
    """0.0015 → 1.5e−3."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}".replace("-", "−")


def signed(value: float) -> str:
    """0.5 → +0.5, -0.5 → −0.5."""
    return "0" if abs(value) < 1e-12 else f"{value:+.3g}".replace("-", "−")


def label(name: str, limit: int = 26) -> str:
    """A name fit for a legend: one line, not too long, and never taken for a private one. It is cut
    in its middle: names of a sweep differ at their ends."""
    name = "".join(c if c.isprintable() else " " for c in name)
    if len(name) > limit:
        end = (limit - 1) // 2
        name = f"{name[: limit - 1 - end]}…{name[-end:]}"
    return "\u200b" + name if name.startswith("_") else name


def legend(figure: Figure, handles: Sequence[Any], names: Sequence[str]) -> None:
    """A legend above the axes, which it does not shrink; none for a single entry."""
    if len(names) < 2:
        return
    texts = [label(name, 50) for name in names]
    widest = max(len(text) for text in texts)
    size, width, height = (9.2, 60, 0.175) if len(texts) > 6 else (10.2, 50, 0.19)
    columns = max(1, min(len(texts), width // (widest + 6)))
    rows = -(-len(texts) // columns)
    figure.set_figheight(figure.get_figheight() + height * (rows - 1))
    figure.legend(handles, texts, loc="outside upper left", ncols=columns, fontsize=size)


def own_legend(axes: Axes, handles: Sequence[Any], names: Sequence[str]) -> None:
    """A legend beside axes that do not share their lines with others."""
    if len(names) > 1:
        texts = [label(name, 18) for name in names]
        axes.legend(handles, texts, loc="upper left", bbox_to_anchor=(1.0, 1.05), fontsize=9.2)


def remark(figure: Figure, text: str) -> None:
    """A sentence below the axes; nothing for an empty one."""
    if text:
        figure.supxlabel(text, x=0.01, ha="left", fontsize=9.2, color=MUTED, wrap=True)


def log_axis(axes: Axes, decades: int | None = None) -> None:
    """A logarithmic vertical axis with plain numbers, over so many decades at most; what is not
    above 0 is left out."""
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set_yscale("log", nonpositive="mask")
    low, high = axes.get_ylim()
    if decades is not None:
        low = max(low, high / 10**decades)
        axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(FixedLocator(log_ticks(low, high)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: short(value))


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 of each decade from `low` to `high`, or decades only where there are many; other
    round numbers where fewer than three of these lie between them."""
    from matplotlib.ticker import MaxNLocator

    first, past = math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1
    subs = (1, 2, 5) if high / low < 300 else (1,)
    step = max(1, (past - first) // 8)
    ticks = [sub * 10.0**power for power in range(first, past, step) for sub in subs]
    inside = [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
    if len(inside) > 2 or (len(inside) == 2 and subs == (1,)):
        return inside
    rounds = [float(tick) for tick in MaxNLocator(4).tick_values(low, high) if tick > 0]
    rounds = [tick for tick in rounds if low <= tick <= high]
    return rounds if len(rounds) > max(1, len(inside)) else inside or [low, high]


def mark(axes: Axes, moments: Sequence[tuple[float, str, str]]) -> None:
    """Vertical lines with a label each, unless it is empty: (step, label, colour). Labels take
    turns in height."""
    low, high = axes.get_xlim()
    for i, (step, text, colour) in enumerate(sorted(moments)):
        axes.axvline(step, color=colour, linewidth=0.9, linestyle=(0, (2, 2)), zorder=1.5)
        if not text:
            continue
        left = (step - low) / (high - low) > 0.5
        axes.annotate(
            text,
            xy=(step, 1),
            xycoords=axes.get_xaxis_transform(),
            xytext=(-4 if left else 4, -1 - 13 * (i % 4)),
            textcoords="offset points",
            ha="right" if left else "left",
            va="top",
            fontsize=9.2,
            color=colour,
            zorder=6,
            bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1, "alpha": 0.85},
        )
