"""Batches of several corpora, as a pure function of (seed, step).

Batch s holds the samples n_k(s) … n_k(s + 1) − 1 of each part k (counts.py). Sample g of a part
with W windows is its window permute(g mod W, W, key=(seed, g // W, k)): every epoch of a part shows
each of its windows once, in a new order, whatever the weights do. The rows of a batch are
interleaved as evenly as can be, so that every micro-batch and every rank has each part in
proportion.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from groundup.data.batches import check_seed, count_windows, gather, row_range, shuffled
from groundup.data.mixture.counts import Counts

__all__ = ["MixedBatches", "interleaved"]


class MixedBatches:
    """Training batches over the token streams of several parts.

    `names` of the parts; `tokens`: integers, 1-dimensional, of each; `shares`: int64
    [updates, parts], as `weights.shares` gives them; `length`, `batch` and `seed` as for `Batches`.
    Errors: `ValueError` naming the field, or the part whose tokens fill no window.
    """

    def __init__(
        self,
        names: Sequence[str],
        tokens: Sequence[NDArray[np.integer]],
        shares: NDArray[np.int64],
        length: int,
        batch: int,
        seed: int,
    ) -> None:
        if not len(names) == len(tokens) == shares.shape[1]:
            raise ValueError(
                f"{len(names)} names, {len(tokens)} token streams, {shares.shape[1]} shares: there "
                "must be as many of each"
            )
        self.windows = tuple(map(_windows, names, tokens, [length] * len(names)))
        self.tokens = tuple(np.asarray(one) for one in tokens)
        self.length = int(length)
        self.seed = check_seed(seed)
        self.counts = Counts(shares, batch)
        self.size = int(batch)
        self._first = np.cumsum([0, *self.windows])

    def batch(self, step: int) -> NDArray[np.int64]:
        """The batch of `step` (completed updates): int64 [batch, length + 1]."""
        return self.rows(step, 0, self.size)

    def rows(self, step: int, start: int, stop: int) -> NDArray[np.int64]:
        """Rows start..stop-1 of `batch(step)`, reading only those: int64 [stop - start, length+1].

        Errors: `ValueError` unless 0 <= start <= stop <= batch.
        """
        order = self.order(step, start, stop)
        of = self.part_of(order)
        found = np.empty((len(order), self.length + 1), dtype=np.int64)
        for part, tokens in enumerate(self.tokens):
            found[of == part] = gather(tokens, order[of == part] - self._first[part], self.length)
        return found

    def order(self, step: int, start: int = 0, stop: int | None = None) -> NDArray[np.int64]:
        """Which windows rows start..stop-1 of `step` hold: int64 [stop - start].

        Windows are numbered through: those of the second part after those of the first.
        """
        step, start, stop = row_range(self.size, step, start, stop)
        before, after = self.counts.before(step), self.counts.before(step + 1)
        parts = interleaved([b - a for a, b in zip(before, after, strict=True)])
        order = np.empty(stop - start, dtype=np.int64)
        for part, windows in enumerate(self.windows):
            here = parts[start:stop] == part
            first = before[part] + int(np.count_nonzero(parts[:start] == part))
            last = first + int(np.count_nonzero(here))
            chosen = shuffled(first, last, windows, self.seed, part)
            order[here] = chosen + self._first[part]
        return order

    def part_of(self, windows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The part that each window belongs to, as `order` numbers them: int64, of its shape."""
        return np.searchsorted(self._first, windows, side="right") - 1

    def epochs(self, step: int) -> tuple[float, ...]:
        """How many epochs of each part are complete before `step`."""
        used = self.counts.before(step)
        return tuple(n / windows for n, windows in zip(used, self.windows, strict=True))


def _windows(name: str, tokens: NDArray[np.integer], length: int) -> int:
    try:
        return count_windows(tokens, length)
    except ValueError as error:
        raise ValueError(f"mixture, {name!r}: {error}") from None


def interleaved(counts: Sequence[int]) -> NDArray[np.int64]:
    """`counts[k]` times each number k, spread evenly: int64 [sum(counts)].

    Number i of the n of a part is due at (i + ½)/n of the batch; where two are due at once the part
    that comes first has the first.

    >>> interleaved([4, 2]).tolist()
    [0, 0, 1, 0, 1, 0]
    """
    parts = np.repeat(np.arange(len(counts)), counts)
    due = np.concatenate([(np.arange(n) + 0.5) / max(n, 1) for n in counts])
    return parts[np.argsort(due, kind="stable")]
