"""The table of faults: each is a function that injects one so many times and says what came."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass

from faults.place import Place

Act = Callable[[Place, int], Generator[str, None, str | None]]
"""Injects the fault so many times in the scratch folder, yields for each what happened in a few
words, and returns what held for all of them. Raises NotAsPromised."""


class NotAsPromised(Exception):
    """What was promised of a fault did not come true."""


class NotHere(Exception):
    """This machine does not let the fault be injected."""


@dataclass(frozen=True)
class Fault:
    """One line of the table.

    Attributes:
        name: for --only.
        title: the fault.
        injected: how.
        times: how often unless told otherwise.
        act: see `Act`.
    """

    name: str
    title: str
    injected: str
    times: int
    act: Act


FAULTS: dict[str, Fault] = {}


def fault(name: str, title: str, injected: str, times: int = 3) -> Callable[[Act], Act]:
    """Enter a function into the table."""

    def enter(act: Act) -> Act:
        assert name not in FAULTS, name
        FAULTS[name] = Fault(name, title, injected, times, act)
        return act

    return enter


def demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise NotAsPromised(otherwise)
