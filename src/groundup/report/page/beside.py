"""Published numbers beside ours, for the runs of published recipes."""

from __future__ import annotations

import math

from groundup.report import words
from groundup.report.page.markup import escape, grid
from groundup.report.published import Published, beside
from groundup.report.table import Comparison, Study

__all__ = ["as_html", "shown"]


def as_html(group: Study, result: Comparison) -> str:
    """A table of the variants whose setting was published; nothing if there is none."""
    found = [
        (row, published)
        for variant, row in zip(group.variants, result.rows, strict=True)
        if (published := beside(variant.runs[0]))
    ]
    if not found:
        return ""
    rows = [
        [
            escape(row.variant),
            words.number(row.perplexity, 2),
            shown(published.perplexity),
            "–" if published.without is None else shown(published.without),
            escape(f"{published.what} ({published.source})"),
            _differences(published),
        ]
        for row, published in found
    ]
    head = ["variant", "perplexity", "published", "without residual warmup", "setting"]
    return "<h2>Published numbers</h2>\n" + grid([*head, "what is not the same"], rows, "published")


def shown(perplexity: float) -> str:
    """A published perplexity."""
    return "diverged" if math.isinf(perplexity) else words.number(perplexity, 2)


def _differences(published: Published) -> str:
    if published.exact:
        return "nothing that is stated"
    return "<br>".join(escape(difference) for difference in published.differs)
