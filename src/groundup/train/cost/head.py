"""What the head and its loss take, read off groundup.model.head_loss and groundup.model.loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from groundup.model.config import ModelConfig
from groundup.model.head_loss import chunks

_FLOAT32 = 4


@dataclass(frozen=True)
class HeadCost:
    """Bytes of a micro-batch, beside those of the weight, of its cast, and of the head's input (or
    of its gradient, which takes its place).

    Attributes:
        kept: from the forward to the backward.
        forward: the most in the forward, what is kept among it.
        backward: the most when the backward begins, what is kept among it.
    """

    kept: int
    forward: int
    backward: int

    @classmethod
    def of(cls, config: ModelConfig, precision: str, tokens: int, device: str = "cuda") -> HeadCost:
        """Of a micro-batch of so many tokens, `precision` being "bf16" (autocast) or "float32"."""
        make = _whole if config.hf_config else _chunked
        return make(config, precision, tokens, device)


def _whole(config: ModelConfig, precision: str, tokens: int, device: str) -> HeadCost:
    """log softmax is kept; at its backward come the gradients before and after it. The z-loss keeps
    the logits too, and passes on a gradient of its own."""
    logits, z = tokens * (config.vocab_size or 0), config.z_loss > 0
    return HeadCost(
        kept=logits * (8 if z else 4),
        forward=logits * (8 if precision == "float32" else 10),
        backward=logits * (20 if z else 12),
    )


def _chunked(config: ModelConfig, precision: str, tokens: int, device: str) -> HeadCost:
    """The gradient of the weight is kept. Over a chunk there are logits and log softmax, and then
    the gradient of the logits, with its product in bf16; in the backward both gradients are there
    twice, once multiplied."""
    vocabulary, width = config.vocab_size or 0, config.width
    logits = min(tokens, chunks(torch.device(device)).size(vocabulary)) * vocabulary
    weight = _FLOAT32 * vocabulary * width
    if precision == "float32":
        chunk = 8 * logits
        inputs = _FLOAT32 * width
    else:
        # On a CPU log softmax does not take bf16 to float32 by itself.
        chunk = max((10 if device == "cpu" else 6) * logits, 6 * logits + weight // 2)
        inputs = 2 * _FLOAT32 * width
    return HeadCost(kept=weight, forward=weight + chunk, backward=2 * weight + inputs * tokens)
