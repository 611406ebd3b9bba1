"""One case: something damaged is read, within limits of time and memory, and judged."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from groundup.train import TrainingStopped

SECONDS = 20.0  # of computing: other processes may take their share of the machine
WAITING = 120.0  # seconds by the clock
MEMORY = 3 << 30  # bytes beyond those that the process has when the case begins
DOCUMENTED = (ValueError, TrainingStopped)


class Wrong(AssertionError):
    """What was read is neither what was there nor refused."""


class Hang(BaseException):
    """The case took too long; no handler of the program may swallow it."""


@dataclass(frozen=True)
class Trial:
    """A damaged file, ready to be read.

    Attributes:
        about: which file, and whatever helps to see what happened to it.
        run: reads it; returns "whole" (what it was before) or "other" (something else that is
            valid), or raises.
        names: a refusal has to name one of these.
    """

    about: str
    run: Callable[[], str]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """One door: `make` lays out whole files in a folder once, `draw` damages a copy in another."""

    name: str
    make: Callable[[Path], Any]
    draw: Callable[[Any, Random, Path], Trial]
    few: int = 20
    """Cases of it that the test suite runs."""


@dataclass(frozen=True)
class Outcome:
    """What became of a case: "whole", "other", "refused", or "defect" and why."""

    kind: str
    about: str
    said: str = ""
    trace: str = ""

    @property
    def cause(self) -> str:
        """What defects are told apart by."""
        place = [line for line in self.trace.splitlines() if "src/groundup" in line]
        said = re.sub(r"/\S*/", "", re.sub(r"\d+", "N", self.said))
        return f"{said[:160]} | {place[-1].strip() if place else ''}"


def attempt(target: Target, world: Any, number: int, folder: Path) -> Outcome:
    """Case `number` of the target, in an empty folder."""
    trial = target.draw(world, Random(f"{target.name}/{number}"), folder)
    try:
        with _limits():
            return Outcome(trial.run(), trial.about)
    except DOCUMENTED as error:
        return _refusal(trial, error)
    except Hang as error:
        return Outcome("defect", trial.about, "hang", _trace(error))
    except BaseException as error:  # a panic of a Rust library is no Exception
        if type(error) is KeyboardInterrupt:
            raise
        said = f"{type(error).__name__}: {str(error)[:300]}"
        return Outcome("defect", trial.about, said, _trace(error))


def _refusal(trial: Trial, error: BaseException) -> Outcome:
    said = str(error)
    if not any(name in said for name in trial.names):
        return Outcome("defect", trial.about, f"names no file: {type(error).__name__}: "
                       f"{said[:300]}", _trace(error))  # fmt: skip
    if len(said.splitlines()) > 1:
        return Outcome("defect", trial.about, f"more than a line: {said[:300]}", _trace(error))
    return Outcome("refused", trial.about, said)


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))[-6000:]


@contextlib.contextmanager
def _limits() -> Iterator[None]:
    """A clock that interrupts, and a bound on the memory of this process."""

    def ring(signum: int, frame: object) -> None:
        raise Hang

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * os.sysconf("SC_PAGE_SIZE") + MEMORY, hard))
    before = [(one, signal.signal(one, ring)) for one in (signal.SIGPROF, signal.SIGALRM)]
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    signal.setitimer(signal.ITIMER_REAL, WAITING)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for one, handler in before:
            signal.signal(one, handler)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
