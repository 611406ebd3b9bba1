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
from groundup.train import recipe_file, toml
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
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise FolderError(f"{folder} is a file, not a folder for a run") from None
    with open(folder / ".lock", "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderError(f"{folder} is in use by another process") from None
        yield


def refuse_another_run(folder: Path, recipe: Recipe) -> None:
    """Hold the recipe against the one of the run that is in the folder, if there is one.

    Raises:
        FolderError: if they differ in something that changes what is computed.
    """
    path = folder / "recipe.toml"
    if not path.exists():
        return
    old = recipe_file.read(path).recipe
    changed = toml.differences(old, recipe).items()
    if told := [
        f"{name}: {a!r} there, {b!r} now" for name, (a, b) in changed if name not in HARMLESS
    ]:
        raise FolderError(
            f"{folder} holds another run ({'; '.join(told)}). Use another folder with --out, or "
            "remove it"
        )


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """recipe.toml, resolved. Written when all is ready to start: from then on the folder's run is
    this one."""
    atomic_write(folder / "recipe.toml", toml.dumps(recipe).encode())


def summary(folder: Path) -> dict[str, Any] | None:
    """summary.json of a run that has come to its end, else None."""
    path = folder / "summary.json"
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FolderError(f"{path} is damaged ({error}): remove it, and the run goes on") from None
