"""The update of programs of which only the model can be run here: theirs, written down plainly."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from peers import BETAS, CLIP, DECAY, RATE, Task, Updated


def train(
    model: Any,
    loss_of: Callable[[Any, Any], Any],
    task: Task,
    updated: Updated,
    after: Callable[[int, Any, Any], None] = lambda update, loss, norm: None,
) -> None:
    """Forward, backward, clip, fused AdamW, without end.

    Args:
        model: in float32 on the CPU; moved.
        loss_of: the mean cross-entropy of inputs and targets [batch, length].
        after: what else the program does after each update, with its loss and gradient norm.
    """
    import torch

    model.to(task.device)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=RATE, betas=BETAS, weight_decay=DECAY, fused=True
    )
    for update, (inputs, targets) in enumerate(batches(task)):
        with precision(task):
            loss = loss_of(inputs, targets)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        optimizer.zero_grad()
        after(update, loss, norm)
        updated(loss.detach())


def batches(task: Task) -> Iterator[tuple[Any, Any]]:
    """Inputs and targets of one update after the other, on the device."""
    import torch

    rows = task.rows()
    while True:
        for update in rows:
            tokens = torch.from_numpy(update.astype("int64"))
            if task.device == "cuda":
                tokens = tokens.pin_memory().to("cuda", non_blocking=True)
            yield tokens[:, :-1], tokens[:, 1:]


def precision(task: Task) -> Any:
    import torch

    if task.precision == "float32":
        return contextlib.nullcontext()
    return torch.autocast(task.device, dtype=torch.bfloat16)
