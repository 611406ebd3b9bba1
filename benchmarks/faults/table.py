"""The records of all faults in a file, and the table in the documentation that is made of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faults.registry import Fault
from groundup._atomic import atomic_write

BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"


class Results:
    """What came of each fault, the last time that it was carried out; on the disk at once."""

    def __init__(self, path: Path, circumstances: dict[str, str]) -> None:
        self._path, self._circumstances = path, circumstances
        self.faults: dict[str, dict[str, Any]] = {}
        if path.exists():
            self.faults = json.loads(path.read_text(encoding="utf-8"))["faults"]

    def add(self, record: dict[str, Any]) -> None:
        self.faults[record["name"]] = record | {"on": self._circumstances}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"faults": self.faults}, indent=1, ensure_ascii=False)
        atomic_write(self._path, (text + "\n").encode())

    def as_promised(self, names: Sequence[str]) -> bool:
        """Whether each of these was carried out and came out as it should."""
        records = [self.faults[name] for name in names]
        return all(record["complete"] and not record["problem"] for record in records)


def write_table(page: Path, results: Results, faults: Sequence[Fault]) -> None:
    """Put the table between the two marks of the page; a page that is not there is made."""
    old = page.read_text(encoding="utf-8") if page.exists() else f"{BEGIN}\n{END}\n"
    before, _, rest = old.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"{page} has no {BEGIN} … {END} for the table")
    text = f"{before}{BEGIN}\n{_table(results, faults)}{END}{after}"
    page.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(page, text.encode())


def _table(results: Results, faults: Sequence[Fault]) -> str:
    rows = ["| fault | injected | times | what happened |", "| --- | --- | --- | --- |"]
    for fault in faults:
        if (record := results.faults.get(fault.name)) is None:
            continue
        cells = [fault.title, fault.injected, str(record["times"]), _what(record)]
        rows.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return "\n".join(rows) + "\n"


def _what(record: dict[str, Any]) -> str:
    if "not_here" in record:
        return f"not injected on this machine: {record['not_here']}"
    parts = [
        what if number == record["times"] == 1 else f"{number} × {what}"
        for what, number in record["happened"].items()
    ]
    said = "; ".join([*parts, record["then"]] if record["then"] else parts)
    if record["problem"]:
        return f"**not as promised**: {record['problem'].splitlines()[0]} ({said})"
    return said if record["complete"] else f"{said}; cut short"
