"""The figures of a study's section: which there are, and how each is drawn."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from groundup.experiment.studies.shown import Course, Layers, Lines
from groundup.report.figures import encoded
from groundup.report.studies import forest, over, rates
from groundup.report.studies.findings import Findings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Picture", "pictures"]

_DPI, _COLOURS = 160, 256


@dataclass(frozen=True)
class Picture:
    """A figure of a section.

    Attributes:
        file: its name: "placement-cpu.png".
        title: in words.
        draw: draws it; matplotlib is imported then.
    """

    file: str
    title: str
    draw: Callable[[], Figure]

    def png(self) -> bytes:
        """The content of its file, with few colours, since it is committed."""
        from PIL import Image

        drawn = io.BytesIO(encoded(self.draw(), self.file, ".png", _DPI))
        small = io.BytesIO()
        Image.open(drawn).convert("RGB").quantize(_COLOURS).save(small, "PNG", optimize=True)
        return small.getvalue()


_DRAWN: dict[type, tuple[Callable[..., Sequence[Any]], Callable[..., Figure]]] = {
    Lines: (over.points, over.draw_points),
    Layers: (over.layers, over.draw_layers),
    Course: (over.courses, over.draw_courses),
}
"""What a figure of a study shows of the findings, and how that is drawn."""


def pictures(found: Findings) -> tuple[Picture, ...]:
    """Those for which there is something to show: the paired differences, the study's own, the
    rates that were tried."""
    return tuple(_pictures(found))


def _pictures(found: Findings) -> Iterator[Picture]:
    value = found.study.value.name
    if differences := forest.rows(found):
        title = f"Paired differences in {value}, with intervals; a dot for each seed"
        yield Picture(f"{found.name}.png", title, partial(forest.draw, differences, found))
    for figure in found.study.figures:
        show, draw = _DRAWN[type(figure)]
        if shown := show(figure, found):
            file = f"{found.name}-{figure.name}.png"
            yield Picture(file, figure.title, partial(draw, figure, shown))
    if tried := rates.panels(found):
        title = f"{value[0].upper()}{value[1:]} against the peak rate, of the runs that choose it"
        yield Picture(f"{found.name}-rates.png", title, partial(rates.draw, tried, found))
