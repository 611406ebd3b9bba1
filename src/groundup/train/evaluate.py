"""Loss on held-out text, weighted by tokens."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.data import windows
from groundup.model import Transformer
from groundup.train.setup import compute_precision


class HeldOut:
    """The same held-out windows at every evaluation, in batches of one size.

    Args:
        tokens: 1-dimensional array of token ids.
        length: sequence length.
        batch: sequences per forward. The last batch is padded to it (with targets that do not
            count), so that a compiled model sees one shape.
        limit: tokens to predict, at most; 0 for all.
    """

    def __init__(self, tokens: NDArray[np.integer], length: int, batch: int, limit: int) -> None:
        self._tokens, self._length, self._batch = tokens, length, batch
        self._windows = math.ceil(limit / length) if limit else None

    def loss(self, model: Transformer, device: torch.device, precision: str) -> float:
        """Mean cross-entropy in nats per token: the sum over all tokens by their number."""
        was_training = model.training
        model.eval()
        total = torch.zeros((), dtype=torch.float64, device=device)
        count = 0
        with torch.no_grad():
            for rows in self._batches():
                tokens = torch.from_numpy(rows).to(device)
                with compute_precision(precision, device):
                    losses = model(tokens[:, :-1].clamp(min=0), tokens[:, 1:])
                total += losses.cross_entropy
                count += int((rows[:, 1:] >= 0).sum())
        model.train(was_training)
        return total.item() / count

    def inputs(self) -> torch.Tensor:
        """The first batch: [batch, length] int64, on the CPU."""
        return torch.from_numpy(next(self._batches()))[:, :-1].clamp(min=0)

    def _batches(self) -> Iterator[NDArray[np.int64]]:
        for rows in windows(self._tokens, self._length, self._batch, limit=self._windows):
            missing = self._batch - len(rows)
            yield np.pad(rows, ((0, missing), (0, 0)), constant_values=-100) if missing else rows
