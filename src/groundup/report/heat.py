"""Heat maps of layers over updates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from groundup.report import style
from groundup.report.moments import AlphaMap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(axes: Axes, heat: AlphaMap, single: bool, what: str = "layer") -> Any:
    """One heat map; each layer's row is repeated, so that no viewer blurs rows together."""
    from matplotlib.colors import LinearSegmentedColormap

    cmap = LinearSegmentedColormap.from_list("α", ["#eef3f8", "#8fbbdc", "#2f7ab5", "#08306b"])
    depth = heat.values.shape[1]
    image = axes.imshow(
        np.repeat(heat.values.T, max(1, 240 // depth), axis=0),
        extent=(0, heat.last, 0.5, depth + 0.5),
        origin="lower",
        aspect="auto",
        interpolation="none",
        cmap=cmap,
        vmin=0,
        vmax=1,
    )
    axes.grid(False)
    names = ", ".join(heat.variants)
    style.titled(axes, what if single else style.label(f"{what} · {names}", 48))
    axes.set_yticks(sorted({1, *range(0, depth + 1, max(1, depth // 4))} - {0}))
    if 0 < heat.end < heat.last:
        style.mark(axes, [(heat.end, "all layers at 1", style.PAPER)])
        for text in axes.texts:
            text.set_color(style.INK)
            text.set_y(-5)
    return image


def bar(figure: Figure, image: Any, axes: Sequence[Axes], what: str) -> None:
    """The bar that says which shade is which value, from 0 to 1."""
    found = figure.colorbar(image, ax=list(axes), pad=0.015, aspect=22, fraction=0.06)
    found.set_label("")
    found.ax.set_title(what, color=style.MUTED, loc="center")
    found.set_ticks([0, 0.5, 1], labels=["0", "0.5", "1"])
    found.outline.set_visible(False)
