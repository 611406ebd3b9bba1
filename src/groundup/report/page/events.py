"""What the spike monitor of the runs wrote, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from groundup.report import words
from groundup.report.page.markup import details, escape, grid
from groundup.report.table import Study

__all__ = ["as_html"]

_EVENTS = 500  # a run that spikes more often than these says nothing more by the rest
_DOCUMENTS = 3


def as_html(group: Study) -> str:
    """Every event with its update, its value and the batch's documents; nothing for none."""
    rows = [
        [escape(words.run_name(run)), *_cells(event)]
        for run in group.runs
        for event in run.events[:_EVENTS]
    ]
    if not rows:
        return ""
    count = sum(len(run.events) for run in group.runs)
    left = f" (the first {_EVENTS} of each run)" if count > len(rows) else ""
    head = ["run", "update", "of", "value", "mean before", "deviations", "action", "documents"]
    table = grid(head, rows, "events")
    return details(f"{count} event{'s' if count > 1 else ''} of the spike monitor{left}", table)


def _cells(event: Mapping[str, Any]) -> list[str]:
    action = str(event.get("action", "–"))
    if isinstance(event.get("to"), int):
        action += f" to {event['to']}"
    return [
        f"{event['step']:,}",
        escape(" of ".join(str(event[key]) for key in ("kind", "of") if key in event) or "–"),
        _number(event.get("value")),
        _number(event.get("mean")),
        _number(_deviations(event)),
        escape(action),
        _documents(event.get("documents")),
    ]


def _deviations(event: Mapping[str, Any]) -> float | None:
    value, mean, deviation = (event.get(key) for key in ("value", "mean", "deviation"))
    try:
        return (value - mean) / deviation  # type: ignore[operator]
    except (TypeError, ZeroDivisionError):
        return None


def _documents(documents: Any) -> str:
    if not isinstance(documents, list):
        return "–"
    known = [document for document in documents if isinstance(document, dict)]
    lines = [f"{_place(d)} “{d.get('starts', '')}”" for d in known[:_DOCUMENTS]]
    more = [f"and {len(known) - _DOCUMENTS} more"] if len(known) > _DOCUMENTS else []
    return "<br>".join(escape(line.strip()) for line in [*lines, *more]) or "–"


def _place(document: Mapping[str, Any]) -> str:
    """Part of the mixture and number, as far as there are any."""
    found = (document.get(key) for key in ("part", "number"))
    return " ".join(str(value) for value in found if value is not None)


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "–"
    return f"{value:.4g}".replace("-", "−")
