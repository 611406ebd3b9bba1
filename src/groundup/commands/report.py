"""groundup report RUN…"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from groundup._check import unknown
from groundup.commands._options import parse
from groundup.report import FIGURES, find_runs, save_figure, write_csv, write_report

_PAGE = Path("report.html")


@dataclass(frozen=True)
class Report:
    """One self-contained page from run folders, or from folders that hold some; or, instead of it,
    a CSV of the runs, or one figure.
    """

    runs: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Run folders."""

    out: Path | None = None
    """The page; report.html unless given, in the folder if there is one, else here. With --figure
    its .png, .svg or .pdf."""

    title: str | None = None
    """The page's title."""

    baseline: str | None = None
    """The variant that the others are compared with. Unless given: the one called baseline or none,
    else for a sweep none, else the one without warmup."""

    csv: Path | None = None
    """Write this CSV, one row a run, and no page."""

    figure: str | None = None
    """Draw this figure to --out, and no page; `list` says which there are."""


def main(arguments: list[str]) -> int:
    options = parse(Report(), "report", arguments)
    _refuse_what_is_ignored(options)
    if options.figure == "list":
        width = max(map(len, FIGURES))
        print("\n".join(f"{name:{width}}  {spec.title}" for name, spec in FIGURES.items()))
        return 0
    if options.figure is not None and options.figure not in FIGURES:
        raise unknown("figure", options.figure, FIGURES)
    if not options.runs:
        raise ValueError("say which runs: one run folder or more")
    folders = [run for folder in options.runs for run in _runs_in(folder)]
    print(_written(options, folders))
    return 0


def _written(options: Report, folders: list[Path]) -> Path:
    """Writes what was asked for and returns its path."""
    if options.csv is not None:
        return write_csv(folders, options.csv, baseline=options.baseline)
    if options.figure is not None:
        if options.out is None:
            raise ValueError("say with --out where the figure goes: a .png, .svg or .pdf")
        return save_figure(options.figure, folders, options.out, options.baseline)
    # The page of one comparison or sweep takes the place of the one that lies there.
    place = options.runs[0] if len(options.runs) == 1 else Path()
    out = options.out or place / _PAGE
    return write_report(folders, out, title=options.title, baseline=options.baseline)


def _refuse_what_is_ignored(options: Report) -> None:
    """ValueError for what is given beside --csv or --figure and has no use there."""
    listing = options.figure == "list"
    unused = {
        "--csv": ["figure", "out", "title"] if options.csv else [],
        "--figure list": ["runs", "out", "title", "baseline"] if listing else [],
        "--figure": ["title"] if options.figure else [],
    }
    for asked, names in unused.items():
        if given := [name for name in names if getattr(options, name) not in (None, ())]:
            word = "runs" if given[0] == "runs" else f"--{given[0]}"
            raise ValueError(f"{word} would be ignored: {asked} has no use for it")


def _runs_in(folder: Path) -> list[Path]:
    found = list(find_runs(folder))
    if not found:
        raise ValueError(f"{folder} is no run folder and holds none (none with a metrics.jsonl)")
    return found
