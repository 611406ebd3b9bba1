from __future__ import annotations

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.data import permute

keys = st.one_of(st.integers(), st.tuples(st.integers(), st.integers()))


@given(n=st.integers(1, 5000), key=keys)
@settings(max_examples=80, deadline=None)
def test_is_a_bijection(n, key):
    image = permute(np.arange(n), n, key)
    assert image.dtype == np.int64
    assert np.array_equal(np.sort(image), np.arange(n))


@given(n=st.integers(1, 2**62), key=keys, data=st.data())
@settings(max_examples=60, deadline=None)
def test_vectorized_equals_scalar_and_stays_inside(n, key, data):
    index = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=8))
    image = permute(np.array(index), n, key)
    assert image.tolist() == [permute(i, n, key) for i in index]
    assert all(0 <= value < n for value in image.tolist())
    assert len(set(image.tolist())) == len(set(index))


def test_is_stable_across_machines_and_versions():
    # Pinned: a change here would change the data of every resumed run.
    assert permute(np.arange(10), 10, 0).tolist() == [4, 7, 6, 9, 2, 0, 8, 3, 1, 5]
    assert permute(12345, 10**12, (7, 3)) == 198047385085


def _reference(index: int, n: int, key: tuple[int, ...]) -> int:
    """The module's formula in plain Python integers."""
    import hashlib

    mask = 2**64 - 1

    def mix(x):
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
        return x ^ (x >> 31)

    text = ",".join(map(str, key)).encode()
    digest = hashlib.blake2b(text, digest_size=64, person=b"groundup-shuffle").digest()
    rounds = [int.from_bytes(digest[i : i + 8], "little") for i in range(0, 64, 8)]
    if n <= 1024:
        order = sorted(range(n), key=lambda i: mix(mix(i ^ rounds[0]) ^ rounds[1]))
        return order[index]
    half = 2
    while 4**half < n:
        half += 1
    value = index
    while True:
        left, right = divmod(value, 2**half)
        for k in rounds:
            left, right = right, left ^ (mix(right ^ k) >> (64 - half))
        value = left * 2**half + right
        if value < n:
            return value


@given(
    n=st.one_of(st.integers(1, 2000), st.integers(1, 10**15)),
    seed=st.integers(-(2**70), 2**70),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_equals_the_formula_in_python_integers(n, seed, data):
    index = data.draw(st.integers(0, n - 1))
    assert permute(index, n, (seed, 4)) == _reference(index, n, (seed, 4))


def test_all_orders_of_a_few_are_equally_likely():
    count = 12000
    seen = Counter(tuple(permute(np.arange(4), 4, (key, 1)).tolist()) for key in range(count))
    expected = count / 24
    chi2 = sum((seen[p] - expected) ** 2 / expected for p in permutations(range(4)))
    assert chi2 < 60  # 23 degrees of freedom: above this with probability 4e-5


def test_no_correlation_with_the_order_or_between_epochs():
    n = 10_000
    first, second = (permute(np.arange(n), n, (0, epoch)) for epoch in (0, 1))
    bound = 4 / np.sqrt(n)
    assert abs(np.corrcoef(np.arange(n), first)[0, 1]) < bound
    assert abs(np.corrcoef(first, second)[0, 1]) < bound
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < bound
    assert (first == second).sum() < 10


@pytest.mark.parametrize(
    ("index", "n"), [(0, 0), (5, 5), (-1, 5), (0, 2**63), (1.5, 5), (np.array([0, 9]), 9)]
)
def test_errors(index, n):
    with pytest.raises(ValueError, match="valid|integer"):
        permute(index, n, 0)
