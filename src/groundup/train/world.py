"""The processes of a run: which one this is, and what they tell each other.

One process is a world of one, in which all of this does nothing. More are started by torchrun,
which says which is which, and joined by PyTorch: `groundup.train.parallel.start`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed as dist
from torch import Tensor

from groundup.train.errors import FailedElsewhere

T = TypeVar("T")


def lost(error: Exception) -> bool:
    """Whether this is what PyTorch raises where another process is gone."""
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def why_lost(error: Exception) -> str:
    """What PyTorch says of it, without its places in C++ and its advice."""
    line = str(error).strip().split("\n", 1)[0]
    return re.sub(r"^\[[^]]*\]\s*", "", line).split(". ", 1)[0]


@dataclass(frozen=True)
class World:
    """This process among those of the run.

    Attributes:
        rank: 0…size − 1; what only one process does (writing, printing) rank 0 does.
        size: number of processes.
        local_rank: among those of this machine.
        plain: a process group of gloo for plain data, apart from the one that training uses; None
            in a world of one.
        store: where processes leave words for each other (`torch.distributed.Store`), if there is
            one.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    plain: Any = None
    store: Any = None

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes and prints."""
        return self.rank == 0

    def barrier(self) -> None:
        """Wait until every process is here."""
        if self.size > 1:
            dist.barrier(self.plain)

    def gather(self, value: Any) -> list[Any]:
        """The plain `value` of every process, by rank, on every process."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.plain)
        return found

    def share(self, value: Any) -> Any:
        """The plain `value` of rank 0, on every process."""
        if self.size == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, src=0, group=self.plain)
        return held[0]

    def sum_(self, tensor: Tensor) -> Tensor:
        """Add up `tensor` over the processes, in place and on its device."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def share_of(self, rows: int) -> range:
        """Which of `rows` rows, a multiple of `size`, are this process's."""
        each = rows // self.size
        return range(self.rank * each, (self.rank + 1) * each)

    # ------------------------------------------------------------------ errors

    def together(self, work: Callable[[], T]) -> T:
        """What `work` returns here; where it fails on one process, none goes on.

        Raises:
            FailedElsewhere: if it failed on another process and not here, or there in the same way.
        """
        if self.size == 1:
            return work()
        failed: Exception | None = None
        try:
            result = work()
        except Exception as error:
            failed = error
        said = self.gather(None if failed is None else str(failed))
        first = next((rank for rank, what in enumerate(said) if what is not None), None)
        if first is None:
            return result
        if failed is not None and (first == self.rank or said[first] != said[self.rank]):
            raise failed
        raise FailedElsewhere(f"rank {first}: {said[first]}")

    def on_main(self, work: Callable[[], T]) -> T:
        """What `work` returns on rank 0 (plain data), on every process.

        Raises:
            FailedElsewhere: on the others, if it failed there.
        """
        result = self.together(lambda: work() if self.main else None)
        return self.share(result)

    def in_turn(self, work: Callable[[], T]) -> T:
        """What `work` returns here, done first by one process of each machine and then, when they
        have all ended, by the others: for work that leaves files for those."""
        if self.size == 1:
            return work()
        first = self.together(lambda: work() if self.local_rank == 0 else None)
        rest = self.together(lambda: work() if self.local_rank != 0 else None)
        found = first if self.local_rank == 0 else rest
        assert found is not None
        return found

    def lost(self, error: Exception) -> bool:
        """Whether this is what a collective raises when another process is gone."""
        return self.size > 1 and lost(error)


ALONE = World()
