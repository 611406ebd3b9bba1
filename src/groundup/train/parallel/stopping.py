"""A signal reaches one process in the middle of one update and another in that of the next: they
agree on the update to stop after."""

from __future__ import annotations

import signal
from collections import deque

import torch
from torch import Tensor

from groundup.train.signals import StopRequests
from groundup.train.world import World

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_LAG = 2  # updates: by then a number has arrived from a GPU without being waited for


class Stopping:
    """Whether to stop, as a function of what the processes said at an update.

    Every process puts its own `word` into the sum over processes that each update makes anyway, and
    reads the sum: on a GPU two updates later, when nobody has to wait for it. One process alone
    knows at once.
    """

    def __init__(self, requests: StopRequests, world: World, device: torch.device) -> None:
        self._requests, self._alone, self._device = requests, world.size == 1, device
        self._lag = _LAG if device.type == "cuda" else 0
        self._nothing = torch.zeros(len(_SIGNALS), device=device)
        self._sums: deque[tuple[Tensor, torch.cuda.Event | None]] = deque()

    def word(self) -> Tensor:
        """What this process has to say: [2] float32 on the device, a number for each signal."""
        if self._requests.received is None:
            return self._nothing
        said = [float(self._requests.received == number) for number in _SIGNALS]
        return torch.tensor(said, device=self._device)

    def see(self, summed: Tensor) -> int | None:
        """The signal to stop for after this update, whose sum of words this is."""
        if self._alone:
            return self._requests.received
        self._sums.append(self._sent(summed))
        if len(self._sums) <= self._lag:
            return None
        found, arrived = self._sums.popleft()
        if arrived is not None:
            arrived.synchronize()
        counts = zip(_SIGNALS, found.tolist(), strict=True)
        return next((number for number, count in counts if count), None)

    def _sent(self, summed: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
        """On its way to the host."""
        if not summed.is_cuda:
            return summed, None
        host = torch.empty(summed.shape, pin_memory=True)
        host.copy_(summed, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        return host, arrived
