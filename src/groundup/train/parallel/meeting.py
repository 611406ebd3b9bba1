"""A name for this start of the processes, that no earlier start had.

torchrun keeps one store through its restarts, in which the addresses of processes that are gone
still stand: those that are new would wait for them. Its count of restarts is not the same on all
machines (pytorch/pytorch issue 135712), so the processes agree on a name, by that store.
"""

from __future__ import annotations

import secrets
import time
from datetime import timedelta
from typing import Any

__all__ = ["agree"]

_PAUSE = 0.02  # seconds


def agree(store: Any, rank: int, size: int, patience: timedelta) -> str:
    """The name that rank 0 has made up, in all processes that call this now.

    The others ask under a word of their own, so that none takes what an earlier start was told.

    Args:
        store: a `torch.distributed.Store` that they share, whatever is in it.

    Raises:
        TimeoutError: if one of them has not come by then.
    """
    until = time.monotonic() + patience.total_seconds()
    if rank:
        question = secrets.token_hex(8)
        store.set(f"asks/{rank}", question)
        _wait(store, f"answer/{question}", until, "rank 0 has")
        name = store.get(f"answer/{question}").decode()
        store.set(f"heard/{name}/{rank}", "")
        return name
    name = secrets.token_hex(8)
    for other in range(1, size):
        answered = ""
        while not store.check([f"heard/{name}/{other}"]):
            _wait(store, f"asks/{other}", until, f"rank {other} has")
            # The first may be of an earlier start: it is answered too, and nobody hears it.
            if (question := store.get(f"asks/{other}").decode()) != answered:
                store.set(f"answer/{question}", name)
                answered = question
            _rest(until, f"rank {other} has")
    return name


def _wait(store: Any, key: str, until: float, who: str) -> None:
    while not store.check([key]):
        _rest(until, who)


def _rest(until: float, who: str) -> None:
    if time.monotonic() > until:
        raise TimeoutError(f"{who} not come to the start of the run")
    time.sleep(_PAUSE)
