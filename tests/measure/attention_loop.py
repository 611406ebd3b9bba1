"""Attention by loops in float64, and what `Watch` sees of calls and of models."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from groundup.measure.attention import Attention, Watch

Numbers = tuple[float, float, float]


def drawn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def loop(rows: Iterable[list[float]]) -> Numbers:
    """Entropy, uniform, logit from the allowed logits of each query."""
    entropies, largest, logs = [], -math.inf, []
    for logits in rows:
        if not logits:
            continue
        top = max(logits)
        weights = [math.exp(s - top) for s in logits]
        total = math.fsum(weights)
        entropies.append(-math.fsum(w / total * math.log(w / total) for w in weights if w))
        logs.append(math.log(len(logits)))
        largest = max(largest, top)
    uniform = sum(entropies) / sum(logs) if sum(logs) else math.nan
    return sum(entropies) / len(entropies), uniform, largest


def loop_of(
    q: Tensor, k: Tensor, allowed: Tensor | None = None, bias: Tensor | None = None, **more: float
) -> Numbers:
    """The same from queries and keys [B, H, T, D]; `allowed` [B, H, T, S]."""
    scale = more.get("scale", 1 / math.sqrt(q.shape[-1]))
    rows = []
    for b in range(q.shape[0]):
        for h in range(q.shape[1]):
            key_head = h * k.shape[1] // q.shape[1]
            for t, query in enumerate(q[b, h].double().tolist()):
                row = []
                for s, key in enumerate(k[b, key_head].double().tolist()):
                    score = scale * math.fsum(x * y for x, y in zip(query, key, strict=True))
                    score += 0.0 if bias is None else float(bias[b, h, t, s])
                    if allowed is None or allowed[b, h, t, s]:
                        row.append(score)
                rows.append(row)
    return loop(rows)


def numbers(found: Attention) -> Numbers:
    assert all(x.ndim == 0 and x.dtype == torch.float64 for x in found)
    return float(found.entropy), float(found.uniform), float(found.logit)


def seen(call: Callable[[], Any]) -> Numbers:
    with Watch() as watch:
        watch.layer = 3
        call()
    assert list(watch.results()) == [3]
    return numbers(watch.results()[3])


def watched(
    model: nn.Module, blocks: Iterable[nn.Module], call: Callable[[], Any]
) -> list[Numbers]:
    """The numbers of each block, as an observer finds them: with hooks."""
    watch, hooks = Watch(), []

    def enter(layer: int | None) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            watch.layer = layer

        return hook

    for layer, block in enumerate(blocks):
        hooks.append(block.register_forward_pre_hook(enter(layer)))
        hooks.append(block.register_forward_hook(enter(None)))
    with torch.no_grad(), watch:
        call()
    for hook in hooks:
        hook.remove()
    found = watch.results()
    assert list(found) == list(range(len(hooks) // 2))
    return [numbers(found[layer]) for layer in found]


def close(found: Any, expected: Any, rel: float = 1e-5) -> None:
    found, expected = torch.tensor(found), torch.tensor(expected)
    torch.testing.assert_close(found, expected, rtol=rel, atol=1e-7, equal_nan=True)
