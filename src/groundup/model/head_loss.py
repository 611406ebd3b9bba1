"""The training loss from what the head reads, without the logits of all tokens.

Head and loss go over the tokens in chunks, forward and backward in one pass: when the logits of a
chunk are there, so is their gradient, softmax − one-hot, and with it what the chunk adds to the
gradients of the head's input and weight. Those are kept, and the backward multiplies them by the
gradient of the loss. There are as many products as otherwise and fewer passes over the logits.
Liger-Kernel does the same with Triton kernels (Hsu et al. 2024, arXiv:2410.10989).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.model.loss import IGNORE_INDEX, Losses, losses


@dataclass(frozen=True)
class Chunks:
    """How many tokens are worked on at once.

    Attributes:
        tokens: at least so many: each chunk reads and writes the weight's gradient, which fewer
            would not be worth.
        logits: and, where the vocabulary is small, so many that they have this many logits.
    """

    tokens: int
    logits: int

    def size(self, vocab_size: int) -> int:
        """Tokens of a chunk."""
        return max(self.tokens, self.logits // vocab_size)


CHUNKS = {"cpu": Chunks(tokens=512, logits=1 << 20)}
"""By type of device. On a CPU larger ones are not faster: they leave its caches, and malloc fetches
their memory from the kernel each time."""

ELSEWHERE = Chunks(tokens=2048, logits=1 << 27)
"""Enough to fill a GPU; 2²⁷ logits are 512 MiB of float32."""


WHOLE = {"cpu"}
"""Types of device on which tokens that are one chunk have whole logits: there is nothing to save
then, and passes over the weight's gradient (from zeros, and times that of the loss) would be for
nothing."""


def chunks(device: torch.device) -> Chunks:
    """Those of a device."""
    return CHUNKS.get(device.type, ELSEWHERE)


def head_losses(x: Tensor, weight: Tensor, targets: Tensor, z_loss: float = 0.0) -> Losses:
    """The `losses` of the logits x·weightᵀ, which are never there for all tokens.

    The products are in autocast's dtype where it is on, else in that of x and weight; log-softmax
    and the sums, that of weight's gradient over the chunks among them, are in float32 (float64 for
    float64). Without gradients only the losses are computed.

    Args:
        x: [B, T, d], what the head reads.
        weight: [V, d], of the head, which has no bias.
        targets: [B, T] int64, the next token of each position, or -100.
        z_loss: see `losses`.

    Raises:
        RuntimeError: in a backward with ``create_graph=True``.
    """
    dtype = x.dtype
    if torch.is_autocast_enabled(x.device.type) and dtype != torch.float64:
        dtype = torch.get_autocast_dtype(x.device.type)
    size = chunks(x.device).size(weight.shape[0])
    if targets.numel() <= size and x.device.type in WHOLE:
        return losses(F.linear(x, weight), targets, z_loss)
    settings = (targets.flatten(), z_loss, dtype, size)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        total, by_token, z = _HeadLosses.apply(x.flatten(0, -2), weight, *settings)
    else:
        total, by_token, z = _one_pass(x.flatten(0, -2), weight, *settings)
    return Losses(by_token.sum(), z, total, by_token.view_as(targets))


def plain_weight(head: nn.Module) -> Tensor | None:
    """The weight of a head that multiplies by it and does nothing else; None of any other: one with
    a bias, of a class of its own (adapters, quantization, parametrizations), or with hooks."""
    hooks = (
        head._forward_hooks,
        head._forward_pre_hooks,
        head._backward_hooks,
        head._backward_pre_hooks,
    )
    if type(head) is not nn.Linear or head.bias is not None or any(hooks):
        return None
    return None if "forward" in vars(head) else head.weight


class _HeadLosses(torch.autograd.Function):
    """x [N, d], weight, targets [N] → total, by token [N], z; of these total has a gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        targets: Tensor,
        z_loss: float,
        dtype: torch.dtype,
        size: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        of_x = torch.empty_like(x, dtype=dtype)
        of_weight = torch.zeros_like(weight, dtype=_float32_or_more(dtype))
        found = _one_pass(x, weight, targets, z_loss, dtype, size, (of_x, of_weight))
        ctx.save_for_backward(of_x, of_weight)
        ctx.dtypes = x.dtype, weight.dtype
        ctx.mark_non_differentiable(*found[1:])
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        # Its results would pass for constants. (A compiled model has no second derivative at all.)
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise RuntimeError(
                "the loss of the head has no second derivative (create_graph=True): take the "
                "logits, model(tokens), and groundup.model.losses of them"
            )
        of_x, of_weight = (
            (kept.to(gradient.dtype) * gradient).to(dtype) if needed else None
            for kept, dtype, needed in zip(
                ctx.saved_tensors, ctx.dtypes, ctx.needs_input_grad, strict=False
            )
        )
        return of_x, of_weight, None, None, None, None


def _one_pass(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    z_loss: float,
    dtype: torch.dtype,
    size: int,
    gradients: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `_HeadLosses`; writes into `gradients`, of x and of weight (which starts at 0)."""
    weight, kept = weight.to(dtype), (targets != IGNORE_INDEX)[:, None]
    found = []
    for start in range(0, max(1, len(x)), size):
        at = slice(start, start + size)
        # A token that is left out has no part in weight's gradient, whatever its x.
        rows, wanted = x[at].to(dtype).where(kept[at], 0), targets[at, None].where(kept[at], 0)
        into = None if gradients is None else (gradients[0][at], gradients[1])
        found.append(_chunk(rows, weight, wanted, z_loss, into))
    log_likelihood, log_z = torch.cat(found).where(kept, 0).unbind(1)
    if gradients is not None:
        gradients[0].masked_fill_(~kept, 0)
    z = z_loss * log_z.square().sum() if z_loss else log_z.new_zeros(())
    return z - log_likelihood.sum(), -log_likelihood, z


def _chunk(
    x: Tensor,
    weight: Tensor,
    targets: Tensor,
    z_loss: float,
    gradients: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """log p of the targets [n, 1], and log Z: [n, 2]. What is of the size of logits ends here."""
    logits = x @ weight.T
    log_p = torch.log_softmax(logits, dim=-1, dtype=_float32_or_more(x.dtype))
    log_likelihood = log_p.gather(1, targets)
    log_z = logits.gather(1, targets) - log_likelihood
    del logits
    if gradients is not None:
        gradient = log_p.exp_()
        if z_loss:
            gradient *= 1 + 2 * z_loss * log_z
        gradient[torch.arange(len(x), device=x.device), targets[:, 0]] -= 1
        gradient = gradient.to(x.dtype)
        of_x, of_weight = gradients
        torch.mm(gradient, weight, out=of_x)
        _add_product(of_weight, gradient.T, x)
    return torch.cat([log_likelihood, log_z], dim=1)


def _add_product(to: Tensor, a: Tensor, b: Tensor) -> None:
    """to += a·b, which may be of a narrower dtype."""
    if a.dtype == to.dtype:
        to.addmm_(a, b)
    else:
        to += a @ b


def _float32_or_more(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)
