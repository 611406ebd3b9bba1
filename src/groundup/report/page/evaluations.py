"""What the runs were found to be worth by `groundup eval`."""

from __future__ import annotations

from collections.abc import Sequence

from groundup.report import words
from groundup.report.evaluations import Entry, newest, table
from groundup.report.page.markup import escape, grid
from groundup.report.published.benchmarks import Column
from groundup.report.runs import Run
from groundup.report.table import Study

__all__ = ["as_html"]


def as_html(group: Study) -> str:
    """A row per number, a column per run that was evaluated and per published model to compare it
    with; nothing if none was."""
    entries = []
    for run in group.runs:
        if (found := newest(run.folder)) is not None:
            heading = f"{words.run_name(run)}, step {found.get('step')}"
            entries.append(Entry(heading, found["results"], _published(run)))
    if not entries:
        return ""
    shown = table(entries)
    rows = [[*map(escape, (name, metric, *cells))] for name, metric, cells in shown.rows]
    note = f'<p class="muted">{escape(shown.note)}</p>' if shown.note else ""
    return "<h2>Evaluations</h2>\n" + grid(["", "", *shown.headings], rows, "evaluations") + note


def _published(run: Run) -> Sequence[Column]:
    # Only where it is asked for: they need torch.
    from groundup.report.published.benchmarks import columns
    from groundup.train.toml import build

    try:
        return columns(build(run.recipe))
    except ValueError:  # a recipe of another version
        return ()
