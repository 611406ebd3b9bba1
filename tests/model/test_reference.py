"""The decoder against a second one, written from the formulas with plain float64 operations."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from groundup.model import PLACEMENTS, ModelConfig, Transformer

B, T, V, L = 2, 7, 23, 3


def rms(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + eps)


def turned(x: Tensor, theta: float) -> Tensor:
    """x [B, H, T, D]: element i and i + D/2 are one complex number, turned by t·theta^(-2i/D)."""
    half = x.shape[-1] // 2
    angles = torch.tensor(
        [[t * theta ** (-i / half) for i in range(half)] for t in range(x.shape[-2])],
        dtype=torch.float64,
    )
    z = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat((z.real, z.imag), -1)


def attention(x: Tensor, w: dict[str, Tensor], at: str, c: ModelConfig) -> Tensor:
    b, t, width = x.shape
    d = width // c.heads

    def heads(name: str) -> Tensor:
        y = x @ w[f"{at}.{name}.weight"].T
        norm = w.get(f"{at}.{name}_norm.weight", torch.ones(0))
        if c.qk_norm == "width" and len(norm):
            y = rms(y, norm, c.norm_eps)
        y = y.reshape(b, t, -1, d).permute(0, 2, 1, 3)
        return rms(y, norm, c.norm_eps) if c.qk_norm is True and len(norm) else y

    q, k, v = heads("query"), heads("key"), heads("value")
    q, k = turned(q, c.rope_theta), turned(k, c.rope_theta)
    outputs = []
    for head in range(c.heads):
        group = head // (c.heads // (c.kv_heads or c.heads))
        scores = q[:, head] @ k[:, group].transpose(1, 2) / math.sqrt(d)
        future = torch.ones(t, t).triu(1).bool()
        weights = torch.exp(scores.masked_fill(future, -math.inf))
        outputs.append(weights / weights.sum(-1, keepdim=True) @ v[:, group])
    return torch.cat(outputs, -1) @ w[f"{at}.output.weight"].T


def feed_forward(x: Tensor, w: dict[str, Tensor], at: str, c: ModelConfig) -> Tensor:
    gate = x @ w[f"{at}.gate.weight"].T
    up = x @ w[f"{at}.up.weight"].T
    return (gate / (1 + torch.exp(-gate)) * up) @ w[f"{at}.down.weight"].T


# The table, with residual warmup's α (1 where there is none) times the gain of the branch: F the
# branch, N and N2 its norms.
TABLE = {
    "pre": lambda x, F, N, N2, a, l: x + a * F(N(x)),
    "post": lambda x, F, N, N2, a, l: N(x + a * F(x)),
    "sandwich": lambda x, F, N, N2, a, l: x + a * N2(F(N(x))),
    "deepnorm": lambda x, F, N, N2, a, l: N((2 * L) ** 0.25 * x + a * F(x)),
    "lns": lambda x, F, N, N2, a, l: x + a * F(N(x) / math.sqrt(l)),
    "output": lambda x, F, N, N2, a, l: x + a * N2(F(x)),
}


def gain(w: dict[str, Tensor], c: ModelConfig, layer: int, branch: str) -> Tensor | float:
    name = {"none": None, "rezero": "both", "layerscale": branch}[c.gain]
    return 1.0 if name is None else w[f"layers.{layer}.gains.{name}"]


def reference(w: dict[str, Tensor], c: ModelConfig, tokens: Tensor, alphas: list[float]) -> Tensor:
    x = w["embedding.weight"][tokens]
    for l in range(1, L + 1):
        for name, f in (("attention", attention), ("feed_forward", feed_forward)):
            at = f"layers.{l - 1}.{name}"
            x = TABLE[c.placement](
                x,
                lambda y, f=f, at=at: f(y, w, f"{at}.branch", c),
                lambda y, at=at: rms(y, w[f"{at}.norm.weight"], c.norm_eps),
                lambda y, at=at: rms(y, w[f"{at}.post_norm.weight"], c.norm_eps),
                alphas[l - 1] * gain(w, c, l - 1, name),
                l,
            )
    return rms(x, w["norm.weight"], c.norm_eps) @ w.get("head.weight", w["embedding.weight"]).T


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "qk_norm": {"qk_norm": True},
    "qk_norm_width": {"qk_norm": "width", "kv_heads": 2},
    "grouped": {"kv_heads": 2, "feed_forward": 24},
    "one_kv_head": {"kv_heads": 1, "rope_theta": 100.0},
    "tied": {"tied": True, "norm_eps": 0.1},
    "z_loss": {"z_loss": 0.3},
    "rezero": {"gain": "rezero"},
    "layerscale": {"gain": "layerscale", "gain_init": 0.0},
    "all": {"qk_norm": True, "kv_heads": 2, "tied": True, "z_loss": 0.3},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("alphas", [[1.0] * L, [1.0, 0.37, 0.0]], ids=["full", "warming"])
def test_forward_and_gradients(placement: str, variant: str, alphas: list[float]) -> None:
    config = ModelConfig(
        vocab_size=V, width=32, layers=L, heads=4, placement=placement, **VARIANTS[variant]
    )
    model = Transformer(config).double()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():  # so that no weight is 1 and no branch is small
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(1 + 0.2 * noise if parameter.ndim == 1 else 0.2 * noise)
    for l, alpha in enumerate(alphas):
        for pattern in model.residual_branches:
            end = model.get_submodule(pattern.format(l=l))
            end.register_forward_hook(lambda module, args, y, alpha=alpha: y * alpha)
    tokens = torch.randint(V, (B, T), generator=generator)
    targets = torch.randint(V, (B, T), generator=generator)
    targets[0, 2] = targets[1, -1] = -100

    w = {n: p.detach().clone().requires_grad_() for n, p in model.named_parameters()}
    logits = reference(w, config, tokens, alphas)
    kept = [(b, t) for b in range(B) for t in range(T) if targets[b, t] >= 0]
    log_z = torch.stack([logits[b, t].exp().sum().log() for b, t in kept])
    chosen = torch.stack([logits[b, t, targets[b, t]] for b, t in kept])
    cross_entropy, z = (log_z - chosen).sum(), config.z_loss * (log_z**2).sum()
    gradients = torch.autograd.grad(cross_entropy + z, list(w.values()), materialize_grads=True)

    torch.testing.assert_close(model(tokens), logits, rtol=1e-10, atol=1e-10)
    losses = model(tokens, targets)
    torch.testing.assert_close(losses.cross_entropy, cross_entropy, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(losses.z, z, rtol=1e-10, atol=1e-10)
    losses.total.backward()
    for (name, parameter), gradient in zip(model.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(
            parameter.grad,
            gradient,
            rtol=1e-10,
            atol=1e-10,
            msg=lambda m, name=name: f"{name}: {m}",
        )
