"""Attention within documents: in a row of packed documents a token attends to its own alone.

A document begins with the end-of-document token in front of it, as in evaluation and generation,
so that its first word is predicted from that token and from nothing of another text; whatever a row
begins with is the first document of the row. Positions stay those of the row: rotary attention
knows their differences only, and these are the same. So the mask is all there is to it, and tokens
decide the mask.

Each way to attend is a class, made once per forward from the tokens and passed to all layers as an
object, like `Rotary`. Nothing in it has a shape that depends on where documents begin, or how many
there are: one compiled graph serves every batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor


class Documents(Protocol):
    """The documents of B rows of T tokens."""

    def __init__(self, begins: Tensor) -> None:
        """From where documents begin: [B, T] bool, true in the first column."""

    @staticmethod
    def fits(length: int, head_dim: int) -> bool:
        """Whether it is there for rows of so many tokens and heads of this size, and is faster than
        a mask."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """softmax(q·kᵀ/√D)·v over earlier tokens of the same document, and the token itself.

        Args:
            q: [B, H, T, D].
            k: [B, G, T, D], G a divisor of H.
            v: as k.

        Returns:
            [B, H, T, D].
        """


def documents_of(tokens: Tensor, separator: int, head_dim: int) -> Documents:
    """Those of tokens [B, T], in the way that is fastest where the tokens are.

    Args:
        tokens: int64.
        separator: the end-of-document token, with which the next document begins.
        head_dim: D of the attention.
    """
    begins = tokens == separator
    begins[:, 0] = True
    kind = _FASTEST.get(tokens.device.type, Masked)
    return kind(begins) if kind.fits(tokens.shape[1], head_dim) else Masked(begins)


class Masked:
    """Everywhere: a mask [B, 1, T, T]. All T² scores are computed."""

    def __init__(self, begins: Tensor) -> None:
        number = begins.cumsum(1)
        self.mask = (number[:, None, :, None] == number[:, None, None, :]).tril()

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        grouped = q.shape[1] != k.shape[1]
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask, enable_gqa=grouped)

    @staticmethod
    def fits(length: int, head_dim: int) -> bool:
        return True


class OneByOne:
    """On a CPU: each document by itself, so that no score between two of them is computed.

    Compiled, the loop is inside of an operator; eager, it is of calls that `measure.attention`
    can watch.
    """

    def __init__(self, begins: Tensor) -> None:
        self.begins = begins.flatten()

    @staticmethod
    def fits(length: int, head_dim: int) -> bool:
        return length >= _LONG

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows, heads = q.shape[:2]
        compiled = torch.compiler.is_compiling()
        q, k, v = (x.transpose(0, 1).flatten(1, 2) for x in (q, k, v))  # [heads, B·T, D]
        if compiled:
            k, v = (x.repeat_interleave(heads // x.shape[0], 0) for x in (k, v))
            y, _ = attention_one_by_one(q, k, v, self.begins)
        else:
            y = self._eager(q, k, v)
        return y.unflatten(1, (rows, -1)).transpose(0, 1)

    def _eager(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        grouped = q.shape[0] != k.shape[0]
        split = (x[None].split(self._lengths, dim=2) for x in (q, k, v))
        parts = [
            F.scaled_dot_product_attention(q1, k1, v1, is_causal=True, enable_gqa=grouped)
            for q1, k1, v1 in zip(*split, strict=True)
        ]
        return torch.cat(parts, dim=2)[0]

    @cached_property
    def _lengths(self) -> list[int]:
        return [here.stop - here.start for here in _places(self.begins)]


class Blocks:
    """On CUDA: flex_attention, which passes over blocks of 128 × 128 scores that no document has
    (Dong et al. 2024, arXiv:2412.05496). Only compiled is it a kernel; eager, `Masked` is faster.
    """

    def __init__(self, begins: Tensor) -> None:
        # Takes a third of a second to import.
        from torch.nn.attention.flex_attention import create_block_mask

        number = begins.cumsum(1)

        def together(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
            return (query >= key) & (number[b, query] == number[b, key])

        rows, length = begins.shape
        self._begins = begins
        self.blocks: Any = create_block_mask(
            together, rows, None, length, length, device=str(begins.device)
        )

    @staticmethod
    def fits(length: int, head_dim: int) -> bool:
        return head_dim >= 16  # the kernel asks for it

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if not torch.compiler.is_compiling():
            return self._masked.attend(q, k, v)
        from torch.nn.attention.flex_attention import flex_attention

        grouped = q.shape[1] != k.shape[1]
        y = flex_attention(q, k, v, block_mask=self.blocks, enable_gqa=grouped)
        assert isinstance(y, Tensor)
        return y

    @cached_property
    def _masked(self) -> Masked:
        return Masked(self._begins)


_FASTEST: dict[str, type[Documents]] = {"cpu": OneByOne, "cuda": Blocks}
"""Type of device → the way to attend there; elsewhere `Masked`."""
_LONG = 512
"""Tokens of a row from which a call for each document costs less than the scores it saves (a CPU,
documents of 300 tokens)."""


# ---------------------------------------------------------------------- the operator on a CPU


@torch.library.custom_op("groundup::attention_one_by_one", mutates_args=(), device_types="cpu")
def attention_one_by_one(q: Tensor, k: Tensor, v: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
    """Causal attention within each document of a stream of N tokens.

    Args:
        q, k, v: [H, N, D], of one floating dtype.
        begins: [N] bool, where documents begin; true at the first token.

    Returns:
        The output [H, N, D], and log Σ exp(scores) of each query [H, N], in float32 or wider.
    """
    out, log_sums = _outputs(q, k, v, begins)
    for here in _places(begins):
        out[:, here], log_sums[:, here] = _forward(*(x[None, :, here] for x in (q, k, v)))
    return out, log_sums


@torch.library.custom_op(
    "groundup::attention_one_by_one_backward", mutates_args=(), device_types="cpu"
)
def _attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, begins: Tensor, out: Tensor, log_sums: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of q, k and v."""
    found = _gradients(grad, q, k, v, begins, out, log_sums)
    grad = grad.transpose(0, 1).contiguous().transpose(0, 1)  # as it usually is
    for here in _places(begins):
        of_one = (x[None, :, here] for x in (grad, q, k, v, out, log_sums))
        for whole, part in zip(found, _backward(*of_one), strict=True):
            whole[:, here] = part
    return found


@attention_one_by_one.register_fake
def _outputs(q: Tensor, k: Tensor, v: Tensor, begins: Tensor) -> tuple[Tensor, Tensor]:
    # One token after the other, as the projection that follows takes them.
    heads, tokens, size = q.shape
    wide = torch.promote_types(q.dtype, torch.float32)
    log_sums = q.new_empty(tokens, heads, dtype=wide)
    return q.new_empty(tokens, heads, size).transpose(0, 1), log_sums.transpose(0, 1)


@_attention_backward.register_fake
def _gradients(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, begins: Tensor, out: Tensor, log_sums: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    heads, tokens, size = q.shape
    dq, dk, dv = (q.new_empty(tokens, heads, size).transpose(0, 1) for _ in range(3))
    return dq, dk, dv


def _save(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, *output)


def _differentiate(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return *_attention_backward(grad, *ctx.saved_tensors), None


attention_one_by_one.register_autograd(_differentiate, setup_context=_save)


# What F.scaled_dot_product_attention calls on a CPU.
def _forward(q: Tensor, k: Tensor, v: Tensor) -> Any:
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, True)


def _backward(*tensors: Tensor) -> Any:
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(*tensors, 0.0, True)


def _places(begins: Tensor) -> Iterator[slice]:
    """Each document of begins [N]."""
    starts = begins.nonzero()[:, 0].tolist()
    return map(slice, starts, [*starts[1:], len(begins)])
