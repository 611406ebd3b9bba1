"""The training loss: sums over tokens, so that batches of any split add up."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE_INDEX = -100
"""The target of a token that has no loss."""


class Losses(NamedTuple):
    """Sums over the tokens of a batch, 0-dimensional float32: whoever adds up several batches
    divides by the number of tokens in all of them."""

    cross_entropy: Tensor
    z: Tensor

    @property
    def total(self) -> Tensor:
        """What is minimized."""
        return self.cross_entropy + self.z


def losses(logits: Tensor, targets: Tensor, z_loss: float = 0.0) -> Losses:
    """Cross-entropy Σ(log Z − logit of the target) and z-loss z_loss·Σ(log Z)², Z = Σ exp(logits).

    Both over the targets that are not -100, in float32 (float64 for float64 logits). The z-loss
    is PaLM's (Chowdhery et al. 2022, arXiv:2204.02311): it holds log Z near 0.

    Args:
        logits: [B, T, V], of any floating dtype.
        targets: [B, T] int64, the next token of each position, or -100.
        z_loss: the coefficient; at 0 the term costs nothing.
    """
    logits = logits.flatten(0, -2).to(torch.promote_types(logits.dtype, torch.float32))
    targets = targets.flatten()
    cross_entropy = F.cross_entropy(logits, targets, ignore_index=IGNORE_INDEX, reduction="sum")
    if z_loss == 0:
        return Losses(cross_entropy, torch.zeros_like(cross_entropy))
    squares = logits.logsumexp(dim=-1).square()
    return Losses(cross_entropy, z_loss * squares.where(targets != IGNORE_INDEX, 0).sum())
