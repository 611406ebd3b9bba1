"""Running estimates of the noise in each tensor's gradients, kept in the optimizer's state."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from groundup.measure._rows import over_ranks
from groundup.measure.momentum import Group, Momentum, gradient_sign
from groundup.measure.noise import momentum_noise, split
from groundup.optim.rows import local, placed_like

KEY = "noise"
"""[6] float32: n, and the averages over updates of 1, ‖m̂_(n−1)‖², ⟨m̂_(n−1), g_n⟩, ‖g_n‖² and
k_(n−1). They start at 0: all of them are to be divided by the first."""

MOMENTUM = "noise_momentum"
"""An average of gradients, where the optimizer keeps none."""

_AT_ONCE = 1 << 24  # elements: 64 MiB of float32


@dataclass(frozen=True)
class Noise:
    """The averages of the tensors of one group: [tensors, 6], as in the state."""

    values: Tensor
    batch_size: float

    def by_tensor(self) -> tuple[Tensor, Tensor]:
        """f = φ/(1 + φ) and n of each tensor: [tensors] each."""
        n, weight, momentum, dot, gradient, k = self.values.unbind(1)
        return self._share(momentum, dot, gradient, k / weight), n.clamp_min(1.0)

    def together(self) -> tuple[Tensor, Tensor]:
        """The same of all tensors as one: [1] each. n is the oldest's."""
        n, weight, momentum, dot, gradient, k = self.values.unbind(1)
        parts = torch.stack([momentum, dot, gradient, gradient * (k / weight)]) / weight
        # A tensor at its first update has no average yet, and is left out.
        momentum, dot, gradient, k = torch.where(weight > 0, parts, 0.0).sum(1, keepdim=True)
        return self._share(momentum, dot, gradient, k / gradient), n.amax().clamp_min(1.0)[None]

    def _share(self, momentum: Tensor, dot: Tensor, gradient: Tensor, k: Tensor) -> Tensor:
        signal, noise = split(momentum / gradient, (dot / gradient).clamp_min(0.0), 1.0, k)
        share = signal / (signal + self.batch_size * noise.clamp_min(0.0))
        # Nothing is known yet (the first update, no gradient so far): as for φ → ∞.
        return torch.where((gradient > 0) & (signal + noise > 0), share, 1.0)


def advance(
    optimizer: Optimizer,
    params: Sequence[Tensor],
    group: Group,
    momentum: Momentum,
    averaging: float,
) -> Tensor:
    """The averages [tensors, 6] with the gradient of the update that is about to be made.

    Nothing is written: not before the update, since many optimizers make their state when they find
    none at all.
    """
    device = params[0].device
    old = torch.stack([_last(optimizer.state.get(p, {}), momentum).to(device) for p in params])
    products = torch.stack([x.to(device) for x in _products(optimizer, params, group, momentum)])
    m_sq, dot, g_sq = over_ranks(products, params).unbind(1)
    before = old[:, 0]
    seen = 1 - momentum.beta**before  # the sum of the weights in m
    new = torch.stack(
        [
            torch.ones_like(before),
            m_sq / seen**2,
            dot / seen,
            g_sq,
            momentum_noise(momentum.beta, before),
        ],
        1,
    )
    # At the first update there is no momentum to compare with.
    averages = torch.where(
        (before > 0)[:, None], torch.lerp(new, old[:, 1:], averaging), old[:, 1:]
    )
    n = torch.where((before > 0) | (g_sq > 0), before + 1, 0.0)
    values = torch.cat([n[:, None], averages], 1)
    # An update that a gradient scaler is about to skip leaves no trace.
    return torch.where(g_sq.isfinite()[:, None], values, old)


def average(state: dict[str, Any], p: Tensor, beta: float) -> Tensor:
    """The average of gradients of an optimizer that keeps none, with this gradient."""
    m = state.get(MOMENTUM)
    m = torch.zeros_like(p, dtype=torch.float32) if m is None else m
    g = local(placed_like(_gradient(p), p)).to(torch.float32)
    local(m).lerp_(torch.where(g.isfinite().all(), g, local(m)), 1 - beta)
    return m


def write(state: dict[str, Any], p: Tensor, values: dict[str, Tensor]) -> None:
    for key, value in values.items():
        if key not in state:
            state[key] = value.to(p.device, copy=True)
        elif state[key] is not value:
            state[key].copy_(value)


def refuse(p: Tensor) -> None:
    if p.is_complex() or (p.grad is not None and p.grad.is_sparse):
        raise ValueError(
            f"the gradient of a parameter of shape {list(p.shape)} is sparse or complex: only "
            "dense, real ones are valid"
        )


def _last(state: dict[str, Any], momentum: Momentum) -> Tensor:
    if KEY in state:
        return state[KEY]
    n = 0.0
    if state.get(momentum.key) is not None:  # it was at work before this was attached
        n = float(state["step"]) if "step" in state else math.inf
    return torch.tensor([n, 0.0, 0.0, 0.0, 0.0, 0.0])


def _products(
    optimizer: Optimizer, params: Sequence[Tensor], group: Group, momentum: Momentum
) -> Iterator[Tensor]:
    """‖m_(n−1)‖², ⟨m_(n−1), g_n⟩ and ‖g_n‖² of each tensor, the part on this rank: [3] float32."""
    scale = gradient_sign(group) * momentum.scale
    for part in _portions(params):
        grads = [local(placed_like(_gradient(p), p)).to(torch.float32) for p in part]
        states = [optimizer.state.get(p, {}) for p in part]
        old = [
            torch.zeros_like(g) if (m := state.get(momentum.key)) is None else local(m).float()
            for state, g in zip(states, grads, strict=True)
        ]
        norms = zip(torch._foreach_norm(old), torch._foreach_norm(grads), strict=True)
        products = torch._foreach_mul(old, grads)
        for (m, g), product in zip(norms, products, strict=True):
            yield torch.stack([(m * scale).square(), product.sum() * scale, g.square()])


def _gradient(p: Tensor) -> Tensor:
    assert p.grad is not None
    return p.grad


def _portions(params: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors whose temporary copies are held at the same time."""
    part: list[Tensor] = []
    size = 0
    for p in params:
        if part and (size + p.numel() > _AT_ONCE or p.device != part[0].device):
            yield part
            part, size = [], 0
        part.append(p)
        size += p.numel()
    if part:
        yield part
