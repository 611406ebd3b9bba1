"""Updates whose loss or gradient is infinite or NaN: skipped, counted, and not without a limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from groundup.train.progress import Watcher

_VALUES = ("loss", "grad_norm")


class NonFiniteError(RuntimeError):
    """A number became infinite or NaN, and going on would not help."""


class NonFinite:
    """Counts such updates in a row: a batch may do this once, weights that are NaN do it each time.

    Args:
        limit: how many in a row are skipped; the next raises.
        past: the last lines of metrics.jsonl, from which a run that goes on counts on.
    """

    def __init__(self, limit: int, past: Sequence[Mapping[str, Any]], watch: Watcher) -> None:
        self._limit, self._watch = limit, watch
        self._row = 0
        for metrics in past:
            self._count(metrics)

    def written(self, metrics: Mapping[str, Any], broken: Mapping[str, float]) -> None:
        """The line of an update was recorded; `broken`: its numbers that are not finite, which
        stand in it as null.

        Raises:
            NonFiniteError: if the limit is passed, or a number of another kind is broken.
        """
        self._count(metrics)
        if not broken:
            return
        said = f"update {metrics['step']}: " + ", ".join(f"{k} is {v}" for k, v in broken.items())
        if self._row > self._limit:
            before = f", after {self._limit} such updates in a row (train.nonfinite)"
            raise NonFiniteError(said + (before if self._limit else ""))
        if broken.keys() - set(_VALUES):
            raise NonFiniteError(said)
        if self._row == 1:
            self._watch.note(f"{said}; skipped, as at most {self._limit} in a row are")

    def _count(self, metrics: Mapping[str, Any]) -> None:
        self._row = self._row + 1 if any(metrics[name] is None for name in _VALUES) else 0
