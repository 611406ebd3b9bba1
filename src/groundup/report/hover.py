"""What the page shows under the pointer: figures say it of their artists, `svg.inline` reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Heat", "Line", "found", "heat", "line"]

_ATTRIBUTE = "groundup_hover"


@dataclass(frozen=True)
class Line:
    """A line whose values are shown under `name`."""

    name: str


@dataclass(frozen=True, eq=False)
class Heat:
    """Cells: steps [n] of the columns and values [n, L]; rows are layers, 1 the first."""

    steps: NDArray[Any]
    values: NDArray[Any]


def line(artist: Any, name: str) -> Any:
    """Show the values of a Line2D under `name`."""
    setattr(artist, _ATTRIBUTE, Line(name))
    return artist


def heat(artist: Any, steps: NDArray[Any], values: NDArray[Any]) -> Any:
    """Show the cells of an image: `values` [n, L] at `steps` [n]."""
    setattr(artist, _ATTRIBUTE, Heat(np.asarray(steps), np.asarray(values)))
    return artist


def found(artist: Any) -> Line | Heat | None:
    """What was said of an artist."""
    return getattr(artist, _ATTRIBUTE, None)
