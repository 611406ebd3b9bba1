"""What a run tells whoever watches it: plain data, so that the loop knows no terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Status:
    """One update, as it is shown."""

    step: int
    steps: int
    loss: float
    rate: float
    alphas: list[float]
    tokens_per_second: float
    eval_loss: float | None = None

    @staticmethod
    def of(
        metrics: Mapping[str, Any], timing: Mapping[str, Any], alphas: list[float], steps: int
    ) -> Status:
        """From the lines that were recorded."""
        return Status(
            step=metrics["step"] + 1,
            steps=steps,
            loss=math.nan if metrics["loss"] is None else metrics["loss"],
            rate=metrics["rate"],
            alphas=alphas,
            tokens_per_second=timing["tokens_per_second"],
            eval_loss=metrics.get("eval_loss"),
        )


class Watcher(Protocol):
    """Anything that wants to know how a run goes on."""

    def note(self, message: str) -> None:
        """A sentence for the reader: resuming, compiling, stopping."""

    def update(self, status: Status) -> None:
        """An update was completed and recorded."""


class Silent:
    """Watches and says nothing."""

    def note(self, message: str) -> None:
        pass

    def update(self, status: Status) -> None:
        pass
