"""Going on with a run of which a file is damaged: its recipe, its records, its checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

from groundup.train import train
from tests.fuzz.targets import runs
from tests.fuzz.trial import Target, Trial, Wrong


def _draw(world: runs.World, draw: Random, folder: Path) -> Trial:
    there = folder / "run"
    shutil.copytree(world.stopped, there)
    checkpoint = [path for path in (there / "checkpoints").rglob("*") if path.is_file()]
    records = [path for path in there.iterdir() if path.is_file() and path.stat().st_size]
    path = draw.choice(draw.choice((checkpoint, checkpoint, records)))
    runs.hurt(path, draw, [*checkpoint, *records])
    return Trial(path.name, lambda: _resume(world, there, path), (str(there),))


def _resume(world: runs.World, there: Path, damaged: Path) -> str:
    summary = train(world.recipe, there)
    if "checkpoints" in damaged.parts:
        for name in ("metrics.jsonl", "measurements.jsonl", "events.jsonl"):
            if (there / name).read_bytes() != (world.finished / name).read_bytes():
                raise Wrong(f"another {name} than of the run that was not damaged")
        return "whole"
    lines = [(folder / "metrics.jsonl").read_bytes().split(b"\n")
             for folder in (there, world.finished)]  # fmt: skip
    if lines[0][runs.NEWEST :] != lines[1][runs.NEWEST :] or summary["steps"] != runs.STEPS:
        raise Wrong("other updates than of the run that was not damaged")
    return "whole" if lines[0] == lines[1] else "other"


TARGET = Target("resuming", runs.make, _draw, few=6)
