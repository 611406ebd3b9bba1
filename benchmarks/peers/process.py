"""The processes of arms, as the parent sees them, and their clock."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from peers import NotHere, Task

_HERE = Path(__file__).parents[1]


class Process:
    """One arm in a process of its own, which has made its first update and waits.

    A call lets it make `updates` updates, after `settle` that are not timed. Libraries' caches of
    compiled code are its own and empty.

    Attributes:
        first: what it said of its first update: loss, and seconds from before its imports on.
        made: updates.
        memory: bytes at the peak, up to its last call.
        spent: its (processor, wall) seconds in all calls together.

    Raises:
        NotHere: if it does not come so far; says why.
    """

    def __init__(self, task: Task, threads: int) -> None:
        self.updates, self.settle = 1, 0
        folder = Path(task.folder)
        folder.mkdir(parents=True)
        self._log = folder / "log.txt"
        own = {name: str(folder / name.lower()) for name in _CACHES}
        path = os.pathsep.join(filter(None, (str(_HERE), os.environ.get("PYTHONPATH"))))
        counts = dict.fromkeys(_THREADS, str(threads)) if task.device == "cpu" else {}
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "peers.arm", task.dump()],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | own | counts | {"PYTHONPATH": path},
            )
        self.spent = (0.0, 0.0)
        self.first = self._read()
        self.memory = self.first["memory"]
        self.made = 1

    def __call__(self) -> None:
        said = self.turn()
        self.memory = said["memory"]
        self.spent = (self.spent[0] + said["cpu"], self.spent[1] + said["wall"])

    def turn(self, updates: int | None = None, **more: Any) -> dict[str, Any]:
        """What it says after so many updates."""
        told = {"updates": updates or self.updates, "settle": self.settle} | more
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(told) + "\n")
            self._process.stdin.flush()
        self.made += told["updates"] + told["settle"]
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        said = json.loads(line) if line else {"not_here": self._last_words()}
        if "not_here" in said:
            self.close()
            raise NotHere(said["not_here"])
        return said

    def _last_words(self) -> str:
        code = self._process.wait()
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return f"ended with code {code}: {said[-1] if said else 'without a word'}"

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def close(self) -> None:
        """End it: when its input ends, it goes."""
        self._process.communicate()


class Turned(Protocol):
    """What takes turns."""

    @property
    def spent(self) -> tuple[float, float]: ...

    def __call__(self) -> None: ...


class Reported:
    """A clock for `timing`: the seconds that the processes say they took, in their turns alone."""

    names = ("cpu", "wall")

    def __init__(self, arms: Mapping[str, Turned]) -> None:
        self._arms = arms

    def begin(self) -> None:
        """Called before each round."""

    def stamp(self) -> tuple[float, float]:
        spent = [arm.spent for arm in self._arms.values()]
        return sum(cpu for cpu, _ in spent), sum(wall for _, wall in spent)

    def between(self, a: tuple[float, float], b: tuple[float, float]) -> tuple[float, ...]:
        return b[0] - a[0], b[1] - a[1]


_CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
