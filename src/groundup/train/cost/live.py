"""Counting the bytes of live tensors, on any device, without the allocator's help."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveBytes(TorchDispatchMode):
    """A context in which every storage that an operation returns is counted while it lives.

    Views count once, with what they view. What an operator's own kernel takes and gives back before
    it returns is not seen, nor is what an allocator keeps or rounds up.

    Attributes:
        now: bytes alive.
        peak: the most there were, since the beginning or `restart`.

    Example:
        >>> with LiveBytes() as live:
        ...     x = torch.zeros(1000)
        ...     y = x + 1
        ...     del x
        >>> live.now, live.peak
        (4000, 8000)
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: set[int] = set()

    def add(self, tensors: Iterable[Tensor]) -> None:
        """Count tensors that were there before."""
        for tensor in tensors:
            self._add(tensor)

    def restart(self) -> None:
        """Look for the peak from here on."""
        self.peak = self.now

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.add(entry for entry in tree_iter(result) if isinstance(entry, torch.Tensor))
        return result

    def _add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive:
            return
        self._alive.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._alive.discard(key)
        self.now -= size
