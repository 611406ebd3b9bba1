"""What a forward keeps for its backward: closed forms, in bytes for each token of a micro-batch.

Read off groundup.model, operation by operation, with d the width, k that of keys and values, f that
of the feed-forward branch, H and K the numbers of query and key heads, and c the bytes of a number
in the compute precision (bf16: 2, float32: 4). Attention is PyTorch's fused one, which keeps one
float32 for each head and query and no matrix of T × T. The head's loss is in head.py.

Checked against what PyTorch keeps, and against the peak of live bytes, by
tests/train/cost/test_activations.py; on a GPU by benchmarks/memory.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from groundup.model.config import ModelConfig

_FLOAT32 = 4


@dataclass(frozen=True)
class Activations:
    """Bytes for each token of a micro-batch.

    Attributes:
        layer: kept by each layer, until its backward.
        inside: what a layer has besides while its backward runs: what it computes again, if it
            does, and the gradients on their way through it.
        ends: kept by the embedding and the last norm, and the input of the head or its gradient.
        rotary: of a sequence's tokens, but once for all sequences.
    """

    layer: float
    inside: float
    ends: float
    rotary: float

    @classmethod
    def of(
        cls,
        config: ModelConfig,
        precision: str,
        *,
        compiled: bool,
        recompute: str = "none",
        fused_norms: bool = True,
        stream: int = _FLOAT32,
    ) -> Activations:
        """Those of a model.

        Args:
            config: its sizes, `vocab_size` among them.
            precision: "bf16" (autocast) or "float32".
            compiled: whether each layer is compiled.
            recompute: "none", "full" or "ops", as train.recompute.
            fused_norms: whether RMSNorm is one kernel, as on CUDA where torch has
                ``aten::_fused_rms_norm``; else it keeps the normalized values too, as on a CPU.
            stream: bytes of a number of the residual stream; 2 where FSDP gathers weights in bf16.
        """
        d, c = config.width, _BYTES[precision]
        spread = 0 if fused_norms else _FLOAT32
        whole = _compiled(config, c, stream) if compiled else _eager(config, c, spread, precision)
        products = _products(config, c)
        if compiled and config.placement in _STREAM_LAST and config.gain == "none":
            products -= c * d  # of the last product nothing is computed again
        kept = {"none": whole, "full": stream * d, "ops": stream * d + products}
        # Of the gradients on their way: those of the stream, and two of the feed-forward's inside.
        inside: float = 2 * _FLOAT32 * d + 2 * c * config.feed_forward_width
        inside += whole - kept[recompute] if recompute != "none" else 0
        return cls(
            layer=kept[recompute],
            inside=inside,
            ends=(_FLOAT32 + spread) * d + _FLOAT32 + c * d + 8,  # and the token
            rotary=2 * _FLOAT32 * config.head_dim,
        )


_BYTES = {"bf16": 2, "float32": 4}
_TWO_NORMS = frozenset({"sandwich"})
_STREAM_LAST = frozenset({"pre", "lns"})
_NORM_LAST = frozenset({"post", "deepnorm"})


def _norms(config: ModelConfig) -> int:
    return 4 if config.placement in _TWO_NORMS else 2


def _qk_norms(config: ModelConfig) -> int:
    """Norms of one token's queries and keys: one a head, or one each."""
    query, key = config.qk_norm_sizes
    return config.width // query + config.key_value_width // key


def _attention(config: ModelConfig, c: int) -> float:
    """Queries and keys as turned, values, what attention gives, and log Σ exp of each query."""
    return c * (2 * config.width + 2 * config.key_value_width) + _FLOAT32 * config.heads


def _eager(config: ModelConfig, c: int, spread: int, precision: str) -> float:
    d, f = config.width, config.feed_forward_width
    # Autocast casts a layer's input for each product that takes it: query, key, value; gate, up.
    inputs = (5 if precision == "bf16" else 2) * c * d
    norms = _norms(config) * ((_FLOAT32 + spread) * d + _FLOAT32)
    if config.qk_norm:
        norms += (_FLOAT32 + spread) * (d + config.key_value_width) + _FLOAT32 * _qk_norms(config)
    gained = 0 if config.gain == "none" else 2 * c * d
    # gate, up, silu(gate), and the product of the two.
    return inputs + norms + _attention(config, c) + 4 * c * f + gained


def _compiled(config: ModelConfig, c: int, stream: int) -> float:
    """What the partitioner of torch.compile keeps: what products need and give; norms and silu are
    computed again."""
    d, f = config.width, config.feed_forward_width
    inputs = _INPUTS.get((config.placement, c), 2)
    found = (
        stream * d + inputs * c * d + _norms(config) * _FLOAT32 + _attention(config, c) + 3 * c * f
    )
    found += c * d * (_OUTPUTS.get(config.placement, 1) if config.gain == "none" else 2)
    if config.placement in _NORM_LAST:  # what the second norm is given
        found += _FLOAT32 * d
    if config.qk_norm:
        found += c * (d + config.key_value_width) + _FLOAT32 * _qk_norms(config)
    return found


_INPUTS = {("output", 2): 0, ("output", 4): 1, ("post", 4): 1, ("deepnorm", 4): 1}
"""Of what the two branches are given, what is kept beside the layer's own input: where no norm
comes first, it is that input itself, or its cast, which is computed again."""

_OUTPUTS = {"sandwich": 2, "output": 2}
"""Of the two branches' outputs, those that are kept; where gains multiply them, both."""


def _products(config: ModelConfig, c: int) -> float:
    """Outputs of all matrix products of a layer, and of its attention: what "ops" keeps."""
    d, k, f = config.width, config.key_value_width, config.feed_forward_width
    return c * (4 * d + 2 * k + 2 * f) + _FLOAT32 * config.heads
