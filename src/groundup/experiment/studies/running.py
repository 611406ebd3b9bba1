"""Train the runs of a study, several at once, each in a process of its own.

A process that dies takes no other run with it, and what was trained stays: the same command goes
on.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from groundup.experiment.studies.trials import Outcome, Trial
from groundup.train.signals import Interrupted, StopRequests

_POLL = 0.2  # seconds
_STOPPED = 1  # exit code of a run that cannot go on: it diverged
_PATIENCE = 120  # seconds in which a run that was told to stop may save itself


class StudyStopped(Interrupted):
    """The study was told to stop; every run that had begun has saved itself."""

    def __init__(self, number: int) -> None:
        Exception.__init__(
            self, f"stopped by {signal.Signals(number).name}, what had begun is saved"
        )
        self.code = 128 + number


def train_all(
    wanted: Callable[[], Sequence[Trial]], jobs: int, say: Callable[[str], None]
) -> list[Trial]:
    """Train what is wanted, `jobs` at once, until nothing more is; returns the runs that failed
    (were killed, say), which the next call tries again.

    Args:
        wanted: all runs, those included that have ended; asked again after each that ends.
        jobs: processes; the machine's cores are divided among them.
        say: is told a line when a run begins or ends.

    Raises:
        ValueError: if a run's configuration is not valid, with what the run says; the others are
            stopped.
        StudyStopped: after SIGINT or SIGTERM.
    """
    running: dict[Trial, subprocess.Popen[bytes]] = {}
    failed: list[Trial] = []
    begun: dict[Trial, float] = {}
    try:
        with StopRequests() as stop:
            while stop.received is None:
                every = wanted()
                waiting = [
                    trial
                    for trial in every
                    if trial not in running and trial not in failed and trial.outcome() is None
                ]
                for trial in waiting[: jobs - len(running)]:
                    running[trial], begun[trial] = _begin(trial, jobs), time.monotonic()
                if not running:
                    return failed
                for trial in _ended(running, stop):
                    code = running.pop(trial).returncode
                    seconds = time.monotonic() - begun.pop(trial)
                    if (outcome := _outcome(trial, code)) is None:
                        failed.append(trial)
                    done = sum(one.outcome() is not None for one in wanted())
                    say(_line(trial, outcome, code, seconds, done, len(wanted())))
            raise StudyStopped(stop.received)
    finally:
        _stop(list(running.values()))


def _begin(trial: Trial, jobs: int) -> subprocess.Popen[bytes]:
    trial.write()
    threads = max(1, len(os.sched_getaffinity(0)) // jobs)
    with open(trial.log, "ab") as log:
        return subprocess.Popen(
            trial.arm.command(str(trial.file), str(trial.folder)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={"OMP_NUM_THREADS": str(threads), **os.environ},
            # A Ctrl-C reaches this process alone, which tells the others once.
            start_new_session=True,
        )


def _ended(running: dict[Trial, subprocess.Popen[bytes]], stop: StopRequests) -> list[Trial]:
    """Waits until a run ends, or a signal comes."""
    while stop.received is None:
        if found := [trial for trial, process in running.items() if process.poll() is not None]:
            return found
        time.sleep(_POLL)
    return []


def _outcome(trial: Trial, code: int) -> Outcome | None:
    if code == 2:
        raise ValueError(f"{trial.folder}: {_last_line(trial)}")
    if code == _STOPPED:
        trial.stop(_last_line(trial))
    return trial.outcome()


def _last_line(trial: Trial) -> str:
    lines = trial.log.read_text(encoding="utf-8", errors="replace").splitlines()
    return lines[-1].removeprefix("groundup: ") if lines else "it printed nothing"


def _line(
    trial: Trial, outcome: Outcome | None, code: int, seconds: float, done: int, of: int
) -> str:
    what = f"{trial.name}, peak {trial.peak:g}, seed {trial.seed}"
    minutes, rest = divmod(round(seconds), 60)
    if outcome is None:
        said = f"failed with exit code {code}, see {trial.log}"
    else:
        said = outcome.why if outcome.value is None else f"{outcome.value:.4f}"
    return f"[{done}/{of}] {what}: {said} ({minutes}:{rest:02d})"


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_PATIENCE)
        if process.poll() is None:
            process.kill()
            process.wait()
