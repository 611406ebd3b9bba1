"""The table of all runs, on the page and as CSV. The page's script sorts and filters it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator

from groundup.report.page.columns import Column, columns
from groundup.report.page.markup import escape
from groundup.report.settings import Setting
from groundup.report.table import Study

__all__ = ["as_csv", "as_html", "as_list"]

_LONG = 40  # letters; a longer name is folded
_CHOICES = 15  # a choice among more than these is no help: the text filter is


def as_html(group: Study) -> str:
    """The table with one row per run; every cell carries what it sorts by."""
    found = columns(group)
    head = "".join(_heading(column) for column in found)
    rows = "\n".join(_rows(found, group))
    return (
        '<div class="scroll tall" tabindex="0"><table class="runs">'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def as_list(group: Study) -> str:
    """The same of a single run, which a table of one row would only make hard to read."""
    items = "".join(
        f"<div><dt>{escape(column.heading)}</dt><dd>{escape(column.show(value))}</dd></div>"
        for column in columns(group)
        for value in column.values
        if value is not None
    )
    return f'<dl class="facts">{items}</dl>'


def as_csv(group: Study) -> str:
    """The same as CSV, numbers in full; the folders as they were given."""
    found = [column for column in columns(group) if column.key != "folder"]
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(["folder", *(column.key for column in found)])
    for i, run in enumerate(group.runs):
        values = [column.values[i] for column in found]
        table.writerow([run.folder.as_posix(), *("" if v is None else v for v in values)])
    return out.getvalue()


def _heading(column: Column) -> str:
    distinct = {value for value in column.values if value is not None}
    choose = " data-choose" if column.choose and 1 < len(distinct) <= _CHOICES else ""
    table, dot, name = column.heading.rpartition(".")
    above = f"<small>{escape(table + dot)}</small>" if table else ""
    return f'<th scope="col"{_aligned(column)}{choose}>{above}{escape(name)}</th>'


def _aligned(column: Column) -> str:
    """Columns of words are set to the left, of numbers to the right."""
    return ' class="words"' if any(isinstance(value, str) for value in column.values) else ""


def _rows(found: list[Column], group: Study) -> Iterator[str]:
    _, *others = found
    aligned = [_aligned(column) for column in others]
    for i, run in enumerate(group.runs):
        name = escape(run.variant)
        fold = ' class="long"' if len(run.variant) > _LONG else ""
        if group.baseline is not None and run.variant == group.baseline.name:
            name += "" if run.variant == "baseline" else "<small>the baseline</small>"
        cells = (
            _cell(column, column.values[i], side)
            for column, side in zip(others, aligned, strict=True)
        )
        yield f'<tr><th scope="row"{fold}>{name}</th>{"".join(cells)}</tr>'


def _cell(column: Column, value: Setting, side: str) -> str:
    """A cell; what sorts as a number says which one, in full."""
    if value is None:
        return f"<td{side}>–</td>"
    text = escape(column.show(value))
    if isinstance(value, str):
        return f"<td{side}>{text}</td>"
    number = f"{value:.10g}" if math.isfinite(value) else "Infinity"
    return f'<td{side} data-sort="{number}">{text}</td>'
