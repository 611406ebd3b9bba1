"""How a run must end, one way or the other."""

from __future__ import annotations

import re

from faults.place import Folder, Place
from faults.processes import Ended
from faults.registry import demand

_TRACEBACK = re.compile(r'File ".*/groundup/')
# What is not the same each time.
_NUMBER = re.compile(r"(?<![\w.-])(?<!Errno )\d+(?= updates| bytes|\)|[: ])|(?<=column )\d+")
_DIGEST = re.compile(r"\b[0-9a-f]{64}\b")


def ends_the_same(place: Place, folder: Folder, *flags: str) -> None:
    """The same command goes on, and the run ends as if nothing had happened."""
    ended = folder.finish(*flags)
    demand(ended.code == 0, f"the same command ended with {ended.code}:\n{ended.said[-3000:]}")
    is_the_same(place, folder)


def is_the_same(place: Place, folder: Folder) -> None:
    """The finished run is the undisturbed one."""
    differing = place.differences(folder)
    demand(not differing, f"not as undisturbed: {', '.join(differing)}")


def says(ended: Ended, code: int, *parts: str) -> str:
    """It ended with `code` and one line that has all `parts`; returns what it said."""
    demand(ended.code == code, f"exit {ended.code}, not {code}:\n{ended.said[-3000:]}")
    demand(not shows_traceback(ended), f"a traceback:\n{ended.said[-3000:]}")
    missing = [part for part in parts if part not in ended.message]
    demand(not missing, f"{missing} not said: {ended.message}")
    return told(ended)


def told(ended: Ended) -> str:
    """Exit code and message, as they stand in the table."""
    return f"exit {ended.code}: “{_DIGEST.sub('…', _NUMBER.sub('N', ended.message))}”"


def shows_traceback(ended: Ended) -> bool:
    """Of groundup: torchrun prints one of its own whatever ends."""
    return _TRACEBACK.search(ended.said) is not None
