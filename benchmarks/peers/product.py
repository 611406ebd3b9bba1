"""No trainer: the product of two large square matrices, for what the machine can do at best."""

from __future__ import annotations

import time

import torch

_SIZES = {"cpu": (1536, 1), "cuda": (8192, 100)}  # rows and columns; products of a turn


class Product:
    """Takes turns as arms do, in this process.

    Attributes:
        flops: of a turn.
        spent: its (processor, wall) seconds in all calls together.
    """

    def __init__(self, device: str, dtype: str) -> None:
        size, self._times = _SIZES[device]
        a, b = torch.randn(2, size, size, device=device)
        kind = torch.bfloat16 if dtype == "bf16" else torch.float32
        self._a, self._b = a.to(kind), b.to(kind)
        self._out = torch.empty_like(self._a)
        self.flops = 2 * size**3 * self._times
        self.spent = (0.0, 0.0)
        self()
        self.spent = (0.0, 0.0)

    def __call__(self) -> None:
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(self._times):
            torch.mm(self._a, self._b, out=self._out)
        if self._out.is_cuda:
            torch.cuda.synchronize()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        self.spent = (self.spent[0] + cpu, self.spent[1] + wall)
