"""SIGINT and SIGTERM ask the loop to stop after the update it is in; a second SIGINT insists.

A second SIGTERM does not: a scheduler that signals every process of a job reaches one twice, the
second time by way of torchrun. Whoever will not wait has SIGKILL.
"""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class Interrupted(Exception):
    """The run was asked to stop and has saved a checkpoint.

    `code` is the exit code that a shell expects: 130 for SIGINT, 143 for SIGTERM.
    """

    def __init__(self, number: int, step: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} after {step} updates, saved")
        self.code = 128 + number


class StopRequests:
    """Within this context a signal is noted in `received`; the previous handlers come back after.

    In a thread other than the main one Python delivers no signals, and this does nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequests:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            signal.signal(number, self._before[number])
            signal.raise_signal(number)
        self.received = self.received or number
