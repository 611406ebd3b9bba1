from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundup.data import Batches, windows
from groundup.data.shuffle import permute


def tokens_for(count: int, length: int, extra: int) -> np.ndarray:
    return np.arange(count * length + 1 + extra, dtype=np.uint32)


shapes = {
    "count": st.integers(1, 40),
    "length": st.integers(1, 9),
    "batch": st.integers(1, 50),
    "seed": st.integers(-(2**40), 2**40),
}


@given(**shapes, data=st.data())
@settings(max_examples=60, deadline=None)
def test_every_window_once_per_epoch(count, length, batch, seed, data):
    extra = data.draw(st.integers(0, length - 1))
    tokens = tokens_for(count, length, extra)
    batches = Batches(tokens, length, batch, seed)
    assert batches.windows == count
    epochs = 3
    steps = -(-epochs * count // batch)
    rows = np.concatenate([batches.batch(step) for step in range(steps)])[: epochs * count]
    assert rows.dtype == np.int64
    assert rows.shape == (epochs * count, length + 1)
    for epoch in range(epochs):
        starts = rows[epoch * count : (epoch + 1) * count, 0]
        assert sorted(starts.tolist()) == [w * length for w in range(count)]
    # The tokens count up, so a whole window does too.
    assert np.array_equal(rows, rows[:, :1] + np.arange(length + 1))


@given(**shapes, step=st.integers(0, 10**9), data=st.data())
@settings(max_examples=60, deadline=None)
def test_rows_are_slices_for_any_split(count, length, batch, seed, step, data):
    tokens = tokens_for(count, length, 0)
    whole = Batches(tokens, length, batch, seed).batch(step)
    again = Batches(tokens, length, batch, seed)  # another object, asked in another order
    cuts = sorted(data.draw(st.lists(st.integers(0, batch), max_size=5)))
    edges = [0, *cuts, batch]
    parts = [again.rows(step, a, b) for a, b in reversed(list(pairwise(edges)))]
    assert np.array_equal(np.concatenate(parts[::-1]), whole)


@given(**shapes, k=st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_the_stream_of_samples_does_not_depend_on_the_batch_size(count, length, batch, seed, k):
    tokens = tokens_for(count, length, 0)
    large = Batches(tokens, length, batch * k, seed).batch(2)
    small = Batches(tokens, length, batch, seed)
    joined = np.concatenate([small.batch(step) for step in range(2 * k, 3 * k)])
    assert np.array_equal(large, joined)


def test_each_sample_is_the_window_of_the_definition():
    # More windows than are looked up at once, and no multiple of it.
    count, seed = 4100, 7
    batches = Batches(tokens_for(count, 1, 0), 1, 8, seed)
    for step in (0, 511, 512, 1024, 1536):
        samples = range(step * 8, step * 8 + 8)
        defined = [permute(g % count, count, (seed, g // count)) for g in samples]
        assert batches.order(step).tolist() == defined


def test_seeds_and_epochs_differ():
    tokens = tokens_for(200, 4, 0)
    orders = [Batches(tokens, 4, 200, seed).order(step) for seed in (0, 1) for step in (0, 1)]
    for i, first in enumerate(orders):
        for second in orders[i + 1 :]:
            assert not np.array_equal(first, second)


def test_another_process_sees_the_same():
    code = (
        "import numpy as np; from groundup.data import Batches; "
        "print(Batches(np.arange(1001), 8, 16, 5).batch(77).tolist())"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert output.strip() == str(Batches(np.arange(1001), 8, 16, 5).batch(77).tolist())


def test_far_steps_do_not_overflow():
    batches = Batches(tokens_for(7, 3, 0), 3, 2048, 0)
    assert batches.batch(10**15).shape == (2048, 4)
    assert batches.epoch(7) == 2048


@given(count=st.integers(1, 30), length=st.integers(1, 6), batch=st.integers(1, 8), data=st.data())
@settings(max_examples=40, deadline=None)
def test_windows_are_sequential_and_complete(count, length, batch, data):
    limit = data.draw(st.one_of(st.none(), st.integers(1, 40)))
    tokens = tokens_for(count, length, data.draw(st.integers(0, length - 1)))
    chunks = list(windows(tokens, length, batch, limit))
    rows = np.concatenate(chunks)
    wanted = count if limit is None else min(count, limit)
    assert rows.shape == (wanted, length + 1)
    assert all(len(chunk) == batch for chunk in chunks[:-1])
    # Inputs, one after another, are the stream itself; so are the targets, one token on.
    assert np.array_equal(rows[:, :-1].ravel(), tokens[: wanted * length])
    assert np.array_equal(rows[:, 1:].ravel(), tokens[1 : wanted * length + 1])


def test_too_few_tokens_name_the_counts():
    with pytest.raises(ValueError, match=r"8 tokens.*length=8.*9"):
        Batches(np.arange(8), 8, 1, 0)
    with pytest.raises(ValueError, match="0 tokens"):
        windows(np.arange(0), 8, 1)  # raised at once, not at the first chunk
    assert Batches(np.arange(9), 8, 1, 0).windows == 1


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((np.arange(9.0), 2, 1, 0), "tokens"),
        ((np.zeros((3, 3), int), 2, 1, 0), "tokens"),
        ((np.arange(9), 0, 1, 0), "length"),
        ((np.arange(9), 2, 0, 0), "batch"),
        ((np.arange(9), 2, True, 0), "batch"),
        ((np.arange(9), 2, 1, 0.5), "seed"),
    ],
)
def test_bad_arguments(arguments, name):
    with pytest.raises(ValueError, match=name):
        Batches(*arguments)


def test_bad_steps_and_rows():
    batches = Batches(np.arange(9), 2, 3, 0)
    for arguments in ((-1, 0, 1), (0.5, 0, 1), (0, 2, 1), (0, 0, 4), (0, -1, 2), (0, 0.0, 1)):
        with pytest.raises(ValueError, match="step|start|stop"):
            batches.rows(*arguments)
    assert batches.rows(0, 1, 1).shape == (0, 3)
