"""Muon for a whole model, against torch's two optimizers side by side and against an SVD."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
from torch import nn

from groundup.model import ModelConfig, Transformer
from groundup.optim import Muon, create, groups


def tiny() -> Transformer:
    return Transformer(ModelConfig(layers=2, width=16, heads=2, vocab_size=32))


def backward(model: nn.Module, step: int) -> None:
    start = torch.randint(32, (4, 1), generator=torch.Generator().manual_seed(step))
    rows = (start + 3 * torch.arange(9)) % 32
    model(rows[:, :-1], rows[:, 1:]).total.backward()


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@pytest.mark.parametrize("adjust", ["match_rms_adamw", "original"])
def test_the_same_as_torchs_two_optimizers(adjust: str) -> None:
    one, two = tiny(), tiny()
    ours = create("muon", one, lr=0.02, adamw_lr=0.003, weight_decay=0.2, adjust_lr_fn=adjust)
    inside = {id(p) for p in two.layers.parameters() if p.ndim == 2}
    hidden = [p for p in two.parameters() if id(p) in inside]
    rest = [p for p in two.parameters() if id(p) not in inside]
    muon = torch.optim.Muon(hidden, lr=0.02, weight_decay=0.2, adjust_lr_fn=adjust)
    adamw = torch.optim.AdamW(
        [
            {"params": [p for p in rest if p is two.head.weight], "weight_decay": 0.2},
            {"params": [p for p in rest if p is not two.head.weight], "weight_decay": 0.0},
        ],
        lr=0.003,
        betas=(0.9, 0.95),
        fused=True,
    )
    for step in range(5):
        for model, optimizers in ((one, [ours]), (two, [muon, adamw])):
            backward(model, step)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
        assert equal(one, two)


@pytest.mark.parametrize("shape", [(12, 12), (24, 8), (8, 24)])
def test_the_update_is_the_orthogonal_factor(shape: tuple[int, int]) -> None:
    """0.2·√max(A, B)·U·Vᵀ of the gradient, whose singular values Newton-Schulz lets lie near 1."""
    p = nn.Parameter(torch.zeros(shape))
    p.grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(p.grad.double(), full_matrices=False)
    Muon([{"params": [p], "use_muon": True}], lr=0.1).step()
    update = -p.detach().double() / (0.1 * 0.2 * math.sqrt(max(shape)))
    inner = left.T @ update @ right.T
    assert inner.diagonal().min() > 0.5
    assert inner.diagonal().max() < 1.4
    assert (inner - inner.diagonal().diag()).abs().max() < 0.1
    # As large as AdamW's usual one, about 0.2 (arXiv:2502.16982).
    rms = update.square().mean().sqrt() * 0.2 * math.sqrt(max(shape))
    assert 0.12 < rms < 0.25


def test_rates_of_the_two_parts() -> None:
    model = tiny()
    same = create("muon", model, lr=0.02)
    assert [g["lr"] for g in same.param_groups] == [0.02, 0.02, 0.02]
    two = create("muon", model, lr=0.02, adamw_lr=0.001)
    assert [g["lr"] for g in two.param_groups] == [0.02, 0.001, 0.001]
    own = create("muon", groups(model, muon=True, lr=0.5))
    assert [g["lr"] for g in own.param_groups] == [0.5, 0.5, 0.5]
    scheduler = torch.optim.lr_scheduler.LambdaLR(two, lambda step: 0.5)
    assert [g["lr"] for g in two.param_groups] == [0.01, 0.0005, 0.0005]
    assert scheduler.base_lrs == [0.02, 0.001, 0.001]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_a_copy_goes_on_the_same(copied: Any) -> None:
    model = tiny()
    optimizer = create("muon", model, lr=0.02)
    backward(model, 0)
    optimizer.step()
    together = {"model": model, "optimizer": optimizer}
    other = copied(together)
    for step in (1, 2):
        for pair in (together, other):
            pair["optimizer"].zero_grad()
            backward(pair["model"], step)
            pair["optimizer"].step()
    assert equal(model, other["model"])


def test_closure_and_added_groups() -> None:
    p, q = nn.Parameter(torch.ones(3, 3)), nn.Parameter(torch.ones(3))
    optimizer = Muon([{"params": [p], "use_muon": True}], lr=0.1)
    optimizer.add_param_group({"params": [q], "use_muon": False, "weight_decay": 0.0})

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = p.square().sum() + q.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) == 12.0
    torch.testing.assert_close(q.detach(), torch.full((3,), 0.9))
    assert (p < 1).all()
    assert set(optimizer.state) == {p, q}
    with pytest.raises(ValueError, match=r"shape \(3, 3, 3\) is in a group with use_muon=True"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(3, 3, 3))], "use_muon": True})
    assert len(optimizer.param_groups) == 2


def test_what_cannot_be_told_apart_is_refused() -> None:
    model = tiny()
    for params in (model.parameters(), groups(model)):
        with pytest.raises(ValueError, match=r"cannot tell hidden matrices from embeddings"):
            create("muon", params)
    with pytest.raises(ValueError, match=r"no residual branches are known for Sequential"):
        create("muon", nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)))
    for options in ({"momentum": -1.0}, {"betas": (0.9, 2.0)}, {"eps": -1.0}, {"adamw_lr": -1.0}):
        with pytest.raises(ValueError, match=r"-1.0|2.0"):
            create("muon", model, **options)
