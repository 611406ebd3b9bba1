"""FSDP2 on two ranks: sharded weights are measured and corrected as whole ones are."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

import groundup as gu
from groundup.measure import mean_loss, observe, similarity
from groundup.model import ModelConfig, Transformer
from groundup.optim import RRC

BATCH = 4


def net() -> nn.Module:
    torch.manual_seed(0)
    # Five rows and three do not go into two, and a bias of one leaves a rank with nothing.
    layers = [nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 1)]
    return nn.Sequential(*layers)


def sharded(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    for layer in model:  # type: ignore[attr-defined]
        if isinstance(layer, nn.Linear):
            fully_shard(layer)
    return fully_shard(model)


def batch(step: int) -> torch.Tensor:
    return torch.randn(BATCH, 6, generator=torch.Generator().manual_seed(step))


def update(model: nn.Module, optimizer: Optimizer, rows: torch.Tensor) -> None:
    model(rows).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def close(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys(), sorted(a.keys() ^ b.keys())
    for name in a:
        torch.testing.assert_close(
            _numbers(a[name]),
            _numbers(b[name]),
            rtol=2e-4,
            atol=1e-6,
            equal_nan=True,
            msg=lambda m, n=name: n + m,
        )


def _numbers(value: Any) -> list[float]:
    return [math.nan if v is None else v for v in value] if isinstance(value, list) else [value]


def check_measurements(folder: Path) -> None:
    plain = net()
    model = sharded(plain)
    found: list[dict[str, float]] = []
    rank = dist.get_rank()
    for one, rows in ((plain, slice(0, BATCH)), (model, slice(2 * rank, 2 * rank + 2))):
        optimizer = torch.optim.AdamW(one.parameters(), lr=1e-2)
        # One probe for both: inputs and ReLUs are those of a rank.
        with observe(one, optimizer, every=2, batch_size=BATCH, probe=batch(99)) as observer:
            for step in range(5):
                update(one, optimizer, batch(step)[rows])
            found.append(observer.latest)
    assert {"phi", "rrc/0", "row_angle/2.weight", "dead_relus", "stable_rank/0.weight"} <= set(
        found[0]
    )
    close(found[0], found[1])


def check_layers(folder: Path) -> None:
    config = ModelConfig(layers=2, width=8, heads=2, vocab_size=20)
    draw = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 20, (BATCH, 9), generator=draw)
    probe, targets = rows[:, :-1], rows[:, 1:]
    plain = Transformer(config)
    with torch.no_grad():
        for p in plain.parameters():  # branches that are no mere rounding
            p.add_(torch.randn(p.shape, generator=draw), alpha=0.3)
    model = copy.deepcopy(plain)
    for block in model.layers:
        fully_shard(block)
    fully_shard(model)
    words = ["updates", "gradients", "stream", "attention", "similarity", "depth", "positions"]
    found, trained = [], []
    mine = slice(2 * dist.get_rank(), 2 * dist.get_rank() + 2)
    for one, own in ((plain, slice(0, BATCH)), (model, mine)):
        # Not AdamW, which makes large steps of gradients that are nothing but rounding.
        optimizer = torch.optim.SGD(one.parameters(), lr=0.1)
        with observe(one, optimizer, words, every=2, probe=probe, targets=targets) as observer:
            for _ in range(3):
                mean_loss(one(probe[own]), targets[own]).backward()
                optimizer.step()
                optimizer.zero_grad()
            found.append(observer.latest)
        parameters = (p.detach() for p in one.parameters())
        trained.append([p.full_tensor() if isinstance(p, DTensor) else p for p in parameters])
    # A forward between backward and update must not leave weights behind as they were before it.
    for a, b in zip(*trained, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    for branch in ("attention", "feed_forward"):
        sketches = [values.pop(f"sketch/{branch}/layers") for values in found]
        assert all(similarity.compare(*pair) > 0.999 for pair in zip(*sketches, strict=True))
    assert {"grad_norm/layers", "skip_loss/layers", "attention_entropy/layers"} <= found[0].keys()
    close(found[0], found[1])


def _corrected(one: nn.Module, rows: slice, make: Any) -> tuple[list[float], list[torch.Tensor]]:
    optimizer = make(one.parameters())
    rrc = RRC(optimizer, batch_size=BATCH, **({"beta": 0.9} if make is _rms else {}))
    scales = []
    for step in range(5):
        update(one, optimizer, batch(step)[rows])
        scales.append(rrc.latest()["rrc_scale"])
    weights = [p.full_tensor() if isinstance(p, DTensor) else p.detach() for p in one.parameters()]
    return scales, weights


def _rms(params: Any) -> Optimizer:
    return torch.optim.RMSprop(params, lr=1e-3)


def check_correction(folder: Path) -> None:
    rank = dist.get_rank()
    makes = [
        lambda p: torch.optim.AdamW(p, lr=1e-2),
        lambda p: gu.optim.LionA(p, lr=1e-3),
        _rms,  # its average of gradients is kept by the correction, sharded
    ]
    for make in makes:
        plain = net()
        model = sharded(plain)
        expected = _corrected(plain, slice(0, BATCH), make)
        found = _corrected(model, slice(2 * rank, 2 * rank + 2), make)
        torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=0.0)
        for a, b in zip(found[1], expected[1], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def check_a_distributed_checkpoint_holds_the_averages(folder: Path) -> None:
    rows = slice(2 * dist.get_rank(), 2 * dist.get_rank() + 2)
    for index, make in enumerate((lambda p: torch.optim.AdamW(p, lr=1e-2), gu.optim.LionA, _rms)):
        runs = []
        for resumed in (False, True):
            model = sharded(net())
            optimizer = make(model.parameters())
            rrc = RRC(optimizer, batch_size=BATCH, **({"beta": 0.9} if make is _rms else {}))
            if resumed:
                state = dict(
                    zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True)
                )
                dcp.load(state, checkpoint_id=folder / f"noise{index}")
                set_state_dict(
                    model,
                    optimizer,
                    model_state_dict=state["model"],
                    optim_state_dict=state["optimizer"],
                )
            else:
                for step in range(3):
                    update(model, optimizer, batch(step)[rows])
                state = dict(
                    zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True)
                )
                dcp.save(state, checkpoint_id=folder / f"noise{index}")
            for step in range(3, 6):
                update(model, optimizer, batch(step)[rows])
            runs.append((rrc.latest(), [p.to_local() for p in model.parameters()]))
        assert runs[0][0] == runs[1][0]
        assert all(torch.equal(a, b) for a, b in zip(runs[0][1], runs[1][1], strict=True))
