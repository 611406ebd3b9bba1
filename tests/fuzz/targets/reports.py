"""Reports on run folders of which a file is damaged."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

from groundup.report import comparison, read_runs, write_csv, write_report
from tests.fuzz.targets import runs
from tests.fuzz.trial import Target, Trial

_FILES = ("metrics.jsonl", "timing.jsonl", "measurements.jsonl", "sketches.jsonl", "events.jsonl",
          "recipe.toml", "summary.json")  # fmt: skip
_PAGES = 0.1  # of the cases draw the whole page, which takes seconds


def _draw(world: runs.World, draw: Random, folder: Path) -> Trial:
    there = folder / "run"
    shutil.copytree(world.finished, there, ignore=shutil.ignore_patterns("checkpoints"))
    if draw.random() < 0.3:
        (there / "summary.json").unlink()
    files = [there / name for name in _FILES if (there / name).exists()]
    path = draw.choice(files)
    runs.hurt(path, draw, files)
    page = draw.random() < _PAGES
    return Trial(path.name, lambda: _report(there, world.finished, page), (str(there),))


def _report(there: Path, beside: Path, page: bool) -> str:
    comparison(read_runs([there, beside]))
    write_csv([there, beside], there.parent / "table.csv")
    if page:
        write_report([there, beside], there.parent / "report.html")
    return "other"


TARGET = Target("reports", runs.make, _draw, few=6)
