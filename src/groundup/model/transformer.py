"""The decoder, reading from top to bottom: attention, feed-forward, layer, model.

Llama's (Touvron et al. 2023, arXiv:2302.13971): RMSNorm, SwiGLU, rotary positions, no biases. The
projections keep Llama's shapes and its order of rotary pairs, so that an export is a renaming.

Shapes: B sequences of T tokens, vocabulary V; heads H of size D.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundup.model.config import ModelConfig
from groundup.model.documents import Documents, documents_of
from groundup.model.gain import GAINS, NEITHER, Pair, survivors
from groundup.model.head_loss import head_losses, plain_weight
from groundup.model.initialization import initialize
from groundup.model.loss import Losses, losses
from groundup.model.placement import PLACEMENTS, Placement
from groundup.model.rotary import Rotary


class AllHeadsNorm(nn.RMSNorm):
    """RMSNorm over all heads together: x [B, T, H, D] → the same shape; weight [H·D]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(-2)).view_as(x)


QK_NORMS: dict[bool | str, Callable[..., nn.Module]] = {
    False: nn.Identity,
    True: nn.RMSNorm,
    "width": AllHeadsNorm,
}
"""`ModelConfig.qk_norm` → the norm of queries and of keys [B, T, H, D]."""


class Attention(nn.Module):
    """Causal self-attention with rotary positions: softmax(q·kᵀ/√D)·v per head.

    Grouped queries where `kv_heads` < `heads` (Ainslie et al. 2023, arXiv:2305.13245), normalized
    queries and keys where `qk_norm` (Henry et al. 2020, arXiv:2010.04245; as in Qwen3 or OLMo 2).
    """

    ends = "output"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.grouped = config.key_value_heads != config.heads
        self.query = nn.Linear(config.width, config.width, bias=False)
        self.key = nn.Linear(config.width, config.key_value_width, bias=False)
        self.value = nn.Linear(config.width, config.key_value_width, bias=False)
        self.output = nn.Linear(config.width, config.width, bias=False)
        norm = QK_NORMS[config.qk_norm]
        query_size, key_size = config.qk_norm_sizes
        self.query_norm = norm(query_size, eps=config.norm_eps)
        self.key_norm = norm(key_size, eps=config.norm_eps)

    def forward(self, x: Tensor, rotary: Rotary, documents: Documents | None = None) -> Tensor:
        q, k, v = (
            projection(x).unflatten(-1, (-1, self.head_dim))  # [B, T, H, D]
            for projection in (self.query, self.key, self.value)
        )
        q = rotary.turn(self.query_norm(q).transpose(1, 2), dtype=v.dtype)
        k = rotary.turn(self.key_norm(k).transpose(1, 2), dtype=v.dtype)
        v = v.transpose(1, 2)
        if documents is None:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.grouped)
        else:
            y = documents.attend(q, k, v)
        return self.output(y.transpose(1, 2).flatten(-2))


class FeedForward(nn.Module):
    """SwiGLU: W_down(silu(W_gate·x) ⊙ W_up·x) (Shazeer 2020, arXiv:2002.05202)."""

    ends = "down"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate = nn.Linear(config.width, config.feed_forward_width, bias=False)
        self.up = nn.Linear(config.width, config.feed_forward_width, bias=False)
        self.down = nn.Linear(config.feed_forward_width, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    """Layer l = 1..L: an attention and a feed-forward branch, each in its placement."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        placement = PLACEMENTS[config.placement]
        self.attention = placement(Attention(config), config, layer)
        self.feed_forward = placement(FeedForward(config), config, layer)
        self.gains = GAINS[config.gain](config)

    def forward(
        self,
        x: Tensor,
        rotary: Rotary,
        documents: Documents | None = None,
        kept: Pair = NEITHER,
    ) -> Tensor:
        attention, feed_forward = zip(self.gains(), kept, strict=True)
        x = self.attention(x, rotary, documents, factors=attention)
        return self.feed_forward(x, factors=feed_forward)

    @property
    def silent(self) -> Callable[..., Tensor] | None:
        """What it computes when its branches give zeros, called as `forward` is; None: nothing, it
        gives its input back."""
        return self._norms if self.attention.normalizes else None

    def _norms(self, x: Tensor, *_: Any) -> Tensor:
        return self.feed_forward.silent(self.attention.silent(x))

    def multipliers(self) -> dict[str, Tensor | None]:
        """What the gains multiply, row by row, and None for themselves."""
        found: dict[str, Tensor | None] = {
            f"gains.{name}": None for name, _ in self.gains.named_parameters()
        }
        for name, gain in zip(("attention", "feed_forward"), self.gains(), strict=True):
            if gain is not None:
                last = f"{name}.{self.get_submodule(name).last}.weight"
                columns = self.get_parameter(last).ndim - 1
                found[last] = gain.detach().reshape(-1, *[1] * columns)
        return found


class Transformer(nn.Module):
    """A decoder-only language model, initialized with seed 0.

    Under `torch.device("meta")` nothing is allocated: follow with `to_empty(device=…)` and
    `initialize(model, seed)`. Building draws nothing from torch's global random state.

    Attributes:
        separator: the end-of-document token, if a token is to attend to its own document alone,
            see `groundup.model.documents`; None, as at first, lets it attend to all before it.

    Raises:
        ValueError: `config.vocab_size` is None.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        if config.vocab_size is None:
            raise ValueError("vocab_size=None: a model needs the size of its vocabulary")
        self.config = config
        self.separator: int | None = None
        device = torch.get_default_device()
        # Built on meta, so that the initialization nn.Linear brings along is not computed.
        with torch.device("meta"):
            self.embedding = nn.Embedding(config.vocab_size, config.width)
            self.layers = nn.ModuleList(Block(config, l + 1) for l in range(config.layers))
            self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)
            # None if tied: two names for one parameter come apart in to_empty and assignment.
            self.head = (
                None if config.tied else nn.Linear(config.width, config.vocab_size, bias=False)
            )
        if device.type != "meta":
            self.to_empty(device=device)
            initialize(self, seed=0)

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor | Losses:
        """Logits [B, T, V] of the next token; with targets, their `Losses` instead.

        Args:
            tokens: [B, T] int64.
            targets: [B, T] int64; -100 leaves a token out.
        """
        x = self.embedding(tokens)
        rotary = Rotary.of(tokens.shape[1], self.config, like=x)
        documents = None
        if self.separator is not None:
            documents = documents_of(tokens, self.separator, self.config.head_dim)
        kept = [NEITHER] * len(self.layers)
        if self.training and self.config.drop_path:
            kept = survivors(x, self.config.layers, self.config.drop_path)
        for layer, pair in zip(self.layers, kept, strict=True):
            x = layer(x, rotary, documents, pair)
        x = self.norm(x)
        weight = self.embedding.weight if self.head is None else plain_weight(self.head)
        if targets is not None and weight is not None:
            return head_losses(x, weight, targets, self.config.z_loss)
        logits = F.linear(x, self.embedding.weight) if self.head is None else self.head(x)
        return logits if targets is None else losses(logits, targets, self.config.z_loss)

    @property
    def residual_branches(self) -> list[str]:
        """Names of the modules whose outputs are added to the residual stream, one per branch.

        `{l}` stands for the index in `layers`, which counts from 0. Stochastic depth comes after
        them: it is no part of what a branch gives.
        """
        end = PLACEMENTS[self.config.placement].ends if self.config.gain == "none" else "added"
        return [
            f"layers.{{l}}.{name}.{end or f'branch.{branch.ends}'}"
            for name, branch in (("attention", Attention), ("feed_forward", FeedForward))
        ]

    def stock_multipliers(self) -> dict[str, float | Tensor | None]:
        """Parameter → the factor that, multiplied in, makes this a model of a stock placement
        without gains; None for one that it does not have.

        LNS becomes Pre-LN: N(x)/√l is a norm whose weight is divided by √l. Gains multiply the rows
        of what ends a branch. Otherwise empty.
        """
        return {
            f"{name}.{parameter}": factor
            for name, module in self.named_modules()
            if isinstance(module, Placement | Block)
            for parameter, factor in module.multipliers().items()
        }
