"""One optimizer update of a run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from groundup.optim.guard import all_finite, guarded_step
from groundup.train import setup
from groundup.train.run import Run
from groundup.train.spikes.actions import Warn


@dataclass(frozen=True)
class Update:
    """What came out of it, the same in every process.

    Attributes:
        loss: mean cross-entropy of the batch, nats per token, 0-dimensional.
        grad_norm: before clipping, 0-dimensional.
        allowed: whether it was to be made; it was then, unless a number is infinite or NaN.
        words: the sum of what the processes had to say.
    """

    loss: Tensor
    grad_norm: Tensor
    allowed: bool
    words: Tensor


def make(run: Run, step: int, spikes: Warn, word: Tensor) -> Update:
    """Forward, backward, and the update after `step` others; `word` is summed over processes."""
    config = run.recipe.train
    tokens = run.recipe.tokens_per_step
    setup.seed_update(config.seed, step, run.world.rank, run.device)
    cross_entropy, done = torch.zeros((), device=run.device), 0
    mine = run.data.batches.size // run.world.size
    for inputs, targets in micro_batches(run, run.rewinds.batch(step)):
        last = done + len(inputs) == mine
        with run.spread.backward(last):
            with setup.compute_precision(config.precision, run.device):
                losses = run.spread.forward(inputs, targets)
            (losses.total * (run.spread.gradient_factor / tokens)).backward()
        done += len(inputs)
        if run.world.size == 1:  # elsewhere gradients are no sums before the last micro-batch
            run.measuring.accumulated(done)
        cross_entropy += losses.cross_entropy.detach()
    norm = run.spread.clip(run.recipe.optimizer.clip or math.inf)
    summed = run.world.sum_(torch.cat([(cross_entropy / tokens).reshape(1), word]))
    loss, words = summed[0], summed[1:]
    allowed = spikes.allows(step, loss, norm)
    if allowed:
        weights_on = run.spread.memory(run.device, run.recipe.parallel)
        guarded_step(run.optimizer, all_finite(loss, norm).to(weights_on))
    run.optimizer.zero_grad()
    return Update(loss, norm, allowed, words)


def micro_batches(run: Run, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and targets of this process's part of a batch of the data, [micro_batch, length] int64
    each."""
    mine = run.world.share_of(run.data.batches.size)
    micro = run.recipe.train.micro_batch or len(mine)
    for start in range(mine.start, mine.stop, micro):
        rows = torch.from_numpy(run.data.batches.rows(batch, start, start + micro))
        if run.device.type == "cuda":
            rows = rows.pin_memory().to(run.device, non_blocking=True)
        yield rows[:, :-1], rows[:, 1:]
