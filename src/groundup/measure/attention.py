"""How attention is spread, and how large its logits grow, in any model, without touching it.

The entropy of a query's attention p over its keys, −Σ p·log p in nats, runs from 0 (one key) to
log n (all n keys that it may attend to alike); layers whose entropy collapses go with unstable
training (Zhai et al. 2023, arXiv:2303.06296), as do attention logits that grow without bound
(Dehghani et al. 2023, arXiv:2302.05442; Wortsman et al. 2023, arXiv:2309.14322).

Fused attention never holds p. `Watch` looks on while a model runs eagerly, and computes it once
more, in pieces, from the queries and keys that `F.scaled_dot_product_attention` is called with; of
models that do attention by hand it takes the scores that go into a softmax.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from types import FunctionType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_CHUNK = 1 << 22  # scores worked on at once: 16 MiB of float32
_LOWEST = -5e8
"""Scores from here down are masked out: most code adds the least number of the dtype, old code
-1e9. (-1e4, for float16, cannot be told from a logit: diverging models have had larger ones.)"""

Sums = tuple[Tensor, Tensor]
"""Of entropy, queries and log n [3] float64; and the largest logit."""


class Attention(NamedTuple):
    """Of one layer, 0-dim tensors on its device; nan where not defined."""

    entropy: Tensor
    """Mean over batch, heads and queries, in nats."""
    uniform: Tensor
    """The sum of all entropies divided by that of log n, n the keys a query may attend to: 1 for
    attending evenly, 0 for one key each. Queries with a single key say nothing in it."""
    logit: Tensor
    """The largest finite input of the softmax where attending is allowed: scaled, and with the bias
    (ALiBi, relative positions) where the mask is one."""


def attention_entropy(probabilities: Tensor) -> Tensor:
    """−Σ p·log p over the keys, in nats: [..., T, S] → [..., T], float32 or wider.

    Example:
        >>> attention_entropy(torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.0, 1.0, 0.0, 0.0]]))
        tensor([1.3863, 0.0000])
    """
    return torch.special.entr(probabilities.to(_raised(probabilities))).sum(-1)


class Watch(TorchFunctionMode):
    """A context in which attention is seen: entropy and logits by layer.

    Whoever runs the model sets `layer` to the number of the layer that runs, and to None outside of
    layers, where nothing is looked at. Several attentions in one layer (self and cross) are taken
    together. Nothing is drawn from random state, nothing waits for the device, and outputs are what
    they are without it (those of PyTorch's fused layers, see below, within rounding).

    Seen are `F.scaled_dot_product_attention`, in any shape, with masks, biases, grouped queries and
    dropout (p is taken before it); softmax over the last dimension of scores [B, heads, T, S]; and
    `nn.MultiheadAttention`. The fused path of the latter and of `nn.TransformerEncoderLayer`
    calls neither, but PyTorch does not take it while a mode like this one is active. Queries that
    may attend to no key are left out; sinks and registers count as keys.

    Not seen: `flex_attention`, the kernels of other packages (flash-attn, xFormers), what is inside
    of a compiled graph, softmax over scores of three dimensions outside of
    `nn.MultiheadAttention`, nested tensors and other subclasses (DTensor, CausalBias). The softmax
    of anything else of four dimensions, as of linear attention, is taken for attention.

    Example:
        >>> with Watch() as watch:
        ...     for watch.layer, block in enumerate(model.layers):
        ...         x = block(x, rotary)
        ...     watch.layer = None
        >>> watch.results()[0].entropy
        tensor(2.9103, dtype=torch.float64)
    """

    layer: int | None

    def __init__(self) -> None:
        super().__init__()
        self.layer = None
        self._in_multi_head = False
        self._sums: dict[int, Sums] = {}

    def results(self) -> dict[int, Attention]:
        """By layer, those in which attention was seen."""
        found = {}
        for layer, (sums, logit) in sorted(self._sums.items()):
            entropy, queries, even = sums.unbind()
            found[layer] = Attention(
                entropy / queries,
                (entropy / even).clamp(0.0, 1.0),  # rounding may go beyond
                logit.where(logit.isfinite(), torch.nan),
            )
        return found

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        see = None if self.layer is None else _SEEN.get(func)
        if see is None or not all(kind in _PLAIN for kind in types):
            return func(*args, **kwargs)
        return see(self, func, args, kwargs)

    def _attention(self, func: Any, args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)  # first, so that it says what is wrong with its inputs
        self._add(args[0] if args else kwargs["query"], _attention_scores, *args, **kwargs)
        return result

    def _softmax(self, func: Any, args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        scores = args[0] if args else kwargs["input"]
        dimension = args[1] if len(args) > 1 else kwargs.get("dim")
        heads = scores.ndim == 4 or (scores.ndim == 3 and self._in_multi_head)
        if heads and dimension in (-1, scores.ndim - 1):
            self._add(scores, _given_scores, scores)
        return result

    def _multi_head(self, func: Any, args: Any, kwargs: Any) -> Any:
        if self._in_multi_head:
            return func(*args, **kwargs)
        self._in_multi_head = True
        try:
            with self:
                return _multi_head_attention(*args, **kwargs)
        finally:
            self._in_multi_head = False

    @torch.no_grad()
    def _add(
        self, like: Tensor, pieces: Callable[..., Iterator], *args: Any, **kwargs: Any
    ) -> None:
        if like.is_nested:
            return
        assert self.layer is not None
        kind = like.device.type
        castable = torch.amp.is_autocast_available(kind)
        with torch.autocast(kind, enabled=False) if castable else nullcontext():
            for scores, allowed in pieces(*args, **kwargs):
                sums, logit = _summed(scores, allowed)
                if self.layer in self._sums:
                    before, largest = self._sums[self.layer]
                    sums = before + sums.to(before.device)
                    logit = torch.maximum(largest, logit.to(largest.device))
                self._sums[self.layer] = sums, logit


def _open(function: Any) -> FunctionType:
    """`function` of torch.nn.functional, such that what it calls can be seen by a mode.

    It asks first whether a mode wants to be called in its place. In this copy the answer is no.
    """
    names = {**function.__globals__, "has_torch_function": lambda _: False}
    return FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )


_multi_head_attention = _open(F.multi_head_attention_forward)

_PLAIN = (Tensor, nn.Parameter)
_SEEN: dict[Any, Callable[[Watch, Any, Any, Any], Any]] = {
    F.scaled_dot_product_attention: Watch._attention,
    F.multi_head_attention_forward: Watch._multi_head,
    F.softmax: Watch._softmax,
    torch.softmax: Watch._softmax,
    torch.special.softmax: Watch._softmax,
    Tensor.softmax: Watch._softmax,
}


def _attention_scores(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Scores of `F.scaled_dot_product_attention` and where they are allowed, piece by piece."""
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
    if query.ndim == key.ndim == 2:
        query, key = query[None], key[None]
    lead = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2])
    queries, keys = query.shape[-2], key.shape[-2]
    query, key = (x.expand(*lead, -1, -1) for x in (query, key))
    mask = None if attn_mask is None else attn_mask.expand(*lead, queries, keys)
    dtype = _raised(query)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    everywhere = torch.ones(1, keys, dtype=torch.bool, device=query.device)
    position = torch.arange(max(queries, keys), device=query.device)
    for heads, rows in _pieces((*lead, queries, keys), query.device):
        q, k = query[(*heads, rows)].to(dtype), key[heads].to(dtype)
        scores = (q * scale) @ k.transpose(-2, -1)
        allowed = everywhere
        if is_causal:
            allowed = position[:keys] <= position[:queries][rows, None]
        elif mask is not None and mask.dtype == torch.bool:
            allowed = mask[(*heads, rows)]
        elif mask is not None:
            bias = mask[(*heads, rows)]
            allowed, scores = _allowed(bias), scores + bias
        yield scores, allowed


def _given_scores(scores: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The inputs of a softmax, [..., T, S], and where they are not masked out, piece by piece."""
    for heads, rows in _pieces(scores.shape, scores.device):
        piece = scores[(*heads, rows)]
        yield piece.to(_raised(scores)), _allowed(piece)


def _pieces(
    shape: tuple[int, ...], device: torch.device
) -> Iterator[tuple[tuple[Any, ...], slice]]:
    """Indices into [..., T, S]: of some heads, and of all their queries or, if long, some."""
    *lead, queries, keys = shape
    heads = torch.Size(lead).numel()
    at_once = max(1, _CHUNK // max(1, queries * keys))
    rows = max(1, _CHUNK // max(1, keys)) if at_once == 1 else queries
    if heads * queries * keys == 0:
        return
    for first in range(0, heads, at_once):
        some = torch.arange(first, min(first + at_once, heads), device=device)
        # Indexed, not flattened: that would copy a mask for each head it is shared by.
        where = torch.unravel_index(some, tuple(lead))
        for row in range(0, queries, rows):
            yield where, slice(row, row + rows)


def _summed(scores: Tensor, allowed: Tensor) -> Sums:
    """The sums over all queries of scores [heads, T, S]; `allowed` may be shared by heads."""
    keys = allowed.sum(-1).expand(scores.shape[:-1])
    scores = scores.masked_fill(~allowed, -torch.inf)
    entropy = attention_entropy(scores.softmax(-1)).where(keys > 0, 0.0)
    sums = (entropy, keys > 0, keys.clamp_min(1).to(torch.float64).log())
    finite = scores.nan_to_num(nan=-torch.inf, posinf=-torch.inf, neginf=-torch.inf)
    total = torch.stack([part.sum(dtype=torch.float64) for part in sums])
    return total, finite.amax().to(torch.float64)


def _allowed(scores: Tensor) -> Tensor:
    # Not by `>`: what is nan is to be seen.
    return ~(scores <= max(_LOWEST, torch.finfo(scores.dtype).min / 2))


def _raised(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
