"""A run's folder: who may write in it, and whether it belongs to the same run.

recipe.toml, metrics.jsonl, timing.jsonl, checkpoints/, summary.json; every file is written whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from groundup._atomic import atomic_write
from groundup.train import toml
from groundup.train.recipe import Recipe

# What may change between two starts of one run, since it does not change what is computed.
HARMLESS = frozenset({"train.checkpoint_every", "train.keep", "data.folder"})


class FolderError(ValueError):
    """The run folder is in use, or belongs to another run."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder; the lock goes with the process, however it ends.

    Raises:
        FolderError: if another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderError(f"{folder} is in use by another process") from None
        yield


def claim(folder: Path, recipe: Recipe) -> None:
    """Write recipe.toml, or hold it against the one that is there.

    Raises:
        FolderError: if the folder's run differs in something that changes what is computed.
    """
    path = folder / "recipe.toml"
    if path.exists():
        old, _ = toml.read(path)
        changed = {
            name: pair
            for name, pair in toml.differences(old, recipe).items()
            if name not in HARMLESS
        }
        if changed:
            told = "; ".join(f"{name}: {a!r} there, {b!r} now" for name, (a, b) in changed.items())
            raise FolderError(
                f"{folder} holds another run ({told}). Use another folder with --out, or remove it"
            )
    atomic_write(path, toml.dumps(recipe).encode())


def summary(folder: Path) -> dict[str, Any] | None:
    """summary.json of a run that has come to its end, else None."""
    path = folder / "summary.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
