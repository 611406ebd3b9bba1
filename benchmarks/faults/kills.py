"""SIGKILL, at random moments, over and over, until the run has ended."""

from __future__ import annotations

import signal
from collections.abc import Callable, Generator

from faults.ends import is_the_same, shows_traceback
from faults.moments import Draw, doing, going, until
from faults.place import Folder, Place
from faults.processes import Started, send
from faults.registry import Act, demand, fault

Strike = Callable[[Draw, Folder, Started], str]


def everything(draw: Draw, folder: Folder, started: Started) -> str:
    """All processes at one moment."""
    pids = started.everything()
    send(pids, signal.SIGSTOP)
    what = doing(folder, started)
    send([*started.everything(), *pids], signal.SIGKILL)
    return what


def one_rank(draw: Draw, folder: Folder, started: Started) -> str:
    """One of the processes that train; the others must end by themselves."""
    victim = draw.random.choice(started.ranks())
    send([victim], signal.SIGSTOP)
    what = doing(folder, started)
    send([victim], signal.SIGKILL)
    return what


def killed(strike: Strike, processes: int, **fields: object) -> Act:
    """Run after run, each killed until it has ended, then held against the undisturbed one."""

    def act(place: Place, times: int) -> Generator[str, None, str]:
        start_up = _start_up(place, processes, fields)
        done = runs = 0
        while done < times:
            folder = place.folder(processes, prepared=runs % 2 == 0, **fields)
            draw = Draw(f"{runs} of {processes}", start_up)
            while True:
                started = folder.start()
                if done == times or not draw.reach(folder, started):
                    ended = started.wait()
                    demand(ended.code == 0, f"ended with {ended.code}:\n{ended.said[-3000:]}")
                    break
                what = strike(draw, folder, started)
                ended = started.wait()
                if ended.code == 0:  # it had come to its end just before
                    break
                demand(not shows_traceback(ended), f"a traceback:\n{ended.said[:4000]}")
                done += 1
                yield what
            is_the_same(place, folder)
            runs += 1
        return f"each of the {runs} runs ended as undisturbed" if runs > 1 else "ended the same"

    return act


def _start_up(place: Place, processes: int, fields: dict[str, object]) -> float:
    """Seconds from a start to its first update."""
    folder = place.folder(processes, **fields)
    started = folder.start()
    until(started, lambda: going(folder, started))
    seconds = started.seconds()
    started.kill()
    started.wait()
    return seconds


fault(
    "kill",
    "SIGKILL, one process",
    "at random moments: start-up (data being prepared in half of the runs), update, evaluation, "
    "checkpoint",
    times=60,
)(killed(everything, 1))
fault(
    "kill-rank",
    "SIGKILL of one rank of two",
    "one of two processes under torchrun (DDP), drawn at random, at random moments",
    times=50,
)(killed(one_rank, 2))
fault(
    "kill-all",
    "SIGKILL of both ranks and torchrun",
    "all three processes at one moment (DDP), at random moments",
    times=50,
)(killed(everything, 2))
fault(
    "kill-all-fsdp",
    "the same with FSDP",
    "all three processes at one moment (FSDP2), at random moments",
    times=20,
)(killed(everything, 2, parallel__mode="fsdp"))
