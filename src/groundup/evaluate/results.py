"""The results of evaluations on disk: one JSON object for a run and step, to which more are added.

docs/evaluate.md describes it.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from typing import Any

from groundup._atomic import atomic_write
from groundup.report.evaluations import FOLDER, Result, read
from groundup.report.identity import identity

__all__ = ["FOLDER", "Result", "add", "distinct", "path_of", "read", "write"]


def path_of(run: Path, step: int | None) -> Path:
    """Where the results of a run's checkpoint are kept; of a model that has no steps: None."""
    return run / FOLDER / ("model.json" if step is None else f"step-{step:08d}.json")


def add(path: Path, head: Mapping[str, Any], results: Mapping[str, Result]) -> dict[str, Any]:
    """Add results to a file, those of the very same evaluation in the place of earlier ones; `head`
    is what else is to stand there. Returns all of it.

    Several processes may do so at once: each waits for the others.

    Raises:
        ValueError: if what is there is damaged; it stays as it is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _alone(path.parent):
        known = read(path)["results"]
        for name, result in results.items():
            known[distinct(name, result, known)] = result
        whole = {**head, "results": known}
        write(path, whole)
    return whole


def distinct(name: str, result: Result, known: Mapping[str, Result]) -> str:
    """Where to put a result in `known`: in the place of the same evaluation's earlier one, or under
    its name, or the first of NAME-2, NAME-3, … that is free."""
    own = identity(name, {"name": name, **result}, known)
    for key, there in known.items():
        if identity(key, there, known) == own:
            return key
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(key for key in names if key not in known)


def write(path: Path, whole: Mapping[str, Any]) -> None:
    """Write JSON, atomically. A number that is not finite becomes null."""
    text = json.dumps(_plain(whole), indent=2, allow_nan=False, ensure_ascii=False)
    atomic_write(path, (text + "\n").encode())


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Nobody else writes results there meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems lock nothing
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
