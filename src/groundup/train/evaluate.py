"""Loss on held-out text, weighted by tokens, and by the position in the sequence."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.data import windows
from groundup.measure import positions
from groundup.model import Transformer
from groundup.train.setup import compute_precision


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy in nats per token.

    Attributes:
        loss: over all tokens.
        bins: edges of ranges of positions, the first predicted token being 0.
        by_position: the loss in each of them; None where there is no token.
    """

    loss: float
    bins: list[int]
    by_position: list[float | None]

    def line(self) -> dict[str, Any]:
        """As it stands in measurements.jsonl."""
        return {"eval_loss/positions": self.by_position, "loss_bins": self.bins}


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

    def evaluate(self, model: Transformer, device: torch.device, precision: str) -> Evaluation:
        """Cross-entropy in nats per token: sums over all tokens by their number."""
        was_training = model.training
        model.eval()
        total = torch.zeros(self._length, dtype=torch.float64, device=device)
        number = torch.zeros(self._length, dtype=torch.int64, device=device)
        with torch.no_grad():
            for rows in self._batches():
                tokens = torch.from_numpy(rows).to(device)
                with compute_precision(precision, device):
                    logits = model(tokens[:, :-1].clamp(min=0))
                sums, counts = positions.loss_by_position(logits, tokens[:, 1:])
                total += sums
                number += counts
        model.train(was_training)
        edges = positions.bins(self._length)
        return Evaluation(
            loss=(total.sum() / number.sum()).item(),
            bins=edges,
            by_position=positions.binned(total, number, edges),
        )

    def first(self, sequences: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets of the first sequences, at most a batch: [n, length] int64 on the
        CPU."""
        rows = torch.from_numpy(next(self._batches()))[:sequences]
        return rows[:, :-1].clamp(min=0), rows[:, 1:]

    def _batches(self) -> Iterator[NDArray[np.int64]]:
        for rows in windows(self._tokens, self._length, self._batch, limit=self._windows):
            missing = self._batch - len(rows)
            yield np.pad(rows, ((0, missing), (0, 0)), constant_values=-100) if missing else rows
