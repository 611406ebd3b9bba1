"""What evaluations look like in a terminal: how far they are, and the table that they end with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from groundup.report import evaluations
from groundup.report.evaluations import Entry, Result
from groundup.report.published.benchmarks import columns
from groundup.train.recipe import Recipe


@dataclass(frozen=True)
class Evaluated:
    """The results of one model.

    Attributes:
        path: of the file that they were written to.
        folder: of the model.
        head: what stands beside the results there: step, tokens, versions.
        recipe: of the run, if it is one.
        results: by name.
    """

    path: Path
    folder: Path
    head: dict[str, Any]
    recipe: Recipe | None
    results: dict[str, Result]

    def whole(self) -> dict[str, Any]:
        """As it stands in a file of several."""
        return {"run": str(self.folder), **self.head, "results": self.results}


Counting = Callable[[str, str], AbstractContextManager[Callable[[int], None]]]


@contextmanager
def show_counts(shown: bool = True) -> Iterator[Counting]:
    """Lines on standard error that say how much of each evaluation is done: called with what it is
    and a unit, gives what is told how many of those are done while the inner block runs."""
    columns = (
        SpinnerColumn(finished_text="✓"),
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.completed:,} {task.fields[unit]}", justify="right"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True, quiet=not shown)) as progress:

        @contextmanager
        def count(what: str, unit: str) -> Iterator[Callable[[int], None]]:
            task = progress.add_task(what, total=None, unit=unit)
            yield lambda done: progress.update(task, completed=done)
            progress.update(task, total=progress.tasks[task].completed)

        yield count


def print_evaluations(console: Console, evaluated: Sequence[Evaluated]) -> None:
    """One row per number, one column per model, and published numbers beside them."""
    # A table that is cut or folded cannot be read: rather let the terminal wrap it.
    wide = Console(file=console.file, width=max(console.width, 160), highlight=False, markup=False)
    wide.print(_table(evaluated))


def _table(evaluated: Sequence[Evaluated]) -> Table:
    shown = evaluations.table(
        [
            Entry(heading, one.results, columns(one.recipe) if one.recipe else ())
            for one, heading in zip(evaluated, _headings(evaluated), strict=True)
        ]
    )
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("", no_wrap=True)
    for heading in shown.headings:
        table.add_column(heading, justify="right")
    for name, metric, cells in shown.rows:
        table.add_row(name, metric, *cells)
    return table


def _headings(evaluated: Sequence[Evaluated]) -> Iterator[str]:
    """What tells the models apart, and their steps."""
    folders = [one.folder.resolve() for one in evaluated]
    root = Path(os.path.commonpath([folder.parent for folder in folders]))
    for one, folder in zip(evaluated, folders, strict=True):
        named = str(one.folder) if len(folders) == 1 else folder.relative_to(root).as_posix()
        step = one.head["step"]
        yield named if step is None else f"{named}, step {step}"
