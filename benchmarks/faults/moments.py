"""Moments in a run at which to strike, drawn at random, and what the run was doing then.

All is seen from outside, in the run's folder: nothing in the process is changed.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from faults.place import CHECKPOINT_EVERY, EVAL_EVERY, Folder
from faults.processes import Hangs, Started
from faults.registry import NotAsPromised

_PATIENCE = 120.0


class Draw:
    """Draws moments: a fifth of them while the run starts, a fifth around an evaluation, two
    fifths while a checkpoint may be written, the rest anywhere.

    Args:
        start_up: seconds that a start takes, about.
    """

    def __init__(self, seed: str, start_up: float) -> None:
        self.random = random.Random(seed)
        self._start_up = start_up
        self._kinds: list[Callable[[Folder, Started], bool]] = [
            self._while_starting,
            self._in_evaluation,
            self._in_checkpoint,
            self._at_checkpoint,
            self._anywhere,
        ]

    def reach(self, folder: Folder, started: Started) -> bool:
        """Wait for one; whether the process is still there."""
        return self.random.choice(self._kinds)(folder, started) and started.running()

    def _while_starting(self, folder: Folder, started: Started) -> bool:
        time.sleep(self.random.uniform(0, self._start_up))
        return True

    def _anywhere(self, folder: Folder, started: Started) -> bool:
        return self._lines(folder, started, lambda n: True, 0.02)

    def _in_evaluation(self, folder: Folder, started: Started) -> bool:
        return self._lines(folder, started, lambda n: n % EVAL_EVERY == EVAL_EVERY - 1, 0.02)

    def _at_checkpoint(self, folder: Folder, started: Started) -> bool:
        return self._lines(folder, started, lambda n: n % CHECKPOINT_EVERY == 0, 0.01)

    def _in_checkpoint(self, folder: Folder, started: Started) -> bool:
        """One is seen half-written."""
        if not self._lines(folder, started, lambda n: True, 0):
            return False
        until(started, lambda: writing_checkpoint(folder, started))
        time.sleep(self.random.uniform(0, 0.003))
        return True

    def _lines(
        self, folder: Folder, started: Started, suits: Callable[[int], bool], spread: float
    ) -> bool:
        """At a number of lines that suits, some updates after the start."""
        until(started, lambda: going(folder, started))
        wanted = folder.lines() + self.random.randint(1, 15)
        until(started, lambda: (n := folder.lines()) >= wanted and suits(n))
        time.sleep(self.random.uniform(0, spread))
        return True


def in_training(folder: Folder, lines: int, **how: Any) -> Started:
    """A run that was started and has come to so many lines."""
    started = folder.start(**how)
    come_to(folder, started, lines)
    return started


def come_to(folder: Folder, started: Started, lines: int) -> None:
    """Wait until the run has come to so many lines."""
    if not until(started, lambda: going(folder, started) and folder.lines() >= lines):
        raise NotAsPromised(f"it ended before {lines} updates:\n{started.said()[-3000:]}")


def cut_off(folder: Folder, lines: int, **how: Any) -> None:
    """A run that was killed after so many lines."""
    started = in_training(folder, lines, **how)
    started.kill()
    started.wait()


def until(started: Started, holds: Callable[[], bool]) -> bool:
    """Wait until it holds or the process has ended; whether it has not."""
    end = time.monotonic() + _PATIENCE
    while started.running():
        if holds():
            return True
        if time.monotonic() > end:
            started.kill()
            raise Hangs(f"nothing happened for {_PATIENCE:.0f} s:\n{started.said()[-2000:]}")
        time.sleep(0.001)
    return False


def doing(folder: Folder, started: Started) -> str:
    """What the run is doing; for a process that is stopped."""
    if not going(folder, started):
        return "start-up"
    if writing_checkpoint(folder, started):
        return "checkpoint half-written"
    if folder.lines() % EVAL_EVERY == EVAL_EVERY - 1:
        return "update with evaluation"
    return "update"


def going(folder: Folder, started: Started) -> bool:
    """Whether this start has come to its first update: recipe.toml is written right before."""
    path = folder.run / "recipe.toml"
    return path.exists() and path.stat().st_mtime_ns > started.began_ns


def writing_checkpoint(folder: Folder, started: Started) -> bool:
    """Whether there is a half-written one that this process has begun."""
    try:
        return any(
            path.stat().st_ctime_ns > started.began_ns
            for path in (folder.run / "checkpoints").glob(".step-*")
        )
    except FileNotFoundError:  # renamed meanwhile
        return False
