"""The tables as they were printed."""

from __future__ import annotations

import csv
import functools
import math
from dataclasses import dataclass
from importlib.resources import files

_PREFIX = "prores_"


@dataclass(frozen=True)
class Table:
    """A published table.

    Attributes:
        name: "perplexity_c4" and so on.
        source: where it stands and what it holds, in words.
        header: what the columns hold.
        rows: the cells as they were printed; "" where there is none.
    """

    name: str
    source: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def number(self, column: str, **where: str) -> float | None:
        """The number in `column` of the row whose cells are as `where` says, "diverged" being
        infinite; None if there is no such column or row: ``number("130M", method="Pre-LN",
        prores="no")``."""
        if column not in self.header:
            return None
        for row in self.rows:
            cells = dict(zip(self.header, row, strict=True))
            if all(cells[key] == value for key, value in where.items()):
                return math.inf if cells[column] == "diverged" else float(cells[column])
        return None


@functools.cache
def tables() -> dict[str, Table]:
    """All of them by name; data of this package."""
    found = (
        _read(path.name.removeprefix(_PREFIX).removesuffix(".csv"), path.read_text("utf-8"))
        for path in files(__package__).iterdir()
        if path.name.endswith(".csv")
    )
    return {table.name: table for table in sorted(found, key=lambda table: table.name)}


def _read(name: str, text: str) -> Table:
    lines = text.splitlines()
    source = " ".join(line.removeprefix("#").strip() for line in lines if line.startswith("#"))
    header, *rows = csv.reader(line for line in lines if not line.startswith("#"))
    return Table(name, source, tuple(header), tuple(map(tuple, rows)))
