"""Copies of a run's numbers for TensorBoard and Weights & Biases, by their own libraries.

The JSON lines of the run's folder are the record; these are views of it. A library that fails in
the course of a run is left out from there on, and training goes on as it would without it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from groundup.train.sinks import names
from groundup.train.sinks.config import LogConfig
from groundup.train.sinks.tensorboard import TensorBoard
from groundup.train.sinks.weights_and_biases import WeightsAndBiases

if TYPE_CHECKING:
    from groundup.train.recipe import Recipe

__all__ = ["LogConfig", "Sink", "Sinks", "check_installed", "open_sinks"]

Note = Callable[[str], None]


class Sink(Protocol):
    """What takes a run's scalars."""

    name: str

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """The scalars of one update, "train/loss" and so on; `step` rises from call to call."""

    def flush(self) -> None:
        """A checkpoint is about to be written, from which the run may go on."""

    def close(self, failed: bool) -> None:
        """The run ends; `failed`: before its time."""


# A field of [log] → what it opens, from (recipe, folder, first update, note).
_SINKS: dict[str, Callable[[Recipe, Path, int, Note], Sink]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
}


class Sinks:
    """All that a run writes to, a context manager that closes them.

    A line of measurements comes before the metrics of its update, which a GPU hands over late; it
    is held until then, since Weights & Biases takes steps only in their order.
    """

    def __init__(self, sinks: Sequence[Sink], note: Note) -> None:
        self._sinks = list(sinks)
        self._note = note
        self._held: dict[int, names.Scalars] = {}

    def updated(self, metrics: Mapping[str, Any], timing: Mapping[str, Any]) -> None:
        """The lines of metrics.jsonl and timing.jsonl for one update."""
        if self._sinks:
            self._hold(metrics["step"], names.updated(metrics, timing))
            self._release(metrics["step"])

    def measured(self, step: int, found: Mapping[str, Any]) -> None:
        """What was measured after `step` updates; it may be empty."""
        if self._sinks:
            self._hold(step, names.measured(found))

    def flush(self) -> None:
        """Put on the disk what can be, before a checkpoint is."""
        self._each(lambda sink: sink.flush())

    def close(self, failed: bool = False) -> None:
        self._release(max(self._held, default=0))
        self._each(lambda sink: sink.close(failed))
        self._sinks = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(failed=kind is not None)

    def _hold(self, step: int, scalars: names.Scalars) -> None:
        if scalars:
            self._held.setdefault(step, {}).update(scalars)

    def _release(self, last: int) -> None:
        for step in sorted(step for step in self._held if step <= last):
            self._each(partial(_write, step, self._held.pop(step)))

    def _each(self, act: Callable[[Sink], None]) -> None:
        for sink in list(self._sinks):
            try:
                act(sink)
            except Exception as error:  # whatever these libraries raise, it is not training's
                self._sinks.remove(sink)
                self._note(
                    f"{sink.name} failed ({_said(error)}) and is left out from here on; "
                    "metrics.jsonl goes on"
                )
                with contextlib.suppress(Exception):
                    sink.close(failed=True)


def check_installed(config: LogConfig) -> None:
    """Refuse a recipe that asks for a library that is not installed.

    Raises:
        ValueError: naming the field and what to install.
    """
    for name in _SINKS:
        # A folder called wandb/ in the working directory is a package to Python, without an origin.
        if getattr(config, name) and ((spec := find_spec(name)) is None or spec.origin is None):
            raise ValueError(
                f"log.{name}=true is not valid here: the package {name} is not installed; "
                f"pip install {name}, or both with pip install 'groundup[logging]'"
            )


def open_sinks(recipe: Recipe, folder: Path, start: int, note: Note, writes: bool = True) -> Sinks:
    """What the recipe's [log] asks for, from update `start` on; call it before the `Recorder`
    cuts metrics.jsonl back. Nothing in a process that does not write.

    Raises:
        ValueError: if a library is not installed, or refuses a run that has not begun. A run that
            goes on (`start` > 0) goes on without it, and `note` is told.
    """
    check_installed(recipe.log)
    opened = []
    for name, sink in _SINKS.items():
        if not writes or not getattr(recipe.log, name):
            continue
        try:
            opened.append(sink(recipe, folder, start, note))
        except Exception as error:
            if not start:
                Sinks(opened, note).close(failed=True)
                raise ValueError(f"log.{name}=true does not work here: {_said(error)}") from error
            note(f"log.{name}=true: left out, since it does not work here ({_said(error)})")
    return Sinks(opened, note)


def _write(step: int, values: names.Scalars, sink: Sink) -> None:
    sink.write(step, values)


def _said(error: Exception) -> str:
    return str(error) or type(error).__name__
