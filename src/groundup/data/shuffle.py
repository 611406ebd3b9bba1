"""A permutation of [0, n) computed, not stored: a keyed bijection.

A Feistel network of `ROUNDS` rounds permutes [0, 4^h) for the smallest h with 4^h >= n; a value
that falls outside [0, n) is put in again until it falls inside ("cycle walking"), fewer than four
times on average. With halves (L, R) of h bits, a round is

    (L, R) -> (R, L xor (mix(R xor k_i) >> (64 - h)))

where `mix` is the 64-bit finalizer of SplitMix64 and the k_i come from BLAKE2b of the key. On few
items such a network prefers some orders (measured: chi-square 929 for 23 degrees of freedom at
n = 4), so up to `FEW` items are instead put in the order of mix(mix(i xor k_0) xor k_1).
All of it is integer arithmetic modulo 2^64, so the result is the same on every machine.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import overload

import numpy as np
from numpy.typing import NDArray

__all__ = ["permute"]

ROUNDS = 8
FEW = 1024
_MAX = 1 << 62


@overload
def permute(index: int, n: int, key: int | tuple[int, ...]) -> int: ...
@overload
def permute(
    index: NDArray[np.integer], n: int, key: int | tuple[int, ...]
) -> NDArray[np.int64]: ...
def permute(
    index: int | NDArray[np.integer], n: int, key: int | tuple[int, ...]
) -> int | NDArray[np.int64]:
    """Where the permutation of [0, n) named by `key` takes `index`.

    `index`: an int, or an integer array of any shape (then int64 of the same shape comes back).
    `key`: an int or a tuple of ints, of any size and sign.
    Errors: `ValueError` if n is not in 1..2^62 or an index is not in [0, n).
    """
    if not 1 <= n <= _MAX:
        raise ValueError(f"n={n!r} is not valid: it must be in 1..2**62")
    array = np.asarray(index)
    if array.dtype.kind not in "iu":
        raise ValueError(f"index has dtype {array.dtype}: it must be an integer or integers")
    if array.size and (int(array.min()) < 0 or int(array.max()) >= n):
        raise ValueError(
            f"index={int(array.min())}..{int(array.max())} is not valid: it must be in 0..{n - 1}"
        )
    values = array.astype(np.uint64).reshape(-1)
    keys = _round_keys(key if isinstance(key, tuple) else (key,))
    if n <= FEW:
        places = np.arange(n, dtype=np.uint64)
        order = np.argsort(_mix(_mix(places ^ keys[0]) ^ keys[1]), kind="stable")
        values = order.astype(np.uint64)[values]
    else:
        half = ((n - 1).bit_length() + 1) // 2
        values = _feistel(values, half, keys)
        outside = np.flatnonzero(values >= n)
        while outside.size:
            walked = _feistel(values[outside], half, keys)
            values[outside] = walked
            outside = outside[walked >= n]
    result = values.astype(np.int64).reshape(array.shape)
    return int(result) if array.ndim == 0 and isinstance(index, int) else result


def _feistel(values: NDArray[np.uint64], half: int, keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mask = np.uint64((1 << half) - 1)
    bits, drop = np.uint64(half), np.uint64(64 - half)
    left, right = values >> bits, values & mask
    for key in keys:
        left, right = right, left ^ (_mix(right ^ key) >> drop)
    return (left << bits) | right


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@lru_cache(maxsize=256)
def _round_keys(key: tuple[int, ...]) -> NDArray[np.uint64]:
    text = ",".join(str(int(part)) for part in key).encode()
    digest = hashlib.blake2b(text, digest_size=8 * ROUNDS, person=b"groundup-shuffle").digest()
    return np.frombuffer(digest, dtype="<u8").astype(np.uint64)
