"""A signal reaches one process in the middle of one update and another in that of the next: they
agree on the update to stop after."""

from __future__ import annotations

import signal
from collections import deque

import torch
from torch import Tensor

from groundup.train.signals import StopRequests

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LAG = 2  # updates: by then a number has arrived from a GPU without being waited for


class Stopping:
    """Whether to stop, as a function of what the processes said at an update.

    Every process puts its own `word` into the sum over processes that each update makes anyway, and
    reads the sum: on a GPU two updates later, when nobody has to wait for it.
    """

    def __init__(self, requests: StopRequests, device: torch.device) -> None:
        self._requests = requests
        self._device = device
        self._lag = _LAG if device.type == "cuda" else 0
        self._sums: deque[Tensor] = deque()

    def word(self) -> Tensor:
        """What this process has to say: [2] float32, one number for each signal."""
        said = [float(self._requests.received == number) for number in _SIGNALS]
        return torch.tensor(said).to(self._device, non_blocking=True)

    def see(self, summed: Tensor) -> int | None:
        """The signal to stop for after this update, whose sum of words this is."""
        self._sums.append(summed.to("cpu", non_blocking=True))
        if len(self._sums) <= self._lag:
            return None
        found = self._sums.popleft().tolist()
        return next((n for n, count in zip(_SIGNALS, found, strict=True) if count), None)
