"""What evaluations look like in a terminal: how far they are, and the table that they end with."""

from __future__ import annotations

import os
import re
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

_GAP = 3  # characters between columns
_LONG = 20  # characters of a heading's line
_WIDTH = 160


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
    """One row per number, one column per model, and published numbers beside them; as many tables
    one after the other as it takes to fit the columns in."""
    shown = evaluations.table(
        [
            Entry(heading, one.results, columns(one.recipe) if one.recipe else ())
            for one, heading in zip(evaluated, _headings(evaluated), strict=True)
        ]
    )
    # A table that is cut or folded cannot be read. What is no terminal has no width.
    width = console.width if console.is_terminal else _WIDTH
    tables = [_table(shown, places) for places in _fitting(shown, width)]
    wide = Console(file=console.file, width=1 << 16, highlight=False, markup=False)
    wide.print(*tables, sep="\n")
    if shown.note:
        wide.print(shown.note)


def _fitting(shown: evaluations.Table, width: int) -> list[list[int]]:
    """The columns of each table: as many as fit into the width, and at least one."""
    free = width - sum(max((len(row[at]) for row in shown.rows), default=0) + _GAP for at in (0, 1))
    parts: list[list[int]] = []
    left = 0
    for place in range(len(shown.headings)):
        taken = max(map(len, _lines(shown, place))) + _GAP
        if not parts or taken > left:
            parts, left = [*parts, []], free
        parts[-1].append(place)
        left -= taken
    return parts


def _table(shown: evaluations.Table, places: Sequence[int]) -> Table:
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False)
    table.add_column("", no_wrap=True)
    table.add_column("", no_wrap=True)
    for place in places:
        heading = "\n".join(_heading(shown, place))
        table.add_column(heading, justify="right", no_wrap=True, vertical="bottom")
    for name, metric, cells in shown.rows:
        table.add_row(name, metric, *(cells[place] for place in places))
    return table


def _lines(shown: evaluations.Table, place: int) -> list[str]:
    return [*_heading(shown, place), *(cells[place] for _, _, cells in shown.rows)]


def _heading(shown: evaluations.Table, place: int) -> list[str]:
    """In lines, broken after slashes and commas where they get long."""
    lines = [""]
    for piece in re.split(r"(?<=/)|(?<=, )", shown.headings[place]):
        if lines[-1] and len(lines[-1] + piece.rstrip()) > _LONG:
            lines.append("")
        lines[-1] += piece
    return [line.rstrip() for line in lines]


def _headings(evaluated: Sequence[Evaluated]) -> Iterator[str]:
    """What tells the models apart, and their steps."""
    folders = [one.folder.resolve() for one in evaluated]
    root = Path(os.path.commonpath([folder.parent for folder in folders]))
    for one, folder in zip(evaluated, folders, strict=True):
        alone = len(folders) == 1
        named = "/".join(folder.parts[-2:]) if alone else folder.relative_to(root).as_posix()
        step = one.head["step"]
        yield named if step is None else f"{named}, step {step}"
