"""Runs as real processes: started, watched from outside, stopped, killed with all they started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_STARTED: list[Started] = []

PATIENCE = 240.0  # seconds; what has not ended by then hangs


class Hangs(Exception):
    """A process that should have ended has not."""


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        code: its exit code; minus the number of the signal that ended it.
        said: what it printed.
        seconds: of processor time, of it and those that it waited for.
        peak_bytes: the most resident memory that it, or one that it waited for, had.
    """

    code: int
    said: str
    seconds: float
    peak_bytes: int

    @property
    def message(self) -> str:
        """What it said last of why it stopped, in one line."""
        _, found, last = self.said.rpartition("groundup: ")
        return last.split("\n")[0].strip() if found else ""


class Started:
    """A process in a session of its own, its output in a file."""

    def __init__(self, command: Sequence[str], folder: Path, output: Path,
                 environment: Mapping[str, str]) -> None:  # fmt: skip
        self.output = output
        self.began_ns = time.time_ns()
        self._began = time.monotonic()
        self._ended: Ended | None = None
        with open(output, "wb") as file:
            self._process = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
            )
        _STARTED.append(self)

    @property
    def pid(self) -> int:
        return self._process.pid

    def running(self) -> bool:
        """Whether it has not ended yet."""
        if self._ended is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                code = self._process.returncode = os.waitstatus_to_exitcode(status)
                seconds, peak = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
                self._ended = Ended(code, self.said(), seconds, peak)
        return self._ended is None

    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self._began

    def ranks(self) -> list[int]:
        """The processes that train, by rank: those that torchrun has started, or this one."""
        ranks = {_rank(pid): pid for pid in _descendants(self.pid)}
        ranks.pop(None, None)
        return [ranks[rank] for rank in sorted(ranks)] or [self.pid]

    def everything(self) -> list[int]:
        """This process, first, and all that it has started."""
        return [self.pid, *_descendants(self.pid)]

    def wait(self, seconds: float = PATIENCE) -> Ended:
        """Until it has ended.

        Raises:
            Hangs: if it has not by then; it and all that it started is killed.
        """
        until = time.monotonic() + seconds
        while self.running():
            if time.monotonic() > until:
                self.kill()
                raise Hangs(f"still running after {seconds:.0f} s:\n{self.said()[-2000:]}")
            time.sleep(0.005)
        assert self._ended is not None
        return self._ended

    def kill(self) -> None:
        """SIGKILL to it and all that it has started, at one moment: they are stopped first."""
        everything = self.everything()
        send(everything, signal.SIGSTOP)
        everything = self.everything()  # none can be added any more
        send(everything, signal.SIGKILL)

    def said(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")


def wait_until_gone(pids: Sequence[int]) -> None:
    """Until none of these, which are not this program's own children, is there any more.

    Raises:
        Hangs: if one still is; it is killed.
    """
    until = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > until:
            send(pids, signal.SIGKILL)
            raise Hangs(f"still running after {PATIENCE:.0f} s")
        time.sleep(0.05)


def kill_all() -> None:
    """Leave nothing behind that was started and still runs."""
    for started in _STARTED:
        if started.running():
            started.kill()
            started.wait()


def send(pids: Iterable[int], number: int) -> None:
    """A signal to each process that still is there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _descendants(pid: int) -> list[int]:
    children = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            children += [int(child) for child in (task / "children").read_text().split()]
    return [*children, *(below for child in children for below in _descendants(child))]


def _rank(pid: int) -> int | None:
    """What torchrun calls it in its environment."""
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if entry.startswith(b"RANK="):
                return int(entry.removeprefix(b"RANK="))
    return None
