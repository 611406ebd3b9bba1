"""starts.jsonl: a line for each time that a run was started, with what had changed since."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from groundup._atomic import naming
from groundup._json import parse
from groundup.train import folder
from groundup.train.recipe import Recipe
from groundup.train.summary import versions


def begin(out: Path, recipe: Recipe, step: int, processes: int, hardware: str) -> list[str]:
    """The run goes on, or begins, with this recipe after `step` updates: write that down, and
    recipe.toml. Returns what there is to say of changes.

    Call it when all is ready: from then on the folder's run is this one.
    """
    changed = folder.differences(out, recipe)
    here: dict[str, Any] = {
        "processes": processes,
        "hardware": hardware,
        "versions": versions(),
    }
    before = (_last(out / "starts.jsonl") if step else None) or {}
    others = {
        name: (before[name], value)
        for name, value in here.items()
        if name in before and before[name] != value
    }
    notes = [
        *(
            f"changed since it was started: {name}: {_said(*pair)}"
            for name, pair in changed.items()
        ),
        *(f"{name}: {_said(*pair)}" for name, pair in others.items()),
    ]
    if step and (others or any(map(folder.rounds, changed))):
        notes.append(f"from update {step} on the last digits of the numbers may be others for that")
    folder.write_recipe(out, recipe)
    line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "step": step, **here}
    if changed:
        line["changed"] = {name: list(pair) for name, pair in changed.items()}
    _append(out / "starts.jsonl", line)
    return notes


def _append(path: Path, line: dict[str, Any]) -> None:
    """A line that a kill left unfinished is ended first, and never counts."""
    with naming(path), open(path, "a+b") as file:
        if file.tell() and _last_byte(path) != b"\n":
            file.write(b"\n")
        file.write(json.dumps(line).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _last_byte(path: Path) -> bytes:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read()


def _last(path: Path) -> dict[str, Any] | None:
    """The last line that is whole; None if there is none."""
    if not path.exists():
        return None
    for text in reversed(path.read_bytes().splitlines()):
        try:
            found = parse(text)
        except ValueError:
            continue
        if isinstance(found, dict):
            return found
    return None


def _said(a: Any, b: Any) -> str:
    if isinstance(a, dict) and isinstance(b, dict):
        pairs = (f"{k} {a.get(k)} there, {b.get(k)} now" for k in b if a.get(k) != b.get(k))
        return ", ".join(pairs)
    return f"{a} there, {b} now"
