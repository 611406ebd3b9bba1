"""The files of a folder here, or those that a pattern fits."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from groundup.data.corpus.kinds import kind_of
from groundup.data.errors import DataError
from groundup.data.lock import LOCK_NAME

__all__ = ["matched", "sorted_out", "walk"]


def walk(root: Path, skipped: Counter[str]) -> list[str]:
    """The files below a folder, as paths relative to it; counts folders that it does not enter."""
    found: list[str] = []

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read: {error.strerror}") from error

    for folder, names, files in os.walk(root, onerror=fail):
        here = Path(folder)
        if LOCK_NAME in files:
            skipped["folders of prepared tokens"] += 1
            names.clear()
            continue
        for name in list(names):
            if name.startswith("."):
                skipped["hidden folders"] += 1
                names.remove(name)
            elif (here / name).is_symlink():
                skipped["linked folders"] += 1
                names.remove(name)
        found += [(here / name).relative_to(root).as_posix() for name in files]
    return found


def matched(pattern: str) -> tuple[Path, list[str]]:
    """The folder before the first * or [ of a pattern, and the files below it that it fits."""
    place = min(pattern.find(c) % (len(pattern) + 1) for c in "*[")
    root = Path(pattern[:place].rpartition("/")[0] or ("/" if pattern.startswith("/") else "."))
    names = (Path(name) for name in glob.glob(pattern, recursive=True))
    return root, [name.relative_to(root).as_posix() for name in names if name.is_file()]


def sorted_out(paths: Iterable[str], skipped: Counter[str]) -> dict[str, str]:
    """The kind of each file that can be read, in order of their paths; counts the others."""
    kinds: dict[str, str] = {}
    for path in sorted(paths):
        name = PurePosixPath(path.partition("?")[0])
        kind = kind_of(name)
        if name.name.startswith("."):
            skipped["hidden files"] += 1
        elif kind is None:
            skipped[f"files of unknown kind ({name.suffix or 'no suffix'})"] += 1
        else:
            kinds[path] = kind
    return kinds
