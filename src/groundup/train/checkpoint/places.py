"""Where checkpoints stand in their folder, by name: only a whole one is called step-XXXXXXXX.

step-00000200               a checkpoint
.step-00000400.partial      one that is being written, or was when its process was killed
.step-00000100.removed      one that is being removed
step-00000300.damaged       one that was found damaged and set aside
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from groundup._atomic import sync_folder
from groundup._json import parse

STATE = "state.json"
_PREFIX = "step-"


def place_of(folder: Path, step: int) -> Path:
    """The folder of the checkpoint of `step` completed updates."""
    return folder / f"{_PREFIX}{step:08d}"


def steps_in(folder: Path) -> list[int]:
    """The steps of the complete checkpoints in `folder`, rising."""
    names = (path.name for path in folder.glob(f"{_PREFIX}*") if path.is_dir())
    return sorted(int(name[len(_PREFIX) :]) for name in names if name[len(_PREFIX) :].isdecimal())


def states(folder: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The steps of the complete checkpoints in `folder`, rising, each with its plain data; one that
    cannot be read is left to `load`."""
    for step in steps_in(folder):
        with contextlib.suppress(OSError, ValueError):
            state = parse((place_of(folder, step) / STATE).read_bytes())
            if isinstance(state, dict):
                yield step, state


def remove(folder: Path, step: int) -> None:
    """Remove a checkpoint; killed on the way, it is no checkpoint any more."""
    place = place_of(folder, step)
    leaving = folder / f".{place.name}.removed"
    shutil.rmtree(leaving, ignore_errors=True)
    os.rename(place, leaving)
    sync_folder(folder)
    # What cannot be removed now, as a file that is open on NFS, is at the next start.
    shutil.rmtree(leaving, ignore_errors=True)


def set_aside(folder: Path, step: int, why: str) -> Path:
    """Rename a checkpoint that the run does not go on from; returns its new place."""
    place = place_of(folder, step)
    aside, number = place.with_name(f"{place.name}.{why}"), 1
    while aside.exists():
        number += 1
        aside = place.with_name(f"{place.name}.{why}-{number}")
    os.rename(place, aside)
    sync_folder(folder)
    return aside


def partial_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` is written."""
    return folder / f".{place_of(folder, step).name}.partial"


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left; only when no other process works in `folder`."""
    for kind in ("partial", "removed"):
        for path in folder.glob(f".{_PREFIX}*.{kind}"):
            shutil.rmtree(path, ignore_errors=True)


def write(path: Path, content: bytes) -> None:
    """Write a file that is on the disk afterwards."""
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
