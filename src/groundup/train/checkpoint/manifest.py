"""manifest.json: size and SHA-256 of every file of a checkpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from groundup.train.checkpoint import metadata
from groundup.train.checkpoint.errors import Damaged, Unreadable, reason
from groundup.train.checkpoint.places import STATE, write

NAME = "manifest.json"
_NEVER_THERE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


class Entry(NamedTuple):
    """Of one file: bytes, and SHA-256 in hexadecimal digits."""

    size: int
    sha256: str


def entry(path: Path) -> Entry:
    """Read the whole of a file.

    Raises:
        OSError: as reading does.
    """
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Entry(file.tell(), digest)


def save(place: Path, entries: Mapping[str, Entry]) -> None:
    """Write what is known of the files of the checkpoint at `place`."""
    files = {name: entries[name]._asdict() for name in sorted(entries)}
    write(place / NAME, (json.dumps({"files": files}, indent=1) + "\n").encode())


def load(place: Path) -> dict[str, Entry] | None:
    """What `save` wrote; None if the checkpoint is of a groundup that wrote none.

    Raises:
        Damaged: if the file is not what was written or is missing.
        Unreadable: see there.
    """
    try:
        text = (place / NAME).read_text(encoding="utf-8")
        files = json.loads(text)["files"]
        entries = {name: Entry(int(e["size"]), str(e["sha256"])) for name, e in files.items()}
        if not all(Path(name).name == name for name in entries):
            raise ValueError("it names files elsewhere")
        if missing := {STATE, metadata.NAME} - entries.keys():
            raise ValueError(f"it does not know {min(missing)}")
        return entries
    except FileNotFoundError:
        if _is_old(place):
            return None
        raise Damaged(f"{NAME} is missing") from None
    except OSError as error:
        raise Unreadable(f"{NAME}: {reason(error)}") from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Damaged(f"{NAME}: {reason(error)}") from error


def _is_old(place: Path) -> bool:
    """Whether a checkpoint was written before there were manifests; the others say a format."""
    try:
        state = json.loads((place / STATE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(state, dict) and "step" in state and "format" not in state


def verify(place: Path, entries: Mapping[str, Entry], names: Iterable[str]) -> None:
    """Read these files and compare.

    Raises:
        Damaged: naming the first file that is not what was written.
        Unreadable: see there.
    """
    for name in names:
        expected = entries[name]
        try:
            size = (place / name).stat().st_size
            if size != expected.size:
                raise Damaged(f"{name} has {size} bytes of the {expected.size} that were written")
            if entry(place / name) != expected:
                raise Damaged(f"{name} is not what was written (its SHA-256 is another)")
        except _NEVER_THERE:
            raise Damaged(f"{name} is missing") from None
        except OSError as error:
            raise Unreadable(f"{name}: {reason(error)}") from error
