"""What a decoder is: its sizes, the place of its norms, its initialization.

Derived numbers (parameters, FLOPs) are closed forms, so that a plan costs no memory and no torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from groundup._check import count, positive, unknown, within

PlacementName = Literal["pre", "post", "sandwich", "deepnorm", "lns", "output"]
InitializationName = Literal["normal", "ds", "scaled", "deepnorm"]

# RMSNorms that a placement puts around one branch, where it is not one.
_NORMS_PER_BRANCH = {"sandwich": 2}


@dataclass(frozen=True)
class ModelConfig:
    """A Llama-style decoder: RMSNorm, SwiGLU, rotary positions, no biases.

    Raises:
        ValueError: a field is out of range or does not fit another; the message names the field,
            its value and what would be valid.
    """

    vocab_size: int | None = None
    """Number of tokens; left out, `groundup train` takes it from the tokenizer."""

    width: int = 64
    """Size of the residual stream."""

    layers: int = 12
    """Number of layers L; each has an attention and a feed-forward branch."""

    heads: int = 4
    """Query heads; they divide the width into heads of even size."""

    kv_heads: int | None = None
    """Key and value heads, a divisor of heads (grouped-query attention); left out, heads."""

    feed_forward: int | None = None
    """Inner size of SwiGLU; left out, 8/3 of the width, rounded up to a multiple of 8."""

    rope_theta: float = 10000.0
    """Base of the rotary frequencies."""

    norm_eps: float = 1e-5
    """What every RMSNorm adds to the mean square."""

    tied: bool = False
    """Read the logits with the embedding matrix instead of a head of its own."""

    qk_norm: bool = False
    """RMSNorm over each query and key head before the rotation, as in Qwen3."""

    z_loss: float = 0.0
    """Coefficient of the squared log-normalizer in the loss (PaLM: 1e-4); 0 leaves it out."""

    placement: PlacementName = "pre"
    """Where a layer normalizes; "deepnorm" is meant to go with init "deepnorm"."""

    init: InitializationName = "normal"
    """How the weights of the layers start."""

    init_std: float = 0.02
    """Standard deviation of the truncated normal of the weights, cut at three of them."""

    embedding_std: float | None = None
    """Standard deviation of an untruncated normal for the embedding; left out, like the rest."""

    def __post_init__(self) -> None:
        for field in ("width", "layers", "heads"):
            count(field, getattr(self, field))
        for field in ("vocab_size", "kv_heads", "feed_forward"):
            if getattr(self, field) is not None:
                count(field, getattr(self, field))
        for field in ("rope_theta", "norm_eps", "init_std"):
            positive(field, getattr(self, field))
        if self.embedding_std is not None:
            positive("embedding_std", self.embedding_std)
        within("z_loss", self.z_loss, 0.0, math.inf)
        for field in ("tied", "qk_norm"):
            value = getattr(self, field)
            if not isinstance(value, bool):
                raise ValueError(f"{field}={value!r} is not valid: it must be true or false")
        for field, names in (("placement", PlacementName), ("init", InitializationName)):
            if getattr(self, field) not in get_args(names):
                raise unknown(field, getattr(self, field), get_args(names))
        if self.width % self.heads:
            raise ValueError(f"heads={self.heads} is not valid: it must divide width={self.width}")
        if self.head_dim % 2:
            raise ValueError(
                f"heads={self.heads} is not valid: it cuts width={self.width} into heads of "
                f"{self.head_dim}, and rotary positions turn pairs, so that must be even"
            )
        if self.heads % self.key_value_heads:
            raise ValueError(
                f"kv_heads={self.kv_heads} is not valid: it must divide heads={self.heads}"
            )

    @property
    def head_dim(self) -> int:
        """Size of one attention head."""
        return self.width // self.heads

    @property
    def key_value_heads(self) -> int:
        """`kv_heads`, resolved."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def feed_forward_width(self) -> int:
        """`feed_forward`, resolved: 8·⌈width/3⌉ is 8/3 of the width, up to a multiple of 8."""
        return 8 * -(-self.width // 3) if self.feed_forward is None else self.feed_forward

    def parameters(self, *, embedding: bool = True) -> int:
        """Number of trainable parameters.

        Args:
            embedding: count the input embedding. Without it a tied matrix still counts once,
                as the head: the multiplication by it is computed.

        Raises:
            ValueError: `vocab_size` is not set.
        """
        if self.vocab_size is None:
            raise ValueError("vocab_size=None: the number of parameters needs an integer")
        key_value_width = self.key_value_heads * self.head_dim
        attention = 2 * self.width * (self.width + key_value_width)
        attention += 2 * self.head_dim * self.qk_norm
        feed_forward = 3 * self.width * self.feed_forward_width
        norms = 2 * _NORMS_PER_BRANCH.get(self.placement, 1) * self.width
        layers = self.layers * (attention + feed_forward + norms)
        matrices = 1 if self.tied or not embedding else 2
        return layers + self.width + matrices * self.vocab_size * self.width

    def flops_per_token(self, length: int) -> int:
        """Training FLOPs per token at sequence length `length`: 6·N + 12·layers·width·length.

        N counts the parameters without the input embedding, which is a look-up; the second term
        is attention's two products, forward and backward, without a discount for causality
        (Chowdhery et al. 2022, PaLM, appendix B).
        """
        attention = 12 * self.layers * self.width * length
        return 6 * self.parameters(embedding=False) + attention
