"""What the tests of recorders share: sinks that keep or fail, and lines to give them."""

from __future__ import annotations

from dataclasses import replace

from groundup.train import Recipe
from groundup.train.progress import Silent
from groundup.train.sinks import LogConfig

TENSORBOARD = LogConfig(tensorboard=True)
OFFLINE = LogConfig(wandb=True, project="p", mode="offline")


class Notes(Silent):
    """A watcher that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)


class Kept:
    """A sink that keeps what it is told."""

    name = "kept"

    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def write(self, step, values) -> None:
        self.calls.append((step, values))

    def flush(self) -> None:
        self.calls.append(("flush",))

    def close(self, failed) -> None:
        self.calls.append(("close", failed))


class Broken(Kept):
    """A sink whose library fails at its third line."""

    name = "broken"

    def write(self, step, values) -> None:
        if len(self.calls) == 2:
            raise OSError("no space left")
        super().write(step, values)


def with_log(recipe: Recipe, log: LogConfig) -> Recipe:
    return replace(recipe, log=log)


def line(step: int, loss: float | None = None) -> dict:
    return {"step": step, "loss": step + 0.5 if loss is None else loss, "rate": 1e-3}


def clock(step: int) -> dict:
    return {"step": step, "seconds": 0.25, "tokens_per_second": 512.0}
