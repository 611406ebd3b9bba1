"""Processes that start again with a store in which earlier ones have left their words."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
import torch.distributed as dist

from groundup.train.parallel.meeting import agree

PATIENCE = timedelta(seconds=30)


def start(store: dist.Store, size: int, delays: dict[int, float] | None = None) -> list[str]:
    """What each of `size` threads agrees on."""
    found: dict[int, str] = {}

    def one(rank: int) -> None:
        found[rank] = agree(store, rank, size, PATIENCE)

    threads = []
    for rank in range(size):
        timer = threading.Timer((delays or {}).get(rank, 0.0), one, [rank])
        timer.start()
        threads.append(timer)
    for thread in threads:
        thread.join()
    return [found[rank] for rank in range(size)]


@pytest.mark.parametrize("size", [1, 2, 5])
def test_every_start_agrees_on_a_name_of_its_own(size: int) -> None:
    store = dist.HashStore()
    names = [start(store, size) for _ in range(4)]
    assert all(len(set(name)) == 1 for name in names)
    assert len({name[0] for name in names}) == 4


@pytest.mark.parametrize("late", [0, 1, 2])
def test_whoever_comes_last(late: int) -> None:
    store = dist.HashStore()
    before = start(store, 3)
    # A process of another start that asked and was killed.
    store.set("asks/1", "stale")
    names = start(store, 3, {late: 0.3})
    assert len(set(names)) == 1
    assert names[0] not in before


@pytest.mark.parametrize(("rank", "missing"), [(0, "rank 1"), (1, "rank 0")])
def test_one_that_does_not_come_is_named(rank: int, missing: str) -> None:
    with pytest.raises(TimeoutError, match=f"{missing} has not come"):
        agree(dist.HashStore(), rank, 2, timedelta(seconds=0.1))
