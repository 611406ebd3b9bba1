"""Loss by position: how much a model gains from the tokens before.

The loss of a language model falls along the sequence as far as it makes use of its context
(Kaplan et al. 2020, arXiv:2001.08361, section 3.4 and appendix D.5); the difference between early
and late positions tells a model that lacks context from one that lacks everything else.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from groundup._check import count

IGNORE_INDEX = -100
"""The target of a token that does not count, as everywhere in torch."""

_CHUNK = 1 << 24  # logits worked on at once: 64 MiB of float32


def loss_by_position(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy in nats, summed over the batch for each position, and the tokens counted.

        sums[t] = Σ_b (log Σ_v exp(logits[b, t, v]) − logits[b, t, targets[b, t]])

    over the b whose target is not -100. In float32 (float64 for float64 logits), a few tokens at a
    time, so that bf16 logits are never raised as a whole. Sums of several batches add up.

    Args:
        logits: [B, T, V] of any floating dtype.
        targets: [B, T] int64, the next token of each position; -100 leaves one out.

    Returns:
        sums [T] float64 and counts [T] int64, where the logits are (nothing waits for the device).

    Raises:
        ValueError: the shapes do not fit.
    """
    if logits.ndim != 3 or targets.shape != logits.shape[:2]:
        raise ValueError(
            f"targets have shape {list(targets.shape)}, but must be [B, T] for logits "
            f"[B, T, V], which have shape {list(logits.shape)}"
        )
    dtype = torch.promote_types(logits.dtype, torch.float32)
    step = max(1, _CHUNK // max(1, logits.shape[2]))
    sums = torch.zeros(logits.shape[1], dtype=torch.float64, device=logits.device)
    # By sequence: flattening logits without their last position would copy them.
    for sequence, wanted in zip(logits.detach(), targets, strict=True):
        for start in range(0, len(sequence), step):
            part = slice(start, start + step)
            sums[part] += F.cross_entropy(
                sequence[part].to(dtype),
                wanted[part],
                ignore_index=IGNORE_INDEX,
                reduction="none",
            )
    return sums, (targets != IGNORE_INDEX).sum(0)


def bins(length: int) -> list[int]:
    """Edges of bins over positions 0 … length − 1, two to an octave: rising, from 0 to `length`.

    Bin i holds the positions edges[i] ≤ p < edges[i + 1]. The inner edges are 2^(k/2), rounded; the
    last bin takes in what is left of the next one where that is less than half of it.

    Raises:
        ValueError: `length` is not a whole number ≥ 1.

    Example:
        >>> bins(32), bins(33)
        ([0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 32], [0, 1, 2, 3, 4, 6, 8, 11, 16, 23, 33])
    """
    count("length", length)
    edges = [0]
    for k in itertools.count():
        edge = round(2 ** (k / 2))
        if edge == edges[-1]:  # 2^½ is 1 again
            continue
        if edge >= length:
            break
        edges.append(edge)
    if len(edges) > 1 and 2 * (length - edges[-1]) < edge - edges[-1]:
        edges.pop()
    return [*edges, length]


def binned(sums: Tensor, counts: Tensor, edges: Sequence[int]) -> list[float | None]:
    """The mean loss of a token in each bin, in nats; None where it is not defined.

    That is where the bin has no token, or a loss is not finite.

    Args:
        sums, counts: [T], from `loss_by_position` or added up from several.
        edges: as from `bins(T)`: bin i is edges[i] ≤ p < edges[i + 1].

    Raises:
        ValueError: the shapes differ, or the edges do not rise from 0 or more to at most T.
    """
    if sums.ndim != 1 or counts.shape != sums.shape:
        raise ValueError(
            f"counts have shape {list(counts.shape)}, but must have that of sums, [T]: "
            f"{list(sums.shape)}"
        )
    pairs = list(itertools.pairwise(edges))
    if not pairs or edges[0] < 0 or edges[-1] > len(sums) or any(a >= b for a, b in pairs):
        raise ValueError(
            f"edges={list(edges)} is not valid: they must rise from 0 or more to at most "
            f"{len(sums)}, and be two at least"
        )
    both = torch.stack([sums.to(torch.float64), counts.to(torch.float64)]).tolist()  # one transfer
    found: list[float | None] = []
    for a, b in pairs:
        total, tokens = (math.fsum(values[a:b]) for values in both)
        found.append(total / tokens if tokens and math.isfinite(total) else None)
    return found
