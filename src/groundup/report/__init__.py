"""The report on runs: numbers (`comparison`), figures (`figure`, `save_figure`) and the page
(`write_report`).

>>> write_report(["runs/baseline", "runs/linear"], "report.html")      # doctest: +SKIP
>>> comparison(read_runs(["runs/baseline", "runs/linear"])).rows       # doctest: +SKIP

Matplotlib is imported when a figure is drawn, not before.
"""

from __future__ import annotations

from groundup.report.figures import FIGURES, NothingToShow, figure, save_figure
from groundup.report.page import write_csv, write_report
from groundup.report.runs import Run, find_runs, read_run, read_runs
from groundup.report.table import Comparison, Gap, Row, Spikes, Spread, comparison

__all__ = [
    "FIGURES",
    "Comparison",
    "Gap",
    "NothingToShow",
    "Row",
    "Run",
    "Spikes",
    "Spread",
    "comparison",
    "figure",
    "find_runs",
    "read_run",
    "read_runs",
    "save_figure",
    "write_csv",
    "write_report",
]
