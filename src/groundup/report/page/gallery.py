"""All figures of a study as the page shows them."""

from __future__ import annotations

from groundup.report.figures import FIGURES, NothingToShow
from groundup.report.page import svg
from groundup.report.page.markup import details, escape
from groundup.report.table import Study

__all__ = ["as_html"]

_TALL = 370  # points; such a figure stands beside two others


def as_html(group: Study) -> str:
    """Every figure that these runs have something for; what the others lack is said at the end."""
    parts, missing = [], []
    for name, spec in FIGURES.items():
        try:
            drawn = svg.inline(spec.draw(group), name, spec.title)
        except NothingToShow as reason:
            missing.append(f"{spec.title}: {reason}.")
            continue
        tall = " tall" if svg.height(drawn) > _TALL else ""
        parts.append(
            f'<figure class="{name}{tall}"><h3>{escape(spec.title)}</h3>\n{drawn}\n'
            f"<figcaption>{escape(spec.caption(group))}</figcaption></figure>"
        )
    shown = '<div class="figures">\n' + "\n".join(parts) + "\n</div>"
    if not missing:
        return shown
    items = "".join(f"<li>{escape(reason)}</li>" for reason in missing)
    return shown + details(f"Not shown: {len(missing)} figures", f'<ul class="plain">{items}</ul>')
