"""Being asked to stop: SIGTERM and SIGINT, as a scheduler, a terminal and torchrun send them."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable, Generator

from faults.ends import ends_the_same, says, shows_traceback, told
from faults.moments import in_training
from faults.place import STEPS, Folder, Place
from faults.processes import Started, send
from faults.registry import Act, demand, fault

_GRACE = 30.0


def asked(number: int, code: int) -> Act:
    def act(place: Place, times: int) -> Generator[str, None, str]:
        draw = random.Random(number)
        for _ in range(times):
            folder = place.folder()
            started = in_training(folder, draw.randint(1, STEPS - 30))
            send([started.pid], number)
            yield says(started.wait(_GRACE), code, "saved", "the same command goes on")
            _stands_where_it_stopped(folder)
            ends_the_same(place, folder)
        return "nothing computed twice; the same command ended as undisturbed"

    return act


def _stands_where_it_stopped(folder: Folder) -> None:
    newest = max((folder.run / "checkpoints").glob("step-*")).name
    demand(
        newest == f"step-{folder.lines():08d}",
        f"the newest checkpoint is {newest}, but {folder.lines()} updates were made",
    )


fault(
    "terminate", "SIGTERM (preemption)", "to the process, at random updates; 30 s of grace", times=5
)(asked(signal.SIGTERM, 143))
fault("interrupt", "SIGINT (Ctrl-C)", "to the process, at random updates", times=5)(
    asked(signal.SIGINT, 130)
)


@fault(
    "terminate-torchrun",
    "SIGTERM of torchrun",
    "to torchrun, which passes it on to two ranks (DDP), at random updates; 30 s of grace",
    times=5,
)
def terminate_torchrun(place: Place, times: int) -> Generator[str, None, str]:
    yield from _asked_in_parallel(place, times, lambda started: [started.pid])
    return "nothing computed twice; the same command ended as undisturbed"


@fault(
    "terminate-ranks",
    "SIGTERM of every process of the job",
    "to torchrun and both ranks (DDP), as Slurm does, at random updates; 30 s of grace",
    times=5,
)
def terminate_ranks(place: Place, times: int) -> Generator[str, None, str]:
    yield from _asked_in_parallel(place, times, lambda started: started.everything())
    return "nothing computed twice; the same command ended as undisturbed"


@fault(
    "terminate-one-rank",
    "SIGTERM of one rank",
    "to one of two ranks (DDP), at random updates",
    times=4,
)
def terminate_one_rank(place: Place, times: int) -> Generator[str, None, str]:
    draw = random.Random(3)
    yield from _asked_in_parallel(place, times, lambda started: [draw.choice(started.ranks())])
    return "nothing computed twice; the same command ended as undisturbed"


def _asked_in_parallel(
    place: Place, times: int, whom: Callable[[Started], list[int]]
) -> Generator[str, None, None]:
    """SIGTERM to some of the processes; all of them stop after one update, which is saved."""
    draw = random.Random(2)
    for _ in range(times):
        folder = place.folder(processes=2)
        started = in_training(folder, draw.randint(1, STEPS - 30))
        send(whom(started), signal.SIGTERM)
        ended = started.wait(_GRACE)
        demand(ended.code != 0, "it went on to the end")
        demand("the same command goes on" in ended.said, f"not said:\n{ended.said[-3000:]}")
        demand(not shows_traceback(ended), f"a traceback:\n{ended.said[-3000:]}")
        yield f"torchrun {told(ended)}"
        _stands_where_it_stopped(folder)
        ends_the_same(place, folder)
