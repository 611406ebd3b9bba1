"""Train the runs of a study, several at once, each in a process of its own.

A process that dies takes no other run with it, and what was trained stays: the same command goes
on. A run holds a lock on what it prints for as long as it lives, also when this process was killed:
a later one waits for it, rather than to train in the same folder.
"""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from groundup.experiment.studies.trials import Outcome, Trial
from groundup.train.signals import Interrupted, StopRequests

_POLL = 0.2  # seconds
_STOPPED = 1  # exit code of a run that cannot go on and says why, and of Python's own errors
_SAYS = "groundup: "
_PATIENCE = 120  # seconds in which a run that was told to stop may save itself


class StudyStopped(Interrupted):
    """The study was told to stop; every run that had begun has saved itself."""

    def __init__(self, number: int) -> None:
        Exception.__init__(
            self, f"stopped by {signal.Signals(number).name}, what had begun is saved"
        )
        self.code = 128 + number


@dataclass(frozen=True)
class _Run:
    """A process, when it began, and how long its log was then."""

    process: subprocess.Popen[bytes]
    since: float
    logged: int

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None


@dataclass(frozen=True)
class _Orphan:
    """A run that an earlier call began, and was killed."""

    log: Path

    @property
    def ended(self) -> bool:
        return not _in_use(self.log)


def train_all(
    wanted: Callable[[], Sequence[Trial]],
    jobs: int,
    say: Callable[[str], None],
    planned: Callable[[], int] | None = None,
) -> list[Trial]:
    """Train what is wanted, `jobs` at once, until nothing more is; returns the runs that failed
    (were killed, say), which the next call tries again.

    Args:
        wanted: all runs, those included that have ended; asked again after each that ends.
        jobs: processes; the machine's cores are divided among them.
        say: is told a line when a run ends.
        planned: how many runs there will be in all, where that is more than are wanted so far.

    Raises:
        ValueError: if a run's configuration is not valid, with what the run says; the others are
            stopped.
        StudyStopped: after SIGINT or SIGTERM.
    """
    running: dict[Trial, _Run] = {}
    failed: list[Trial] = []
    seconds: list[float] = []
    with StopRequests() as stop:
        try:
            if still := sum(_in_use(trial.log) for trial in wanted()):
                say(f"still trained since an earlier start, and waited for: {still}")
            while stop.received is None:
                every = wanted()
                waiting = [
                    trial
                    for trial in every
                    if trial not in running and trial not in failed and trial.outcome() is None
                ]
                orphans = {trial: _Orphan(trial.log) for trial in waiting if _in_use(trial.log)}
                free = [trial for trial in waiting if trial not in orphans]
                for trial in free[: max(0, jobs - len(running) - len(orphans))]:
                    running[trial] = _begin(trial, jobs)
                if not running and not orphans:
                    return failed
                for trial in _ended({**running, **orphans}, stop):
                    if trial not in running:
                        continue  # it is looked at again, and told by its folder
                    run = running.pop(trial)
                    seconds.append(time.monotonic() - run.since)
                    if (outcome := _outcome(trial, run)) is None:
                        failed.append(trial)
                    every = wanted()
                    # One that has ended at the same time is counted with its own line.
                    done = sum(o not in running and o.outcome() is not None for o in every)
                    of = planned() if planned else len(every)
                    left = sum(seconds) / len(seconds) * (of - done - len(failed)) / jobs
                    said = _line(trial, outcome, run.process.returncode, seconds[-1])
                    say(f"[{done}/{of}] {said}{_about(left)}")
            say(f"stopping, as soon as the runs that had begun are saved: {len(running)}")
            raise StudyStopped(stop.received)
        finally:
            _stop([run.process for run in running.values()])


def _begin(trial: Trial, jobs: int) -> _Run:
    trial.folder.parent.mkdir(parents=True, exist_ok=True)
    threads = max(1, len(os.sched_getaffinity(0)) // jobs)
    with open(trial.log, "ab") as log:
        _lock(log)  # which the process has with its output
        trial.write()
        process = subprocess.Popen(
            trial.arm.command(str(trial.file), str(trial.folder)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={"OMP_NUM_THREADS": str(threads), **os.environ},
            # A Ctrl-C reaches this process alone, which tells the others once.
            start_new_session=True,
        )
        return _Run(process, time.monotonic(), log.tell())


def _in_use(log: Path) -> bool:
    """Whether a process lives that prints there."""
    try:
        with open(log, "rb") as file:
            _lock(file)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _lock(file: IO[bytes]) -> None:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _ended(begun: Mapping[Trial, _Run | _Orphan], stop: StopRequests) -> list[Trial]:
    """Waits until a run ends, or a signal comes."""
    while stop.received is None:
        if found := [trial for trial, run in begun.items() if run.ended]:
            return found
        time.sleep(_POLL)
    return []


def _outcome(trial: Trial, run: _Run) -> Outcome | None:
    code = run.process.returncode
    lines = _printed(trial, run.logged)
    why = [line.removeprefix(_SAYS) for line in lines if line.startswith(_SAYS)]
    if code == 2:
        raise ValueError(f"{trial.folder}: {(why or lines or ['it printed nothing'])[-1]}")
    if code == _STOPPED and why:
        trial.stop(why[-1])
    return trial.outcome()


def _printed(trial: Trial, begin: int) -> list[str]:
    with open(trial.log, "rb") as log:
        log.seek(begin)
        return log.read().decode("utf-8", "replace").splitlines()


def _line(trial: Trial, outcome: Outcome | None, code: int, seconds: float) -> str:
    what = f"{trial.name}, peak {trial.peak:g}, seed {trial.seed}"
    minutes, rest = divmod(round(seconds), 60)
    said = outcome.said if outcome else f"failed with exit code {code}, see {trial.log}"
    return f"{what}: {said} ({minutes}:{rest:02d})"


def _about(seconds: float) -> str:
    """How long it still takes, where it takes a while."""
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours:
        return f", about {hours} h {minutes} min left"
    return f", about {minutes} min left" if minutes else ""


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.send_signal(signal.SIGTERM)
    until = time.monotonic() + _PATIENCE
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, until - time.monotonic()))
        if process.poll() is None:
            process.kill()
            process.wait()
