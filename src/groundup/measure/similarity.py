"""Residual similarity: how near a layer's branch is to what it says in the end, from sketches.

arXiv:2603.05369 takes the cosine of each layer's branch output at a checkpoint with that of the
final model, on fixed inputs:

    ρ = (1/N)·Σ_n ⟨x_n, x'_n⟩/(‖x_n‖·‖x'_n‖)    for N tokens

With rows of length 1 that mean is the cosine of the two matrices, each as one long vector. So it
can be had without keeping either: a random projection to a few numbers keeps cosines. `sketch`
makes one during training, and `compare` two of them afterwards; no checkpoint is needed.

The projection is a balanced count sketch (after Charikar et al. 2002, doi:10.1007/3-540-45465-9_59,
with groups of equal size in the place of hashed ones): all N·d numbers get a random sign and are
permuted, and each of `size` equal groups is added up. Signs and permutation are drawn from a
constant seed and depend on N·d alone, so that every layer, run and machine has the same.

How exact it is. Over random signs ⟨y, y'⟩ has the mean ⟨x, x'⟩ and, for vectors of length 1,
the variance (1 + ρ²)/size, as if `size` pairs were drawn from two normal variables of correlation
ρ. Dividing by the sketches' own norms makes it the sample correlation, whose standard error is

    (1 − ρ²)/√size    (`standard_error`; 0.031 at ρ = 0 and 0.006 at ρ = 0.9 for 1024)

times √(1 − size/(N·d)): up to N·d = size every number has a group of its own. Sketches of one
layer share the projection, so their errors change little from one checkpoint to the next. Rounding
to int8 adds some 1e-4 (at worst, where one number outweighs all others, size/(12·127²): 0.005).
"""

from __future__ import annotations

import base64
import binascii
import math
import struct
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from groundup._check import count, within

_SEED = 2603_05369
_HEADER = struct.Struct("<2I")  # N, d
_LARGEST = 127
_NOT_FINITE = -128  # what no finite input is rounded to


def sketch(x: Tensor, size: int = 1024) -> str:
    """A branch's output in 8 + `size` bytes, as base64: 1.4 kB for 1024.

    A row of zeros stays zero. Input that is all zero, or not finite somewhere, has a sketch too:
    comparing it gives nan. Computed in float64 on the CPU wherever `x` is; reading it waits for
    the device.

    Args:
        x: [N, d], a row per token; of any floating dtype.
        size: numbers kept.

    Raises:
        ValueError: `x` is not a matrix with something in it, or `size` not a whole number ≥ 1.
    """
    if x.ndim != 2 or x.numel() == 0:
        raise ValueError(
            f"x has shape {list(x.shape)}, but must be [tokens, width], none of them 0"
        )
    count("size", size)
    rows = x.detach().cpu().to(torch.float64)
    lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    if lengths.isfinite().all():
        flat = (rows / lengths.where(lengths > 0, 1.0)).flatten()
        numbers = _rounded(_project(flat, size))
    else:
        numbers = np.full(size, _NOT_FINITE, dtype=np.int8)
    return base64.b64encode(_HEADER.pack(*x.shape) + numbers.tobytes()).decode("ascii")


def compare(a: str, b: str) -> float:
    """ρ, the cosine of two branch outputs, mean over tokens: in [−1, 1].

    Off by about `standard_error`; exactly 1 for sketches that are the same. nan if one is of
    all zeros or of something not finite. Rows of zeros have no cosine: N is the number of others,
    or √(N·N') where that differs between the two.

    Args:
        a, b: from `sketch`.

    Raises:
        ValueError: a string that is not a sketch, or two of different shapes or sizes.
    """
    (shape, one), (other_shape, other) = _read("a", a), _read("b", b)
    if shape != other_shape or len(one) != len(other):
        raise ValueError(
            f"b is a sketch of {list(other_shape)} in {len(other)} numbers, but must be like a: "
            f"of {list(shape)} in {len(one)}"
        )
    if any(numbers[0] == _NOT_FINITE or not numbers.any() for numbers in (one, other)):
        return math.nan
    if a == b:
        return 1.0
    cosine = float(one @ other) / math.sqrt(float(one @ one) * float(other @ other))
    return max(-1.0, min(1.0, cosine))


def standard_error(cosine: float, size: int = 1024) -> float:
    """(1 − ρ²)/√size, the standard deviation of what `compare` says around the true ρ.

    An upper bound where N·d is not far above `size`; without the rounding to int8. See the
    module's text.

    Example:
        >>> standard_error(0.0), round(standard_error(0.9), 4)
        (0.03125, 0.0059)
    """
    within("cosine", cosine, -1.0, 1.0)
    return (1.0 - cosine * cosine) / math.sqrt(count("size", size))


def _project(flat: Tensor, size: int) -> Tensor:
    """Sums over `size` groups of equal length of the signed, permuted numbers: [size]."""
    length = -(-flat.numel() // size) * size
    order, signs = _draw(length)
    padded = F.pad(flat, (0, length - flat.numel()))
    return (padded[order] * signs).view(size, -1).sum(1)


@lru_cache(maxsize=4)  # a model has one width; 9 bytes for each number
def _draw(length: int) -> tuple[Tensor, Tensor]:
    # On the CPU by name: a default device would draw other numbers.
    generator = torch.Generator("cpu").manual_seed(_SEED)
    order = torch.randperm(length, generator=generator, device="cpu")
    signs = torch.randint(2, (length,), generator=generator, device="cpu", dtype=torch.int8)
    return order, signs * 2 - 1


def _rounded(values: Tensor) -> NDArray[np.int8]:
    # The scale divides out of a cosine, so it is not kept.
    scale = float(values.abs().amax()) / _LARGEST or 1.0
    return (values / scale).round().to(torch.int8).numpy()


def _read(name: str, text: str) -> tuple[tuple[int, int], NDArray[np.float64]]:
    try:
        data = base64.b64decode(text, validate=True)
    except (TypeError, binascii.Error, ValueError):
        data = b""
    if len(data) <= _HEADER.size:
        raise ValueError(f"{name}={text!r:.40} is not valid: it must be what sketch() gave")
    rows, columns = _HEADER.unpack_from(data)
    numbers = np.frombuffer(data, dtype=np.int8, offset=_HEADER.size)
    return (rows, columns), numbers.astype(np.float64)  # whose sums are exact
