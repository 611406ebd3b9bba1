"""The held-out loss of each part of a mixture."""

from __future__ import annotations

from groundup.report import words
from groundup.report.page.markup import escape, grid
from groundup.report.table import Study

__all__ = ["as_html"]


def as_html(group: Study) -> str:
    """A row per run that was evaluated on parts, a column per part; nothing if there is no such."""
    runs = [run for run in group.runs if run.parts and not run.diverged]
    parts = list(dict.fromkeys(part for run in runs for part in run.parts))
    rows = [
        [escape(words.run_name(run)), *(words.number(run.parts.get(part), 4) for part in parts)]
        for run in runs
    ]
    table = grid(["run", *parts], rows)
    return f"<h2>Evaluation loss by part of the mixture</h2>\n{table}" if rows else ""
