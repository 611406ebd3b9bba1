"""A matplotlib figure as an inline SVG: small, real text, the page's colours, unique ids, and
beside it the values that the page's script shows."""

from __future__ import annotations

import html
import io
import re
import warnings
from typing import TYPE_CHECKING, Any

from groundup.report import style
from groundup.report.page import hover_data, markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["VARIABLES", "height", "inline"]

VARIABLES: dict[str, str] = {
    style.INK: "--ink",
    style.MUTED: "--muted",
    style.GRID: "--grid",
    style.PAPER: "--paper",
    style.BASELINE_COLOUR: "--base",
    **{colour: f"--c{i}" for i, colour in enumerate(style.COLOURS)},
}
"""The CSS variable that stands for each colour of the figures."""

_ATTRIBUTE = re.compile(r'\b(d|x|y|cx|cy|points)="([^"]*)"')
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_COLOUR = re.compile("|".join(VARIABLES), re.IGNORECASE)
_STYLE = re.compile(r'style="([^"]*)"')
_FONT = re.compile(r"(?<=[\"; ])font: ([\d.]+)px [^;\"]*|font-family: [^;\"]*;? ?")


def inline(figure: Figure, name: str, description: str) -> str:
    """The figure as one `<svg>` element whose ids all begin with `name`, followed by its values
    as JSON if it has any to show under the pointer.

    The same figure gives the same text: no date, and ids that depend on `name` only.
    """
    text = _drawn(figure, name)
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    text = re.sub(r'<style type="text/css">.*?</style>', "", text, count=1, flags=re.DOTALL)
    opening = re.match(r"<svg[^>]*>", text)
    box = re.search(r'viewBox="[^"]*"', text)
    assert opening is not None
    assert box is not None
    label = html.escape(description, quote=True)
    head = f'<svg {box.group()} role="img" aria-label="{label}">'
    data = hover_data.of_figure(figure, VARIABLES)
    values = "\n" + markup.json_block(data, "hover") if data else ""
    return head + _tags(text[opening.end() :], name).strip() + values


def height(text: str) -> float:
    """How tall an inlined figure is, in points."""
    box = re.search(r'viewBox="\S+ \S+ \S+ ([\d.]+)"', text)
    assert box is not None
    return float(box[1])


def _tags(text: str, name: str) -> str:
    """Rewrites attributes within tags; what stands between them, the figure's words, stays."""
    return re.sub(r"<[^>]+>", lambda tag: _tag(tag.group(), name), text)


def _tag(tag: str, name: str) -> str:
    tag = tag.replace("xlink:href=", "href=")
    tag = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', tag)
    tag = re.sub(r"url\(#", f"url(#{name}-", tag)
    tag = re.sub(r'href="#', f'href="#{name}-', tag)
    tag = _ATTRIBUTE.sub(lambda m: f'{m[1]}="{_LONG_NUMBER.sub(_rounded, m[2])}"', tag)
    return _STYLE.sub(lambda m: f'style="{_themed(m[1])}"', tag)


def _themed(declarations: str) -> str:
    """Colours become variables, and the font is the page's."""
    declarations = _COLOUR.sub(lambda m: f"var({VARIABLES[m.group().lower()]})", declarations)
    return _FONT.sub(lambda m: f"font-size: {m[1]}px" if m[1] else "", declarations)


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number.group()):.2f}".rstrip("0").rstrip(".")


def _drawn(figure: Figure, name: str) -> str:
    import matplotlib

    settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": f"groundup-{name}"}
    out = io.StringIO()
    with style.styled(), warnings.catch_warnings():
        # Names in scripts that matplotlib's own font lacks: the reader's browser has them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        matplotlib.rcParams.update(settings)
        figure.savefig(
            out,
            format="svg",
            facecolor="none",
            metadata={"Date": None, "Creator": None, "Format": None, "Type": None},
        )
    return out.getvalue()
