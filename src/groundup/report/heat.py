"""Heat maps of layers over updates: α as it is planned, and what runs measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from groundup.report import hover, style
from groundup.report.measured import Measured
from groundup.report.moments import AlphaMap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Scale", "bar", "draw", "fitted", "measured", "scale_bar"]

Numbers = NDArray[np.float64]

_COLUMNS = 400
_HOVERED = 100  # columns of α whose values are shown under the pointer
_ROWS = 240
_ALL_ROWS = 6  # layers: with more, not every one has room for its number
_DECADES = 4  # of a logarithmic scale: what lies deeper below its top has one shade
_LEAST = 0.05  # of the positive values may lie below a logarithmic scale
_FAR = 10  # times the 99th percentile: a top that would leave one shade for the rest


@dataclass(frozen=True)
class Scale:
    """Which values the shades stand for: `low` to `high`. Values beyond have the shades of the
    ends; `over` and `under` say that there are some."""

    low: float
    high: float
    log: bool = False
    over: bool = False
    under: bool = False

    def norm(self) -> Any:
        """Matplotlib's word for it."""
        from matplotlib.colors import LogNorm, Normalize

        return (LogNorm if self.log else Normalize)(self.low, self.high, clip=True)


def fitted(
    maps: Iterable[Numbers], log: bool, unit: bool = False, others: Iterable[Numbers] = ()
) -> Scale:
    """One scale for all `maps`, which may leave out values of `others`.

    Args:
        maps: values, `nan` where there are none; one of them at least is finite.
        log: logarithmic, over four decades at most.
        unit: for what is at most 1, a share or a cosine: from a round value to 1.
        others: further maps that are drawn in this scale.
    """
    scale = _fitted(maps, log, unit)
    rest = np.concatenate([np.empty(0), *(m[np.isfinite(m)] for m in others)])
    over, under = bool((rest > scale.high).any()), bool((rest < scale.low).any())
    return replace(scale, over=scale.over or over, under=scale.under or under)


def _fitted(maps: Iterable[Numbers], log: bool, unit: bool) -> Scale:
    values = np.concatenate([m[np.isfinite(m)] for m in maps])
    if unit:
        return Scale(min(0.9, _down(float(values.min()))), 1.0)
    rest, highest = float(np.quantile(values, 0.99)), float(values.max())
    over = highest > _FAR * rest > 0
    high = rest if over else highest
    if not log:
        low = float(values.min())
        return Scale(low, high if high > low else low + (abs(low) or 1.0), over=over)
    if high <= 0:
        return Scale(1e-3, 1.0, log=True, under=True)
    low = max(high / 10**_DECADES, float(np.quantile(values[values > 0], _LEAST)))
    low = low if low < high else high / 10
    return Scale(low, high, log=True, over=over, under=bool((values < low).any()))


def measured(axes: Axes, found: Measured, last: float, scale: Scale) -> Any:
    """A heat map of `found` (values [n, L]) over updates 0 to `last`.

    A measurement fills the map halfway to those before and after it; cells without a value stay
    empty.
    """
    import matplotlib

    image = _image(axes, _columns(found, last), last, matplotlib.colormaps["cividis"], scale.norm())
    return hover.heat(image, found.steps, found.values)


def draw(axes: Axes, heat: AlphaMap, single: bool, what: str = "layer") -> Any:
    """A heat map of α, or of another factor between 0 and 1."""
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    cmap = LinearSegmentedColormap.from_list("α", ["#eef3f8", "#8fbbdc", "#2f7ab5", "#08306b"])
    image = _image(axes, heat.values, heat.last, cmap, Normalize(0, 1))
    names = ", ".join(heat.variants)
    style.titled(axes, what if single else style.label(f"{what} · {names}", 48))
    if 0 < heat.end < heat.last:
        style.mark(axes, [(heat.end, "all layers at 1", style.PAPER)])
        for text in axes.texts:
            text.set_color(style.INK)
            text.set_y(-5)
    count = len(heat.values)
    chosen = np.linspace(0, count - 1, min(count, _HOVERED)).round().astype(int)
    return hover.heat(image, (chosen + 0.5) * heat.last / count, heat.values[chosen])


def bar(figure: Figure, image: Any, axes: Sequence[Axes], what: str) -> None:
    """The bar that says which shade is which value, from 0 to 1."""
    found = _bar(figure, image, axes, "neither")
    found.ax.set_title(what, color=style.MUTED, loc="center")
    found.set_ticks([0, 0.5, 1], labels=["0", "0.5", "1"])


def scale_bar(figure: Figure, image: Any, axes: Sequence[Axes], what: str, scale: Scale) -> None:
    """The same for a fitted scale; a pointed end stands for values beyond it."""
    from matplotlib.ticker import FixedLocator, NullLocator

    extend = {(True, True): "both", (True, False): "max", (False, True): "min"}
    found = _bar(figure, image, axes, extend.get((scale.over, scale.under), "neither"))
    found.set_label(what, color=style.MUTED)
    if scale.log:
        found.ax.yaxis.set_major_locator(FixedLocator(style.log_ticks(scale.low, scale.high)))
        found.ax.yaxis.set_minor_locator(NullLocator())
    else:
        found.ax.locator_params(axis="y", nbins=5)
    found.ax.yaxis.set_major_formatter(lambda value, _: style.short(value))


def _bar(figure: Figure, image: Any, axes: Sequence[Axes], extend: str) -> Any:
    # As thin beside six maps as beside one.
    aspect = 22 * figure.get_figheight() / style.SIZE[1]
    found = figure.colorbar(
        image, ax=list(axes), pad=0.015, aspect=aspect, fraction=0.06, extend=extend
    )
    found.set_label("")
    found.outline.set_visible(False)
    return found


def _image(axes: Axes, values: Numbers, last: float, cmap: Any, norm: Any) -> Any:
    """`values` [columns, L]; a row is repeated, so that no viewer blurs rows together."""
    depth = values.shape[1]
    image = axes.imshow(
        np.repeat(np.ma.masked_invalid(values.T), max(1, _ROWS // depth), axis=0),
        extent=(0, last, 0.5, depth + 0.5),
        origin="lower",
        aspect="auto",
        interpolation="none",
        cmap=cmap,
        norm=norm,
    )
    axes.grid(False)
    if depth <= _ALL_ROWS:
        axes.set_yticks(range(1, depth + 1))
        axes.tick_params(axis="y", labelsize=8 if depth > 4 else None)
        return image
    step = max(1, round(depth / 4))
    # Not so near to 1 that the two would touch.
    first = step if step - 1 > 0.6 * step else 2 * step
    axes.set_yticks([1, *range(first, depth + 1, step)])
    return image


def _columns(found: Measured, last: float) -> Numbers:
    """The measurement nearest to each column, `nan` where none is near."""
    steps = found.steps.astype(np.float64)
    at = (np.arange(_COLUMNS) + 0.5) * last / _COLUMNS
    nearest = np.searchsorted((steps[:-1] + steps[1:]) / 2, at)
    values: Numbers = found.values[nearest].copy()
    if len(steps) > 1:
        half = np.diff(steps).max() / 2
        values[(at < steps[0] - half) | (at > steps[-1] + half)] = math.nan
    return values


def _down(value: float) -> float:
    """To a tenth below, and 0 for what is negative by noise only."""
    return 0.0 if -0.02 < value < 0 else math.floor(10 * value) / 10
