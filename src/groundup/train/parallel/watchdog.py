"""A process that hangs leaves the others waiting in a collective for ever: who is it?

Every process has a thread that tells the others, by their common store, which update the process
has come to and that it is alive. When no update was completed for too long, it says which process
is behind and ends its own, so that the launcher can start all of them again.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from groundup.train.world import World

EXIT_CODE = 75
"""EX_TEMPFAIL: it did not work this time; the same command goes on from the last checkpoint."""

_TICK = 1.0  # seconds
_ROUND = 3.0  # in which a living process must have spoken


class Watchdog:
    """Watches over the updates of this process; alone it does nothing.

    Args:
        timeout: seconds without a `beat` before the process is ended. Time in which this process
            itself did not run (a stopped job, a closed laptop) does not count.
        folder: where the stack of a process that is ended is written.
    """

    def __init__(self, world: World, timeout: float, folder: Path) -> None:
        self._world, self._timeout, self._folder = world, timeout, folder
        self._step, self._waited = 0, 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._store: Any = None

    def __enter__(self) -> Watchdog:
        if self._world.size > 1 and self._world.store is not None:
            # A connection of its own: the main thread may be waiting on the other.
            clone = getattr(self._world.store, "clone", None)
            self._store = clone() if clone is not None else self._world.store
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(_ROUND)

    def beat(self, step: int) -> None:
        """This process has come to `step` completed updates, or goes on with something else."""
        self._step, self._waited = step, 0.0

    def _watch(self) -> None:
        ticks, last = 0, time.monotonic()
        while not self._ended.wait(_TICK):
            now = time.monotonic()
            self._waited += min(now - last, 2 * _TICK)
            last = now
            ticks += 1
            self._tell(f"{self._step} {ticks}")
            if self._waited > self._timeout:
                self._give_up()

    def _tell(self, word: str) -> None:
        if self._store is None:
            return
        try:
            self._store.set(f"beat/{self._world.rank}", word)
        except Exception:  # it is gone with torchrun, which held it; and it complains at each call
            self._store = None
            print(
                f"groundup: rank {self._world.rank}: torchrun is gone. The run goes on; a process "
                "that hangs could not be named any more",
                file=sys.stderr,
                flush=True,
            )

    def _give_up(self) -> None:
        told = self._folder / f"hung-rank-{self._world.rank}.txt"
        try:
            with open(told, "w", encoding="utf-8") as file:
                faulthandler.dump_traceback(file, all_threads=True)
            where = f"where this one stood: {told}"
        except OSError as error:
            where = f"{told} cannot be written: {error.strerror}"
        print(
            f"groundup: rank {self._world.rank}: no update was completed for "
            f"{self._timeout:g} s (parallel.timeout) after {self._step} updates; "
            f"{self._suspects()}; {where}. The same command goes on from the last checkpoint",
            file=sys.stderr,
            flush=True,
        )
        os._exit(EXIT_CODE)

    def _suspects(self) -> str:
        """Which processes are silent, or behind."""
        if self._store is None:
            return "which process is behind cannot be said, since torchrun is gone"
        before = self._words()
        for _ in range(int(_ROUND / _TICK)):  # go on speaking, for others that ask now
            time.sleep(_TICK)
            self._tell(f"{self._step} {time.monotonic()}")
        after = self._words()
        silent = [rank for rank, word in after.items() if word is None or word == before[rank]]
        if silent:
            return "; ".join(f"rank {rank} does not run{_at(after[rank])}" for rank in silent)
        steps = {rank: int(word.split()[0]) for rank, word in after.items() if word}
        behind = [rank for rank, step in steps.items() if step < max(steps.values())]
        if behind:
            return "; ".join(f"rank {r} runs, but hangs after {steps[r]} updates" for r in behind)
        return "all processes run and stand at the same update: the network between them may hang"

    def _words(self) -> dict[int, str | None]:
        found: dict[int, str | None] = {}
        for rank in range(self._world.size):
            try:
                key = f"beat/{rank}"
                there = self._store.check([key])
                found[rank] = self._store.get(key).decode() if there else None
            except Exception:  # as in _tell
                found[rank] = None
        return found


def _at(word: str | None) -> str:
    return f" (last seen after {word.split()[0]} updates)" if word else ""
