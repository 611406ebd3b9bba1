"""Loss on held-out text, weighted by tokens, and by the position in the sequence."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from groundup.data import HeldOutText, windows
from groundup.measure import positions, probing
from groundup.model import LanguageModel
from groundup.train.setup import compute_precision
from groundup.train.world import ALONE, World


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

    def evaluate(
        self, model: LanguageModel, device: torch.device, precision: str, world: World = ALONE
    ) -> Evaluation:
        """Cross-entropy in nats per token: sums over all tokens by their number. The processes take
        the batches in turn."""
        was_training = model.training
        model.eval()
        total = torch.zeros(self._length, dtype=torch.float64, device=device)
        number = torch.zeros(self._length, dtype=torch.int64, device=device)
        with torch.no_grad():
            for rows in self._of(world):
                tokens = torch.from_numpy(rows).to(device)
                targets = tokens[:, 1:]
                with compute_precision(precision, device):
                    losses = model(tokens[:, :-1].clamp(min=0), targets)
                total += losses.by_token.sum(0, dtype=torch.float64)
                number += (targets != positions.IGNORE_INDEX).sum(0)
        model.train(was_training)
        probing.reshard(model)
        world.sum_(total)
        world.sum_(number)
        edges = positions.bins(self._length)
        return Evaluation(
            loss=(total.sum() / number.sum()).item(),
            bins=edges,
            by_position=positions.binned(total, number, edges),
        )

    def first(self, sequences: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets of the first sequences, whatever the size of a batch: [n, length]
        int64 on the CPU."""
        rows = torch.from_numpy(next(windows(self._tokens, self._length, sequences)))
        return rows[:, :-1], rows[:, 1:]

    def _of(self, world: World) -> Iterator[NDArray[np.int64]]:
        """The batches of this process; of all processes equally many, since each forward may be one
        of all together: where there is no batch left, one that does not count."""
        batches = self._batches()
        while group := list(itertools.islice(batches, world.size)):
            mine = group[world.rank] if world.rank < len(group) else None
            yield np.full_like(group[0], -100) if mine is None else mine

    def _batches(self) -> Iterator[NDArray[np.int64]]:
        for rows in windows(self._tokens, self._length, self._batch, limit=self._windows):
            missing = self._batch - len(rows)
            yield np.pad(rows, ((0, missing), (0, 0)), constant_values=-100) if missing else rows


@dataclass(frozen=True)
class Evaluations:
    """Those of all held-out texts, with the weight of each; the weights add up to 1."""

    of: list[tuple[HeldOutText, Evaluation]]

    def losses(self) -> dict[str, float]:
        """As they stand in metrics.jsonl: that of all and, of a mixture, that of each part."""
        total = sum(text.weight * found.loss for text, found in self.of)
        parts = {f"eval_loss/{text.name}": found.loss for text, found in self.of if text.name}
        return {"eval_loss": total, **parts}

    def positions(self) -> dict[str, Any]:
        """As they stand in measurements.jsonl."""
        columns = zip(*(found.by_position for _, found in self.of), strict=True)
        means = [self._mean(column) for column in columns]
        return {"eval_loss/positions": means, "loss_bins": self.of[0][1].bins}

    def _mean(self, losses: Sequence[float | None]) -> float | None:
        """Over the texts that have tokens there."""
        there = [(t.weight, x) for (t, _), x in zip(self.of, losses, strict=True) if x is not None]
        weight = sum(w for w, _ in there)
        return sum(w * x for w, x in there) / weight if weight else None


class HeldOutTexts:
    """The held-out text of a corpus, or of each of several; see `HeldOut`."""

    def __init__(self, texts: Sequence[HeldOutText], length: int, batch: int, limit: int) -> None:
        self._texts = [(text, HeldOut(text.tokens, length, batch, limit)) for text in texts]

    def evaluate(
        self, model: LanguageModel, device: torch.device, precision: str, world: World = ALONE
    ) -> Evaluations:
        """Every text by itself."""
        found = [(t, h.evaluate(model, device, precision, world)) for t, h in self._texts]
        return Evaluations(found)

    def first(self, sequences: int) -> tuple[torch.Tensor, torch.Tensor]:
        """See `HeldOut.first`: of the first text."""
        return self._texts[0][1].first(sequences)
