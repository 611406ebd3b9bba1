"""What the tests of training do with runs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from groundup.train import Recipe


def lines(out: Path, name: str = "metrics") -> list[dict]:
    return [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]


def metrics(out: Path) -> list[dict]:
    return lines(out)


def changed(recipe: Recipe, **fields) -> Recipe:
    return replace(recipe, train=replace(recipe.train, **fields))


def forget_the_end(folder: Path) -> None:
    """As if the run had been killed after its last checkpoint but one."""
    shutil.rmtree(max((folder / "checkpoints").glob("step-*")))
    (folder / "summary.json").unlink(missing_ok=True)
