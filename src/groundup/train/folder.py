"""A run's folder: who may write in it, and whether it belongs to the same run.

recipe.toml, tokenizer/, starts.jsonl, metrics.jsonl, timing.jsonl, events.jsonl, rewinds.json,
checkpoints/, summary.json; every file but those that grow by a line is written whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from groundup._atomic import atomic_write
from groundup._check import is_number
from groundup._json import parse
from groundup.data import Tokenizer
from groundup.train import recipe_file, toml
from groundup.train.recipe import Recipe

# What may change between two starts of one run, since it does not change what is computed; more of
# it for each action upon spikes. Where one goes back to is decided by train.checkpoint_every.
HARMLESS = frozenset(
    {"train.keep", "train.keep_every", "train.nonfinite", "data.folder", "parallel.timeout"}
)
HARMLESS_WITH = {
    "warn": {"train.checkpoint_every", "spikes.window", "spikes.threshold", "spikes.of"},
    "skip": {"train.checkpoint_every", "spikes.limit"},
    "rewind": {"spikes.limit"},
}
_ONLY_LOOKS = ("measure.", "evaluate.", "log.")
# What changes only the order in which numbers are added up, and so their last digits.
_ROUNDS = {"train.micro_batch", "train.compile", "train.device", "train.recompute"}
_ROUNDS |= {f"parallel.{name}" for name in ("mode", "replicas", "reshard", "offload")}

TOKENIZER = "tokenizer"
_LOCK = ".lock"
# What others take from the summary of a run.
_NUMBERS = ("steps", "eval_loss", "wall_seconds")


class FolderError(ValueError):
    """The run folder is in use, or belongs to another run."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder; the lock goes with the process, however it ends. One that was made for it
    is removed if it ends with an error before anything is in it.

    Raises:
        FolderError: if another process holds it.
    """
    new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise FolderError(f"{folder} is a file, not a folder for a run") from None
    with open(folder / _LOCK, "a", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FolderError(f"{folder} is in use by another process") from None
        if not os.fstat(file.fileno()).st_nlink:  # whoever held it has just removed the folder
            raise FolderError(f"{folder} is in use by another process")
        try:
            yield
        except BaseException:
            if new and [path.name for path in folder.iterdir()] == [_LOCK]:
                (folder / _LOCK).unlink()
                folder.rmdir()
            raise


def refuse_another_run(folder: Path, recipe: Recipe, change_rate: bool = False) -> bool:
    """Hold the recipe against the one of the run that is in the folder, if there is one; whether
    its rate has changed, which `change_rate` allows.

    Raises:
        FolderError: if they differ in anything else that changes what is computed.
    """
    changed = {
        name: f"{name}: {a!r} there, {b!r} now"
        for name, (a, b) in differences(folder, recipe).items()
        if not _harmless(name, recipe)
    }
    of_rate = {name for name in changed if name.startswith("rate.") or name == "train.steps"}
    # A fraction of another length would make α jump.
    if recipe.residual.fraction is not None:
        of_rate.discard("train.steps")
    if refused := [told for name, told in changed.items() if not (change_rate and name in of_rate)]:
        way = "" if of_rate < changed.keys() else ", or go on without a jump with --change-rate"
        if "train.steps" in changed.keys() - of_rate:
            way = (
                f". Its length cannot change: residual.fraction={recipe.residual.fraction} of "
                "another length would make α jump"
            )
        raise FolderError(
            f"{folder} holds another run ({'; '.join(refused)}). Use another folder with --out, or "
            f"remove it{way}"
        )
    return bool(changed)


def differences(folder: Path, recipe: Recipe) -> dict[str, tuple[Any, Any]]:
    """Dotted field name → (there, now) wherever the recipe differs from that of the run that is in
    the folder; empty if there is none."""
    path = folder / "recipe.toml"
    return toml.differences(recipe_file.read(path).recipe, recipe) if path.exists() else {}


def evaluates_anew(folder: Path, recipe: Recipe) -> bool:
    """Whether the recipe asks for evaluations that the run in the folder was not asked for."""
    changed = any(name.startswith("evaluate.") for name in differences(folder, recipe))
    return changed and bool(recipe.evaluate.every)


def _harmless(name: str, recipe: Recipe) -> bool:
    harmless = HARMLESS | HARMLESS_WITH[recipe.spikes.action] | _ROUNDS
    return name in harmless or name.startswith(_ONLY_LOOKS)


def rounds(name: str) -> bool:
    """Whether a change of the field changes the last digits of what is computed, and no more."""
    return name in _ROUNDS


def write_recipe(folder: Path, recipe: Recipe) -> None:
    """recipe.toml, resolved. Written when all is ready to start: from then on the folder's run is
    this one."""
    atomic_write(folder / "recipe.toml", toml.dumps(recipe).encode())


def write_tokenizer(folder: Path, tokenizer: Tokenizer) -> None:
    """tokenizer/, so that the folder is enough to evaluate the run and to export it, wherever the
    prepared data are by then."""
    place = folder / TOKENIZER
    if not (place / "tokenizer.json").exists():
        place.mkdir(exist_ok=True)
        tokenizer.save(place / "tokenizer.json")


def summary(folder: Path) -> dict[str, Any] | None:
    """summary.json of a run that has come to its end, else None."""
    path = folder / "summary.json"
    if not path.exists():
        return None
    try:
        found = parse(path.read_bytes())
        for name in _NUMBERS:
            if not isinstance(found, dict) or not is_number(found.get(name)):
                raise ValueError(f"it does not say {name}")
        return found
    except ValueError as error:
        raise FolderError(f"{path} is damaged ({error}): remove it, and the run goes on") from None
