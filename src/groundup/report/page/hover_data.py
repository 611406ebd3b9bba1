"""What a figure shows under the pointer, as data for the page's script.

Each axes says where it stands in the SVG and how its numbers become places, so that the numbers
themselves are all that a line needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from groundup.report import hover

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["of_figure"]

_POINTS = 8000  # of all lines of a figure; a line keeps at most _LINE and at least _LEAST
_LINE, _LEAST = 400, 60
_CELLS = 12_000  # of all heat maps of a figure
_POINTS_PER_INCH = 72


def of_figure(figure: Figure, colours: dict[str, str]) -> list[dict[str, Any]]:
    """One object per axes that has something to say; call it after the figure was drawn, since
    drawing lays it out.

    An object has "box", [x, y, width, height] in the coordinates of the SVG's viewBox; "x" and
    "y", [value at the left or bottom, value at the right or top, 1 if logarithmic]; "of", the name
    of the horizontal axis; and "lines" ({"name", "colour", "x", "y"}), or "heat" ({"steps",
    "values"}, the values of a step together). Numbers are rounded to 5 digits, null where they are
    not finite. `colours` says what stands for a colour of matplotlib's.

    Axes that are neither linear nor logarithmic are left out.
    """
    found = [(axes, *_artists(axes)) for axes in figure.axes]
    line_count = sum(len(lines) for _, lines, _ in found)
    heat_count = sum(len(heats) for _, _, heats in found)
    points = min(_LINE, max(_LEAST, _POINTS // max(line_count, 1)))
    cells = _CELLS // max(heat_count, 1)
    return [
        _place(figure, axes) | _content(lines, heats, points, cells, colours)
        for axes, lines, heats in found
        if (lines or heats) and {axes.get_xscale(), axes.get_yscale()} <= {"linear", "log"}
    ]


def _artists(axes: Axes) -> tuple[list[tuple[Any, hover.Line]], list[hover.Heat]]:
    said = [(artist, hover.found(artist)) for artist in axes.get_children()]
    lines = [(artist, what) for artist, what in said if isinstance(what, hover.Line)]
    return lines, [what for _, what in said if isinstance(what, hover.Heat)]


def _place(figure: Figure, axes: Axes) -> dict[str, Any]:
    width, height = (float(size) * _POINTS_PER_INCH for size in figure.get_size_inches())
    where = axes.get_position()
    box = [where.x0 * width, (1 - where.y1) * height, where.width * width, where.height * height]
    return {
        "box": [round(float(size), 1) for size in box],
        "x": [*map(_short, axes.get_xlim()), int(axes.get_xscale() == "log")],
        "y": [*map(_short, axes.get_ylim()), int(axes.get_yscale() == "log")],
        "of": _horizontal(axes),
    }


def _horizontal(axes: Axes) -> str:
    """The name of the horizontal axis, which of several that are stacked only the last one says."""
    assert axes.figure is not None
    same = [axes, *(o for o in axes.figure.axes if o.get_xlim() == axes.get_xlim())]
    return next((text for other in same if (text := other.get_xlabel())), "")


def _content(
    lines: Sequence[tuple[Any, hover.Line]],
    heats: Sequence[hover.Heat],
    points: int,
    cells: int,
    colours: dict[str, str],
) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if lines:
        content["lines"] = [_line(artist, what, points, colours) for artist, what in lines]
    if heats:
        content["heat"] = _heat(heats[-1], cells)
    return content


def _line(artist: Any, what: hover.Line, points: int, colours: dict[str, str]) -> dict[str, Any]:
    from matplotlib.colors import to_hex

    x, y = (np.asarray(side, dtype=np.float64) for side in artist.get_data(orig=False))
    keep = _spread(x[np.isfinite(y)], points)
    hexadecimal = to_hex(artist.get_color())
    variable = colours.get(hexadecimal)
    return {
        "name": what.name,
        "colour": f"var({variable})" if variable else hexadecimal,
        "x": [_short(value) for value in x[np.isfinite(y)][keep]],
        "y": [_short(value) for value in y[np.isfinite(y)][keep]],
    }


def _heat(what: hover.Heat, cells: int) -> dict[str, Any]:
    steps, values = np.asarray(what.steps), np.asarray(what.values, dtype=np.float64)
    keep = _spread(steps, max(20, cells // max(values.shape[1], 1)))
    return {
        "steps": [_short(step) for step in steps[keep]],
        "values": [[_short(value, 4) for value in row] for row in values[keep]],
    }


def _spread(at: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Which of the points at `at` to keep: all, or `count` spread evenly, the ends among them."""
    if len(at) <= count:
        return np.arange(len(at))
    return np.unique(np.linspace(0, len(at) - 1, count).round().astype(np.int64))


def _short(value: float, digits: int = 5) -> float | int | None:
    if not np.isfinite(value):
        return None
    if float(value).is_integer() and abs(value) < 1e15:
        return int(value)
    return float(f"{value:.{digits}g}")
