"""Several processes: one that hangs, one too many, and restarts without anybody's doing."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Generator

from faults.ends import ends_the_same, is_the_same, says
from faults.moments import come_to, doing, in_training, until
from faults.place import STEPS, Folder, Place
from faults.processes import Started, send, wait_until_gone
from faults.registry import demand, fault

_TIMEOUT = 8.0


_HELD = "the same command is started while the run is at a random update, where SIGSTOP holds it"


@fault("second-process", "two processes on one folder", _HELD, times=5)
def second_process(place: Place, times: int) -> Generator[str, None, str]:
    yield from _second(place, times, processes=1)
    return "the first ended as undisturbed"


@fault("second-torchrun", "two torchruns on one folder", f"{_HELD}; two ranks each (DDP)", times=3)
def second_torchrun(place: Place, times: int) -> Generator[str, None, str]:
    yield from _second(place, times, processes=2)
    return "the first ended as undisturbed"


def _second(place: Place, times: int, processes: int) -> Generator[str, None, None]:
    draw = random.Random(0)
    for _ in range(times):
        folder = place.folder(processes)
        first = in_training(folder, draw.randint(1, STEPS - 40))
        yield _refused_beside(folder, first)
        _goes_on(place, folder, first)


def _refused_beside(folder: Folder, first: Started) -> str:
    """What the same command says beside the first one."""
    send(first.everything(), signal.SIGSTOP)
    second = folder.finish()
    send(first.everything(), signal.SIGCONT)
    return says(second, 2 if folder.processes == 1 else 1, "run is in use by another process")


def _goes_on(place: Place, folder: Folder, first: Started) -> None:
    ended = first.wait()
    demand(ended.code == 0, f"the first ended with {ended.code}:\n{ended.said[-3000:]}")
    is_the_same(place, folder)


@fault(
    "hang",
    "a rank that hangs",
    f"SIGSTOP to one of two ranks (DDP) drawn at random; parallel.timeout = {_TIMEOUT:g} s",
    times=6,
)
def hang(place: Place, times: int) -> Generator[str, None, str]:
    draw = random.Random(0)
    slowest = 0.0
    for _ in range(times):
        folder = place.folder(processes=2, parallel__timeout=_TIMEOUT)
        started = in_training(folder, draw.randint(1, STEPS - 40))
        rank = draw.randrange(2)
        stopped = started.ranks()[rank]
        send([stopped], signal.SIGSTOP)
        began = time.monotonic()
        while "groundup: rank" not in started.said() and started.running():
            time.sleep(0.1)
            demand(time.monotonic() - began < 5 * _TIMEOUT, "nobody noticed")
        slowest = max(slowest, time.monotonic() - began)
        yield _blames(started, f"rank {rank} does not run")
        ends_the_same(place, folder)
    return f"noticed within {slowest:.0f} s; the same command ended as undisturbed"


@fault(
    "hang-in-update",
    "a rank whose update does not end",
    f"one update of rank 1 of 2 (DDP) sleeps (injected code); parallel.timeout = {_TIMEOUT:g} s",
    times=3,
)
def hang_in_update(place: Place, times: int) -> Generator[str, None, str]:
    draw = random.Random(0)
    for _ in range(times):
        folder = place.folder(processes=2, parallel__timeout=_TIMEOUT)
        started = folder.start(inject=f"sleep:{draw.randint(1, STEPS - 20)}")
        yield _blames(started, "rank 1 runs, but hangs after")
        stacks = (folder.run / "hung-rank-1.txt").read_text(encoding="utf-8")
        demand("inject.py" in stacks, f"where is not said:\n{stacks}")
        ends_the_same(place, folder)
    return "its stack stands in run/hung-rank-1.txt; the same command ended as undisturbed"


def _blames(started: Started, blamed: str) -> str:
    """torchrun ends all of it; who hangs is said."""
    ended = started.wait()
    demand(ended.code != 0, "torchrun ended with 0")
    demand(blamed in ended.said, f"not said: {blamed}:\n{ended.said[-3000:]}")
    demand("exitcode  : 75" in ended.said, f"not 75:\n{ended.said[-3000:]}")
    return f"exit 75 (torchrun {ended.code}): “… {blamed} …”"


@fault(
    "stopped-job",
    "a job that is stopped as a whole",
    f"SIGSTOP to both ranks (DDP) for longer than parallel.timeout = {_TIMEOUT:g} s, then SIGCONT",
    times=2,
)
def stopped_job(place: Place, times: int) -> Generator[str, None, str]:
    for _ in range(times):
        folder = place.folder(processes=2, parallel__timeout=_TIMEOUT)
        started = in_training(folder, 30)
        ranks = started.ranks()
        send(ranks, signal.SIGSTOP)
        time.sleep(1.5 * _TIMEOUT)
        send(ranks, signal.SIGCONT)
        _goes_on(place, folder, started)
        yield "went on"
    return "ended as undisturbed"


@fault(
    "restarts",
    "torchrun --max-restarts",
    "SIGKILL of one of two ranks (DDP) drawn at random, at random moments, three in each run",
    times=12,
)
def restarts(place: Place, times: int) -> Generator[str, None, str]:
    draw = random.Random(0)
    done = 0
    while done < times:
        folder = place.folder(processes=2)
        each = min(3, times - done)
        started = folder.start(launcher=("--max-restarts", str(each)))
        for kill in range(each):
            _reach(folder, started, kill, each, draw)
            victim = draw.choice(started.ranks())
            send([victim], signal.SIGSTOP)
            what = doing(folder, started)
            send([victim], signal.SIGKILL)
            done += 1
            yield what
        _goes_on(place, folder, started)
    return "restarted without anybody's doing; each run ended as undisturbed"


def _reach(folder: Folder, started: Started, kill: int, kills: int, draw: random.Random) -> None:
    """Somewhere in the next part of the run, when both ranks are there again."""
    wanted = draw.randint(kill * STEPS // kills + 5, (kill + 1) * STEPS // kills - 5)
    there = until(started, lambda: folder.lines() >= wanted and len(started.ranks()) == 2)
    demand(there, f"it ended before kill {kill + 1}:\n{started.said()[-3000:]}")
    time.sleep(draw.uniform(0, 0.02))


@fault(
    "in-turn",
    "one run of two ranks that meets much",
    "another process on its folder, SIGKILL of one rank (torchrun --max-restarts 1), SIGTERM of "
    "torchrun (DDP)",
    times=1,
)
def in_turn(place: Place, times: int) -> Generator[str, None, str]:
    for _ in range(times):
        folder = place.folder(processes=2)
        started = in_training(folder, 20, launcher=("--max-restarts", "1"))
        send(started.everything(), signal.SIGSTOP)
        other = Folder(folder.path, 1, folder.fields).finish()
        send(started.everything(), signal.SIGCONT)
        says(other, 2, "run is in use by another process")
        come_to(folder, started, 45)
        send(started.ranks()[1:], signal.SIGKILL)
        come_to(folder, started, 80)
        send([started.pid], signal.SIGTERM)
        demand("the same command goes on" in started.wait().said, started.said()[-3000:])
        ends_the_same(place, folder)
        yield "the other refused; started again by torchrun, then by hand"
    return "ended as undisturbed"


@fault(
    "kill-torchrun",
    "SIGKILL of torchrun alone",
    "its two ranks (DDP) stay behind; the same command beside them (SIGSTOP holds them), then "
    "SIGTERM to them, then the same command",
    times=3,
)
def kill_torchrun(place: Place, times: int) -> Generator[str, None, str]:
    for _ in range(times):
        folder = place.folder(processes=2)
        started = in_training(folder, 20)
        ranks = started.ranks()
        send([started.pid], signal.SIGKILL)
        started.wait()
        send(ranks, signal.SIGSTOP)
        refused = says(folder.finish(), 1, "run is in use by another process")
        send(ranks, signal.SIGTERM)
        send(ranks, signal.SIGCONT)
        wait_until_gone(ranks)
        demand("the same command goes on" in started.said(), started.said()[-3000:])
        ends_the_same(place, folder)
        yield f"{refused}; SIGTERM saved and ended the ranks"
    return "then the same command ended as undisturbed"
