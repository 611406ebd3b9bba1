"""Batches as a pure function of (seed, step), and sequential windows for evaluation.

The token stream is packed: window w holds tokens[w*length : w*length + length + 1], so inputs are
its first `length` tokens, next-token targets its last, and neighbouring windows share one token.
There are floor((tokens - 1) / length) windows; fewer than `length` tokens at the end of the
stream fill none.

Row i of step s is global sample g = s*batch + i; with W windows it is window
permute(g mod W, W, key=(seed, g // W)): every epoch shows each window once, in a new order.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from groundup._check import count
from groundup.data.shuffle import permute

__all__ = [
    "BatchStream", "Batches", "check_seed", "count_windows", "gather", "row_range", "shuffled",
    "windows",
]  # fmt: skip


class BatchStream(Protocol):
    """What a training loop asks for its batches: of one corpus or of several.

    `length`: sequence length; `size`: rows in a whole batch.
    """

    length: int
    size: int

    def rows(self, step: int, start: int, stop: int) -> NDArray[np.int64]:
        """Rows start..stop-1 of the batch of `step`: int64 [stop - start, length + 1]."""

    def order(self, step: int, start: int = 0, stop: int | None = None) -> NDArray[np.int64]:
        """Which windows those rows hold: int64 [stop - start]."""


class Batches:
    """Training batches over a token stream; holds no state but the (memory-mapped) tokens.

    `tokens`: integers, 1-dimensional; `length`: sequence length; `batch`: rows in a whole batch
    (over all micro-batches and ranks); `seed`: any int.
    Errors: `ValueError` naming the field, or the counts when the tokens fill no window.
    """

    def __init__(self, tokens: NDArray[np.integer], length: int, batch: int, seed: int) -> None:
        self.windows = count_windows(tokens, length)
        count("batch", batch)
        self.seed = check_seed(seed)
        self.tokens = np.asarray(tokens)
        self.length = int(length)
        self.size = int(batch)

    def batch(self, step: int) -> NDArray[np.int64]:
        """The batch of `step` (completed updates): int64 [batch, length + 1]."""
        return self.rows(step, 0, self.size)

    def rows(self, step: int, start: int, stop: int) -> NDArray[np.int64]:
        """Rows start..stop-1 of `batch(step)`, reading only those: int64 [stop - start, length+1].

        For a micro-batch or a rank. Errors: `ValueError` unless 0 <= start <= stop <= batch.
        """
        order = self.order(step, start, stop)
        return gather(self.tokens, order, self.length)

    def order(self, step: int, start: int = 0, stop: int | None = None) -> NDArray[np.int64]:
        """Which windows rows start..stop-1 of `step` hold: int64 [stop - start]."""
        step, start, stop = row_range(self.size, step, start, stop)
        first = step * self.size
        return shuffled(first + start, first + stop, self.windows, self.seed)

    def epoch(self, step: int) -> float:
        """How many epochs are complete before `step`: step * batch / windows."""
        count("step", step, least=0)
        return step * self.size / self.windows


def windows(
    tokens: NDArray[np.integer], length: int, batch: int, limit: int | None = None
) -> Iterator[NDArray[np.int64]]:
    """The first `limit` windows (None: all) in order, as int64 [n, length + 1] with n <= `batch`.

    Only the last chunk may be smaller than `batch`. Every prediction of the stream is in exactly
    one window, but for fewer than `length` at its end.
    Errors: `ValueError`, before the first chunk.
    """
    total = count_windows(tokens, length)
    count("batch", batch)
    if limit is not None:
        count("limit", limit)
        total = min(total, limit)
    array = np.asarray(tokens)
    return (
        gather(array, np.arange(start, min(start + batch, total)), length)
        for start in range(0, total, batch)
    )


def count_windows(tokens: NDArray[np.integer], length: int) -> int:
    """floor((tokens - 1) / length). Errors: `ValueError` if that is 0."""
    count("length", length)
    array = np.asarray(tokens)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(
            f"tokens has shape {array.shape} and dtype {array.dtype}: "
            "it must be a 1-dimensional array of integers"
        )
    number = (array.size - 1) // length
    if number < 1:
        raise ValueError(
            f"{array.size} tokens are too few for one sequence of length={length}, which needs "
            f"{length + 1}: give more text or a length of at most {max(array.size - 1, 0)}"
        )
    return number


def shuffled(first: int, last: int, windows: int, seed: int, *salt: int) -> NDArray[np.int64]:
    """The windows of the samples first..last-1 of a stream with so many: int64 [last - first].

    Sample g is window permute(g mod windows, windows, key=(seed, g // windows, *salt)).
    """
    order = np.empty(last - first, dtype=np.int64)
    sample = first
    while sample < last:
        epoch, position = divmod(sample, windows)
        chunk, start = divmod(position, _CHUNK)
        part = _chunk(chunk, windows, (seed, epoch, *salt))[start : start + last - sample]
        at = sample - first
        order[at : at + len(part)] = part
        sample += len(part)
    return order


# A permutation of few costs as much as one of many: those of a batch are looked up.
_CHUNK = 4096


@lru_cache(maxsize=64)
def _chunk(chunk: int, windows: int, key: tuple[int, ...]) -> NDArray[np.int64]:
    """A part of an epoch: the windows of its samples from chunk * _CHUNK on, at most so many."""
    positions = np.arange(chunk * _CHUNK, min((chunk + 1) * _CHUNK, windows), dtype=np.int64)
    return permute(positions, windows, key)


def row_range(size: int, step: int, start: int, stop: int | None) -> tuple[int, int, int]:
    """(step, start, stop) as ints, `stop` = `size` where it is None.

    Errors: `ValueError` unless step >= 0 and 0 <= start <= stop <= size.
    """
    stop = size if stop is None else stop
    step = count("step", step, least=0)
    start, stop = count("start", start, least=0), count("stop", stop, least=0)
    if not start <= stop <= size:
        raise ValueError(
            f"start={start}, stop={stop} is not valid: "
            f"rows must satisfy 0 <= start <= stop <= batch={size}"
        )
    return step, start, stop


def check_seed(seed: int) -> int:
    """`seed` as an int of any sign. Errors: `ValueError` for anything else."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise ValueError(f"seed={seed!r} is not valid: it must be a whole number")
    return int(seed)


def gather(tokens: NDArray[np.integer], which: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """The windows `which` of `length` inputs: int64 [len(which), length + 1]."""
    rows = np.empty((len(which), length + 1), dtype=np.int64)
    for row, window in enumerate(which.tolist()):
        rows[row] = tokens[window * length : window * length + length + 1]
    return rows
