"""What [evaluate] has found on the way, a panel for each text and task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from groundup.report.figures.updates import Panel, Panels
from groundup.report.table import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PREFIX = "eval/"
# Of several numbers of one text or task, the first of these that is there.
_CHOSEN = {
    "acc_norm": "accuracy, normalized",
    "acc": "accuracy",
    "exact_match": "exact match",
    "f1": "F1",
    "bits_per_byte": "bits per byte",
    "perplexity": "perplexity",
}


def draw_evaluations(group: Study) -> Figure:
    """One number of each text and task over updates."""
    found: dict[str, set[str]] = {}
    for run in group.runs:
        for key in run.measured:
            name, slash, metric = key.removeprefix(_PREFIX).rpartition("/")
            if key.startswith(_PREFIX) and slash and metric in _CHOSEN:
                found.setdefault(name, set()).add(metric)
    panels = []
    for name, metrics in found.items():
        metric = next(metric for metric in _CHOSEN if metric in metrics)
        panels.append(Panel(f"{_PREFIX}{name}/{metric}", f"{name}: {_CHOSEN[metric]}"))
    return Panels(panels, "no run was evaluated on the way ([evaluate])").draw(group)
