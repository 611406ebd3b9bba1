"""An update that is skipped, its gradient not being finite, is not measured, nor is it an error."""

from __future__ import annotations

import math

import pytest
import torch

from groundup import measure, optim
from groundup.model import ModelConfig, Transformer
from groundup.optim.guard import all_finite, guarded_step


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_the_updates_around_it_are_measured(fused: bool, value: float) -> None:
    torch.manual_seed(0)
    model = Transformer(ModelConfig(layers=2, width=16, heads=2, vocab_size=32))
    optimizer = optim.create("adamw", model, lr=1e-3)
    if not fused:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, foreach=False)
    found = []
    with measure.observe(model, optimizer, ["updates", "noise"], 1, batch_size=4) as observer:
        for step in range(6):
            observer.begin(step)
            rows = torch.randint(32, (4, 9))
            for sequences in (2, 4):
                part = rows[sequences - 2 : sequences]
                (model(part[:, :-1], part[:, 1:]).total / 32).backward()
                if step == 3:
                    model.embedding.weight.grad[0, 0] = value
                observer.accumulated(sequences)
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            guarded_step(optimizer, all_finite(norm))
            optimizer.zero_grad()
            found.append(observer.end())
    assert [step for step, values in enumerate(found) if not values] == [3]
    assert observer.step == 5
