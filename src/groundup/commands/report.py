"""groundup report RUN…"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from groundup.commands._options import parse
from groundup.report import find_runs, write_report


@dataclass(frozen=True)
class Report:
    """One self-contained page from run folders, or from folders that hold some."""

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Run folders."""

    out: Path = Path("report.html")
    """The page."""

    title: str | None = None
    """Its title."""

    baseline: str | None = None
    """The variant that the others are compared with; the one without warmup unless given."""


def main(arguments: list[str]) -> int:
    options = parse(Report(), "report", arguments)
    if not options.runs:
        raise ValueError("say which runs: one run folder or more")
    folders = [run for folder in options.runs for run in _runs_in(folder)]
    page = write_report(folders, options.out, title=options.title, baseline=options.baseline)
    print(page)
    return 0


def _runs_in(folder: Path) -> list[Path]:
    found = list(find_runs(folder))
    if not found:
        raise ValueError(f"{folder} is no run folder and holds none (none with a metrics.jsonl)")
    return found
