"""A run's own held-out text, packed into windows as training evaluates it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from groundup.data import HeldOutText, open_data, prepare_all, windows
from groundup.evaluate.perplexity import exponential
from groundup.evaluate.scoring import Request, Scorer
from groundup.report.runs import read_run
from groundup.train.recipe import Recipe

__all__ = ["HeldOutLoss", "held_out_loss", "held_out_texts", "recorded"]


@dataclass(frozen=True)
class HeldOutLoss:
    """Mean cross-entropy in nats per token, that of each corpus weighted as in training.

    Attributes:
        loss: of all windows.
        beginning: of those that evaluations during training read (`train.eval_tokens`).
        tokens: in all windows.
        windows: how many.
    """

    loss: float
    beginning: float
    tokens: int
    windows: int

    def numbers(self) -> dict[str, float | int | None]:
        """The above and e^loss."""
        return {
            "loss": self.loss,
            "perplexity": exponential(self.loss, 1),
            "loss_of_beginning": self.beginning,
            "tokens": self.tokens,
            "windows": self.windows,
        }


def held_out_texts(recipe: Recipe) -> tuple[HeldOutText, ...]:
    """Those of a run's data, which is prepared unless it is there."""
    data, train = recipe.data, recipe.train
    opened = open_data(
        data, prepare_all(data), train.batch, train.seed, train.steps, recipe.warmup_end
    )
    return opened.held_out


def held_out_loss(
    scorer: Scorer,
    texts: tuple[HeldOutText, ...],
    length: int,
    first: int,
    advance: Callable[[int], None] = lambda tokens: None,
) -> HeldOutLoss:
    """Of all whole windows of `length` tokens, each token given those before it in its window.

    Args:
        scorer: what reads them.
        texts: held-out tokens and their weights.
        length: of a window, as in training: `data.length`.
        first: tokens of each text that evaluations during training read; 0: all.
        advance: hears how many tokens are done.
    """
    loss = beginning = 0.0
    done = 0
    read = math.ceil(first / length) if first else None
    for text in texts:
        sums: list[float] = []
        for rows in windows(text.tokens, length, 64 * scorer.batch):
            sums += [-found.logprob for found in scorer.score([Request(r, length) for r in rows])]
            advance(done + len(sums) * length)
        done += len(sums) * length
        loss += text.weight * math.fsum(sums) / (len(sums) * length)
        part = sums[:read]
        beginning += text.weight * math.fsum(part) / (len(part) * length)
    return HeldOutLoss(loss, beginning, done, done // length)


def recorded(run: Path, step: int) -> float | None:
    """The `eval_loss` after `step` updates in a run's metrics.jsonl; None if there is none."""
    return dict(read_run(run).evals).get(step)
