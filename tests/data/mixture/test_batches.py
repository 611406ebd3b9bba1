"""Mixed batches: every token of each part once an epoch, however a batch is split."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from groundup.data import Batches, MixedBatches, permute
from groundup.data.batches import BatchStream
from groundup.data.mixture.batches import interleaved
from groundup.data.mixture.weights import WHOLE

LENGTH = 3
FAR = 1 << 20  # between the tokens of two parts


def streams(windows: list[int]) -> list[NDArray[np.int64]]:
    """Token streams that count up, no token in two of them."""
    return [part * FAR + np.arange(n * LENGTH + 1) for part, n in enumerate(windows)]


def table(*rows: tuple[float, ...]) -> NDArray[np.int64]:
    found = (np.array(rows) / np.sum(rows, axis=1, keepdims=True) * WHOLE).astype(np.int64)
    found[:, 0] += WHOLE - found.sum(axis=1)
    return found


def mixed(windows: list[int], batch: int, seed: int = 0) -> MixedBatches:
    """Parts whose shares change over the first 20 updates."""
    rows = [tuple(1.0 + part * step / 20 for part in range(len(windows))) for step in range(20)]
    names = [f"part{i}" for i in range(len(windows))]
    return MixedBatches(names, streams(windows), table(*rows), LENGTH, batch, seed)


def single(windows: list[int], batch: int, seed: int = 0) -> Batches:
    return Batches(np.concatenate([streams([n])[0] for n in windows[:1]]), LENGTH, batch, seed)


@pytest.mark.parametrize("world", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("micro", [1, 3])
@pytest.mark.parametrize("make", [single, mixed])
def test_every_token_exactly_once_an_epoch(make, world: int, micro: int) -> None:
    windows, batch, steps = [37, 11, 90], 24, 30
    shown = np.zeros((3, 90 * LENGTH), dtype=np.int64)
    for rank in range(world):
        batches: BatchStream = make(windows, batch)  # every process has its own
        low, high = rank * batch // world, (rank + 1) * batch // world
        for step in range(steps):
            for start in range(low, high, micro):
                rows = batches.rows(step, start, min(start + micro, high))
                inputs = rows[:, :-1]
                np.add.at(shown, (inputs // FAR, inputs % FAR), 1)
                assert np.array_equal(rows[:, 1:], inputs + 1)  # windows are whole
    used = (steps * batch,) if make is single else mixed(windows, batch).counts.before(steps)
    assert shown.sum() == steps * batch * LENGTH
    for part, samples in enumerate(used):
        tokens = shown[part, : windows[part] * LENGTH]
        epochs, more = divmod(samples, windows[part])
        assert epochs >= 1
        # In whole epochs every token as often; in the last one `more` windows a time more.
        assert set(tokens.tolist()) <= {epochs, epochs + 1}
        assert (tokens == epochs + 1).sum() == more * LENGTH
        assert not shown[part, windows[part] * LENGTH :].any()


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=4),
    st.integers(1, 30),
    st.integers(-(2**40), 2**40),
    st.data(),
)
@settings(max_examples=30, deadline=None)
def test_each_part_goes_through_its_own_epochs(windows, batch, seed, data) -> None:
    batches = mixed(windows, batch, seed)
    order = np.concatenate([batches.order(step) for step in range(40)])
    of = batches.part_of(order)
    for part, number in enumerate(windows):
        own = order[of == part] - sum(windows[:part])
        # The stream of a part is the one that its samples have by themselves.
        every = np.arange(number)
        epochs = -(-len(own) // number)
        expected = [permute(every, number, (seed, epoch, part)) for epoch in range(epochs)]
        assert own.tolist() == np.concatenate([every[:0], *expected])[: len(own)].tolist()
        for epoch in range(len(own) // number):
            assert sorted(own[epoch * number :][:number].tolist()) == list(range(number))
    step = data.draw(st.integers(0, 10**9))
    again = mixed(windows, batch, seed)  # a run that goes on there
    cuts = sorted(data.draw(st.lists(st.integers(0, batch), max_size=4)))
    edges = list(zip([0, *cuts], [*cuts, batch], strict=True))
    parts = [again.rows(step, a, b) for a, b in reversed(edges)]
    assert np.array_equal(np.concatenate(parts[::-1]), batches.batch(step))


@given(st.lists(st.integers(0, 60), min_size=1, max_size=5).filter(any), st.data())
@settings(deadline=None)
def test_rows_are_spread_evenly(counts: list[int], data: st.DataObject) -> None:
    rows = interleaved(counts)
    assert np.bincount(rows, minlength=len(counts)).tolist() == counts
    start = data.draw(st.integers(0, len(rows)))
    stop = data.draw(st.integers(start, len(rows)))
    for part, number in enumerate(counts):
        share = number * (stop - start) / len(rows)
        found = int((rows[start:stop] == part).sum())
        # Webster's bound at each end, of the parts that are there.
        assert abs(found - share) <= max(1, sum(map(bool, counts)) - 1) + 1e-9


def test_parts_of_one_text_are_read_in_different_orders() -> None:
    tokens = np.arange(200 * LENGTH + 1)
    batches = MixedBatches(["a", "b"], [tokens, tokens], table((1.0, 1.0)), LENGTH, 400, 0)
    order = batches.order(0)
    first, second = order[order < 200], order[order >= 200] - 200
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(200))
    assert (first != second).mean() > 0.9


def test_a_single_source_has_the_batches_it_always_had() -> None:
    batches = Batches(np.arange(1001), 8, 16, 5)
    expected = [permute(g % 125, 125, (5, g // 125)) for g in range(77 * 16, 78 * 16)]
    assert batches.order(77).tolist() == expected
    # What it gave before there were mixtures.
    before = [53, 14, 106, 119, 111, 82, 72, 98, 7, 16, 24, 41, 27, 4, 80, 108]
    assert batches.order(77).tolist() == before


def test_another_process_sees_the_same() -> None:
    code = (
        "from tests.data.mixture.test_batches import mixed; "
        "print(mixed([50, 70], 16, 3).batch(7).tolist())"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert output.strip() == str(mixed([50, 70], 16, 3).batch(7).tolist())


def test_epochs() -> None:
    batches = MixedBatches(["a", "b"], streams([10, 40]), table((1.0, 3.0)), LENGTH, 8, 0)
    assert batches.epochs(10) == (2.0, 1.5)


def test_bad_arguments() -> None:
    tokens = streams([5, 5])
    with pytest.raises(ValueError, match=r"mixture, 'b': 2 tokens.*length=3"):
        MixedBatches(["a", "b"], [tokens[0], np.arange(2)], table((1.0, 1.0)), LENGTH, 4, 0)
    with pytest.raises(ValueError, match="2 names, 2 token streams, 1 shares"):
        MixedBatches(["a", "b"], tokens, table((1.0,)), LENGTH, 4, 0)
    with pytest.raises(ValueError, match="seed"):
        MixedBatches(["a", "b"], tokens, table((1.0, 1.0)), LENGTH, 4, 0.5)  # type: ignore[arg-type]
    batches = mixed([5, 5], 3)
    for arguments in ((-1, 0, 1), (0.5, 0, 1), (0, 2, 1), (0, 0, 4), (0, -1, 2), (0, 0.0, 1)):
        with pytest.raises(ValueError, match="step|start|stop"):
            batches.rows(*arguments)
    assert batches.rows(0, 1, 1).shape == (0, LENGTH + 1)
