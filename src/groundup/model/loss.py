"""The training loss: sums over tokens, so that batches of any split add up."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE_INDEX = -100
"""The target of a token that has no loss."""


class Losses(NamedTuple):
    """Sums over the tokens of a batch, 0-dimensional float32 (float64 of a float64 model): whoever
    adds up several batches divides by the number of tokens in all of them.

    Attributes:
        cross_entropy, z: to be read; no gradient passes through them.
        total: their sum, what is minimized.
        by_token: [B, T], the cross-entropy of each token, 0 where the target is -100; to be read.
    """

    cross_entropy: Tensor
    z: Tensor
    total: Tensor
    by_token: Tensor


def losses(logits: Tensor, targets: Tensor, z_loss: float = 0.0) -> Losses:
    """Cross-entropy Σ(log Z − logit of the target) and z-loss z_loss·Σ(log Z)², Z = Σ exp(logits).

    Both over the targets that are not -100, in float32 (float64 for float64 logits). The z-loss
    is PaLM's (Chowdhery et al. 2022, arXiv:2204.02311): it holds log Z near 0. Where the logits are
    a plain product, `groundup.model.head_loss.head_losses` needs a fraction of the memory.

    Args:
        logits: [B, T, V], of any floating dtype.
        targets: [B, T] int64, the next token of each position, or -100.
        z_loss: the coefficient; at 0 the term costs nothing.
    """
    rows = logits.flatten(0, -2).to(torch.promote_types(logits.dtype, torch.float32))
    wanted = targets.flatten()
    by_token = F.cross_entropy(rows, wanted, ignore_index=IGNORE_INDEX, reduction="none")
    total = cross_entropy = by_token.sum()
    z = torch.zeros_like(cross_entropy)
    if z_loss:
        z = z_loss * rows.logsumexp(dim=-1).square().where(wanted != IGNORE_INDEX, 0).sum()
        total = cross_entropy + z
    return Losses(cross_entropy.detach(), z.detach(), total, by_token.detach().view_as(targets))
